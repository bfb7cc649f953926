"""How a process shows that it is there: fields in the queue, rewritten every few seconds.

A process that ends in order takes its fields back. One that dies or hangs does not: others name it by its silence.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog

from golongrl.meanwhile import meanwhile
from golongrl.queue import SampleQueue
from golongrl.queue.errors import QueueError

log = structlog.get_logger(__name__)

# Often enough that `golongrl status` shows what a process waits for now.
_BEAT_S = 2.0
# How long a process that reports no more is remembered, so that it can be named. Its leases have long expired by then.
_TTL_S = 300.0
# For taking the fields back at the end, which must not wait for a Redis that is down.
_LEAVE_S = 2.0
# A time to live with which the fields are gone at the next look.
GONE_S = -1.0


@asynccontextmanager
async def heartbeat(
    queue: SampleQueue, service: str, name: str, fields: Callable[[], Mapping[str, str]]
) -> AsyncIterator[None]:
    """Write `fields()` for this process every few seconds inside the context.

    An unreachable queue is only logged here: the process's own loop handles that.
    """
    try:
        async with meanwhile(_beat(queue, service, name, fields)):
            yield
    finally:
        with contextlib.suppress(QueueError, TimeoutError):
            async with asyncio.timeout(_LEAVE_S):
                await queue.beat(service, name, {}, GONE_S)


async def _beat(queue: SampleQueue, service: str, name: str, fields: Callable[[], Mapping[str, str]]) -> None:
    while True:
        try:
            await queue.beat(service, name, fields(), _TTL_S)
        except QueueError as error:
            log.warning("heartbeat not written", error=str(error))
        await asyncio.sleep(_BEAT_S)
