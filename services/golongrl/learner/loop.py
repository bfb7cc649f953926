"""The learner's loop: take a batch, update, publish the weights, finish, checkpoint, commit; resumable at every point.

Invariants (the run protocol, seen from here):
- weights are published (durable, or computed again by a replay: `weights.publisher`) before `finish` raises the policy
  version;
- a checkpoint is durable, and its step's record written, before `commit` lets the queue forget the batches it stands
  for; training continues meanwhile;
- a resumed learner replays the batches after its checkpoint: same groups, same order, same seeds. On CPU the weights
  are bit-identical; where they differ, the version is published under a new lineage;
- the next batch is taken and prepared while the ranks are busy with this one.

SIGTERM or SIGINT: the step in hand is finished, a checkpoint is written and committed, exit 143; 0 is a complete run (a
Job whose pod was drained would count as done). A kill at any instant loses nothing either; it costs the replay of the
steps since the last checkpoint.
"""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog
from numpy.typing import NDArray

from golongrl.learner.batch.batch_metrics import step_metrics
from golongrl.learner.batch.prepare import PreparedBatch
from golongrl.learner.batches import Batches
from golongrl.learner.checkpoints.resume import Identity, Resumed
from golongrl.learner.checkpoints.saver import CheckpointSaver
from golongrl.learner.flops import SpeedGauge
from golongrl.learner.observe.metrics_log import Records
from golongrl.learner.observe.samples import KeptSamples
from golongrl.learner.observe.status import LearnerStatus
from golongrl.learner.recorded_routes import RoutesCheck
from golongrl.learner.skipped_updates import METRIC as SKIPPED
from golongrl.learner.skipped_updates import SkippedUpdates
from golongrl.learner.stopping import StopSignal, TrainingFailedError
from golongrl.learner.timing import timed
from golongrl.learner.traces import StepTraces
from golongrl.learner.validation import ROWS, ValidationRounds, due
from golongrl.learner.weights.missed import MissedWeights
from golongrl.learner.weights.publisher import Publisher
from golongrl.queue import SampleQueue, Stopped, Wait
from golongrl.recipe import Recipe

if TYPE_CHECKING:
    from golongrl.learner.ranks.group import Ranks

log = structlog.get_logger()

# The last version as a plain Hugging Face folder, in the run's.
RESULT = "hf"
# How often to look around while a batch is waited for.
_LOOK_S = 5.0


@dataclass
class Trained:
    """What is in the ranks' weights, as their checkpoint records it.

    Args:
        step: optimizer steps.
        rows: (epoch, row) of every group trained in them, as parts to concatenate: [N, 2] each.
        history: names the checkpoints of this run, in all its attachments.
        negatives_masked: whether `aepo` masked negative advantages in the last step.
    """

    step: int
    rows: list[NDArray[np.int32]]
    history: str
    negatives_masked: bool

    @classmethod
    def resumed(cls, resumed: Resumed | None) -> "Trained":
        """What the checkpoint has; nothing without one. A run that begins with another's has a history of its own."""
        if resumed is None:
            return cls(0, [np.empty((0, 2), np.int32)], _new_history(), negatives_masked=False)
        state = resumed.checkpoint.state
        history = state.history if resumed.own else _new_history()
        return cls(state.step, [resumed.checkpoint.rows], history, state.negatives_masked)

    def add(self, batch: PreparedBatch) -> None:
        """The batch was trained."""
        self.step = batch.step
        self.rows.append(batch.rows)
        self.negatives_masked = batch.negatives_masked


def _new_history() -> str:
    return secrets.token_hex(8)


