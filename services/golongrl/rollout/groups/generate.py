"""All responses of one prompt at one engine.

n requests with ids of their own, not one request with n: each response then has its own seed, progress, abort and
version spans (SGLang gives the parts of an n-request ids and seeds that cannot be chosen). The prompt is still computed
once: for a long prompt the first request goes ahead, and the others follow when its first token shows that the prefix
is in the engine's cache. Short prompts go together, where an engine computes equal prompts of a batch once, or where
computing them twice costs less than waiting.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from golongrl.rollout.groups.progress import LiveGroup, Pace
from golongrl.rollout.sglang.answers import Generation, RoutesAsked
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import EngineAbortedError, EngineBusyError, EngineError, EngineProtocolError
from golongrl.rollout.sglang.sampling import SamplingParams, response_seed
from golongrl.routes.model import MoeRouting

# From here on a prefill costs more than the round trip of waiting for the first request.
LEAD_FROM_TOKENS = 1024
# A shorter response is over before its progress matters, and a stream costs both sides more than a plain answer.
STREAM_FROM_TOKENS = 512
# A response that is aborted (weights adopted in mode abort) is sampled again, but not endlessly.
ATTEMPTS = 3
_BUSY_PAUSE_S = 1.0
_ABANDON_S = 1.0


@dataclass(frozen=True)
class Prompt:
    """What to sample from: ids int32 [tokens], the seed of the run that response seeds derive from, and the key under
    which the engine caches the prompt: that of the weights at the lease, so that siblings share it and nobody else.
    With `routing` the engine tells each token's experts, too: the prompt's once, with the first response. `headers` go
    along with each request."""

    uid: str
    ids: NDArray[np.int32]
    vocab_size: int
    run_seed: int
    cache_key: str = ""
    routing: MoeRouting | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


async def generate_group(
    engine: EngineClient, prompt: Prompt, sampling: SamplingParams, n: int, live: LiveGroup, pace: Pace
) -> Sequence[Generation]:
    """Sample `n` responses; `live` follows their progress, `pace` learns from them.

    A response that was aborted `ATTEMPTS` times is returned as it is, with finish "abort", if this worker asked for one
    of the aborts.

    Raises:
        EngineAbortedError: it asked for none of them.
        ValueError, EngineError: as `Engine.generate`; the other responses are cancelled then.
    """
    leading = asyncio.Event()

    async def one(index: int) -> Generation:
        try:
            return await _one(engine, prompt, sampling, index, live, pace, leading)
        finally:
            leading.set()

    try:
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(one(0))
            if prompt.ids.size >= LEAD_FROM_TOKENS:
                await leading.wait()
            rest = [tasks.create_task(one(index)) for index in range(1, n)]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return [first.result(), *(task.result() for task in rest)]


class _Trial:
    """One request for a response: when it began, when its first token came, and its progress, which `live` follows."""

    def __init__(self, live: LiveGroup, index: int, leading: asyncio.Event) -> None:
        self.begun = time.monotonic()
        self.first_token: float | None = None
        self._live, self._index, self._leading = live, index, leading
        live.advance(index, 0)

    def progress(self, tokens: int) -> None:
        """`tokens` are done."""
        if self.first_token is None:
            self.first_token = time.monotonic()
            self._leading.set()
        self._live.advance(self._index, tokens)


async def _one(
    engine: EngineClient,
    prompt: Prompt,
    sampling: SamplingParams,
    index: int,
    live: LiveGroup,
    pace: Pace,
    leading: asyncio.Event,
) -> Generation:
    seeded = sampling.seeded(response_seed(prompt.run_seed, prompt.uid, index))
    # Of fixed width: SGLang's abort takes an id as a prefix, and aborting 1 would abort 10 to 15 too.
    rid = f"{prompt.uid}.{index:04d}"
    stream = prompt.ids.size >= LEAD_FROM_TOKENS or sampling.max_new_tokens >= STREAM_FROM_TOKENS
    routes = None
    if prompt.routing is not None:
        routes = RoutesAsked(prompt.routing, prompt.ids.size, 0 if index == 0 else prompt.ids.size)

    async def attempt() -> tuple[Generation, _Trial]:
        trial = _Trial(live, index, leading)
        answer = await engine.generate(
            prompt.ids,
            seeded,
            rid=rid,
            vocab_size=prompt.vocab_size,
            extra_key=prompt.cache_key or None,
            routes=routes,
            stream=stream,
            on_progress=trial.progress,
            headers=prompt.headers,
        )
        return answer, trial

    answer, trial = await _answered(engine, rid, sampling.max_new_tokens, attempt)
    live.ended[index] = answer.finish != "abort"
    if live.ended[index]:
        # Unstreamed, the only progress was the end: then the prefill counts as decoding, on the careful side.
        first_token = trial.first_token if stream else None
        pace.saw_response(len(answer.ids), time.monotonic() - (first_token or trial.begun))
        if index == 0 and first_token is not None and answer.cached_tokens is not None:
            pace.saw_prefill(prompt.ids.size - answer.cached_tokens, first_token - trial.begun)
    return answer


async def _answered(
    engine: EngineClient, rid: str, most: int, attempt: Callable[[], Awaitable[tuple[Generation, _Trial]]]
) -> tuple[Generation, _Trial]:
    """The first attempt that was not aborted, or else the last one.

    Raises:
        EngineAbortedError: the engine aborted all of them, and this worker has asked for none of that.
    """
    asked_for = False
    for number in range(1, ATTEMPTS + 1):
        ended = engine.ended
        try:
            answer, trial = await attempt()
        except EngineBusyError:
            if number == ATTEMPTS:
                raise
            await asyncio.sleep(_BUSY_PAUSE_S)
            continue
        except asyncio.CancelledError:
            await _abandon(engine, rid)
            raise
        if len(answer.ids) > most:
            raise EngineProtocolError(f"generate {rid}: {len(answer.ids)} tokens where at most {most} were asked for")
        if answer.finish != "abort":
            break
        asked_for |= engine.ended != ended
    else:
        if not asked_for:
            raise EngineAbortedError(f"generate {rid}: the engine aborted it {ATTEMPTS} times: {answer.detail}")
    return answer, trial


async def _abandon(engine: EngineClient, rid: str) -> None:
    """Abort a request that is not wanted any more; the engine would notice the dropped connection only later."""
    with suppress(EngineError, TimeoutError):
        async with asyncio.timeout(_ABANDON_S):
            await engine.abort(rid)
