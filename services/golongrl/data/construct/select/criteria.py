"""Which documents suit which task type, by what they are and what they hold. Pure.

A criterion is a least count of some features; where several are named, one of them is enough. A document that has much
of what a task needs is preferred, but never by more than `_MOST_PREFERRED`, so that a few documents do not become all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from golongrl.data.construct.models import Criterion
from golongrl.recipe import TaskType

_MOST_PREFERRED: Final = 4.0

# What a task needs at least. Retrieval (T1, T2) needs text of some length; exhaustive search, clusters and rankings
# (T3, T6, T7) need many parts; sums need numbers; tables, lists or many numbers make rows; an order needs events or
# steps; a summary needs prose.
DEFAULTS: Final[Mapping[TaskType, Criterion]] = {
    "T1": Criterion(features={"paragraphs": 3}),
    "T2": Criterion(features={"paragraphs": 3}),
    "T3": Criterion(features={"headings": 3, "paragraphs": 8, "list_lines": 8}),
    "T4": Criterion(features={"numbers": 10, "paragraphs": 8}),
    "T5": Criterion(features={"table_lines": 3, "list_lines": 8, "numbers": 20}),
    "T6": Criterion(features={"headings": 3, "paragraphs": 8, "list_lines": 8}),
    "T7": Criterion(features={"headings": 3, "paragraphs": 8}),
    "T8": Criterion(features={"dates": 3, "headings": 3, "paragraphs": 6}),
    "T9": Criterion(features={"long_paragraphs": 2, "speech": 10}),
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is known of a document without its text."""

    doc_id: str
    lang: str
    source: str
    n_tokens: int
    features: Mapping[str, int]


def preference(candidate: Candidate, criterion: Criterion) -> float:
    """How much a document is preferred for a task; 0 where it does not suit."""
    if criterion.sources is not None and candidate.source not in criterion.sources:
        return 0.0
    if not criterion.features:
        return 1.0
    enough = [candidate.features.get(name, 0) / least for name, least in criterion.features.items() if least]
    best = max(enough, default=1.0)
    return min(_MOST_PREFERRED, sqrt(best)) if best >= 1 else 0.0


def suiting(candidates: Sequence[Candidate], criterion: Criterion) -> list[tuple[Candidate, float]]:
    """The candidates that suit, with their preferences."""
    weighed = [(candidate, preference(candidate, criterion)) for candidate in candidates]
    return [(candidate, weight) for candidate, weight in weighed if weight > 0]
