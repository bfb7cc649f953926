"""From scored samples to figures: means in both readings, pass@k, errors clustered by problem.

A sample without a score (failed, skipped, unjudged) stays in the denominator: `mean` counts it as 0 and says how many
there are, `mean_scored` leaves it out. Both are always reported; `value` is the one that a mode takes as its headline.
Errors are clustered: repeats of one problem are not independent, so the spread between problems counts.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Mode, Sample

TOTAL = "total"


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """The figures of all samples, or of those with one value of one label. Scores are shares of 1, not percent."""

    label: str
    group: str
    value: float | None
    mean: float | None
    mean_scored: float | None
    stderr: float | None
    samples: int
    problems: int
    scored: int
    failed: int = 0
    skipped: int = 0
    unjudged: int = 0
    truncated: int = 0
    unparsed: int = 0


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """A benchmark's result: the total first, then each label's groups; `figures` are further named numbers."""

    benchmark: str
    mode: Mode
    rows: tuple[ScoreRow, ...]
    figures: Mapping[str, float] = field(default_factory=dict)

    @property
    def total(self) -> ScoreRow:
        """The row over all samples."""
        return self.rows[0]


def by_label(
    name: str,
    samples: Sequence[Sample],
    mode: Mode,
    *,
    labels: Sequence[str] = (),
    drop_failures: bool = False,
    repeats: int = 1,
    judged: bool = False,
) -> ScoreTable:
    """The mean over samples (of equal repeats that is avg@k), and by each of the labels."""
    rows = [row(TOTAL, "", samples, drop=drop_failures)]
    for label in labels:
        groups: dict[str, list[Sample]] = defaultdict(list)
        for sample in samples:
            if label in sample.labels:
                groups[sample.labels[label]].append(sample)
        rows += [row(label, group, members, drop=drop_failures) for group, members in sorted(groups.items())]
    return ScoreTable(name, mode, tuple(rows), _figures(samples, repeats, judged))


def row(label: str, group: str, samples: Sequence[Sample], *, drop: bool = False) -> ScoreRow:
    """The figures of these samples; `drop` makes the mean without failures the headline."""
    scores = [sample.score for sample in samples if sample.score is not None]
    mean = sum(scores) / len(samples) if samples else None
    mean_scored = sum(scores) / len(scores) if scores else None
    clusters: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        if sample.score is not None or not drop:
            clusters[sample.problem].append(sample.score or 0.0)
    return ScoreRow(
        label=label,
        group=group,
        value=mean_scored if drop else mean,
        mean=mean,
        mean_scored=mean_scored,
        stderr=clustered_stderr(list(clusters.values())),
        samples=len(samples),
        problems=len({sample.problem for sample in samples}),
        scored=len(scores),
        failed=sum(sample.status == "failed" for sample in samples),
        skipped=sum(sample.status == "skipped" for sample in samples),
        unjudged=sum(sample.status in ("unjudged", "needs_judge") for sample in samples),
        truncated=sum("truncated" in sample.flags for sample in samples),
        unparsed=sum("unparsed" in sample.flags for sample in samples),
    )


def mean_of_groups(label: str) -> Callable[[ScoreTable, Sequence[Sample], Mode], ScoreTable]:
    """Makes the total the unweighted mean over the groups of a label, as some benchmarks define it."""

    def refine(table: ScoreTable, _samples: Sequence[Sample], _mode: Mode) -> ScoreTable:
        groups = [one for one in table.rows if one.label == label and one.value is not None]
        if not groups:
            return table
        errors = [one.stderr for one in groups if one.stderr is not None]
        known = len(errors) == len(groups)
        total = replace(
            table.total,
            value=_mean([one.value for one in groups]),
            mean=_mean([one.mean for one in groups]),
            mean_scored=_mean([one.mean_scored for one in groups]),
            stderr=math.sqrt(sum(error**2 for error in errors)) / len(groups) if known else table.total.stderr,
        )
        return replace(table, rows=(total, *table.rows[1:]))

    return refine


def _mean(values: Sequence[float | None]) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _figures(samples: Sequence[Sample], repeats: int, judged: bool) -> dict[str, float]:
    """The rule-based mean where a judge has the last word, the parts' means, pass@k of complete repeats."""
    figures: dict[str, float] = {}
    rules = [sample.rule for sample in samples if sample.rule is not None]
    if judged and rules:
        figures["rule"] = sum(rules) / len(samples)
    parts: dict[str, float] = defaultdict(float)
    for sample in samples:
        for part, value in sample.parts.items():
            parts[part] += value
    figures |= {part: value / len(samples) for part, value in parts.items()}
    tries: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        tries[sample.problem].append(sample.score or 0.0)
    if repeats > 1 and tries and all(len(scores) == repeats for scores in tries.values()):
        passed = [pass_at_k(repeats, sum(value >= 1.0 for value in scores), repeats) for scores in tries.values()]
        figures[f"pass@{repeats}"] = sum(passed) / len(passed)
    return figures


def clustered_stderr(clusters: Sequence[Sequence[float]]) -> float | None:
    """Standard error of the mean over all values, for values that are dependent inside a cluster.

    For clusters of equal size it is the standard error of the mean of the clusters' means. None below two clusters.
    """
    number = len(clusters)
    size = sum(len(cluster) for cluster in clusters)
    if number < 2 or not size:
        return None
    mean = sum(map(sum, clusters)) / size
    squares = sum(sum(value - mean for value in cluster) ** 2 for cluster in clusters)
    return math.sqrt(squares * number / (number - 1)) / size


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of k of n tries is right, c of them being right; without bias.

    Raises:
        EvaluationError: not 0 <= c <= n, or not 1 <= k <= n.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise EvaluationError(f"pass@{k}: needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


@dataclass(frozen=True, slots=True)
class ByType:
    """A mean over questions, and a mean over the types' means."""

    task_averaged: float
    overall: float


def by_type(types: Mapping[str, Sequence[float]]) -> ByType:
    """Both means of scores grouped by type; a type without scores does not count.

    Raises:
        EvaluationError: there are no scores.
    """
    groups = [list(scores) for scores in types.values() if scores]
    if not groups:
        raise EvaluationError("there are no scores to average")
    everything = [score for group in groups for score in group]
    return ByType(sum(sum(group) / len(group) for group in groups) / len(groups), sum(everything) / len(everything))
