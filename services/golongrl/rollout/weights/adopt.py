"""Taking new weights into an engine: carries out what `adoption` decided and believes only what the engine reads back.

Invariants:
- weights are confirmed only when the engine, asked afterwards, names their version;
- generation goes on only from confirmed weights, or from old ones that the engine said are unchanged; otherwise every
  request is ended first, so that no token of unknown origin reaches a group;
- the engine is never left paused.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from golongrl.broadcast.verify import Reading
from golongrl.queue.types import WeightsRef
from golongrl.rollout.sglang.answers import ModelInfo
from golongrl.rollout.sglang.client import EngineClient, PauseMode
from golongrl.rollout.sglang.errors import AdoptionError, EngineError, EngineRefusedError, WeightsMissingError
from golongrl.rollout.weights.policy import Mode
from golongrl.rollout.weights.receive import receive

log = structlog.get_logger(__name__)

_PAUSE: dict[Mode, PauseMode] = {Mode.IN_PLACE: "in_place", Mode.RETRACT: "retract", Mode.ABORT: "abort"}


@dataclass(frozen=True)
class Confirmed:
    """Weights the engine has confirmed, how it names them itself, and how many token ids they know.

    `reading`: the checksums it read back, where the weights came by broadcast.
    """

    ref: WeightsRef
    info: ModelInfo
    vocab_size: int
    reading: Reading | None = None


def vocabulary(folder: str) -> int:
    """How many token ids the model in a Hugging Face folder knows.

    Raises:
        WeightsMissingError: the folder cannot be read here.
        AdoptionError: its config.json has no vocab_size.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        return int(config.get("vocab_size") or config["text_config"]["vocab_size"])
    except OSError as error:
        raise WeightsMissingError(f"weights {path}: {error} (is the weight store mounted here?)") from error
    except (KeyError, TypeError, ValueError) as error:
        raise AdoptionError(f"weights {path}: no vocab_size", unchanged=True) from error


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
) -> None:
    """Bring the engine to `ref`. `held` is what it was last confirmed to hold.

    `confirm` is told once the engine has read the version back, and before it goes on: a response may end with tokens
    of the new version the moment it does.

    Raises:
        WeightsMissingError: they cannot be had now, and the engine was not touched.
        AdoptionError: with `unchanged` where the engine refused and still names the weights it held.
    """
    try:
        size = vocabulary(ref.path)
        reading = None
        if ref.source:
            reading = await receive(engine, ref, _PAUSE.get(mode, "retract"), held.reading if held else None, worker)
        else:
            if mode in _PAUSE:
                await engine.pause(_PAUSE[mode])
            await engine.update_from_disk(ref.path, str(ref.version), flush_cache=mode is not Mode.IN_PLACE)
        info = await engine.model_info()
        if info.weight_version != str(ref.version):
            message = f"the engine took version {ref.version} but reads back {info.weight_version!r}"
            raise AdoptionError(message, unchanged=False)
        confirm(Confirmed(ref, info, size, reading))
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
    """Whether a refused update left everything as it was; if so generation goes on."""
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
