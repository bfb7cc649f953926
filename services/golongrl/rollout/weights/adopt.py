"""Taking new weights into an engine: carries out what `policy` decided and believes only what the engine reads back.

Invariants:
- weights are confirmed only when the engine, asked afterwards, names their version;
- generation continues only from confirmed weights, or from old ones that the engine said are unchanged; otherwise every
  request is ended first, so that no token of unknown origin reaches a group;
- the engine is never left paused.
"""

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from golongrl.broadcast.verify import Reading
from golongrl.data.model_values import MOST_IDS
from golongrl.errors import InputError
from golongrl.queue.types import WeightsRef
from golongrl.reading import small_text
from golongrl.rollout.sglang.answers import ModelInfo, RoutesAsked
from golongrl.rollout.sglang.client import EngineClient, PauseMode
from golongrl.rollout.sglang.errors import (
    AdoptionError,
    EngineError,
    EngineProtocolError,
    EngineRefusedError,
    WeightsMissingError,
)
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.policy import Mode
from golongrl.rollout.weights.receive import receive
from golongrl.routes.model import MoeRouting, routing_of

log = structlog.get_logger(__name__)

_PAUSE: dict[Mode, PauseMode] = {Mode.IN_PLACE: "in_place", Mode.RETRACT: "retract", Mode.ABORT: "abort"}


# One token from an engine that samples nothing else; the worker's loop waits meanwhile.
_PROBE_S = 20.0


@dataclass(frozen=True)
class Confirmed:
    """Weights the engine has confirmed, how it names them itself, and how many token ids they know.

    `routing`: how a mixture of experts routes tokens. `reading`: the checksums that the engine read back, where the
    weights came by broadcast.
    """

    ref: WeightsRef
    info: ModelInfo
    vocab_size: int
    routing: MoeRouting | None = None
    reading: Reading | None = None

    @property
    def cache_key(self) -> str:
        """Requests share KV in the engine's prefix cache only with requests of the same key."""
        return f"{self.ref.lineage}/{self.ref.version}"


def sizes(folder: str) -> tuple[int, MoeRouting | None]:
    """How many token ids the model in a Hugging Face folder knows, and how it routes tokens to experts.

    Raises:
        WeightsMissingError: the folder cannot be read here.
        AdoptionError: its config.json has no vocab_size that a model can have.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(small_text(path))
        vocabulary = config.get("vocab_size") or config["text_config"]["vocab_size"]
        if not isinstance(vocabulary, int) or not 1 <= vocabulary <= MOST_IDS:
            raise ValueError(vocabulary)
        return vocabulary, routing_of(config)
    except OSError as error:
        raise WeightsMissingError(f"weights {path}: {error} (is the weight store mounted here?)") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise AdoptionError(f"weights {path}: no vocab_size that a model can have", unchanged=True) from error


async def check_server(engine: EngineClient, *, routes: bool = False) -> None:
    """Refuse an engine whose settings make it use KV of other weights, or that returns no experts where `routes`.

    Raises:
        InputError: a setting of the engine must change.
        EngineError: the engine did not answer.
    """
    settings = await engine.server_settings()
    if routes and settings.get("enable_return_routed_experts") is not True:
        raise InputError(
            f"engine {engine.url}: learner.routing_replay needs the experts of each token; start it with "
            "--enable-return-routed-experts"
        )
    if storage := settings.get("hicache_storage_backend"):
        reason = f"--hicache-storage-backend {storage} stores KV without the weights' version"
    elif settings.get("enable_lmcache"):
        reason = "--enable-lmcache stores KV without the weights' version"
    else:
        return
    raise InputError(f"engine {engine.url}: {reason}, so prompts would get KV of older weights; start it without")


async def probe(engine: EngineClient, held: Confirmed, *, routes: bool = False) -> None:
    """Sample one token: weights that were read back as sent may still be nothing to sample from (NaN). With `routes`,
    see that its experts are the model's, too.

    An engine that does not answer is not judged here: the next group finds out.

    Raises:
        AdoptionError: the answer is not a valid token.
    """
    one = SamplingParams(temperature=1.0, top_p=1.0, max_new_tokens=1, seed=0)
    prompt = np.zeros(1, np.int32)
    asked = RoutesAsked(held.routing, prompt.size) if routes and held.routing else None
    try:
        async with asyncio.timeout(_PROBE_S):
            await engine.generate(
                prompt,
                one,
                rid=f"probe-{uuid.uuid4().hex}",
                vocab_size=held.vocab_size,
                extra_key=held.cache_key,
                routes=asked,
            )
    except (EngineProtocolError, EngineRefusedError) as error:
        raise AdoptionError(f"no valid token from version {held.ref.version}: {error}", unchanged=False) from error
    except (EngineError, TimeoutError) as error:
        log.warning("the engine could not be tried with one token", version=held.ref.version, error=str(error))


async def settle(engine: EngineClient) -> None:
    """Take over an engine whose past is unknown: end what a worker before us left in it, and unpause it.

    Raises:
        EngineError: the engine did not answer.
    """
    await engine.abort()
    await engine.resume()


async def adopt(
    engine: EngineClient,
    ref: WeightsRef,
    mode: Mode,
    held: Confirmed | None,
    confirm: Callable[[Confirmed], None],
    *,
    worker: str,
    folder: Path | None = None,
) -> None:
    """Bring the engine to `ref`. `held` is what it was last confirmed to hold, `folder` the version's local copy.

    `confirm` is told once the engine has read the version back, and before it continues: a response may then end
    with tokens of the new version at once.

    Raises:
        WeightsMissingError: they are not available now, and the engine was not touched.
        AdoptionError: with `unchanged` where the engine refused and still names the weights it held.
    """
    try:
        vocabulary, routing = sizes(ref.path)
        reading = None
        if ref.source:
            reading = await receive(engine, ref, _PAUSE.get(mode, "retract"), held.reading if held else None, worker)
        else:
            if mode in _PAUSE:
                await engine.pause(_PAUSE[mode])
            await engine.update_from_disk(
                str(folder or ref.path), str(ref.version), flush_cache=mode is not Mode.IN_PLACE
            )
        info = await engine.model_info()
        if info.weight_version != str(ref.version):
            message = f"the engine took version {ref.version} but reads back {info.weight_version!r}"
            raise AdoptionError(message, unchanged=False)
        confirm(Confirmed(ref, info, vocabulary, routing, reading))
        await engine.resume()
    except AdoptionError as error:
        if not error.unchanged:
            await _end_everything(engine)
        raise
    except EngineRefusedError as error:
        unchanged = held is not None and await _still_holds(engine, held.info)
        if not unchanged:
            await _end_everything(engine)
        raise AdoptionError(str(error), unchanged=unchanged) from error
    except EngineError as error:
        await _end_everything(engine)
        raise AdoptionError(str(error), unchanged=False) from error
    except asyncio.CancelledError:  # stopping in mid-update
        await _end_everything(engine)
        raise


async def _still_holds(engine: EngineClient, held: ModelInfo) -> bool:
    """Whether a refused update left everything as it was; if so generation continues."""
    try:
        if await engine.model_info() != held:
            return False
        await engine.resume()
    except EngineError:
        return False
    return True


async def _end_everything(engine: EngineClient) -> None:
    """Best effort: the caller drops the groups in any case."""
    try:
        await settle(engine)
    except EngineError as error:
        log.warning("the engine could not be settled after a failed update", error=str(error))
