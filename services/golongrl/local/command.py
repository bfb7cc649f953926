"""`golongrl train`: a whole run on this machine."""

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from golongrl.errors import InputError
from golongrl.kubernetes.names import SUBDOMAIN
from golongrl.local.plan import EngineKind
from golongrl.telemetry.run_info import others

# Also a name of Kubernetes objects and of Redis keys, and a folder's.
RUN_NAME = re.compile(SUBDOMAIN)
LONGEST_NAME = 63
DEFAULT_RECIPE = "quickstart"


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(help="Packaged recipe or YAML file; see `golongrl recipe list`.", show_default=DEFAULT_RECIPE),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override, as `section.key=value`; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run; default: the recipe's with the time.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of runs; this one goes to OUT/NAME.")] = Path("runs"),
    engines: Annotated[int, typer.Option(min=1, max=64, help="How many engines, each with its rollout worker.")] = 2,
    engine: Annotated[
        EngineKind, typer.Option(help="What engines are: the embedded CPU engine, or real SGLang servers.")
    ] = "embedded",
    sglang_venv: Annotated[Path, typer.Option(help="Where `make sglang` installed SGLang.")] = Path(".venv-sglang"),
    redis_url: Annotated[
        str | None,
        typer.Option(
            envvar="GOLONGRL_REDIS_URL", help="An outside Redis (7.2+ or Valkey) instead of the embedded one."
        ),
    ] = None,
    base_port: Annotated[int, typer.Option(help="First of consecutive ports; 0 takes free ones.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the run named by --name (default: the newest run of this recipe).")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines even on a terminal.")] = False,
) -> None:
    """Run every service of a training run on this machine until it is done.

    The run keeps its recipe, metrics, checkpoints, weights, logs and report.html in OUT/NAME, which has to be new or
    empty. Ctrl-C stops it in order; --resume continues from the last checkpoint.
    """
    from golongrl.local.plan import RunFolder
    from golongrl.local.run import TrainRequest, execute

    if name is not None and (len(name) > LONGEST_NAME or not RUN_NAME.fullmatch(name)):
        raise InputError(
            f"--name {_printable(name[:80])}: use up to {LONGEST_NAME} lower-case letters, digits, '-' and '.', with "
            "a letter or digit at both ends and on both sides of a '.'"
        )
    if (shown := _printable(str(out))) != str(out):
        raise InputError(f"--out {shown}: a path must not contain line breaks or bytes that are not UTF-8")
    asked = DEFAULT_RECIPE if recipe is None else recipe
    folder = RunFolder((out / name) if name else _default_folder(out, run_stem(asked), resume))
    request = TrainRequest(
        recipe=asked,
        named=recipe is not None,
        overrides=tuple(overrides or ()),
        folder=folder,
        engines=engines,
        engine=engine,
        sglang_venv=sglang_venv,
        redis_url=redis_url,
        base_port=base_port,
        resume=resume,
        plain=plain or not sys.stdout.isatty(),
    )
    execute(request)


def run_stem(recipe: str) -> str:
    """How runs of a recipe are named: its file's name, with what a name cannot have replaced."""
    slug = re.sub(r"[^a-z0-9.]+", "-", Path(recipe).stem.lower())[: LONGEST_NAME - len("-20260101-000000")]
    return re.sub(r"-*\.[-.]*", ".", slug).strip("-.") or "run"


def _printable(text: str) -> str:
    """`text` for a line: without what no terminal shows (line breaks, bytes that are not UTF-8)."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _default_folder(out: Path, stem: str, resume: bool) -> Path:
    if not resume:
        return out / f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    runs = sorted(out.glob(f"{stem}-[0-9]*/recipe.yaml"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise InputError(f"--resume: no run of {stem} in {out}; {others(out)}; give its --name")
    return runs[-1].parent
