"""What a report shows of a run's files, read in memory that does not grow with the run.

Invariants: no more than `MOST` points a series, each the mean of the steps it stands for (the largest, of a maximum);
totals are of all steps; text of a run is kept as text, and escaped where it is shown.
"""

import json
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from golongrl.errors import reading_from
from golongrl.telemetry import history as runs
from golongrl.telemetry import journal
from golongrl.telemetry.history import History
from golongrl.telemetry.journal import SAMPLES, TIMELINE
from golongrl.telemetry.report.evaluations import RunEvaluation, of_run

# Points of a series: more than a screen has columns for on a phone, and enough on a desk.
MOST: Final = 300
# Changes of the timeline that are drawn, the newest ones, and processes with totals of their own.
CHANGES: Final = 1200
PROCESSES: Final = 40
# Sampled groups that are shown, of the newest step.
GROUPS: Final = 6
# Metrics of one point; a run of a thousand workers has a metric for each.
_NAMES: Final = 500
# A learner that was killed between a record and its checkpoint writes some steps again: that many may be replaced.
_REWRITTEN: Final = 64
_WINDOW: Final = 5
# The year 5138: calendars of Python and of browsers end later.
_LATEST: Final = 1e11

Json = dict[str, Any]


class Mean:
    """A few numbers by name, as the mean of what was added."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._sums: dict[str, tuple[float, int]] = {}

    def add(self, values: Mapping[str, float]) -> None:
        """One more."""
        for name, value in values.items():
            self._put(name, value, 1)

    def merge(self, other: "Mean") -> None:
        """Those of the steps after it."""
        self.step = other.step
        for name, (total, count) in other._sums.items():
            self._put(name, total, count)

    def values(self) -> dict[str, float]:
        """The means, as exact as a picture shows them: more digits would be half of the page."""
        means = (
            (name, total if name.endswith("/max") else total / count) for name, (total, count) in self._sums.items()
        )
        return {name: float(f"{mean:.5g}") for name, mean in means}

    def _put(self, name: str, total: float, count: int) -> None:
        before = self._sums.get(name)
        if before is None:
            if len(self._sums) < _NAMES:
                self._sums[name] = (total, count)
        elif name.endswith("/max"):
            self._sums[name] = (max(before[0], total), 1)
        else:
            self._sums[name] = (before[0] + total, before[1] + count)


class Thinned:
    """A series of any length as at most 2 x `most` points."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._width = 1
        self._filled = 0
        self._points: list[Mean] = []

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """The next step."""
        if self._filled % self._width == 0:
            if len(self._points) >= 2 * self._most:
                self._halve()
            self._points.append(Mean(step))
        self._filled += 1
        last = self._points[-1]
        last.step = step
        last.add(values)

    def _halve(self) -> None:
        for left, right in zip(self._points[::2], self._points[1::2], strict=True):
            left.merge(right)
        self._points = self._points[::2]
        self._width *= 2
        self._filled = len(self._points) * self._width

    def points(self) -> list[tuple[int, dict[str, float]]]:
        """Steps and values."""
        return [(point.step, point.values()) for point in self._points]


@dataclass
class Totals:
    """Of all steps."""

    steps: int = 0
    seconds: float = 0.0
    worst_staleness: float = math.nan
    first: list[float] = field(default_factory=list)
    last: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    groups_from: dict[str, float] = field(default_factory=dict)

    def add(self, record: Mapping[str, float]) -> None:
        """One more step."""
        self.steps += record[runs.STEP] > 0
        self.seconds += record.get("timing_s/step", 0.0)
        staleness = record.get("staleness/max", math.nan)
        if not staleness <= self.worst_staleness and not math.isnan(staleness):
            self.worst_staleness = staleness
        if runs.REWARD in record:
            self.last.append(record[runs.REWARD])
            if len(self.first) < _WINDOW:
                self.first.append(record[runs.REWARD])
        for name, value in record.items():
            worker = name.removeprefix("groups_from/")
            if worker != name and (worker in self.groups_from or len(self.groups_from) < PROCESSES):
                self.groups_from[worker] = self.groups_from.get(worker, 0.0) + value


@dataclass
class RunTimeline:
    """What each process did when.

    Attributes:
        begin: of the first change that is drawn; seconds since 1970.
        spans: (process, state, begin, end), of the newest changes.
        marks: (process, what, when): weights adopted, restarts, quarantines.
        shares: seconds of each process in each state, over all of the run.
    """

    begin: float = 0.0
    spans: list[tuple[str, str, float, float]] = field(default_factory=list)
    marks: list[tuple[str, str, float]] = field(default_factory=list)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class RunData:
    """All that a report shows of a run."""

    history: History
    totals: Totals
    spread: list[tuple[int, dict[str, float]]]
    """Points of how batches are spread: `pass/3`, `advantage/7`, `low/T1`, `high/T1`."""
    groups: list[Json]
    timeline: RunTimeline
    evaluations: Sequence[RunEvaluation] = ()


