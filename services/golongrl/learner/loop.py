"""The learner's loop: take a batch, update, publish the weights, finish, checkpoint, commit; resumable at every point.

Invariants (the run protocol, seen from here):
- weights are published (durable, or made again by a replay: `publishing`) before `finish` raises the policy version;
- a checkpoint is durable, and its step's record written, before `commit` lets the queue forget the batches it stands
  for; training goes on meanwhile;
- a resumed learner replays the batches after its checkpoint: same groups, same order, same seeds. On CPU the weights
  come out bit-identical; where they do not, the version is published under a new lineage;
- the next batch is taken and prepared while the ranks are busy with this one.

SIGTERM or SIGINT: the step in hand is finished, a checkpoint is written and committed, exit 143; 0 is a complete run (a
Job whose pod was drained would count as done). Nothing is lost without it either: a kill at any instant costs the
replay of the steps since the last checkpoint, no more.
"""

import asyncio
import contextlib
import hashlib
import json
import signal
import socket
import time
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import structlog

from golongrl.data import Prepared, lease_order, open_splits, resolve
from golongrl.errors import GolongrlError
from golongrl.heartbeat import heartbeat
from golongrl.learner import memory
from golongrl.learner.batch.batch_metrics import step_metrics
from golongrl.learner.batch.prepare import PreparedBatch, prepare
from golongrl.learner.checkpoints import resume
from golongrl.learner.checkpoints.resume import Identity
from golongrl.learner.checkpoints.saver import Saving
from golongrl.learner.checkpoints.store import Checkpoint, Checkpoints
from golongrl.learner.observe.health import LearnerMetrics, create_app
from golongrl.learner.observe.metrics_log import Records
from golongrl.learner.observe.status import LearnerStatus
from golongrl.learner.observe.tracking import Tracking
from golongrl.learner.queue_settings import queue_settings
from golongrl.learner.timing import timed
from golongrl.learner.validation import ROWS, ValidationRounds, due
from golongrl.learner.weights.publisher import Broadcaster, Publisher
from golongrl.learner.weights.store import WeightStore
from golongrl.queue import Batch, SampleQueue, Stopped, Wait
from golongrl.recipe import Recipe
from golongrl.serving import bind, served

if TYPE_CHECKING:
    from golongrl.learner.ranks.group import Ranks
    from golongrl.learner.ranks.rank import RankInfo

log = structlog.get_logger()

# A batch becomes ready when its last group is submitted: asking this often costs one small script a time.
_POLL_S = 0.2


class TrainingFailedError(GolongrlError):
    """The run cannot go on, and starting it again would not help."""


class TrainingInterruptedError(GolongrlError):
    """A signal came before the run was complete; a later start goes on."""

    # What a shell reports for a program that SIGTERM ended.
    exit_code = 128 + signal.SIGTERM


@dataclass(frozen=True)
class LearnerConfig:
    """Where a learner's things are; what it does is the recipe's."""

    run: str
    redis_url: str
    data: Path
    weights: Path
    out: Path
    host: str = "127.0.0.1"
    port: int = 0  # of /healthz and /metrics; 0 is none


async def train(recipe: Recipe, config: LearnerConfig) -> None:
    """Run the learner to its end.

    Raises:
        TrainingInterruptedError: a signal came first.
        GolongrlError: the run cannot go on; one line says why.
    """
    model = resolve(recipe.model.path)
    model_config = json.loads((model / "config.json").read_text("utf-8"))
    memory.check_layout(recipe, model_config)
    memory.check_kernel(recipe, lambda name: find_spec(name) is not None)
    data, held_out = open_splits(config.data)
    order = [
        lease_order(data.tasks, recipe.queue.groups_per_step, recipe.seed, epoch) for epoch in range(recipe.data.epochs)
    ]
    checkpoints = Checkpoints(config.out / "checkpoints")
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(rows).tobytes() for rows in order)).hexdigest()
    identity = Identity(recipe, rows=len(data), order=digest)
    async with SampleQueue.from_url(config.redis_url, config.run) as queue:
        status, metrics = LearnerStatus(), LearnerMetrics()
        listener = bind(config.host, config.port) if config.port else None
        async with (
            heartbeat(queue, "learner", socket.gethostname(), status.heartbeat),
            served(create_app(status, queue, metrics), listener),
        ):
            checkpoint = await resume.find(recipe.learner.resume, checkpoints, queue)
            if checkpoint is not None:
                identity.check(checkpoint)
            behind = checkpoint.behind if checkpoint else None
            await queue.setup(queue_settings(recipe, model_config["vocab_size"]), order, data.tasks, behind)
            learner = TrainingLoop(recipe, config, queue, status, metrics, identity, model, held_out)
            try:
                await learner.run(checkpoint, checkpoints)
            except asyncio.CancelledError:
                raise TrainingInterruptedError(
                    "stopped by a signal before training began; the next start goes on"
                ) from None


