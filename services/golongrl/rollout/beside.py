"""What a worker does beside its loop, at fixed intervals: it says that it is there, and what it does."""

import asyncio
from collections.abc import Callable

import structlog

from golongrl.queue.errors import QueueError
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.live import LiveGroup
from golongrl.rollout.produce import Bench
from golongrl.rollout.validate import Validation

log = structlog.get_logger(__name__)

# A lease is renewed this often within its length, so that two lost renewals do not lose it.
_RENEWALS = 3


async def renew(
    bench: Bench, validation: Validation, groups: Callable[[], dict[str, LiveGroup]], lose: Callable[[str], None]
) -> None:
    """Prolong the leases of `groups` (by token) and of validation rows, for ever; `lose` is told of lost ones."""
    period = bench.recipe.queue.lease_s / _RENEWALS
    while True:
        await asyncio.sleep(period)
        live = groups()
        progress = {token: group.progress for token, group in live.items()}
        phases: dict[str, str] = {token: group.phase for token, group in live.items()}
        try:
            await validation.renew()
            kept = await bench.queue.renew(bench.worker, progress, phases) if progress else {}
        except QueueError as error:
            log.warning("leases could not be renewed", error=str(error))
            continue
        for token, held in kept.items():
            if not held:
                lose(token)


async def beat(bench: Bench, config: WorkerConfig, validation: Validation) -> None:
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
            await bench.queue.beat("rollout", config.worker, fields, ttl_s=4 * config.beat_s)
        except QueueError as error:
            log.warning("no heartbeat", error=str(error))
        await asyncio.sleep(config.beat_s)
