"""A run on one machine from beginning to end: check, prepare, supervise, report.

Everything that can be wrong with the input is found before the first process starts; a new run's folder disappears
again if that check fails.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from rich.console import Console

from golongrl.data import prepare
from golongrl.data.models import resolve
from golongrl.errors import GolongrlError
from golongrl.local import plan, preflight
from golongrl.local.plan import EngineKind, Options, Ports, RunFolder
from golongrl.local.process import ServiceSpec
from golongrl.local.progress import Display, RunSnapshot
from golongrl.local.supervisor import Stage, Supervisor
from golongrl.queue import QueueError, SampleQueue
from golongrl.queue.connection import Patience
from golongrl.queue.embedded import server_command
from golongrl.recipe import Recipe, dump, load
from golongrl.telemetry import history, logging

MAIN = "learner"
# A probe or a look at the queue that takes longer counts as "not yet"; the next one comes soon.
PROBE_TIMEOUT_S = 2.0
# How often the display looks.
REFRESH_S = 1.0
# Importing torch, verl and Ray at the same time on a small, busy machine takes a minute; SGLang compiles at its start.
START_DEADLINE_S = 300.0
SGLANG_START_DEADLINE_S = 900.0
# Asynchronous training is as fast as its slowest part: on few cores the learner, while engines have time to spare.
ENGINE_NICE = 5
# A worker finishes the groups it holds before it goes; a learner finishes its step.
WORKER_GRACE_S = 20.0
LEARNER_GRACE_S = 45.0


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asked for."""

    recipe: str
    overrides: tuple[str, ...]
    folder: RunFolder
    engines: int
    engine: EngineKind
    sglang_venv: Path
    redis_url: str | None
    base_port: int
    resume: bool
    plain: bool


def execute(request: TrainRequest) -> None:
    """Run it.

    Raises:
        GolongrlError: the input is wrong, a service cannot be kept alive, or a signal came.
    """
    # The display says what matters; below it only what went wrong has a place.
    logging.configure("train", request.folder.path.name, level="ERROR")
    console = Console()
    recipe = None if request.resume else load(request.recipe, request.overrides)
    ports = (
        Ports.from_base(request.base_port, request.engines)
        if request.base_port
        else preflight.free_ports(request.engines)
    )
    folder = request.folder
    recipe = preflight.resumed_run(folder, request.overrides) if recipe is None else preflight.new_run(folder, recipe)
    with preflight.lock(folder):
        try:
            options = Options(
                run=folder.path.name,
                folder=folder,
                ports=ports,
                model=resolve(recipe.model.path),
                engine=request.engine,
                sglang_venv=request.sglang_venv,
                redis_url=request.redis_url,
            )
            preflight.check(options)
            _prepare_data(recipe, options, console)
        except GolongrlError:
            if not request.resume:
                preflight.discard(folder)
            raise
        folder.logs.mkdir(exist_ok=True)
        folder.redis.mkdir(exist_ok=True)
        try:
            asyncio.run(_supervise(recipe, options, console, request.plain))
        finally:
            report = _report(recipe, folder)
    first, last = history.read(folder.metrics).change()
    console.print(
        f"done: mean reward {first:.3f} (first five steps) -> {last:.3f} (last five); look at {report}", soft_wrap=True
    )


def _prepare_data(recipe: Recipe, options: Options, console: Console) -> None:
    if (options.folder.data / "train").exists():
        return
    with console.status("building the prompts"):
        report = prepare(recipe, options.folder.data, options.model)
    train = report.train
    console.print(
        f"{train.rows} prompts of {len(train.tasks)} task types, {train.tokens} tokens, the longest {train.longest} "
        f"({train.overlong} overlong dropped)",
        highlight=False,
        soft_wrap=True,
    )


def _report(recipe: Recipe, folder: RunFolder) -> Path:
    # Plotly takes half a second to import: not before it is needed.
    from golongrl.telemetry.report import write

    return write(folder.path, recipe, dump(recipe))


async def _supervise(recipe: Recipe, options: Options, console: Console, plain: bool) -> None:
    async with (
        httpx.AsyncClient(timeout=PROBE_TIMEOUT_S) as http,
        SampleQueue.from_url(options.queue_url, options.run, patience=Patience(total_s=PROBE_TIMEOUT_S)) as queue,
    ):
        with Display(console, live=not plain) as display:
            supervisor = Supervisor(stages(recipe, options, http, queue), MAIN, options.folder.logs, display.say)
            watcher = asyncio.create_task(_watch(recipe, options, queue, supervisor, display))
            try:
                await supervisor.run()
            finally:
                watcher.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watcher
                display.show(RunSnapshot(options.run, recipe.learner.steps, history.read(options.folder.metrics)))


async def _watch(
    recipe: Recipe, options: Options, queue: SampleQueue, supervisor: Supervisor, display: Display
) -> None:
    """Show the run's state until cancelled; a queue that does not answer is shown as such by the services' states."""
    while True:
        stats, processes = None, []
        with contextlib.suppress(QueueError):
            processes = await queue.services()
            stats = await queue.stats()
        records = await asyncio.to_thread(history.read, options.folder.metrics)
        display.show(RunSnapshot(options.run, recipe.learner.steps, records, stats, processes, dict(supervisor.states)))
        await asyncio.sleep(REFRESH_S)


def stages(recipe: Recipe, options: Options, http: httpx.AsyncClient, queue: SampleQueue) -> list[Stage]:
    """The run's services in starting order."""
    count = len(options.ports.engines)
    common = plan.environment(plan.threads(recipe, count, plan.cores()))
    engine_deadline = START_DEADLINE_S if options.engine == "embedded" else SGLANG_START_DEADLINE_S

    def answers(url: str) -> Callable[[], Awaitable[bool]]:
        async def probe() -> bool:
            try:
                return (await http.get(url)).is_success
            except httpx.HTTPError:
                return False

        return probe

    async def redis_answers() -> bool:
        try:
            await queue.services()
        except QueueError:
            return False
        return True

    async def learner_is_there() -> bool:
        try:
            return any(process.service == MAIN for process in await queue.services())
        except QueueError:
            return False

    reward = ServiceSpec(
        "reward", plan.reward(options, recipe), answers(f"{options.reward_url}/readyz"), START_DEADLINE_S, env=common
    )
    engines = tuple(
        ServiceSpec(
            f"engine-{i}",
            plan.engine(options, recipe, i),
            answers(f"{options.engine_url(i)}/health"),
            engine_deadline,
            nice=ENGINE_NICE,
            env={**common, **plan.engine_environment(options.engine, i)},
        )
        for i in range(count)
    )
    workers = tuple(
        ServiceSpec(
            f"rollout-{i}",
            plan.rollout(options, i),
            answers(f"http://{plan.HOST}:{options.ports.workers[i]}/healthz"),
            START_DEADLINE_S,
            WORKER_GRACE_S,
            common,
        )
        for i in range(count)
    )
    learner = ServiceSpec(MAIN, plan.learner(options), learner_is_there, START_DEADLINE_S, LEARNER_GRACE_S, common)
    redis_command = tuple(server_command(options.ports.redis, options.folder.redis))
    redis = ServiceSpec("redis", redis_command, redis_answers, START_DEADLINE_S, env=common)
    first = () if options.redis_url else (Stage((redis,), gate=True),)
    return [*first, Stage((reward, *engines)), Stage((*workers, learner))]
