"""What `golongrl status` and the operator show of a run's queue."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from golongrl.telemetry import watchdog

if TYPE_CHECKING:
    from golongrl.queue import SampleQueue


async def look_at_queue(redis_url: str, run: str) -> dict[str, Any]:
    """`{"queue": ..., "services": [...]}` of a run.

    Raises:
        QueueError: Redis does not answer in time, or it does not have the run.
    """
    from golongrl.queue.look import look

    async def picture(queue: "SampleQueue") -> dict[str, Any]:
        stats, services = await queue.stats(), await queue.services()
        return {"queue": asdict(stats), "services": watchdog.current(asdict(service) for service in services)}

    return await look(redis_url, run, picture)
