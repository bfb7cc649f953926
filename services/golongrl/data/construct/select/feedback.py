"""Where a trained model fails, read from the folder of a run or an evaluation, or from rows with `task` and `score`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.select.quotas import TaskScore
from golongrl.data.rows import Unreadable, read_records
from golongrl.recipe import TaskType
from golongrl.telemetry import history

_METRICS = "metrics.jsonl"
_RESULTS = "results.json"
# What a benchmark of the evaluation asks for, in task types. Those without long documents say nothing of them.
_ASKS_FOR: Mapping[str, tuple[TaskType, ...]] = {
    "longbench-v2": ("T2",), "longbench-qa": ("T1", "T2"), "frames": ("T1", "T2"), "docmath": ("T4",),
    "corpusqa-128k": ("T4", "T5"), "corpusqa-1m": ("T4", "T5"), "mrcr-128k": ("T1",), "mrcr-512k": ("T1",),
    "mrcr-1m": ("T1",), "longmemeval": ("T1", "T6"),
}  # fmt: skip
# A run's last steps, whose mean is how well it does a task now.
_LAST = 20


def failures(places: Sequence[str]) -> tuple[TaskScore, ...]:
    """All that these places say.

    Raises:
        PipelineError: one cannot be read, or says nothing.
    """
    return tuple(failure for place in places for failure in _read(Path(place)))


def _read(path: Path) -> list[TaskScore]:
    if (path / _METRICS).is_file():
        found = list(_run(path))
    elif (path / _RESULTS).is_file():
        found = list(_evaluation(path / _RESULTS))
    elif path.is_file():
        found = list(_rows(path))
    else:
        folders = f"neither the folder of a run ({_METRICS}) or an evaluation ({_RESULTS})"
        raise PipelineError(f"select.feedback: {path}: {folders} nor a file")
    if not found:
        raise PipelineError(f"select.feedback: {path}: no task with a score")
    return found


def _run(folder: Path) -> Iterator[TaskScore]:
    run = history.read(folder / _METRICS)
    for task in run.tasks():
        scores = [value for value in run.task(task) if isfinite(value)][-_LAST:]
        if scores:
            yield TaskScore(task, sum(scores) / len(scores))


def _evaluation(path: Path) -> Iterator[TaskScore]:
    """The scores of an evaluation's last point, which is the newest weights."""
    try:
        points = json.loads(path.read_text("utf-8"))["points"]
        benchmarks = points[-1]["benchmarks"] if points else {}
        values = {name: one["value"] for name, one in benchmarks.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise PipelineError(f"select.feedback: {path}: not the results of an evaluation: {error!r}") from error
    for name, value in values.items():
        if isinstance(value, int | float) and 0 <= value <= 1:
            for task in _ASKS_FOR.get(name, ()):
                yield TaskScore(task, float(value))


def _rows(path: Path) -> Iterator[TaskScore]:
    for where, record in read_records(path):
        if isinstance(record, Unreadable):
            raise PipelineError(f"select.feedback: {where}: {record.reason}")
        if not isinstance(record, dict) or not isinstance(record.get("task"), str):
            raise PipelineError(f"select.feedback: {where}: expected an object with the key task")
        score = record.get("score")
        if score is None:
            continue  # an unscored answer says nothing of the model
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise PipelineError(
                f"select.feedback: {where}: score must be a number from 0 to 1, got {json.dumps(score)}"
            )
        yield TaskScore(record["task"], float(score), record.get("length_bin"), record.get("language"))
