"""The queue, asked directly and with a deadline."""

from dataclasses import asdict
from typing import Any, Final

# A person waits for the answer.
QUEUE_S: Final = 5.0


async def look_at_queue(redis_url: str, run: str) -> dict[str, Any]:
    """`{"queue": ..., "services": [...]}` of a run.

    Raises:
        QueueError: Redis does not answer in QUEUE_S, or it does not have the run.
    """
    from golongrl.queue import SampleQueue
    from golongrl.queue.connection import Patience

    async with SampleQueue.from_url(redis_url, run, patience=Patience(total_s=QUEUE_S)) as queue:
        stats, services = await queue.stats(), await queue.services()
    return {"queue": asdict(stats), "services": [asdict(service) for service in services]}
