"""`golongrl eval compare`: two evaluations of the same problems, difference by difference.

The differences are paired: each problem's mean over its repeats in one evaluation minus that in the other. Their
standard error is far below that of two independent means, because most of the spread is between problems. Only problems
of both count; how many there are in one alone is said.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from golongrl.errors import InputError
from golongrl.evaluation.report import results
from golongrl.evaluation.store.journal import SampleEntry

# Two-sided 95 % of Student's t by degrees of freedom; between them the smaller number of degrees is taken.
_T = ((1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (6, 2.447), (7, 2.365), (8, 2.306), (9, 2.262),
      (10, 2.228), (15, 2.131), (20, 2.086), (30, 2.042), (60, 2.000), (120, 1.980), (100_000, 1.960))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """After minus before, of one benchmark, in shares of 1. `low` and `high` are None below two problems."""

    benchmark: str
    before: float
    after: float
    difference: float
    low: float | None
    high: float | None
    problems: int
    better: int
    worse: int
    only_before: int
    only_after: int
    note: str = ""


def compared(before: Path, after: Path) -> list[Difference]:
    """The benchmarks that both evaluations have, of their last points.

    Raises:
        InputError: one of the folders has no results, or they were scored in different modes.
    """
    old, new = results.collect(before), results.collect(after)
    if old["mode"] != new["mode"]:
        raise InputError(f"compare: {before} was scored in mode {old['mode']}, {after} in {new['mode']}")
    if not old["points"] or not new["points"]:
        raise InputError(f"compare: {before if not old['points'] else after} has no samples yet")
    found = []
    one, other = old["points"][-1], new["points"][-1]
    for name in one["benchmarks"]:
        if name in other["benchmarks"]:
            samples = _samples(before, one["name"], name), _samples(after, other["name"], name)
            differs = [
                key for key, value in one["benchmarks"][name]["settings"].items()
                if other["benchmarks"][name]["settings"][key] != value
            ]  # fmt: skip
            note = f"asked with different {', '.join(differs)}" if differs else ""
            judges = "judged by different models" if old["judge"] != new["judge"] else ""
            notes = filter(None, [note, judges, _unscored(*samples)])
            found.append(difference(name, means(samples[0]), means(samples[1]), "; ".join(notes)))
    return found


def _samples(out: Path, point: str, benchmark: str) -> list[SampleEntry]:
    course = results.read_course(out, point, benchmark)
    assert course is not None
    return list(results.samples_of(out, point, course).values())


def _unscored(before: Sequence[SampleEntry], after: Sequence[SampleEntry]) -> str:
    """How many samples have no score; nothing where all have one."""
    counts = [sum(entry.sample.score is None for entry in entries) for entries in (before, after)]
    return f"no score, counted as 0: {counts[0]} samples before, {counts[1]} after" if any(counts) else ""


def means(entries: Iterable[SampleEntry]) -> dict[str, float]:
    """Each problem's mean over its repeats; what has no score counts as 0, as in the headline."""
    scores: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        scores[entry.sample.problem].append(entry.sample.score or 0.0)
    return {problem: sum(values) / len(values) for problem, values in scores.items()}


def difference(benchmark: str, before: dict[str, float], after: dict[str, float], note: str = "") -> Difference:
    """The paired difference over the problems of both."""
    both = sorted(before.keys() & after.keys())
    gaps = [after[problem] - before[problem] for problem in both]
    number = len(gaps)
    mean = sum(gaps) / number if number else 0.0
    low = high = None
    if number > 1:
        error = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / (number - 1) / number)
        # No difference is above all there is; with two or three problems the interval would say so.
        low, high = (max(-1.0, min(1.0, mean + side * student(number - 1) * error)) for side in (-1, 1))
    return Difference(
        benchmark=benchmark,
        before=sum(before[problem] for problem in both) / number if number else 0.0,
        after=sum(after[problem] for problem in both) / number if number else 0.0,
        difference=mean,
        low=low,
        high=high,
        problems=number,
        better=sum(gap > 0 for gap in gaps),
        worse=sum(gap < 0 for gap in gaps),
        only_before=len(before) - number,
        only_after=len(after) - number,
        note=note,
    )


def student(degrees: int) -> float:
    """Two-sided 95 % quantile of Student's t; never below the true one."""
    return next(value for known, value in reversed(_T) if known <= degrees)


def lines(found: Sequence[Difference]) -> Iterator[str]:
    """A line for each benchmark, in percent."""
    for one in found:
        if not one.problems:
            yield f"{one.benchmark}: no problem in both"
            continue
        interval = "" if one.low is None or one.high is None else f" [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"
        alone = "".join(
            f", {number} only {where}" for number, where in ((one.only_before, "before"), (one.only_after, "after"))
            if number
        )  # fmt: skip
        text = (
            f"{one.benchmark}: {100 * one.before:.1f} -> {100 * one.after:.1f}, {100 * one.difference:+.1f}{interval}; "
            f"{one.problems} problems, {one.better} better, {one.worse} worse{alone}"
        )
        yield f"{text} ({one.note})" if one.note else text