def gather(folder: Path, evaluations: Iterable[Path] = ()) -> RunData:
    """Read the files of a run, each once, line by line; of its evaluations those that are found, and those asked for.

    Raises:
        InputError: an evaluation that was asked for has no results, or a file cannot be read.
    """
    thinned, totals = Thinned(), Totals()
    for record in _records(folder / "metrics.jsonl"):
        totals.add(record)
        values = {name: value for name, value in record.items() if not name.startswith("groups_from/")}
        thinned.add(int(record[runs.STEP]), values)
    history = History(tuple({**values, runs.STEP: float(step)} for step, values in thinned.points()))
    spread, groups = _samples(journal.read(folder / SAMPLES))
    return RunData(
        history, totals, spread, groups, timeline(journal.read(folder / TIMELINE)), of_run(folder, evaluations)
    )


def _records(path: Path) -> Iterator[dict[str, float]]:
    """The steps' records in order, of each step the last one."""
    waiting: dict[int, dict[str, float]] = {}
    if not path.exists():
        return
    with reading_from(path), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            for step, record in _one(line):
                waiting[step] = record
            if len(waiting) > _REWRITTEN:
                step = min(waiting)
                yield waiting.pop(step)
    yield from (waiting[step] for step in sorted(waiting))


def _one(line: str) -> Iterator[tuple[int, dict[str, float]]]:
    try:
        record = json.loads(line)
        found = [runs.numbers(record)] if isinstance(record, dict) and runs.STEP in record else []
    except (ValueError, TypeError, OverflowError, RecursionError):
        return
    yield from found


def _samples(records: Iterable[Json]) -> tuple[list[tuple[int, dict[str, float]]], list[Json]]:
    thinned, groups, newest = Thinned(), list[Json](), -1
    for record in records:
        step = record.get("step")
        if not isinstance(step, int) or not 0 <= step <= runs.LAST_STEP:
            continue
        if record.get("kind") == "batch":
            # A damaged record costs its point, not the report.
            with suppress(ValueError, TypeError, AttributeError, OverflowError):
                thinned.add(step, _spread(record))
        elif record.get("kind") == "group":
            groups = [*(groups if step == newest else ()), record][:GROUPS]
            newest = step
    return thinned.points(), groups


def _spread(record: Json) -> dict[str, float]:
    found: dict[str, float] = {}
    for kind, name in (("pass_rates", "pass"), ("advantages", "advantage")):
        counts = [float(count) for count in record.get(kind) or ()]
        whole = sum(counts) or 1.0
        found |= {f"{name}/{place}": count / whole for place, count in enumerate(counts)}
    for task, (low, middle, high) in (record.get("tasks") or {}).items():
        found |= {f"low/{task}": float(low), f"middle/{task}": float(middle), f"high/{task}": float(high)}
    return found


def _moment(value: Any) -> float:
    """Seconds since 1970. Raises ValueError: a calendar has no such moment."""
    if not 0 <= (at := float(value)) <= _LATEST:
        raise ValueError(f"{at} is no moment")
    return at


def timeline(changes: Iterable[Json], most: int = CHANGES) -> RunTimeline:
    """Spans and marks from the changes of every process."""
    found, at = RunTimeline(), 0.0
    now: dict[str, tuple[str, float, str]] = {}
    spans: deque[tuple[str, str, float, float]] = deque(maxlen=most)
    marks: deque[tuple[str, str, float]] = deque(maxlen=most)
    for change in changes:
        try:
            at = max(at, _moment(change["at"]))
            who, state, version = str(change["who"]), str(change["is"]), str(change["version"])
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if who not in now and len(now) >= PROCESSES:
            continue
        if who in now:
            was, since, before = now[who]
            spans.append((who, was, since, at))
            _count(found, who, was, at - since)
            if mark := _mark(who, was, state, before, version):
                marks.append((who, mark, at))
                kind = mark.partition(" ")[0]
                found.counts[kind] = found.counts.get(kind, 0) + 1
        now[who] = (state, at, version)
    for who, (state, since, _) in now.items():
        spans.append((who, state, since, at))
        _count(found, who, state, at - since)
    found.spans = [span for span in spans if span[1] != "gone" and span[3] > span[2]]
    found.begin = min((span[2] for span in found.spans), default=0.0)
    found.marks = [mark for mark in marks if mark[2] >= found.begin]
    return found


def _count(found: RunTimeline, who: str, state: str, seconds: float) -> None:
    if state != "gone":
        shares = found.shares.setdefault(who, {})
        shares[state] = shares.get(state, 0.0) + seconds


def _mark(who: str, was: str, state: str, before: str, version: str) -> str:
    """What has happened to a worker or its engine; empty if nothing worth a mark."""
    if who in ("learner", "reward"):
        return ""
    if state == "quarantined" and was != state:
        return "quarantined"
    if was in ("gone", "silent") and state not in ("gone", "silent"):
        return "back"
    if before and not version:
        return "lost its weights"
    return f"took version {version}" if version and version != before else ""
