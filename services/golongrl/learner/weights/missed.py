"""Whether workers say that they cannot get the announced weights: then the learner looks into the store."""

import time
from collections.abc import Callable
from typing import Final

from golongrl.queue import SampleQueue

# The label of such a wait in a worker's heartbeat (`golongrl.rollout.observe.waits`).
_SOURCE: Final = "source"
# First and longest pause between two questions: where it is the worker's mount that lacks them, each look into the
# store reads a version for nothing.
_PAUSE_S: Final = (5.0, 300.0)


class MissedWeights:
    """`asked` answers at most every few seconds, and ever less often while the answer is yes."""

    def __init__(self, queue: SampleQueue, now: Callable[[], float] = time.monotonic) -> None:
        self._queue, self._now = queue, now
        self._pause = _PAUSE_S[0]
        self._next = now() + self._pause

    async def asked(self) -> bool:
        """Whether a worker reports it now. Raises QueueError."""
        if self._now() < self._next:
            return False
        processes = await self._queue.services()
        missed = any(each.service == "rollout" and each.fields.get("wait") == _SOURCE for each in processes)
        self._pause = min(2 * self._pause, _PAUSE_S[1]) if missed else _PAUSE_S[0]
        self._next = self._now() + self._pause
        return missed
