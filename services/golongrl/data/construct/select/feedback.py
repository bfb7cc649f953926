"""Where a trained model fails, read from a run's folder or from rows with `task` and `score`."""

import json
from collections.abc import Iterator, Sequence
from math import isfinite
from pathlib import Path

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.select.quotas import TaskScore
from golongrl.data.rows import Unreadable, read_records
from golongrl.telemetry import history

_METRICS = "metrics.jsonl"
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
    elif path.is_file():
        found = list(_rows(path))
    else:
        raise PipelineError(f"select.feedback: {path}: neither a run's folder (no {_METRICS}) nor a file")
    if not found:
        raise PipelineError(f"select.feedback: {path}: no task with a score")
    return found


def _run(folder: Path) -> Iterator[TaskScore]:
    run = history.read(folder / _METRICS)
    for task in run.tasks():
        scores = [value for value in run.task(task) if isfinite(value)][-_LAST:]
        if scores:
            yield TaskScore(task, sum(scores) / len(scores))


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