@dataclass
class TrainingLoop:
    """The steps of one attachment to the run, with all that they work with.

    Args:
        fence: the attachment's token.
        samples: makes what is kept of a batch as text, where the recipe keeps any.
        routes: checks recorded routes, where they are replayed.
    """

    recipe: Recipe
    out: Path
    queue: SampleQueue
    fence: str
    identity: Identity
    ranks: "Ranks"
    publisher: Publisher
    saver: CheckpointSaver
    records: Records
    validation: ValidationRounds
    status: LearnerStatus
    stop: StopSignal
    traces: StepTraces
    trained: Trained
    speed: SpeedGauge
    samples: KeptSamples | None
    routes: RoutesCheck | None
    _missed: MissedWeights = field(init=False)
    _checkpoint_now: asyncio.Event = field(default_factory=asyncio.Event)
    _skipped: SkippedUpdates = field(default_factory=SkippedUpdates)

    def __post_init__(self) -> None:
        self._missed = MissedWeights(self.queue)

    @property
    def done(self) -> int:
        """Optimizer steps in the ranks' weights."""
        return self.trained.step

    async def run(self) -> bool:
        """Train to the end of the run, or until a signal: whether the run is complete."""
        # Before training, or cut short when the learner ended after this step.
        await self._validate_unless_recorded()
        stopped = None if self.stop.requested.is_set() else await self._steps()
        await self._saved()
        if not self.stop.requested.is_set():
            if stopped is not None and stopped.reason in ("all_equal", "failed"):
                raise TrainingFailedError(stopped.detail)
            await self._validate_unless_recorded(ended=True)
        if self.stop.requested.is_set():
            return False
        await self._end(stopped)
        return True

    async def _steps(self) -> Stopped | None:
        """Step by step; why the queue has no more batches, where that is the end."""
        async with Batches(
            recipe=self.recipe,
            queue=self.queue,
            fence=self.fence,
            waits=self._waits,
            pairs_per_token=self.speed.pairs_per_token,
            negatives_masked=self.trained.negatives_masked,
            samples=self.samples,
            routes=self.routes,
        ) as batches:
            batches.prefetch(self.done + 1)
            while batches.upcoming is not None:
                started = time.perf_counter()
                clock: dict[str, float] = {}
                with timed(clock, "timing_s/take"):
                    batch = await self._await_batch(batches.upcoming)
                if batch is None or isinstance(batch, Stopped):
                    return batch
                batches.prefetch(batch.step + 1)
                await self._step(batch, clock, started)
                if self.stop.requested.is_set():
                    return None
        return None

    async def _step(self, batch: PreparedBatch, clock: dict[str, float], started: float) -> None:
        """Update, validate and save where that is due, and record the step."""
        structlog.contextvars.bind_contextvars(
            step=batch.step, version=self.publisher.version, lineage=self.publisher.lineage
        )
        await self._update(batch, clock)
        if due(batch.step, self.recipe.learner):
            await self._published(clock)
            with timed(clock, "timing_s/testing"):
                batch.metrics.update(await self._validate(batch.step))
        recorded = asyncio.Event()
        if self.done % self.recipe.learner.checkpoint_every == 0 or self._checkpoint_now.is_set():
            await self._published(clock)
            with timed(clock, "timing_s/save_checkpoint"):
                await self._save(recorded)
        batch.metrics.update(self.saver.news() | self.publisher.news())
        clock["timing_s/step"] = time.perf_counter() - started
        stats = await self.queue.stats()
        record = step_metrics(batch.metrics, clock, stats, self.recipe.learner.ranks, self.publisher.version)
        self.records.write(batch.step, record)
        if self.samples is not None:
            await asyncio.to_thread(self.samples.write, batch.samples)
        recorded.set()
        self.status.finished(record, self.recipe.learner.ranks)
        log.info(
            "step",
            step=batch.step,
            reward=round(record.get("critic/score/mean", float("nan")), 4),
            staleness=record.get("staleness/max"),
            seconds=round(clock["timing_s/step"], 2),
        )

    async def _update(self, batch: PreparedBatch, clock: dict[str, float]) -> None:
        """Update the weights; the new version is published, announced and finished while the next step begins."""
        self.status.set("updating", batch.step, on="ranks", what=f"{{on}} to do step {batch.step}")
        called, began = time.perf_counter(), time.time()
        result = await self.ranks.update(batch.minis) if batch.minis else {}
        spent = time.perf_counter() - called
        self.traces.trained(batch, began, began + spent, self.publisher.lineage)
        batch.metrics.update(result)
        self._skipped.see(batch.step, result.get(SKIPPED, 0.0), len(batch.minis))
        updating = result.get("timing_s/update_actor", 0.0)
        batch.metrics.update(self.speed.read(batch.lengths, updating, self.recipe.learner.ranks))
        inside = sum(value for name, value in result.items() if name.startswith("timing_s/"))
        clock["timing_s/ship"] = max(0.0, spent - inside)
        self.trained.add(batch)
        if self.done >= self.publisher.version:
            with timed(clock, "timing_s/update_weights"):
                await self.publisher.begin(self.ranks, self.done)

    async def _published(self, clock: dict[str, float]) -> None:
        """Wait until engines can take the version of the steps done."""
        with timed(clock, "timing_s/update_weights"):
            self.status.set(f"publishing version {self.done}", on="storage", what=f"{{on}} to have version {self.done}")
            await self.publisher.settled()

    async def _await_batch(self, upcoming: "asyncio.Task[PreparedBatch | Stopped]") -> PreparedBatch | Stopped | None:
        """The next batch; None if a signal came first. Writes the checkpoint that a full queue asks for meanwhile.

        Raises:
            GolongrlError: weights or checkpoint cannot be written; the batch might never come.
        """
        stopping = asyncio.create_task(self.stop.requested.wait())
        try:
            while True:
                wanted = asyncio.create_task(self._checkpoint_now.wait())
                background = self.saver.tasks | self.publisher.tasks
                ends = {upcoming, stopping, wanted} | background
                await asyncio.wait(ends, timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
                wanted.cancel()
                self.saver.look()
                self.publisher.look()
                if upcoming.done():
                    # Whatever held it up has ended.
                    self._checkpoint_now.clear()
                    return upcoming.result()
                if self.stop.requested.is_set():
                    return None
                if self._checkpoint_now.is_set():
                    log.info("checkpoint: the queue's budget is full of uncommitted steps", step=self.done)
                    await self._saved()
                await self._repair()
        finally:
            stopping.cancel()

    async def _repair(self) -> None:
        """Publish the weights again that workers cannot get; only while the ranks hold exactly these and rest."""
        if self.done == self.publisher.version and await self._missed.asked():
            await self.publisher.repair(self.ranks)

    def _waits(self, step: int, wait: Wait) -> None:
        if self.done == step - 1 and not self.validation.running:
            # Without a group that holds it up, any worker's will do.
            on = f"rollout/{wait.worker}" if wait.worker else "rollout"
            missing = max(1, wait.wanted - wait.ready)
            what = f"{missing} group{'s' if missing > 1 else ''} of step {step}"
            self.status.set(f"waiting for step {step}: {wait.detail}", on=on, what=what)
        if wait.checkpoint_now:
            self._checkpoint_now.set()

    # -- validation -----------------------------------------------------------------------------------------------

    async def _validate(self, step: int) -> dict[str, float]:
        return await self.validation.run(step, self.fence, self.publisher.lineage, self.stop.requested, self._repair)

    async def _validate_unless_recorded(self, *, ended: bool = False) -> None:
        """Validate the steps done if that is due and their record does not have it."""
        if due(self.done, self.recipe.learner, ended=ended) and not self.records.has(self.done, ROWS):
            await self.publisher.settled()
            if metrics := await self._validate(self.done):
                self.records.amend(self.done, metrics)

    # -- checkpoints and the end ----------------------------------------------------------------------------------

    async def _save(self, recorded: asyncio.Event | None = None) -> None:
        """Begin a checkpoint of the steps done, unless there is one; it counts once `recorded`."""
        if self.done > self.saver.latest:
            self.status.set(f"saving checkpoint {self.done}", on="ranks", what=f"{{on}} to save checkpoint {self.done}")
            await self.publisher.settled()
            state = self.identity.state(
                self.done,
                self.publisher.lineage,
                self.publisher.checksum,
                self.trained.history,
                negatives_masked=self.trained.negatives_masked,
            )
            await self.saver.begin(state, np.concatenate(self.trained.rows), recorded)

    async def _saved(self) -> None:
        """The steps done are recorded: wait until a checkpoint of them is durable and committed."""
        await self._save()
        self.status.set(f"waiting for checkpoint {self.done} to be durable", on="storage")
        await self.saver.settled()
        self._checkpoint_now.clear()

    async def _end(self, stopped: Stopped | None) -> None:
        """Export the last version and report the run as complete, and why before the last step of the recipe."""
        self.status.set("exporting", on="ranks", what="{on} to export the model")
        await self.publisher.copy_out(self.ranks, self.out / RESULT)
        await self.queue.stop(self.fence, "complete", told_end(self.done, self.recipe.learner.steps, stopped))
        log.info("complete", steps=self.done, hf=str(self.out / RESULT))


def told_end(done: int, wanted: int | None, stopped: Stopped | None) -> str:
    """A complete run in words: how many steps, and why not all of them."""
    if wanted is None or done >= wanted or stopped is None:
        return f"{done} steps"
    return f"{done} of {wanted} steps: {stopped.detail}"
