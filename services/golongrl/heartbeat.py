"""How a process shows that it is there: fields in the queue, rewritten every few seconds, gone soon after its death."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

from golongrl.queue import SampleQueue
from golongrl.queue.errors import QueueError

log = structlog.get_logger(__name__)

# Often enough that `golongrl status` shows what a process waits for now.
_BEAT_S = 2.0
# Four beats may be lost before a process counts as gone.
_TTL_S = 10.0


@asynccontextmanager
async def heartbeat(
    queue: SampleQueue, service: str, name: str, fields: Callable[[], Mapping[str, str]]
) -> AsyncIterator[None]:
    """Write `fields()` for this process every few seconds inside the context.

    An unreachable queue is only logged here: the process's own loop handles that.
    """
    task = asyncio.create_task(_beat(queue, service, name, fields))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _beat(queue: SampleQueue, service: str, name: str, fields: Callable[[], Mapping[str, str]]) -> None:
    while True:
        try:
            await queue.beat(service, name, fields(), _TTL_S)
        except QueueError as error:
            log.warning("heartbeat not written", error=str(error))
        await asyncio.sleep(_BEAT_S)
