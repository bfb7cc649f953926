"""What a worker does beside its loop, at fixed intervals: it says that it is there, and what it does."""

import asyncio

import structlog

from golongrl.queue.errors import QueueError
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.groups.group_work import Bench
from golongrl.rollout.groups.leases import Training
from golongrl.rollout.groups.validation import ValidationRows

log = structlog.get_logger(__name__)

# A lease is renewed this often within its length, so that two lost renewals do not lose it.
_RENEWALS = 3


async def renew(bench: Bench, training: Training, validation: ValidationRows) -> None:
    """Prolong the leases of groups and of validation rows, for ever."""
    period = bench.recipe.queue.lease_s / _RENEWALS
    while True:
        await asyncio.sleep(period)
        for leases in (training, validation):
            try:
                await leases.renew()
            except QueueError as error:
                log.warning("leases could not be renewed", error=str(error))


async def beat(bench: Bench, config: WorkerConfig, validation: ValidationRows) -> None:
    """Say in the queue, for ever, that this worker is there and how it is."""
    while True:
        state = bench.state
        fields = {
            "phase": state.phase,
            "waiting_for": state.waiting_for or "",
            "engine": config.engine_url,
            "engine_version": "" if state.engine_version is None else str(state.engine_version),
            "groups": str(state.groups),
            "validation_rows": str(len(validation)),
            "submitted": str(state.submitted),
            "rejected": " ".join(f"{reason}={count}" for reason, count in sorted(state.rejected.items())),
            "quarantine": state.quarantine or "",
        }
        try:
            await bench.queue.beat("rollout", bench.worker, fields, ttl_s=4 * config.beat_s)
        except QueueError as error:
            log.warning("no heartbeat", error=str(error))
        await asyncio.sleep(config.beat_s)
