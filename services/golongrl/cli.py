"""`golongrl`: one command for people and pods. Every room defines its own commands; this module registers them."""

import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from io import TextIOWrapper
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand
from typer.exceptions import Abort, TyperException

from golongrl import __version__
from golongrl.errors import InputError, one_line, show_defect
from golongrl.reading import refuse_endless
from golongrl.recipe import Recipe, dump, load, packaged, source

app = typer.Typer(
    name="golongrl",
    help="Training services for long-context reinforcement learning, on a laptop and on Kubernetes.",
    epilog="Example: `golongrl train quickstart`",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
recipes = typer.Typer(
    help="Recipes: WHAT a run is.", epilog="Example: `golongrl recipe show quickstart`", no_args_is_help=True
)

# What the commands are for: the panels of `golongrl --help`.
TRAIN, DATA, LOOK, CLUSTER, PROCESSES = "Train here", "Recipes and data", "Look", "Kubernetes", "The processes of a run"

_INTERRUPTED: Final = 128 + signal.SIGINT
# The signals that ended this process as Ctrl-C does; the exit code names the first.
_ENDED_BY: Final[list[int]] = []

# Processes that a supervisor or Kubernetes restarts.
SERVICES = (["learner"], ["rollout"], ["engine"], ["reward", "serve"], ["operator"])

Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override, as `section.key=value`; repeatable.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@recipes.command("list", epilog="Example: `golongrl recipe list`")
def list_recipes() -> None:
    """List the packaged recipes."""
    table = Table(box=None)
    for title in ("recipe", "estimator", "B x n", "tokens", "max_staleness"):
        table.add_column(title, no_wrap=True)
    table.add_column("model", overflow="fold")
    for name in packaged():
        recipe = load(name)
        size = f"{_short(recipe.data.max_prompt_tokens)}+{_short(recipe.rollout.max_response_tokens)}"
        batch = f"{recipe.queue.groups_per_step} x {recipe.rollout.n}"
        staleness = str(recipe.queue.max_staleness)
        table.add_row(name, recipe.algorithm.estimator, batch, size, staleness, recipe.model.path)
    Console().print(table)


def _short(tokens: int) -> str:
    return f"{tokens // 1024}K" if tokens >= 1024 else str(tokens)


@recipes.command(epilog="Example: `golongrl recipe show quickstart --resolved`")
def show(
    recipe: Annotated[str, typer.Argument(help="Packaged name or YAML file.")],
    overrides: Overrides = None,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="With every default filled in; --set does that too.")
    ] = False,
) -> None:
    """Print a recipe, as written or resolved."""
    print(dump(load(recipe, overrides or ())) if resolved or overrides else source(recipe), end="")


@recipes.command(epilog="Example: `golongrl recipe check qwen3-4b-tmn-reweight --gpus 64 --gpu-memory 80`")
def check(
    recipe: Annotated[str, typer.Argument(help="Packaged name or YAML file.")],
    overrides: Overrides = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Estimate memory for this many GPUs instead of learner.ranks.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option(min=0, max=1e6, help="Memory of one GPU in GiB; a recipe that does not fit is refused."),
    ] = None,
) -> None:
    """Check a recipe: its keys and values, its suite's data, and the files of its model and data that are here.

    With --gpus or --gpu-memory also what it needs of each GPU; no GPU is used.
    """
    from golongrl.data.model_check import check_local_model
    from golongrl.data.pipeline import absent
    from golongrl.evaluation.held_out import HeldOutSuite
    from golongrl.learner.checkpoints.resume import resume_note
    from golongrl.learner.checkpoints.store import AUTO, NEVER, glance
    from golongrl.learner.recipe_warnings import recipe_warnings
    from golongrl.recipe.functions import check_functions

    checked = load(recipe, [*(overrides or ()), *([] if gpus is None else [f"learner.ranks={gpus}"])])
    for warning in recipe_warnings(checked):
        print(f"warning: {warning}", file=sys.stderr)
    check_functions(checked)
    notes = [note for note in (resume_note(checked.learner.resume),) if note]
    if not notes and checked.learner.resume not in (AUTO, NEVER):
        glance(Path(checked.learner.resume))
    if (suite := HeldOutSuite.of(checked)) is not None:
        suite.check()
    notes += absent(checked)
    if not check_local_model(checked):
        notes.append(f"{checked.model.path} is not on this machine; its files were not checked")
    if gpus is not None or gpu_memory is not None:
        _check_memory(checked, gpu_memory)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"{recipe}: OK ({checked.name}: {checked.algorithm.estimator} on {checked.model.path})")


def _check_memory(recipe: Recipe, gpu_memory: float | None) -> None:
    from golongrl.learner import flops, memory
    from golongrl.learner.known_models import model_config

    config = model_config(recipe.model.path)
    memory.check_layout(recipe, config)
    print("\n".join(memory.estimate(recipe, config).lines()))
    print(flops.group_line(recipe, config))
    if gpu_memory is not None:
        memory.check_device(recipe, config, device="cuda", device_bytes=int(gpu_memory * memory.GIB))


def report(
    folder: Annotated[Path, typer.Argument(help="The run's folder, runs/NAME.")],
    other: Annotated[Path | None, typer.Argument(help="Another run's folder, to compare the two.")] = None,
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of an evaluation of the run, if not in evals/ here or beside it. Repeatable."),
    ] = None,
) -> None:
    """Write report.html into the folder of a run, running or ended, with its evaluations.

    With two folders: write a comparison of the two runs, compare-NAME.html, into the first.
    """
    from golongrl.telemetry.report import FILE, compare, is_another, write

    recipe = _recipe_of(folder)
    name = FILE if other is None else f"compare-{other.resolve().name}.html"
    if other is not None and evaluation:
        raise InputError("report: --evaluation is of one run; give one folder")
    if is_another(folder, name):
        raise InputError(f"report {folder}: its {name} was not written by this command; move it away first")
    if other is None:
        print(write(folder, recipe, dump(recipe), evaluation or ()))
    else:
        sides = compare.Side(folder, recipe), compare.Side(other, _recipe_of(other))
        print(compare.write(*sides, folder / name))


