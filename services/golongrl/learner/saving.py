"""The checkpoint in the making: the ranks copy their state and train on, their files become durable meanwhile.

Invariants:
- the order is: every rank's files durable, folder and tracker renamed, the queue told (commit);
- at most one checkpoint is in the making: the next waits for it, and so do a signal, the end, and a full queue;
- what went wrong in the background is raised by the next call, and the run fails.

The ranks are asked whether they are done, as Ray actors answer one call at a time: a question put while they train is
answered after that step. So a checkpoint can be a step old before it counts; a marker file in the checkpoint would be
seen sooner, but could not say why it never comes (a full disk), and shared storage shows new files late.
"""

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import structlog

from golongrl.learner.checkpoint import Checkpoints, LearnerState
from golongrl.queue import SampleQueue

log = structlog.get_logger()

# Between two questions to ranks that are idle; each costs a millisecond of theirs.
_POLL_S = 0.2

# Overlaps training, so it is no phase of a step (timing_s/save_checkpoint is what training was held up).
WRITE_SECONDS = "perf/checkpoint_write_s"


class Writers(Protocol):
    """What is asked of the ranks."""

    async def save(self, folder: Path) -> None:
        """Copy the state, then write it into `folder` in the background."""

    async def written(self) -> float | None:
        """Seconds until all of it was durable; None while it is being written. Raises what stopped it."""


class Saving:
    """The checkpoints that one attachment to the run writes. Use as a context manager: leaving it gives up what is in
    the making, and the older checkpoint stays in force."""

    def __init__(self, checkpoints: Checkpoints, queue: SampleQueue, fence: str, *, keep: int, latest: int) -> None:
        self._checkpoints = checkpoints
        self._queue = queue
        self._fence = fence
        self._keep = keep
        self.latest = latest  # step of the last checkpoint begun, or resumed from
        self._committed = latest  # by attaching
        self._making: asyncio.Task[float] | None = None
        self._news: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._making is not None:
            self._making.cancel()
            await asyncio.wait([self._making])
            # What it failed with, if it did, is not the first trouble.
            with contextlib.suppress(asyncio.CancelledError):
                self._making.exception()

    async def begin(self, ranks: Writers, state: LearnerState) -> None:
        """Have the ranks copy the state of `state.step`, which they hold; back as soon as training may go on.

        Raises:
            GolongrlError: this or the checkpoint before could not be written.
        """
        await self.settled()
        staging = await asyncio.to_thread(self._checkpoints.begin, state.step)
        await ranks.save(staging / "actor")
        self.latest = state.step
        self._making = asyncio.create_task(self._complete(ranks, staging, state))

    async def settled(self) -> None:
        """Wait until nothing is in the making: the last checkpoint begun is durable and committed.

        Raises:
            GolongrlError: it could not be written.
        """
        if self._making is not None:
            await asyncio.wait([self._making])
            self._look()

    def news(self) -> dict[str, float]:
        """The metrics of a checkpoint that was completed since the last call.

        Raises:
            GolongrlError: it could not be written.
        """
        if self._making is not None and self._making.done():
            self._look()
        news, self._news = self._news, {}
        return news

    def _look(self) -> None:
        assert self._making is not None
        done, self._making = self._making, None
        self._news[WRITE_SECONDS] = done.result()

    async def _complete(self, ranks: Writers, staging: Path, state: LearnerState) -> float:
        seconds = await ranks.written()
        while seconds is None:
            await asyncio.sleep(_POLL_S)
            seconds = await ranks.written()
        # Only asks whether this learner was replaced: the tracker must not turn back from its successor's checkpoint.
        await self._queue.commit(self._fence, self._committed)
        await asyncio.to_thread(self._checkpoints.seal, staging, state, self._keep)
        await self._queue.commit(self._fence, state.step)
        self._committed = state.step
        log.info("checkpoint", step=state.step, write_s=round(seconds, 2))
        return seconds