class TrainingLoop:
    """One attachment to the run: from a checkpoint (or none) to the end."""

    def __init__(
        self,
        recipe: Recipe,
        config: LearnerConfig,
        queue: SampleQueue,
        status: LearnerStatus,
        metrics: LearnerMetrics,
        identity: Identity,
        model: Path,
        held_out: Prepared | None,
    ) -> None:
        self._recipe = recipe
        self._run_name = config.run
        self._out = config.out
        self._queue = queue
        self._status = status
        self._metrics = metrics
        self._identity = identity
        self._model = model
        self._weights = config.weights
        self._validation = ValidationRounds(recipe, queue, held_out, config.out, status)
        self._fence = ""
        self._done = 0  # optimizer steps in the ranks' weights
        self._rows = [np.empty((0, 2), np.int32)]  # (epoch, row) of every group trained in them
        self._training = False
        self._running: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._checkpoint_now = asyncio.Event()

    async def run(self, checkpoint: Checkpoint | None, checkpoints: Checkpoints) -> None:
        """Attach, publish, start the ranks, train."""
        self._running = asyncio.current_task()
        self._listen()
        if checkpoint is not None:
            self._done, self._rows = checkpoint.state.step, [checkpoint.rows]
        attachment = await self._queue.attach(self._done)
        self._fence, version = attachment.token, attachment.version
        way = Broadcaster if self._recipe.learner.weights == "broadcast" else Publisher
        self._publisher = way(self._recipe, self._queue, attachment, WeightStore(self._weights), self._model)
        self._status.set("publishing the initial weights")
        known = await self._publisher.restore(checkpoint.state.lineage if checkpoint else None)
        if checkpoint or version:
            log.info("resuming", checkpoint=self._done, version=version, replay=version - self._done)
        self._status.set("starting the ranks (Ray, model)", self._done)
        from golongrl.learner.ranks.ray_session import connect, shutdown

        try:
            # Ray starts while verl is imported: both take seconds.
            connecting = asyncio.create_task(asyncio.to_thread(connect, self._recipe.learner.ranks))
            ranks_type = await asyncio.to_thread(_import_ranks)
            await connecting
            # Again: Ray's own handler of SIGTERM aborts the process three seconds later.
            self._listen()
            ranks = await ranks_type.start(self._recipe, self._model)
            self._check_device(ranks.info[0])
            log.info("ranks are up", ranks=len(ranks.info), parameters=ranks.info[0].parameters)
            if checkpoint is not None:
                await ranks.load(checkpoint.actor)
            self._validation.forget_after(version)
            keep = self._recipe.learner.keep_checkpoints
            saving = Saving(checkpoints, self._queue, self._fence, keep=keep, latest=self._done)
            async with _watched(ranks), saving, self._publisher:
                if not known and self._done == version:
                    await self._publisher.begin(ranks, self._done)
                tracking = Tracking.of(self._recipe, self._run_name)
                with await asyncio.to_thread(Records, self._out, self._done, tracking) as records:
                    self._training = True
                    complete = await self._train(ranks, records, saving)
            await ranks.close()
            if not complete:
                raise TrainingInterruptedError(f"stopped by a signal after step {self._done}; the next start goes on")
        finally:
            shutdown()

    def _listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        """A signal came: end after the step in hand, or at once where there is none yet. Repeats change nothing."""
        log.info("stopping", step=self._done)
        self._stopping.set()
        if not self._training and self._running is not None:
            self._running.cancel()

    def _check_device(self, info: "RankInfo") -> None:
        """Attention that the device has, and memory that it must have."""
        config = json.loads((self._model / "config.json").read_text("utf-8"))
        memory.check_device(self._recipe, config, device=info.device, device_bytes=info.device_bytes)

    async def _train(self, ranks: "Ranks", records: Records, saving: Saving) -> bool:
        """To the end, or to a signal: whether the run is complete."""
        # Before training, or cut short when the learner ended after this step.
        await self._validate_unless_recorded(records)
        stopped = None if self._stopping.is_set() else await self._steps(ranks, records, saving)
        await self._saved(ranks, saving)
        if not self._stopping.is_set():
            if stopped is not None and stopped.reason in ("all_equal", "failed"):
                raise TrainingFailedError(stopped.detail)
            await self._validate_unless_recorded(records, ended=True)
        if self._stopping.is_set():
            return False
        await self._end(ranks)
        return True

    async def _steps(self, ranks: "Ranks", records: Records, saving: Saving) -> Stopped | None:
        """Step by step; why the queue has no more batches, where that is the end."""
        last = self._recipe.learner.steps
        upcoming = self._prefetch(last)
        try:
            while upcoming is not None:
                started = time.perf_counter()
                clock: dict[str, float] = {}
                with timed(clock, "timing_s/take"):
                    batch = await self._await_batch(upcoming, ranks, saving)
                if batch is None or isinstance(batch, Stopped):
                    return batch
                upcoming = self._prefetch(last, after=batch.step)
                await self._step(batch, ranks, clock)
                if due(batch.step, self._recipe.learner):
                    await self._published(clock)
                    with timed(clock, "timing_s/testing"):
                        batch.metrics.update(await self._validate(batch.step))
                recorded = asyncio.Event()
                if self._due():
                    await self._published(clock)
                    with timed(clock, "timing_s/save_checkpoint"):
                        await self._save(ranks, saving, recorded)
                batch.metrics.update(saving.news() | self._publisher.news())
                clock["timing_s/step"] = time.perf_counter() - started
                stats = await self._queue.stats()
                record = step_metrics(batch.metrics, clock, stats, self._recipe.learner.ranks, self._publisher.version)
                records.write(batch.step, record)
                recorded.set()
                self._metrics.observe(batch.step, record)
                log.info(
                    "step",
                    step=batch.step,
                    reward=round(record.get("critic/score/mean", float("nan")), 4),
                    staleness=record.get("staleness/max"),
                    seconds=round(clock["timing_s/step"], 2),
                )
                if self._stopping.is_set():
                    return None
            return None
        finally:
            if upcoming is not None:
                upcoming.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await upcoming

    async def _step(self, batch: PreparedBatch, ranks: "Ranks", clock: dict[str, float]) -> None:
        """Update, then have the new version published, announced and finished while the next step begins."""
        self._status.set("updating", batch.step)
        called = time.perf_counter()
        result = await ranks.update(batch.minis) if batch.minis else {}
        spent = time.perf_counter() - called
        batch.metrics.update(result)
        inside = sum(value for name, value in result.items() if name.startswith("timing_s/"))
        clock["timing_s/ship"] = max(0.0, spent - inside)
        self._done = batch.step
        self._rows.append(batch.rows)
        if self._done >= self._publisher.version:
            with timed(clock, "timing_s/update_weights"):
                await self._publisher.begin(ranks, self._done)

    async def _published(self, clock: dict[str, float]) -> None:
        """Wait until the version of the steps done is with the engines."""
        with timed(clock, "timing_s/update_weights"):
            self._status.set(f"publishing version {self._done}")
            await self._publisher.settled()

    async def _validate(self, step: int) -> dict[str, float]:
        return await self._validation.run(step, self._fence, self._publisher.lineage, self._stopping)

    async def _validate_unless_recorded(self, records: Records, *, ended: bool = False) -> None:
        """Make up for the validation of the steps done, if it is due and their record is without it."""
        if due(self._done, self._recipe.learner, ended=ended) and not records.has(self._done, ROWS):
            await self._publisher.settled()
            if metrics := await self._validate(self._done):
                records.amend(self._done, metrics)

    def _due(self) -> bool:
        return self._done % self._recipe.learner.checkpoint_every == 0 or self._checkpoint_now.is_set()

    # -- batches --------------------------------------------------------------------------------------------------

    def _prefetch(self, last: int | None, after: int | None = None) -> "asyncio.Task[PreparedBatch | Stopped] | None":
        step = (self._done if after is None else after) + 1
        if last is not None and step > last:
            return None
        return asyncio.create_task(self._prepare(step))

    async def _await_batch(
        self, upcoming: "asyncio.Task[PreparedBatch | Stopped]", ranks: "Ranks", saving: Saving
    ) -> "PreparedBatch | Stopped | None":
        """The next batch; None when a signal came first. Writes the checkpoint that a full queue asks for meanwhile.

        Raises:
            GolongrlError: weights or checkpoint cannot be written; the batch might never come.
        """
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while True:
                wanted = asyncio.create_task(self._checkpoint_now.wait())
                beside = saving.tasks | self._publisher.tasks
                await asyncio.wait({upcoming, stopping, wanted} | beside, return_when=asyncio.FIRST_COMPLETED)
                wanted.cancel()
                saving.look()
                self._publisher.look()
                if upcoming.done():
                    # What held it up is over.
                    self._checkpoint_now.clear()
                    return upcoming.result()
                if self._stopping.is_set():
                    return None
                if self._checkpoint_now.is_set():
                    log.info("checkpoint: the queue's budget is full of uncommitted steps", step=self._done)
                    await self._saved(ranks, saving)
        finally:
            stopping.cancel()

    async def _prepare(self, step: int) -> "PreparedBatch | Stopped":
        """Take the batch of `step` and make it ready for the ranks."""
        batch = await self._take(step)
        if isinstance(batch, Stopped):
            return batch
        return await asyncio.to_thread(prepare, batch, self._recipe)

    async def _take(self, step: int) -> Batch | Stopped:
        while True:
            answer = await self._queue.take(self._fence, step)
            if isinstance(answer, Batch | Stopped):
                return answer
            self._waits(answer, step)
            await asyncio.sleep(_POLL_S)

    def _waits(self, wait: Wait, step: int) -> None:
        if self._done == step - 1 and not self._validation.running:
            self._status.set(f"waiting for step {step}: {wait.detail}")
        if wait.checkpoint_now:
            self._checkpoint_now.set()

    # -- checkpoints and the end ----------------------------------------------------------------------------------

    async def _save(self, ranks: "Ranks", saving: Saving, recorded: asyncio.Event | None = None) -> None:
        """Begin a checkpoint of the steps done, unless there is one; it counts once `recorded`."""
        if self._done > saving.latest:
            self._status.set(f"saving checkpoint {self._done}")
            await self._publisher.settled()
            state = self._identity.state(self._done, self._publisher.lineage, self._publisher.checksum)
            await saving.begin(ranks, state, np.concatenate(self._rows), recorded)

    async def _saved(self, ranks: "Ranks", saving: Saving) -> None:
        """The steps done are recorded: wait until a checkpoint of them is durable and committed."""
        await self._save(ranks, saving)
        self._status.set(f"waiting for checkpoint {self._done} to be durable")
        await saving.settled()
        self._checkpoint_now.clear()

    async def _end(self, ranks: "Ranks") -> None:
        """Export the last version and tell everybody."""
        self._status.set("exporting")
        await self._publisher.copy_out(ranks, self._out / "hf")
        await self._queue.stop(self._fence, "complete", f"{self._done} steps")
        log.info("complete", steps=self._done, hf=str(self._out / "hf"))


@contextlib.asynccontextmanager
async def _watched(ranks: "Ranks") -> AsyncIterator[None]:
    """Ends the block with the line of a rank that dies, whatever the block waits for meanwhile."""
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(ranks.watch())
            yield
            watch.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def _import_ranks() -> "type[Ranks]":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="verl")
        from golongrl.learner.ranks.group import Ranks
    return Ranks