def _recipe_of(folder: Path) -> Recipe:
    if not (folder / "recipe.yaml").exists():
        raise InputError(f"report {folder}: no run in this folder (it has no recipe.yaml)")
    refuse_endless(folder, f"report {folder}")
    return load(str(folder / "recipe.yaml"))


@cache
def _register_commands() -> None:
    """Once, however often `main` is called in a process: typer would have each command twice."""
    from golongrl.data.command import app as data
    from golongrl.data.command import datajob
    from golongrl.engine.command import engine
    from golongrl.evaluation.command import app as evaluate
    from golongrl.kubernetes.command import deploy, render, status
    from golongrl.learner.command import learner
    from golongrl.learner.words import EncodedWordsCommand
    from golongrl.local.command import train
    from golongrl.monitoring.command import app as metrics
    from golongrl.monitoring.command import dashboards, trace
    from golongrl.queue.command import app as queue
    from golongrl.reward.command import app as reward
    from golongrl.rollout.command import rollout
    from golongrl_operator.command import operator

    def add(command: Callable[..., None], panel: str, example: str, kind: type[TyperCommand] | None = None) -> None:
        app.command(cls=kind, epilog=f"Example: `golongrl {example}`", rich_help_panel=panel)(command)

    add(train, TRAIN, "train quickstart --name mine --set learner.steps=10")
    add(report, TRAIN, "report runs/mine")
    app.add_typer(recipes, name="recipe", rich_help_panel=DATA)
    app.add_typer(data, name="data", rich_help_panel=DATA)
    app.add_typer(evaluate, name="eval", rich_help_panel=LOOK)
    add(status, LOOK, "status --name mine")
    app.add_typer(queue, name="queue", rich_help_panel=LOOK)
    app.add_typer(metrics, name="metrics", rich_help_panel=LOOK)
    app.add_typer(dashboards, name="dashboards", rich_help_panel=LOOK)
    add(trace, LOOK, "trace 0-17 --name mine")
    # It reads pipelines, which the room of Kubernetes does not know.
    render.command(epilog="Example: `golongrl render datajob mine.yaml > datajob.yaml`")(datajob)
    app.add_typer(render, name="render", rich_help_panel=CLUSTER)
    app.add_typer(deploy, name="deploy", rich_help_panel=CLUSTER)
    run = "--recipe quickstart --run q1 --redis-url redis://localhost:6379/0"
    learn = f"learner {run} --data runs/q1/data --weights runs/q1/weights --out runs/q1"
    add(learner, PROCESSES, learn, EncodedWordsCommand)
    add(
        rollout,
        PROCESSES,
        f"rollout {run} --engine-url http://localhost:30000 --reward-url http://localhost:8080 --data runs/q1/data",
    )
    add(engine, PROCESSES, "engine --model-path runs/q1/weights/v0 --port 30000 --weight-version 0")
    app.add_typer(reward, name="reward", rich_help_panel=PROCESSES)
    add(operator, PROCESSES, "operator --release golongrl --namespace golongrl --site release.json")


def main() -> None:
    """Run the command line; an error a person can act on is one line and an exit code, never a traceback."""
    _prepare_process()
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a sign is no reason to fail.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = [_at_home(word) for word in sys.argv[1:]]
    with one_line(service=any(words[: len(service)] == service for service in SERVICES)):
        try:
            _refuse_empty(words)
            _register_commands()
            code = _run(words)
        except KeyboardInterrupt:
            code = _INTERRUPTED
        sys.exit(128 + _ENDED_BY[0] if code == _INTERRUPTED and _ENDED_BY else code)


def _prepare_process() -> None:
    sys.excepthook = show_defect
    # A file that is opened while one of these is closed would get what is printed.
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # Python's own streams of those are None, which no command expects.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    # As Ctrl-C, so that a command cleans up; one that has handlers of its own sets them later.
    for wanted in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(wanted) is signal.SIG_DFL:
            signal.signal(wanted, _end)


def _end(number: int, _: FrameType | None) -> None:
    _ENDED_BY.append(number)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        sys.exit(128 + number)
    signal.raise_signal(signal.SIGINT)


def _run(words: list[str]) -> int:
    """The exit code of a command line.

    Raises:
        InputError: its usage is wrong.
    """
    try:
        code = typer.main.get_command(app).main(words, prog_name="golongrl", standalone_mode=False)
    except Abort:
        raise InputError("the input ended before it was complete") from None
    except TyperException as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            print(error.format_message())
            return 2
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "golongrl"
        raise InputError(f"{' '.join(error.format_message().split()).rstrip('.')}; see `{path} --help`") from None
    return code if isinstance(code, int) else 0


def _refuse_empty(words: list[str]) -> None:
    """An empty word is a variable that the shell does not know; as a path it would be the folder of the command.

    Raises:
        InputError: there is one.
    """
    for before, word in pairwise(["golongrl", *words]):
        option, equals, value = word.partition("=")
        if not word or (option.startswith("--") and equals and not value):
            named = option or before
            raise InputError(f"{named}: {'its value' if named.startswith('-') else 'the argument after it'} is empty")


def _at_home(word: str) -> str:
    """`--out=~/runs` as `--out ~/runs`: most shells replace `~` only where a word begins with it."""
    option, equals, value = word.partition("=")
    return f"{option}={os.path.expanduser(value)}" if equals and option.startswith("--") else word
