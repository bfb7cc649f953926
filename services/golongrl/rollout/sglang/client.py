"""A typed client of an engine's HTTP API: SGLang 0.5.23's, which the embedded engine speaks too.

Invariants:
- every call has a deadline; for a generation it is the longest silence between two chunks of its stream;
- an answer is either complete and consistent (one log-prob a token, version spans that cover all tokens) or an error;
- no token id outside the vocabulary is ever sent: one such id kills an SGLang server, and every request on it;
- an update that the engine did not confirm is an error, never a success.

Long generations are streamed, not for their text but for their progress: a chunk says how many tokens are done, so the
lease on a group can be renewed by true progress, and the first chunk says that the prompt's prefill is over.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx
import numpy as np
from numpy.typing import NDArray

from golongrl import bounded_http
from golongrl.broadcast.protocol import Bucket
from golongrl.rollout.sglang.answers import (
    Generation,
    ModelInfo,
    RoutesAsked,
    parse_checksums,
    parse_model_info,
    tokens_done,
)
from golongrl.rollout.sglang.errors import (
    EngineBusyError,
    EngineProtocolError,
    EngineRefusedError,
    EngineUnavailableError,
)
from golongrl.rollout.sglang.http import MOST_BYTES, EngineHttp, failure, read_bounded, unreachable
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.sglang.stream import LONG_BYTES, events, generation_of, interval, most_bytes, whole

PauseMode = Literal["abort", "retract", "in_place"]

# SGLang answers this when it has loaded new weights but could not drop the KV cache: the weights ARE the new ones, the
# version it reports is not.
_NOT_FLUSHED = "cache was not flushed"
_FLUSH_RETRY_S = 0.2


@dataclass(frozen=True)
class WeightPlacement:
    """How an engine is laid out: processes a weight-update group must have room for, and what they run on."""

    ranks: int
    device: str


@dataclass(frozen=True)
class KvUse:
    """How full an engine's KV cache is."""

    share: float
    """Of the cache, held by requests; what could be dropped does not count."""
    waiting: int
    """Requests that wait for room in the engine, retracted ones too."""


