"""Counts over all rows: one pass, little memory. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from golongrl.data.construct.diagnosis.facts import RowFacts

# Positions of evidence and lengths are counted in so many parts.
PARTS = 20


def percentiles(values: Sequence[int]) -> dict[str, int]:
    """Least, median, 90th percentile, most."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        "least": ordered[0],
        "median": ordered[len(ordered) // 2],
        "p90": ordered[min(len(ordered) - 1, len(ordered) * 9 // 10)],
        "most": ordered[-1],
    }


def histogram(values: Iterable[float], parts: int = PARTS) -> list[int]:
    """How many of these numbers from 0 to 1 lie in each of equal parts."""
    counts = Counter(min(parts - 1, int(value * parts)) for value in values)
    return [counts[part] for part in range(parts)]


def summary(rows: Sequence[RowFacts], positions: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """All counts of a data set; `positions` are those of the evidence, by task type."""
    tasks = sorted({row.task for row in rows})
    cells = Counter((row.task, row.band, row.length_bin, row.lang) for row in rows)
    repeated = Counter(row.digest for row in rows)
    return {
        "rows": len(rows),
        "duplicates": sum(count - 1 for count in repeated.values()),
        "tasks": {task: sum(row.task == task for row in rows) for task in tasks},
        "bands": dict(sorted(Counter(row.band for row in rows).items())),
        "length_bins": dict(sorted(Counter(row.length_bin for row in rows).items())),
        "languages": dict(sorted(Counter(row.lang for row in rows).items())),
        "sources": dict(Counter(row.source for row in rows).most_common()),
        "generators": dict(Counter(row.generator for row in rows).most_common()),
        "cells": [
            {"task": task, "band": band, "length_bin": length, "language": lang, "rows": count}
            for (task, band, length, lang), count in sorted(cells.items())
        ],
        "prompt_tokens": {task: percentiles([row.n_tokens for row in rows if row.task == task]) for task in tasks},
        "gold_tokens": {task: percentiles([row.gold_tokens for row in rows if row.task == task]) for task in tasks},
        "evidence_position": {task: histogram(positions[task]) for task in sorted(positions)},
    }
