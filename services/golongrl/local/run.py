"""A run on one machine from beginning to end: check, prepare, supervise, report.

Invariants:
- everything that can be wrong with the input is found before the first process starts, and a start that fails then
  leaves nothing behind;
- a refused command changes nothing: the lock comes first, a changed recipe is written last;
- whatever ends a run, `run.json` says so, its processes are gone and its temporary files are removed.
"""

import asyncio
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
from rich.console import Console

from golongrl import __version__, files
from golongrl.data import prepare
from golongrl.data.errors import DataError
from golongrl.data.model_check import model_of
from golongrl.data.pipeline import REPORT, is_whole
from golongrl.data.prepared import open_splits
from golongrl.errors import GolongrlError, InputError, NoSpaceError, is_full, no_space, url_without_secret, writing_to
from golongrl.evaluation.held_out import HeldOutSuite
from golongrl.files import PlaceState
from golongrl.learner.checkpoints.resume import own_checkpoint, resume_note
from golongrl.learner.checkpoints.store import AUTO, NEVER, Checkpoint, Checkpoints
from golongrl.learner.checkpoints.store import read as read_checkpoint
from golongrl.learner.inputs import Inputs
from golongrl.learner.recipe_warnings import recipe_warnings
from golongrl.local import preflight, redis_server, survivors, temporary
from golongrl.local.claim import Claim, other_recipe, resumed_recipe
from golongrl.local.interrupt import Advice, interruptible
from golongrl.local.outlet import outlet
from golongrl.local.plan import LOCK, EngineKind, Options, Ports, RunFolder
from golongrl.local.progress import Display, RunSnapshot, Screen
from golongrl.local.services import stages
from golongrl.local.supervisor import RunFailedError, RunInterruptedError, Supervisor
from golongrl.local.watched import LOOK_PATIENCE, Watched
from golongrl.meanwhile import meanwhile
from golongrl.queue import SampleQueue
from golongrl.queue.address import PASSWORD, SENTINEL_PASSWORD, named_by
from golongrl.queue.address import password as queue_password
from golongrl.recipe import Recipe, dump, load
from golongrl.recipe.fit import steps_warning
from golongrl.redis_url import split_password, with_password
from golongrl.telemetry import history, logging
from golongrl.telemetry.report import FILE, write
from golongrl.telemetry.run_info import RunInfo, RunState, resume_command

