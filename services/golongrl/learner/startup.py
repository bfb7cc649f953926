"""From a recipe to the training loop: everything is checked before anything slow starts.

The order: recipe, model and data; the checkpoint to resume from; the run's queue; the initial weights, so that engines
need not wait for the ranks; Ray and the ranks; the checkpoint's state; the loop.
"""

import asyncio
import contextlib
import socket
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from golongrl.errors import is_full, no_space, writing_to
from golongrl.files import refuse_elsewhere, refuse_foreign
from golongrl.heartbeat import heartbeat
from golongrl.learner import memory
from golongrl.learner.checkpoints import resume
from golongrl.learner.checkpoints.resume import Resumed
from golongrl.learner.checkpoints.saver import CheckpointSaver
from golongrl.learner.checkpoints.store import Checkpoint, Checkpoints
from golongrl.learner.exit_deadline import ExitDeadline
from golongrl.learner.flops import SpeedGauge, pairs_per_token
from golongrl.learner.fsync import StorageError, has_no_room
from golongrl.learner.inputs import Inputs
from golongrl.learner.loop import RESULT, Trained, TrainingLoop
from golongrl.learner.observe import metrics_log
from golongrl.learner.observe.health import create_app
from golongrl.learner.observe.metrics import LearnerMetrics
from golongrl.learner.observe.metrics_log import Records
from golongrl.learner.observe.samples import KeptSamples
from golongrl.learner.observe.status import LearnerStatus
from golongrl.learner.observe.tracking import Tracking
from golongrl.learner.observe.watch import StallWatch
from golongrl.learner.queue_settings import queue_settings
from golongrl.learner.recorded_routes import RoutesCheck
from golongrl.learner.routes_folder import RoutesFolder
from golongrl.learner.stopping import StopSignal, TrainingInterruptedError
from golongrl.learner.traces import StepTraces
from golongrl.learner.umask import open_to_group
from golongrl.learner.validation import FOLDER as VALIDATION
from golongrl.learner.validation import ValidationRounds
from golongrl.learner.weights.publisher import Publisher
from golongrl.learner.weights.store import EXPORT, WeightStore, mark_export
from golongrl.queue import Attachment, QueueUnavailableError, SampleQueue
from golongrl.recipe import Recipe
from golongrl.routes.model import routing_of
from golongrl.routes.store import folder_in
from golongrl.serving import bind, served
from golongrl.telemetry.tracing import tracing

if TYPE_CHECKING:
    from golongrl.learner.ranks.group import Ranks

log = structlog.get_logger()


@dataclass(frozen=True)
class LearnerConfig:
    """Where a learner's things are; what it does is in the recipe."""

    run: str
    redis_url: str
    data: Path
    weights: Path
    out: Path
    host: str = "127.0.0.1"
    port: int = 0  # of /healthz and /metrics; 0 is none


@dataclass(frozen=True)
class Start:
    """One start of the learner: what it has at hand once the run's queue is set up."""

    inputs: Inputs
    config: LearnerConfig
    queue: SampleQueue
    checkpoints: Checkpoints
    resumed: Resumed | None
    status: LearnerStatus
    metrics: LearnerMetrics
    stop: StopSignal
    traces: StepTraces

    @property
    def checkpoint(self) -> Checkpoint | None:
        """What it resumes from."""
        return self.resumed.checkpoint if self.resumed else None

    @property
    def done(self) -> int:
        """Optimizer steps in that checkpoint."""
        return self.checkpoint.state.step if self.checkpoint else 0


async def train(recipe: Recipe, config: LearnerConfig) -> None:
    """Run the learner to its end.

    Raises:
        TrainingInterruptedError: a signal came first.
        GolongrlError: the run cannot continue; one line says why.
    """
    try:
        await _train(recipe, config)
    except OSError as error:
        # Files have their own line; the log, too, may be on the full disk.
        if is_full(error):
            raise StorageError(no_space(config.out)) from error
        raise
    except QueueUnavailableError as error:
        # A Redis on the same storage, as on a laptop, may be the first that cannot write.
        if has_no_room(config.out):
            raise StorageError(f"{no_space(config.out)}: {error}") from error
        raise


def check_places(config: LearnerConfig) -> None:
    """Before anything is written: what the run will replace or delete is its own.

    Raises:
        GolongrlError: a folder or file of somebody else is in its way, or the storage refused.
    """
    for place in (config.out, config.weights):
        refuse_elsewhere(place)
    with writing_to(f"--out {config.out} and --weights {config.weights}", folder=config.out):
        WeightStore(config.weights).refuse_foreign()
        begun = (config.out / metrics_log.FILE).exists()
        if not begun:
            refuse_foreign(config.out / VALIDATION, (), "of a learner")
        result = config.out / RESULT
        if begun and result.is_dir() and (result / "config.json").is_file():
            # An older version of this program wrote it, without a marker.
            mark_export(result, None)
        refuse_foreign(result, (EXPORT,), "of a learner")
        metrics_log.check(config.out)


