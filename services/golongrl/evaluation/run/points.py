"""What is evaluated: endpoints that serve a model, or the weights of one or many steps.

Pure apart from looking at folders. A run gives a point for each step whose weights it has, published (`weights/vN`) or
in a checkpoint (`checkpoints/global_step_N`), and its final weights (`hf`) where no step has them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from golongrl import recipe as recipes
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.run import endpoint, pool
from golongrl.reading import refuse_endless

_URL: Final = re.compile(r"https?://\S+")
_VERSION: Final = re.compile(r"v(\d+)")
_STEP: Final = re.compile(r"global_step_(\d+)")


@dataclass(frozen=True, slots=True)
class Point:
    """One model to evaluate.

    Attributes:
        name: its folder in the output, and its name in reports.
        step: the optimizer step, for a curve; None where the model is not of a run.
        folder: of its weights; None for an endpoint.
        shared: the endpoint is a running release's pool, whose own rollouts go first.
        shards: `folder` is an `actor` folder of a checkpoint, whose ranks' files are still to be merged.
    """

    name: str
    step: int | None = None
    folder: Path | None = None
    urls: tuple[str, ...] = ()
    shards: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """All points of a target, and what its recipe says, if it is of a run.

    Attributes:
        label: a short name for folders and reports.
        answer_tokens: the longest answer that the run trained with.
    """

    label: str
    points: tuple[Point, ...]
    answer_tokens: int | None = None


def subject(place: str) -> Subject:
    """What `--target` names.

    Raises:
        EvaluationError: nothing that can be evaluated.
    """
    if _URL.match(place):
        urls = tuple(_endpoint(url.strip()) for url in place.split(","))
        label = re.sub(r"[^A-Za-z0-9.]+", "-", urls[0].partition("://")[2]).strip("-")
        return Subject(label, (Point("model", urls=urls),))
    if place.startswith(pool.PREFIX):
        label = re.sub(r"[^a-z0-9]+", "-", place)
        return Subject(label, (Point("pool", urls=(pool.url_of(place),), shared=True),))
    folder = Path(place)
    if not folder.is_dir():
        raise EvaluationError(f"--target {place}: neither a URL, release:NAME, nor a folder that exists")
    folder = folder.resolve()
    # A learner's folder on Kubernetes has no recipe; its checkpoints show what it is.
    if (folder / "recipe.yaml").is_file() or (folder / "checkpoints").is_dir():
        return _run(folder)
    if step := _STEP.fullmatch(folder.name):
        point = _checkpoint(folder, int(step[1]))
        return Subject(f"{folder.parent.parent.name}-step-{step[1]}", (point,), _answer_tokens(folder.parent.parent))
    if (folder / "config.json").is_file():
        return Subject(folder.name, (Point("model", folder=folder),))
    raise EvaluationError(
        f"--target {place}: no model in this folder; expected config.json (a Hugging Face folder), recipe.yaml (a run) "
        "or the name global_step_N (a checkpoint)"
    )


def _endpoint(url: str) -> str:
    if not _URL.fullmatch(url):
        raise EvaluationError(f"--target {url}: give endpoints as http://HOST:PORT/v1, several separated by commas")
    return endpoint.base(url)


def _run(folder: Path) -> Subject:
    refuse_endless(folder, f"--target {folder}")
    found: dict[int, Point] = {}
    for child in sorted(folder.glob("checkpoints/global_step_*")):
        if step := _STEP.fullmatch(child.name):
            found[int(step[1])] = _checkpoint(child, int(step[1]))
    for child in sorted(folder.glob("weights/v*")):
        if (version := _VERSION.fullmatch(child.name)) and any(child.glob("*.safetensors")):
            found[int(version[1])] = Point(f"step-{version[1]}", int(version[1]), child)
    points = [found[step] for step in sorted(found)]
    if not points and any((folder / "hf").glob("*.safetensors")):
        points = [Point("final", None, folder / "hf")]
    if not points:
        raise EvaluationError(f"--target {folder}: this run has no weights yet, neither published nor in a checkpoint")
    return Subject(folder.name, tuple(points), _answer_tokens(folder))


def _checkpoint(folder: Path, step: int) -> Point:
    if any((folder / "actor" / "huggingface").glob("*.safetensors")):
        return Point(f"step-{step}", step, folder / "actor" / "huggingface")
    return Point(f"step-{step}", step, folder / "actor", shards=True)


def _answer_tokens(run: Path) -> int | None:
    path = run / "recipe.yaml"
    return recipes.load(str(path)).rollout.max_response_tokens if path.is_file() else None


def chosen(points: Sequence[Point], steps: Sequence[int]) -> tuple[Point, ...]:
    """Those of these steps, or all.

    Raises:
        EvaluationError: there is no point of a step.
    """
    if not steps:
        return tuple(points)
    by_step = {point.step: point for point in points}
    for step in steps:
        if step not in by_step:
            have = ", ".join(str(point.step) for point in points if point.step is not None) or "none"
            raise EvaluationError(f"--step {step}: the target has no weights of it; it has {have}")
    return tuple(by_step[step] for step in dict.fromkeys(steps))
