"""One question of a benchmark, and reading it from a row of the data. Pure.

Invariant: a row that cannot be used is an error that names its file and row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.tables import Record


@dataclass(frozen=True, slots=True)
class EvalProblem:
    """One question without its long text.

    `labels` group the report (domain, length, needles, ...); `extra` is what scoring needs besides the golds. `row`
    counts from 1 in its source.
    """

    key: str
    source: str
    file: str
    row: int
    golds: tuple[str, ...]
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.file} row {self.row}"


@dataclass(frozen=True, slots=True)
class ProblemDraft:
    """A problem before its place in the data is known."""

    key: str
    golds: tuple[str, ...]
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    def at(self, source: str, file: str, row: int) -> EvalProblem:
        """The problem at this place."""
        labels, extra = dict(self.labels), dict(self.extra)
        return EvalProblem(
            key=self.key,
            source=source,
            file=file,
            row=row,
            golds=self.golds,
            question=self.question,
            labels=labels,
            extra=extra,
        )


def text_field(record: Record, name: str, where: str, *, blank: bool = False) -> str:
    """A column that must be a text.

    Raises:
        EvaluationError: it is missing, no text, or (unless `blank`) blank.
    """
    value: Any = record.get(name)
    if value is None:
        raise EvaluationError(f"{where}: no {name}")
    if not isinstance(value, str):
        raise EvaluationError(f"{where}: {name} must be a text, got {type(value).__name__}")
    if not blank and not value.strip():
        raise EvaluationError(f"{where}: {name} is blank")
    return value


def gold_field(record: Record, name: str, where: str) -> str:
    """A column that must be a gold answer: a text that is not blank, or a number.

    Raises:
        EvaluationError: it is missing or something else.
    """
    value: Any = record.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise EvaluationError(f"{where}: {name} must be a text or a number, got {value!r}")
    return str(value)


def text_list(record: Record, name: str, where: str) -> tuple[str, ...]:
    """A column that must be a list of at least one text.

    Raises:
        EvaluationError: it is not.
    """
    value: Any = record.get(name)
    if value is None:
        raise EvaluationError(f"{where}: no {name}")
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
        raise EvaluationError(f"{where}: {name} must be a list of at least one text")
    return tuple(value)