async def _train(recipe: Recipe, config: LearnerConfig) -> None:
    from golongrl.learner.ranks.ray_session import joined

    if joined():
        # Before the first folder is made: ranks and engines of a cluster may be other users of the same group.
        open_to_group()
    check_places(config)
    # The current folder changes for a moment (`ray_session`).
    data, weights, out = config.data.absolute(), config.weights.absolute(), config.out.absolute()
    config = replace(config, data=data, weights=weights, out=out)
    inputs = Inputs.read(recipe, config.data)
    checkpoints = Checkpoints(config.out / "checkpoints")
    status, metrics = LearnerStatus(), LearnerMetrics()
    metrics.watch(status, {"out": config.out, "weights": config.weights})
    async with SampleQueue.from_url(config.redis_url, config.run, waits=status.waits) as queue:
        listener = bind(config.host, config.port) if config.port else None
        async with (
            heartbeat(queue, "learner", socket.gethostname(), status.heartbeat),
            served(create_app(status, queue, metrics), listener),
            StallWatch(queue, status, metrics.stalled, config.out).running(),
        ):
            resumed = await _set_up(inputs, queue, checkpoints, status)
            stop = StopSignal()
            stop.listen()
            try:
                with contextlib.closing(
                    tracing("learner", config.run, recipes=recipe.telemetry.otlp_endpoint)
                ) as traced:
                    traces = StepTraces(traced)
                    start = Start(
                        inputs=inputs,
                        config=config,
                        queue=queue,
                        checkpoints=checkpoints,
                        resumed=resumed,
                        status=status,
                        metrics=metrics,
                        stop=stop,
                        traces=traces,
                    )
                    await _attached(start)
            except asyncio.CancelledError:
                raise TrainingInterruptedError(
                    "stopped by a signal before training began; the next start resumes the run"
                ) from None


async def _set_up(
    inputs: Inputs, queue: SampleQueue, checkpoints: Checkpoints, status: LearnerStatus
) -> Resumed | None:
    """Find what to resume from, and create the run on its queue, if it is not there."""
    status.set("checking the checkpoint to resume from")
    resumed = await resume.find(inputs.recipe.learner.resume, checkpoints, queue)
    if resumed is not None:
        _announce(resumed, inputs, status)
        if resumed.rewinds:
            # Its batches up to the commit are gone; without them the run begins again at the checkpoint.
            await queue.forget()
    config = inputs.model_config
    settings = queue_settings(inputs.recipe, config["vocab_size"], routing_of(config), inputs.data, inputs.held_out)
    behind = resumed.checkpoint.behind if resumed else None
    await queue.setup(settings, inputs.order, inputs.data.tasks, behind)
    return resumed


def _announce(resumed: Resumed, inputs: Inputs, status: LearnerStatus) -> None:
    """Check that the checkpoint is of this run's model and data, and say what is resumed and what has changed."""
    checkpoint = resumed.checkpoint
    inputs.identity.check(checkpoint)
    step = checkpoint.state.step
    status.set(f"resuming from {checkpoint.folder} (step {step})", step)
    log.info("resuming", checkpoint=str(checkpoint.folder), step=step)
    if changed := resume.changes(checkpoint.state.recipe, inputs.recipe):
        log.info("settings changed since the checkpoint: the recipe's hold from now on", changed="; ".join(changed))