class EngineClient(EngineHttp):
    """One engine. Use as an async context manager."""

    _tells_waits = True
    """SGLang does not: it is asked once."""
    ended = 0
    """Changes whenever this client has the engine end what it is generating: other aborts are the engine's own."""

    # Generating

    async def generate(
        self,
        prompt: NDArray[np.int32],
        sampling: SamplingParams,
        *,
        rid: str,
        vocab_size: int,
        extra_key: str | None = None,
        routes: RoutesAsked | None = None,
        stream: bool = False,
        on_progress: Callable[[int], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Generation:
        """Sample one response to `prompt` (int32 [tokens]).

        `on_progress` gets the tokens done so far: with `stream` from the first on, else at the end. Requests use each
        other's cached KV only where their `extra_key` is the same. `routes`: return the experts of each token, too.
        `headers` go along with the request.

        An aborted response is returned with finish "abort" and the tokens it has, possibly none. Cancelling the call
        drops the connection, which ends the request in the engine.

        Raises:
            ValueError: the prompt is empty or holds an id outside [0, vocab_size).
            EngineRefusedError: too long for the context, or a bad sampling value.
            EngineBusyError: the engine's queue is full, or an earlier request `rid` is still ending.
            EngineUnavailableError: no answer, or silence beyond the deadline.
            EngineProtocolError: the answer cannot be used.
        """
        check_ids(prompt, vocab_size)
        body = {
            "rid": rid,
            "input_ids": prompt.tolist(),
            "sampling_params": sampling.as_params() | (interval(sampling.max_new_tokens) if stream else {}),
            "return_logprob": True,
            "stream": stream,
            **({} if extra_key is None else {"extra_key": extra_key}),
            **({} if routes is None else {"return_routed_experts": True, "routed_experts_start_len": routes.start}),
        }
        deadlines = self._deadlines
        timeout = httpx.Timeout(deadlines.silence_s, connect=deadlines.connect_s, write=deadlines.control_s)
        most = most_bytes(sampling.max_new_tokens, routes)
        last = b""
        clock = asyncio.get_running_loop().time
        try:
            # httpx bounds each read: an engine that sends a byte now and then, and never an event, is silent, too.
            async with (
                asyncio.timeout(deadlines.silence_s + deadlines.connect_s) as silence,
                bounded_http.asked(
                    self._http,
                    "POST",
                    "/generate",
                    json=body,
                    headers={**self._headers, **(headers or {})},
                    timeout=timeout,
                ) as response,
            ):
                silence.reschedule(clock() + deadlines.silence_s)
                if response.status_code != 200:
                    text = await read_bounded(response, MOST_BYTES)
                    raise failure("POST /generate", response.status_code, text.decode(errors="replace"))
                async for event in events(response, most) if stream else whole(response, most):
                    last = event
                    silence.reschedule(clock() + deadlines.silence_s)
                    if on_progress is not None and (tokens := tokens_done(event)) is not None:
                        on_progress(min(tokens, sampling.max_new_tokens))
        except (httpx.RequestError, TimeoutError) as error:
            raise unreachable(f"POST /generate {rid} at {self.url}", error, deadlines.silence_s) from error
        if len(last) > LONG_BYTES:
            return await asyncio.to_thread(generation_of, last, rid, vocab_size, routes)
        return generation_of(last, rid, vocab_size, routes)

    async def abort(self, rid: str | None = None) -> None:
        """End one request, or with None all of them; a request that is not there is no error."""
        self.ended += rid is None
        try:
            await self._control("/abort_request", {"abort_all": True} if rid is None else {"rid": rid})
        finally:
            # A request that was sent meanwhile may have been ended, too.
            self.ended += rid is None

    # Health

    async def model_info(self) -> ModelInfo:
        """Which weights the engine says it holds."""
        return parse_model_info(await self._json("GET", "/model_info", headers=self._headers))

    async def server_settings(self) -> Mapping[str, Any]:
        """What the engine was started with, by SGLang's names."""
        return await self._json("GET", "/server_info", headers=self._headers)

    async def placement(self) -> WeightPlacement:
        """How the engine is laid out.

        Raises:
            EngineProtocolError: it does not say, or has pipeline stages or several copies of the model, which no group
                reaches.
        """
        body = await self.server_settings()
        ranks, device = body.get("tp_size"), body.get("device")
        stages, copies = body.get("pp_size", 1), body.get("dp_size", 1)
        if not (_counts(ranks, stages, copies) and isinstance(device, str)):
            raise EngineProtocolError(f"server_info at {self.url}: tp_size or device is missing, or no whole number")
        assert isinstance(ranks, int)
        if stages > 1 or copies > 1:
            what = f"{stages} pipeline stages" if stages > 1 else f"{copies} data-parallel copies"
            raise EngineProtocolError(f"{self.url}: {what} cannot receive broadcast weights; set learner.weights=disk")
        return WeightPlacement(ranks, device)

    async def kv_use(self) -> KvUse:
        """How full its KV cache is; of several copies of the model, the fullest one's.

        Raises:
            EngineProtocolError: it does not say.
        """
        body = await self._json("GET", "/v1/loads", headers=self._headers)
        try:
            loads = [(float(load["token_usage"]), int(load["num_waiting_reqs"])) for load in body["loads"]]
            retracted = sum(int(load["queues"]["retracted"]) for load in body["loads"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise EngineProtocolError(f"GET /v1/loads at {self.url}: no usable figures ({error!r})") from error
        if not all(0 <= share <= 1 for share, _ in loads) or not loads:
            raise EngineProtocolError(f"GET /v1/loads at {self.url}: no token_usage in [0, 1]")
        return KvUse(max(share for share, _ in loads), retracted + sum(waiting for _, waiting in loads))

    async def waits(self) -> str:
        """What it waits for itself, as heartbeats have it (`telemetry.waits`); empty where it does not tell."""
        if not self._tells_waits:
            return ""
        try:
            body = await self._json("GET", "/waits", headers=self._headers)
        except EngineRefusedError:
            self._tells_waits = False
            return ""
        told = body.get("waits")
        return told if isinstance(told, str) else ""

    async def health(self) -> None:
        """Returns if the server answers /health with 200; EngineError says why not."""
        await self._call("GET", "/health", headers=self._headers)

    async def ready(self) -> bool:
        """Whether the server would generate now (SGLang: 503 while it is paused)."""
        try:
            await self._call("GET", "/ready", headers=self._headers)
        except (EngineBusyError, EngineUnavailableError):
            return False
        return True

    async def metrics(self) -> dict[str, float]:
        """The engine's Prometheus samples by name, labels summed; histogram buckets left out."""
        from prometheus_client.parser import text_string_to_metric_families

        text = (await self._call("GET", "/metrics", headers=self._headers)).decode(errors="replace")
        totals: dict[str, float] = {}
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if not sample.name.endswith("_bucket"):
                        totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
        except ValueError as error:
            raise EngineProtocolError(f"GET /metrics at {self.url}: not as Prometheus has it") from error
        return totals

    # Pausing and weights

    async def pause(self, mode: PauseMode) -> None:
        """Stop generating: answer everything now (abort), free the KV cache (retract) or keep it (in_place)."""
        self.ended += mode == "abort"
        try:
            await self._told("/pause_generation", {"mode": mode}, self._deadlines.pause_s)
        finally:
            self.ended += mode == "abort"

    async def resume(self) -> None:
        """Go on generating; harmless when nothing is paused."""
        await self._told("/continue_generation", {})

    async def flush_cache(self) -> bool:
        """Drop the KV cache; False if requests are still using it."""
        try:
            await self._control("/flush_cache", {})
        except EngineRefusedError as error:
            if error.status == 400:
                return False
            raise
        return True

    async def set_weight_version(self, version: str) -> None:
        """Name the weights the engine already holds."""
        await self._control("/update_weight_version", {"new_version": version, "abort_all_requests": False})

    async def update_from_disk(self, path: str, version: str, *, flush_cache: bool) -> None:
        """Load the Hugging Face folder `path` as `version`.

        `flush_cache` must be False when the engine is paused in_place, whose requests keep their KV cache, and True
        otherwise. If the engine loads the weights but finds its cache in use (a request slipped in), the requests are
        retracted, the cache is flushed and the version set, so that afterwards version and cache agree.

        Raises:
            EngineRefusedError: the weights cannot be loaded; the engine still holds the old ones.
            EngineUnavailableError, EngineProtocolError: it is unknown which weights the engine holds.
        """
        body = {"model_path": path, "weight_version": version, "flush_cache": flush_cache, "abort_all_requests": False}
        try:
            await self._confirmed("/update_weights_from_disk", body, deadline_s=self._deadlines.update_s)
        except EngineRefusedError as error:
            if _NOT_FLUSHED not in str(error):
                raise
            await self.pause("retract")
            await self._flush_or_fail()
            await self.set_weight_version(version)

    async def init_group(
        self, *, master_address: str, master_port: int, rank_offset: int, world_size: int, group_name: str, backend: str
    ) -> None:
        """Join the process group over which a trainer broadcasts weights."""
        body = {
            "master_address": master_address,
            "master_port": master_port,
            "rank_offset": rank_offset,
            "world_size": world_size,
            "group_name": group_name,
            "backend": backend,
        }
        await self._confirmed("/init_weights_update_group", body, deadline_s=self._deadlines.update_s)

    async def destroy_group(self, group_name: str) -> None:
        """Leave that process group."""
        await self._confirmed("/destroy_weights_update_group", {"group_name": group_name})

    async def begin_weight_update(self) -> None:
        """Open a session for updates that do not come from disk."""
        await self._confirmed("/begin_weight_update", {})

    async def end_weight_update(self) -> None:
        """Close that session."""
        await self._confirmed("/end_weight_update", {}, deadline_s=self._deadlines.update_s)

    async def update_from_distributed(
        self, tensors: Bucket, group_name: str, version: str | None, *, flush_cache: bool
    ) -> None:
        """Receive `tensors` from the group while the sender broadcasts them, inside a begin/end session.

        Args:
            version: what the weights are called from now on; None while there is more to come.
        """
        body = {
            **tensors.model_dump(),
            "group_name": group_name,
            "flush_cache": flush_cache,
            "abort_all_requests": False,
            "weight_version": version,
        }
        await self._confirmed("/update_weights_from_distributed", body, deadline_s=self._deadlines.update_s)

    async def checksums(self) -> dict[str, str]:
        """A checksum per tensor, of all ranks: says whether two weights really differ."""
        body = await self._confirmed("/weights_checker", {"action": "checksum"}, deadline_s=self._deadlines.update_s)
        return parse_checksums(body)

    async def _flush_or_fail(self) -> None:
        for _ in range(max(1, int(self._deadlines.control_s / _FLUSH_RETRY_S))):
            if await self.flush_cache():
                return
            await asyncio.sleep(_FLUSH_RETRY_S)
        raise EngineProtocolError(f"{self.url}: new weights are loaded but the cache of the old ones cannot be flushed")


def check_ids(prompt: NDArray[np.int32], vocab_size: int) -> None:
    """Refuse a prompt that would kill the engine.

    Raises:
        ValueError: it is empty, or holds an id outside [0, vocab_size).
    """
    if prompt.size == 0:
        raise ValueError("the prompt has no tokens")
    low, high = int(prompt.min()), int(prompt.max())
    if low < 0 or high >= vocab_size:
        raise ValueError(f"token id {low if low < 0 else high} is outside the model's vocabulary [0, {vocab_size})")


def _counts(*values: object) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and 1 <= value < 1 << 16 for value in values)
