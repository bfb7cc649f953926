"""Taking broadcast weights into an engine: its side of a transfer, driven over the engine's HTTP API.

Invariants:
- the engine is paused before the first tensor and stays so: nothing is ever sampled from half of a version;
- after the first tensor a failure leaves unknown weights, whatever version the engine names;
- the group is left in any case, so that the sender is done with it too.
"""

import structlog

from golongrl.broadcast.client import SourceError, asked
from golongrl.broadcast.protocol import Ask, Transfer
from golongrl.broadcast.verify import Reading, problem
from golongrl.queue.types import WeightsRef
from golongrl.rollout.sglang.client import EngineClient, PauseMode
from golongrl.rollout.sglang.errors import AdoptionError, EngineError, EngineRefusedError, WeightsMissingError

log = structlog.get_logger(__name__)


async def receive(
    engine: EngineClient, ref: WeightsRef, pause: PauseMode, before: Reading | None, worker: str
) -> Reading:
    """Bring the engine to `ref` by a transfer from its source; the engine is left paused.

    Args:
        pause: how requests in flight are held meanwhile; with `in_place` they keep their cache.
        before: what the engine read back at the version it holds.
        worker: who asks, for the sender's log.

    Returns:
        The checksums that the engine reads back, and what they were compared with.

    Raises:
        WeightsMissingError: there was no transfer.
        AdoptionError: the engine does not hold what was sent.
        EngineError: the engine refused or did not answer before the first tensor.
    """
    placement = await engine.placement()
    question = Ask(
        worker=worker, version=ref.version, lineage=ref.lineage, ranks=placement.ranks, device=placement.device
    )
    try:
        async with asked(ref.source, question) as transfer:
            checksums = await _take(engine, transfer, str(ref.version), pause)
    except SourceError as error:
        raise WeightsMissingError(str(error)) from error
    reading = Reading(transfer.digests, checksums)
    if wrong := problem(reading, before, ranks=placement.ranks):
        raise AdoptionError(f"the engine took version {ref.version}, but {wrong}", unchanged=False)
    return reading


async def _take(engine: EngineClient, transfer: Transfer, version: str, pause: PauseMode) -> dict[str, str]:
    """Join the group, take everything, and leave; the checksums that the engine reads back."""
    try:
        await engine.init_group(
            master_address=transfer.address,
            master_port=transfer.port,
            rank_offset=1,
            world_size=transfer.world_size,
            group_name=transfer.group,
            backend=transfer.backend,
        )
        await engine.pause(pause)
        await _begin(engine)
        return await _load(engine, transfer, version, flush=pause != "in_place")
    finally:
        await _leave(engine, transfer.group)


async def _begin(engine: EngineClient) -> None:
    try:
        await engine.begin_weight_update()
    except EngineRefusedError:  # a worker before us left its session open
        await engine.end_weight_update()
        await engine.begin_weight_update()


async def _load(engine: EngineClient, transfer: Transfer, version: str, *, flush: bool) -> dict[str, str]:
    """Take all tensors; the checksums that the engine reads back."""
    last = len(transfer.buckets) - 1
    try:
        for index, bucket in enumerate(transfer.buckets):
            await engine.update_from_distributed(
                bucket, transfer.group, version if index == last else None, flush_cache=flush and index == last
            )
        await engine.end_weight_update()
        return await engine.checksums()
    except EngineRefusedError as error:  # of a call, not of the weights: tensors may be in already
        raise AdoptionError(str(error), unchanged=False) from error


async def _leave(engine: EngineClient, group: str) -> None:
    """Best effort: a group that the engine still holds does no harm, and it may never have joined."""
    try:
        await engine.destroy_group(group)
    except EngineError as error:
        log.info("the engine did not leave the group", group=group, error=str(error))
