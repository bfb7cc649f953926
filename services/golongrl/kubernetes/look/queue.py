"""The queue, asked directly and with a deadline."""

import asyncio
from dataclasses import asdict
from typing import Any, Final

from golongrl.telemetry import watchdog

# A person waits for the answer.
QUEUE_S: Final = 5.0


async def look_at_queue(redis_url: str, run: str) -> dict[str, Any]:
    """`{"queue": ..., "services": [...]}` of a run.

    Raises:
        QueueError: Redis does not answer in QUEUE_S, or it does not have the run.
    """
    from golongrl.queue import SampleQueue
    from golongrl.queue.connection import Patience
    from golongrl.queue.errors import QueueUnavailableError

    async with SampleQueue.from_url(redis_url, run, patience=Patience(total_s=QUEUE_S)) as queue:
        try:
            # A try alone may take longer, where Redis accepts the connection and answers nothing.
            async with asyncio.timeout(QUEUE_S + 1):
                stats, services = await queue.stats(), await queue.services()
        except TimeoutError:
            raise QueueUnavailableError(f"Redis at {queue.server} has not answered for {QUEUE_S + 1:g} s") from None
    return {"queue": asdict(stats), "services": watchdog.current(asdict(service) for service in services)}
