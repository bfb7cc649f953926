"""Writes checkpoints: the ranks copy their state and train on while their files become durable.

Invariants:
- the order is: every rank's files durable, the step's record written, folder and tracker renamed, the step
  committed to the queue; so whoever resumes from a checkpoint finds the record of its step;
- at most one checkpoint is being written: the next waits for it, and so do a signal, the end, and a full queue;
- an error in the background is raised by the next call, and the run fails; its folder is removed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from golongrl.learner.background_task import Background, in_thread
from golongrl.learner.checkpoints.store import Checkpoints, LearnerState
from golongrl.learner.fsync import Written, discarded_on_error
from golongrl.queue import SampleQueue

log = structlog.get_logger()

# Overlaps training, so it is no phase of a step (timing_s/save_checkpoint is the time that training waited).
WRITE_SECONDS = "perf/checkpoint_write_s"


class Writers(Protocol):
    """What is asked of the ranks."""

    async def save(self, folder: Path) -> None:
        """Copy the state, then write it into `folder` in the background."""

    async def written(self) -> Written:
        """Wait until all of it is durable; paths are in that folder. Raises what stopped it."""


class CheckpointSaver(Background):
    """The checkpoints that one attachment to the run writes. If one cannot be written, the older one stays in force."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        queue: SampleQueue,
        fence: str,
        ranks: Writers,
        *,
        keep: int,
        latest: int,
        committed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`committed` is called after every commit: what served the committed steps may go."""
        super().__init__()
        self._checkpoints = checkpoints
        self._queue = queue
        self._fence = fence
        self._ranks = ranks
        self._keep = keep
        self._committed = committed
        self.latest = latest  # step of the last checkpoint begun, or resumed from

    async def begin(self, state: LearnerState, rows: NDArray[np.int32], recorded: asyncio.Event | None = None) -> None:
        """Have the ranks copy the state of `state.step`, which they hold; returns when training may continue.

        Args:
            rows: (epoch, row) of all groups trained so far: [N, 2].
            recorded: set when the step's record is written, where that is still to come.

        Raises:
            GolongrlError: this or the checkpoint before could not be written.
        """
        await self.settled()
        staging = await asyncio.to_thread(self._checkpoints.begin, state.step)
        await self._ranks.save(staging / "actor")
        self.latest = state.step
        self.start(self._complete(staging, state, rows, recorded))

    async def _complete(
        self, staging: Path, state: LearnerState, rows: NDArray[np.int32], recorded: asyncio.Event | None
    ) -> dict[str, float]:
        with discarded_on_error(staging):
            if recorded is not None:
                await recorded.wait()
            written = await self._ranks.written()
            # Or the tracker would turn back from a successor's checkpoint.
            await self._queue.ensure_attached(self._fence)
            await in_thread(self._checkpoints.seal, staging, state, rows, written.files, self._keep)
        await self._queue.commit(self._fence, state.step)
        if self._committed is not None:
            await self._committed()
        log.info("checkpoint", step=state.step, write_s=round(written.seconds, 2))
        return {WRITE_SECONDS: written.seconds}
