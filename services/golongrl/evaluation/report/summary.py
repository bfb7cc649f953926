"""The scores of one evaluation in a few lines of JSON, for whoever sees its pod but not its volume.

Kubernetes cuts a container's termination message after 4096 bytes. A longer summary is made shorter first: without its
notes, then without some benchmarks, which `more` counts.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from golongrl.errors import InputError, writing_to
from golongrl.evaluation.report.text import notes
from golongrl.files.writing import is_direct
from golongrl.reading import small_text

# Of Kubernetes, which counts bytes.
LONGEST: Final = 4096
_LONGEST_NOTE: Final = 100


class Score(BaseModel):
    """One benchmark.

    Attributes:
        score: in percent; None where there is no number, and `note` says why.
        samples: that were asked.
        expected: that the suite asks for: the denominator of a score.
    """

    model_config = ConfigDict(frozen=True)

    benchmark: str
    score: float | None
    stderr: float | None = None
    samples: int
    expected: int
    note: str = ""


class Summary(BaseModel):
    """The newest model of an evaluation."""

    model_config = ConfigDict(frozen=True)

    suite: str
    model: str
    report: str
    scores: tuple[Score, ...]
    average: float | None = None
    """Of the paper's six columns, where all are there."""
    more: int = 0
    """Benchmarks that found no room."""


def summarize(found: Mapping[str, Any], report: Path, step: int | None = None) -> Summary:
    """The summary of results.json: of one step, or of the newest model."""
    points = [point for point in found["points"] if step in (None, point["step"])]
    point = points[-1]
    scores = tuple(
        Score(
            benchmark=name,
            score=None if one["value"] is None else round(100 * one["value"], 2),
            stderr=None if one["stderr"] is None else round(100 * one["stderr"], 2),
            samples=one["asked"],
            expected=one["expected"],
            note="; ".join(notes(one))[:_LONGEST_NOTE],
        )
        for name, one in point["benchmarks"].items()
    )
    average = point["paper_average"]
    return Summary(
        suite=found["suite"],
        model=point["name"],
        report=str(report),
        scores=scores,
        average=None if average is None else round(average, 2),
    )


def refuse_place(path: Path) -> None:
    """Refuse a file that holds something else, such as the answers of an evaluation, or cannot be written: now, and not
    after hours of asking.

    Raises:
        InputError: so.
    """
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"--summary {path}: is a folder, or in none; name a file in a folder that is there")
    if is_direct(path, path) or not path.exists():
        return
    if not os.access(path, os.W_OK):
        raise InputError(f"--summary {path}: this file may not be written; name another one")
    try:
        text = small_text(path)
    except (OSError, UnicodeDecodeError):
        text = path.name  # too large, or no text: no summary, whatever it says
    if text and read(text) is None:
        raise InputError(f"--summary {path}: holds something else than an evaluation's summary; name another file")


def write(summary: Summary, path: Path) -> None:
    """In place, because a container's termination log is a mounted file that cannot be replaced."""
    with writing_to(str(path)):
        path.write_text(fitted(summary), "utf-8")


def fitted(summary: Summary) -> str:
    """As JSON of at most LONGEST bytes."""
    bare = tuple(one.model_copy(update={"note": ""}) for one in summary.scores)
    whole = [summary, summary.model_copy(update={"scores": bare})]
    shorter = (
        summary.model_copy(update={"scores": bare[:kept], "more": len(bare) - kept})
        for kept in range(len(bare), -1, -1)
    )
    texts = (json.dumps(one.model_dump(exclude_defaults=True), ensure_ascii=False) for one in (*whole, *shorter))
    return next(text for text in texts if len(text.encode()) <= LONGEST)


def read(text: str) -> Summary | None:
    """What `fitted` made; None of other text, such as the last line of a log."""
    try:
        return Summary.model_validate_json(text)
    except ValidationError:
        return None