async def _attached(start: Start) -> None:
    """Attach to the run, start the ranks, train."""
    inputs, config, queue, done = start.inputs, start.config, start.queue, start.done
    validation = ValidationRounds(inputs.recipe, queue, inputs.held_out, config.out, start.status)
    attachment = await queue.attach(done)
    routes_folder = await _routes_folder(start)
    publisher, known = await _published(start, attachment)
    if attachment.version > done:
        log.info("replaying the steps after the checkpoint", first=done + 1, last=attachment.version)
    start.status.set("starting the ranks (Ray, model)", done, on="ranks", what="{on} to start")
    deadline = ExitDeadline()
    routes = _routes(inputs, config)
    async with _ranks(inputs, start.checkpoint, start.stop, deadline, routes) as ranks:
        validation.forget_after(attachment.version)
        saver = CheckpointSaver(
            start.checkpoints,
            queue,
            attachment.token,
            ranks,
            keep=inputs.recipe.learner.keep_checkpoints,
            latest=done,
            committed=routes_folder.sweep,
        )
        async with saver, publisher:
            if not known and done == attachment.version:
                await publisher.begin(ranks, done)
            tracking = Tracking.of(inputs.recipe, config.run)
            with await asyncio.to_thread(Records, config.out, done, tracking, start.metrics) as records:
                start.stop.finish_steps()
                loop = TrainingLoop(
                    recipe=inputs.recipe,
                    out=config.out,
                    queue=queue,
                    fence=attachment.token,
                    identity=inputs.identity,
                    ranks=ranks,
                    publisher=publisher,
                    saver=saver,
                    records=records,
                    validation=validation,
                    status=start.status,
                    stop=start.stop,
                    traces=start.traces,
                    trained=Trained.resumed(start.resumed),
                    speed=_speed_gauge(ranks, inputs),
                    samples=await asyncio.to_thread(KeptSamples.of, inputs.recipe, config.out, done, inputs.model),
                    routes=routes,
                )
                complete = await loop.run()
                deadline.begin(0 if complete else TrainingInterruptedError.exit_code)
    if not complete:
        raise TrainingInterruptedError(f"stopped by a signal after step {loop.done}; the next start resumes the run")


async def _routes_folder(start: Start) -> RoutesFolder:
    """The folder of recorded routes, open if they are replayed, without those that no batch needs any more."""
    folder = RoutesFolder(folder_in(start.config.weights), start.queue)
    if start.inputs.recipe.learner.routing_replay:
        await folder.open()
    await folder.sweep()
    return folder


async def _published(start: Start, attachment: Attachment) -> tuple[Publisher, bool]:
    """The publisher, which has announced the queue's version, and whether engines can take that one yet."""
    store = WeightStore(start.config.weights)
    publisher = Publisher.of(
        start.inputs.recipe, start.queue, attachment, store, start.inputs.model, start.traces.published
    )
    start.status.set("publishing the initial weights", on="storage", what="{on} to have the initial weights")
    checkpoint = start.checkpoint
    return publisher, await publisher.restore(checkpoint.state.lineage if checkpoint else None)


@contextlib.asynccontextmanager
async def _ranks(
    inputs: Inputs, checkpoint: Checkpoint | None, stop: StopSignal, deadline: ExitDeadline, routes: RoutesCheck | None
) -> AsyncIterator["Ranks"]:
    """The ranks on their Ray, with the checkpoint's state. A rank that dies ends the block with its line, whatever the
    block waits for; then the process has until `deadline`."""
    from golongrl.learner.ranks.ray_session import RaySession

    async with RaySession(inputs.recipe.learner.ranks) as session:
        with deadline.after():
            # Ray starts while verl is imported: both take seconds.
            ranks_type = await asyncio.to_thread(_import_ranks)
            await session.connect()
            # Again: Ray's own handler of SIGTERM aborts the process three seconds later.
            stop.listen()
            folder = None if routes is None else routes.folder
            ranks = await ranks_type.start(inputs.recipe, inputs.model, folder)
            info = ranks.info[0]
            memory.check_device(inputs.recipe, inputs.model_config, device=info.device, device_bytes=info.device_bytes)
            log.info("ranks are up", ranks=len(ranks.info), parameters=info.parameters)
            if checkpoint is not None:
                await ranks.load(checkpoint.actor)
            try:
                async with asyncio.TaskGroup() as group:
                    watch = group.create_task(ranks.watch())
                    yield ranks
                    watch.cancel()
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from failures
            await ranks.close()


def _routes(inputs: Inputs, config: LearnerConfig) -> RoutesCheck | None:
    """Checks recorded routes, where they are replayed: `memory.check_layout` has seen that the model has some."""
    routing = routing_of(inputs.model_config) if inputs.recipe.learner.routing_replay else None
    return None if routing is None else RoutesCheck(folder_in(config.weights).absolute(), routing)


def _speed_gauge(ranks: "Ranks", inputs: Inputs) -> SpeedGauge:
    """Of the model on the ranks' device; says where prompts are not computed once, and why."""
    model, info = memory.shape(inputs.model_config), ranks.info[0]
    if info.plain_reason is not None:
        log.warning("prompts are computed again for every response", reason=info.plain_reason)
    return SpeedGauge(model, info.device_flops, pairs_per_token(model) if info.plain_reason is None else None)


def _import_ranks() -> "type[Ranks]":
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="verl")
        from golongrl.learner.ranks import verl_estimators
        from golongrl.learner.ranks.group import Ranks

        verl_estimators.register()
    return Ranks