# A liveness probe that takes longer counts as no answer.
HTTP_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class TrainRequest:
    """What the command line asked for. `named`: the recipe is not just the default."""

    recipe: str
    named: bool
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
        GolongrlError: the input is wrong, a service cannot be kept alive, the disk is full, or a signal came.
    """
    # The display shows what matters; between its lines only errors are logged.
    logging.configure("train", request.folder.path.name, level="ERROR")
    try:
        with outlet(sys.stdout) as out, interruptible() as advice:
            console = Screen(file=out)
            recipe = None if request.resume else load(request.recipe, request.overrides)
            with Claim.take(request.folder, resume=request.resume) as claim:
                _run(request, recipe, claim, console, advice)
    except NoSpaceError as error:
        raise RunFailedError(str(error)) from error


def _run(request: TrainRequest, recipe: Recipe | None, claim: Claim, console: Console, advice: Advice) -> None:
    """The run, once its folder is ours."""
    folder, resuming = RunFolder(request.folder.path.absolute()), ""
    old = _record_of(folder, console) if request.resume else None
    if request.resume:
        recipe = resumed_recipe(folder, request.overrides)
        if request.named and (note := other_recipe(request.recipe, request.overrides, folder, recipe)):
            console.print(note, highlight=False, soft_wrap=True)
        own = own_checkpoint(Checkpoints(folder.checkpoints))
        resuming = _resuming(folder, recipe, own)
        _end_survivors(folder, old, console)
        if old is not None and old.state == "done" and (said := _nothing_to_do(folder, recipe, own)):
            console.print(said, highlight=False, soft_wrap=True)
            return
    assert recipe is not None  # of a new run, the caller loaded it
    info = _info(folder)
    claim.made.file(folder.path / "run.json")
    place = f"--out {request.folder.path.parent}"
    if not request.resume:
        with writing_to(place, folder=folder.path):
            info.write(folder.path)
        claim.write_recipe(recipe)
    options = _options(request, recipe, folder)
    beginning = _beginning(recipe.learner.resume, new=not request.resume)
    for warning in recipe_warnings(recipe):
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    preflight.check(options, routes=recipe.learner.routing_replay)
    claim.made.tree(folder.data)
    _prepare_data(recipe, options, console)
    if beginning is not None:
        # The learner would say it, when everything else runs.
        Inputs.read(recipe, folder.data, every_byte=False).identity.check(beginning)
    if request.resume:
        claim.write_recipe(recipe)
    with writing_to(place, folder=folder.path):
        claim.made.tree(folder.logs)
        claim.made.tree(folder.redis)
        folder.logs.mkdir(exist_ok=True)
        folder.redis.mkdir(0o700, exist_ok=True)  # its file holds what the model wrote
        password = options.password if options.redis_url else redis_server.password_of(folder.redis)
        options = replace(options, password=password, temporary=temporary.make(folder))
        info = _info(folder, options)
        info.write(folder.path)
    claim.begun()
    again = resume_command(folder.path.name, request.folder.path.parent, request.recipe if request.named else None)
    advice.text = f"continue with: {again}"
    if request.resume:
        console.print(resuming, highlight=False, soft_wrap=True)
    _to_the_end(request, recipe, options, info, console, advice)


def _to_the_end(
    request: TrainRequest, recipe: Recipe, options: Options, info: RunInfo, console: Console, advice: Advice
) -> None:
    """Supervise, then write down how it ended and what it did."""
    folder = options.folder
    state: RunState = "failed"
    detail = ""
    try:
        asyncio.run(_supervise(recipe, options, console, request.plain))
        state = "done"
        advice.text = f"the run is done; golongrl report {request.folder.path} writes its report"
    except RunInterruptedError as error:
        state, detail = "stopped", str(error).partition(";")[0]
        raise RunInterruptedError(error.number, advice.text) from None
    except GolongrlError as error:
        detail = str(error).splitlines()[0]
        raise
    finally:
        temporary.remove(folder, options.temporary, own=True)
        report = _finish(request, recipe, replace(info, state=state, detail=detail, temporary=None), console)
    said = history.summary(history.read(folder.metrics), recipe.learner.steps)
    console.print(f"{said}; report: {report}", highlight=False, soft_wrap=True)


def _finish(request: TrainRequest, recipe: Recipe, info: RunInfo, console: Console) -> Path:
    """Write the last record and the report; a storage that refuses them does not hide why the run ended."""
    folder = request.folder
    try:
        info.write(folder.path)
        return write(folder.path, recipe, dump(recipe))
    except (OSError, InputError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        console.print(f"no {FILE} in {folder.path}: {why}", highlight=False, soft_wrap=True)
        return folder.path / FILE


def _end_survivors(folder: RunFolder, old: RunInfo | None, console: Console) -> None:
    """End what an earlier supervisor of this run left when it was killed, and remove its temporary files.

    Raises:
        RunFailedError: a process cannot be ended.
    """
    if found := survivors.of_run(folder.path):
        names = survivors.names(found)
        if left := survivors.end(found):
            raise RunFailedError(f"processes of an earlier start still run: {survivors.names(left)}; end them first")
        console.print(f"ended what an earlier start of this run had left: {names}", highlight=False, soft_wrap=True)
    if old is not None and old.temporary:
        temporary.remove(folder, Path(old.temporary))


def _info(folder: RunFolder, options: Options | None = None) -> RunInfo:
    me = psutil.Process()
    own = options is not None and options.redis_url is None
    return RunInfo(
        run=folder.path.name,
        version=__version__,
        machine=socket.gethostname(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        pid=me.pid,
        pid_started=me.create_time(),
        state="preparing" if options is None else "running",
        redis_url=options.queue_url if options else "",
        password_file=str(redis_server.password_file(folder.redis)) if own else None,
        temporary=str(options.temporary) if options and options.temporary else None,
        ports=options.ports.named() if options else {},
    )


def _options(request: TrainRequest, recipe: Recipe, folder: RunFolder) -> Options:
    """The options, once an outside Redis answers and the model is found.

    Raises:
        InputError: one of them does not.
    """
    url, password = split_password(request.redis_url) if request.redis_url else (None, None)
    if url is not None and request.redis_url is not None:
        try:
            # It stands in command lines and in `run.json`.
            url_without_secret(url)
        except ValueError as error:
            raise InputError(f"{named_by(request.redis_url)} {error}: {PASSWORD} or {SENTINEL_PASSWORD}") from None
        password = password or queue_password()
        preflight.check_redis(request.redis_url, folder.path.name, url, new=not request.resume)
    ports = (
        Ports.from_base(request.base_port, request.engines)
        if request.base_port
        else preflight.free_ports(request.engines)
    )
    return Options(
        run=folder.path.name,
        folder=folder,
        ports=ports,
        model=model_of(recipe, to_train=True),
        engine=request.engine,
        sglang_venv=request.sglang_venv,
        redis_url=url,
        password=password,
    )


def _record_of(folder: RunFolder, console: Console) -> RunInfo | None:
    """What the earlier start wrote down of itself. A damaged record costs nothing but its temporary files' name."""
    try:
        return RunInfo.read(folder.path)
    except InputError as error:
        console.print(f"{error}; the run's next start writes it again", highlight=False, soft_wrap=True)
        return None


def _beginning(resume: str, *, new: bool) -> Checkpoint | None:
    """The checkpoint that a new run begins with, if any; a resumed run may have left that checkpoint behind.

    Raises:
        InputError: it is no checkpoint, or, for a new run, not a whole one.
    """
    resume_note(resume)
    if new and resume not in (AUTO, NEVER):
        return read_checkpoint(Path(resume))
    return None


