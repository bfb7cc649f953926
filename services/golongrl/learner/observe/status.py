"""What the learner is doing now, and the heartbeat that lets `golongrl status` and every other process know."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from golongrl.queue import QueueError, SampleQueue

log = structlog.get_logger()

# Presence: said often enough that `golongrl status` shows what is being waited for, forgotten soon after a death.
_BEAT_S = 2.0
_BEAT_TTL_S = 10.0


@dataclass
class LearnerStatus:
    """What the learner is doing now, at which step, and since when (monotonic clock)."""

    doing: str = "starting"
    step: int = 0
    since: float = field(default_factory=time.monotonic)

    def set(self, doing: str, step: int | None = None) -> None:
        """Say what is being done; the same words for the same step again do not restart the clock."""
        step = self.step if step is None else step
        if (doing, step) != (self.doing, self.step):
            self.doing, self.step, self.since = doing, step, time.monotonic()


@asynccontextmanager
async def heartbeat(queue: SampleQueue, status: LearnerStatus) -> AsyncIterator[None]:
    """Say every few seconds what the learner does; a queue that cannot be told is the loop's trouble, not ours."""

    async def beat() -> None:
        name = socket.gethostname()
        while True:
            fields = {
                "doing": status.doing,
                "step": str(status.step),
                "for_s": f"{time.monotonic() - status.since:.0f}",
            }
            try:
                await queue.beat("learner", name, fields, _BEAT_TTL_S)
            except QueueError as error:
                log.warning("heartbeat", error=str(error))
            await asyncio.sleep(_BEAT_S)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
