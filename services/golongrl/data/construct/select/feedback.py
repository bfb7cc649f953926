"""Where a trained model fails, read from the folder of a run or an evaluation, or from rows with `task` and `score`.

Of a run: the mean reward of each task type over its last steps, and single groups of them (the worst, the best and
some others of each step, as `samples.jsonl` has them) with what the data says of their prompts: length bin, language,
source, documents. Of an evaluation: the score of each benchmark at its last point, and of each sample with its length.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.models import Language, LengthBin
from golongrl.data.construct.select.quotas import TaskScore
from golongrl.data.errors import DataError
from golongrl.data.prepared import open_splits
from golongrl.data.row_files import read_records
from golongrl.data.rows import Unreadable
from golongrl.evaluation.store.journal import read_entries
from golongrl.reading import small_text
from golongrl.recipe import TaskType
from golongrl.telemetry import history, journal

_METRICS = "metrics.jsonl"
_RESULTS = "results.json"
# What a benchmark of the evaluation asks for, in task types. Those without long documents say nothing of them.
_ASKS_FOR: Mapping[str, tuple[TaskType, ...]] = {
    "longbench-v2": ("T2",), "longbench-qa": ("T1", "T2"), "frames": ("T1", "T2"), "docmath": ("T4",),
    "corpusqa-128k": ("T4", "T5"), "corpusqa-1m": ("T4", "T5"), "mrcr-128k": ("T1",), "mrcr-512k": ("T1",),
    "mrcr-1m": ("T1",), "longmemeval": ("T1", "T6"),
}  # fmt: skip
# How rows of benchmarks state their language.
_LANGUAGES: Mapping[str, Language] = {
    "english": "English", "en": "English", "chinese": "Chinese", "zh": "Chinese", "zh-cn": "Chinese",
}  # fmt: skip
# A run's last steps, whose mean is how well it does a task now.
_LAST = 20


def failures(places: Sequence[str], bins: Sequence[LengthBin]) -> tuple[TaskScore, ...]:
    """All that these places say.

    Args:
        bins: those of the pipeline, for prompts of which only the length is known.

    Raises:
        PipelineError: one cannot be read, or says nothing.
    """
    return tuple(failure for place in places for failure in _read(Path(place), bins))


def _read(path: Path, bins: Sequence[LengthBin]) -> list[TaskScore]:
    if (path / _METRICS).is_file():
        found = [*_run(path), *_groups(path)]
    elif (path / _RESULTS).is_file():
        found = list(_evaluation(path, bins))
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


def _groups(folder: Path) -> Iterator[TaskScore]:
    """The groups of the last steps that the run kept as text, with what its data says of their prompts."""
    kept = [
        record
        for record in journal.read(folder / journal.SAMPLES)
        if record.get("kind") == "group" and _is_score(record.get("reward"))
    ]
    try:
        data, _ = open_splits(folder / "data")
    except DataError:
        return  # the run's data was removed: its groups name rows that nobody knows
    first = max((record["step"] for record in kept), default=0) - _LAST
    for record in kept:
        row = str(record.get("uid")).rpartition("-")[2]
        if record["step"] > first and row.isdecimal() and int(row) < len(data):
            info = data.row(int(row)).extra_info
            score = TaskScore(
                record["task"],
                float(record["reward"]),
                _text(info.get("length_bin")),
                _text(info.get("lang")),
                _text(info.get("source")),
                tuple(map(str, info.get("doc_ids") or ())),
            )
            # The task's mean is known from all groups, and better than from the worst and the best.
            if not score.general:
                yield score


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _evaluation(folder: Path, bins: Sequence[LengthBin]) -> Iterator[TaskScore]:
    """The scores of an evaluation's last point, which is the newest weights."""
    path = folder / _RESULTS
    try:
        points = json.loads(small_text(path))["points"]
        newest = points[-1] if points else {"benchmarks": {}}
        values = {name: one["value"] for name, one in newest["benchmarks"].items()}
        point = str(newest.get("name"))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise PipelineError(f"select.feedback: {path}: not the results of an evaluation: {error!r}") from error
    for name, value in values.items():
        tasks = _ASKS_FOR.get(name, ())
        if tasks and _is_score(value):
            samples = list(_samples(folder / "points" / point / f"{name}.jsonl", bins))
            for task in tasks:
                yield TaskScore(task, float(value))
                for length_bin, language, source, score in samples:
                    yield TaskScore(task, score, length_bin, language, source)


def _samples(path: Path, bins: Sequence[LengthBin]) -> Iterator[tuple[str, Language | None, str | None, float]]:
    """(length bin, language, source, score) of the scored samples whose prompt is as long as one of the bins; language
    and source where the benchmark's rows state them."""
    for entry in read_entries(path).values():
        inside = (one.name for one in bins if one.min_tokens <= entry.prompt_tokens <= one.max_tokens)
        name = next(inside, None)
        if entry.sample.status == "scored" and _is_score(entry.sample.score) and entry.prompt_tokens and name:
            labels = entry.sample.labels
            language = _LANGUAGES.get((labels.get("language") or labels.get("lang") or "").lower())
            yield name, language, labels.get("source"), float(entry.sample.score or 0.0)


def _rows(path: Path) -> Iterator[TaskScore]:
    for where, record in read_records(path):
        if isinstance(record, Unreadable):
            raise PipelineError(f"select.feedback: {where}: {record.reason}")
        if not isinstance(record, dict) or not isinstance(record.get("task"), str):
            raise PipelineError(f"select.feedback: {where}: expected an object with the key task")
        score = record.get("score")
        if score is None:
            continue  # an unscored answer says nothing of the model
        if not _is_score(score):
            raise PipelineError(
                f"select.feedback: {where}: score must be a number from 0 to 1, got {json.dumps(score)}"
            )
        documents = record.get("doc_ids") or ()
        if not isinstance(documents, list | tuple):
            raise PipelineError(f"select.feedback: {where}: doc_ids must be a list, got {json.dumps(documents)}")
        length_bin, language, source = (_text(record.get(key)) for key in ("length_bin", "language", "source"))
        doc_ids = tuple(map(str, documents))
        yield TaskScore(record["task"], float(score), length_bin, language, source, doc_ids)