def _resuming(folder: RunFolder, recipe: Recipe, own: tuple[int | None, list[str]]) -> str:
    """Where a resumed run continues: the learner chooses in the same way.

    Args:
        own: its `own_checkpoint`.

    Raises:
        InputError: it has checkpoints and none that is whole, or the table of its steps cannot be read.
    """
    name, wanted = folder.path.name, recipe.learner.steps
    step, damage = own
    if step is not None and not damage and wanted is not None and step >= wanted:
        return f"resuming {name}: {step} steps are done and learner.steps is {wanted}, so no step is left"
    if step is None and damage and recipe.learner.resume == AUTO:
        raise InputError(
            f"--resume: {damage[0]}; no checkpoint of the run is whole: name one with learner.resume, or start a new "
            "run"
        )
    if step is None:
        why = f"{damage[0]}; no checkpoint is whole" if damage else "it has no checkpoint yet, and starts at step 1"
        return f"resuming {name}: {why}"
    recorded = history.read(folder.metrics).steps
    last = recorded[-1] if recorded else 0
    steps = f"step {last} is" if last == step + 1 else f"steps {step + 1} to {last} are"
    again = f"; {steps} computed again, from the same groups unless Redis has lost them" if last > step else ""
    why = f"{damage[0]}; " if damage else ""
    return f"{why}resuming {name} at step {step + 1}, from the checkpoint of step {step}{again}"


def _nothing_to_do(folder: RunFolder, recipe: Recipe, own: tuple[int | None, list[str]]) -> str | None:
    """What to say of a run that had ended with its work done, where `recipe` asks for no more; None where a start would
    do something, be it to make again what is lost."""
    (step, damage), wanted, then = own, recipe.learner.steps, load(str(folder.recipe)).learner
    # Another setting may be for the end: a validation, say.
    if step is None or damage or recipe.learner != then.model_copy(update={"steps": wanted}):
        return None
    if not folder.result.is_dir():
        return None
    done = f"run {folder.path.name} is done: {step} steps"
    if wanted is not None and step >= wanted:
        return f"{done}, and learner.steps is {wanted}; to go on, --set learner.steps={2 * step}"
    return f"{done}, then every row was trained, rejected or set aside" if wanted == then.steps else None


def _prepare_data(recipe: Recipe, options: Options, console: Console) -> None:
    # Once whole it stays: another look at the same rows could make another order of them.
    data = options.folder.data
    again = f"remove {data} and use --resume again"
    if is_whole(data):
        try:
            open_splits(data, every_byte=True)
        except DataError as error:
            raise InputError(f"{error}: {again}") from error
        return
    if files.look(data, (REPORT,), harmless=(LOCK,)).state is PlaceState.FOREIGN:
        raise InputError(f"{data}: {REPORT} is missing or damaged; {again}: then the rows are prepared again")
    try:
        with console.status("building the prompts"):
            report = prepare(recipe, options.folder.data, options.model, more=HeldOutSuite.of(recipe))
    except OSError as error:
        if is_full(error):
            raise NoSpaceError(no_space(options.folder.data)) from error
        raise InputError(f"{error.filename or options.folder.data}: {error.strerror or error}") from error
    train = report.train
    console.print(
        f"{train.rows} prompts of {len(train.tasks)} task types, {train.tokens} tokens, the longest {train.longest} "
        f"({train.overlong} overlong dropped)",
        highlight=False,
        soft_wrap=True,
    )
    if warning := steps_warning(recipe, train.rows):
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)
    for split, left_out in (("train", train), ("validation", report.validation)):
        if left_out is not None and left_out.bad:
            kinds = ", ".join(f"{count} {kind}" for kind, count in left_out.bad.items())
            console.print(
                f"{split}: {sum(left_out.bad.values())} bad rows left out ({kinds}); {options.folder.data / REPORT} "
                "lists them",
                highlight=False,
                soft_wrap=True,
            )


async def _supervise(recipe: Recipe, options: Options, console: Console, plain: bool) -> None:
    folder = options.folder
    command: tuple[str, ...] = ()
    if options.redis_url is None and options.password is not None:
        with writing_to(f"--out {folder.path.parent}", folder=folder.path):
            command = redis_server.command(options.ports.redis, folder.redis, options.password)
    records = history.read(folder.metrics)
    seen = records.steps[-1] if records.steps else -1
    url = with_password(options.queue_url, options.password)

    def client() -> SampleQueue:
        return SampleQueue.from_url(url, options.run, patience=LOOK_PATIENCE)

    async with (
        # Without connections that stay open: a server would wait for them at its end. No service is behind a proxy.
        httpx.AsyncClient(timeout=HTTP_TIMEOUT_S, headers={"Connection": "close"}, trust_env=False) as http,
        redis_server.probe_client(options.ports.redis, options.password) as server,
        client() as queue,
    ):
        with Display(console, live=not plain, seen=seen) as display:
            watched = Watched(recipe, options, queue, client, display, records)
            supervisor = Supervisor(
                stages(recipe, options, command, http, server), "learner", folder.logs, display.say, watched.step
            )
            try:
                async with meanwhile(watched.watch(supervisor)):
                    await supervisor.run()
            finally:
                with suppress(InputError):  # it does not hide why the run ended
                    display.show(RunSnapshot(options.run, recipe.learner.steps, history.read(folder.metrics)))
