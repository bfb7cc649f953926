"""One look into a run's queue for a person, who gives up soon."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from golongrl.queue.address import silence
from golongrl.queue.client import SampleQueue
from golongrl.queue.connection import Patience
from golongrl.queue.errors import QueueUnavailableError

T = TypeVar("T")
PATIENCE_S: Final = 5.0
# Longer than the patience: a try alone may outlast it, where Redis accepts the connection and answers nothing.
LOOK_S: Final = PATIENCE_S + 1


async def look(redis_url: str, run: str, ask: Callable[[SampleQueue], Awaitable[T]], *, within_s: float = LOOK_S) -> T:
    """What `ask` finds in the queue, which may make many calls where `within_s` is longer.

    Raises:
        QueueError: Redis does not answer in time, or it does not have the run.
    """
    async with SampleQueue.from_url(redis_url, run, patience=Patience(total_s=PATIENCE_S)) as queue:
        try:
            async with asyncio.timeout(within_s):
                return await ask(queue)
        except TimeoutError:
            raise QueueUnavailableError(f"Redis at {queue.server} {silence(redis_url, within_s)}") from None
