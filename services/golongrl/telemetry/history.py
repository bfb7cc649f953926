"""A run's `metrics.jsonl`: one JSON object a step, keys as verl names them, read back as a table.

Invariant of the file: the last line for a step is the one that counts (a learner killed between writing a line and its
checkpoint writes that step's line again when it has replayed it).
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golongrl.errors import reading_from

STEP = "training/global_step"
REWARD = "critic/score/mean"
# The highest number of a step that every reader of JSON holds exactly.
LAST_STEP = (1 << 53) - 1
# Mean reward on the held-out prompts, at the steps that were validated (0 is the initial policy).
VALIDATION = "val/mean"
# Groups that engines held while the step's batch was waited for, on average.
GENERATING = "queue/leased"
# Mean reward of a task type, T1 to T9. (`task_metrics/` has TMN's finer statistics keys, of which a type may have two.)
TYPE_PREFIX = "reward_by_type/"


@dataclass(frozen=True)
class History:
    """Steps of a run, in order; `records[i]` belongs to step `steps[i]`."""

    records: tuple[dict[str, float], ...]

    @property
    def steps(self) -> list[int]:
        return [int(record[STEP]) for record in self.records]

    def series(self, key: str) -> list[float]:
        """The values of `key`, one a step; NaN where a step has none."""
        return [record.get(key, math.nan) for record in self.records]

    def keys(self, prefix: str) -> list[str]:
        """Every key that starts with `prefix`, sorted."""
        return sorted({key for record in self.records for key in record if key.startswith(prefix)})

    def tasks(self) -> list[str]:
        """The task types that were trained on, T1 first."""
        return [key.removeprefix(TYPE_PREFIX) for key in self.keys(TYPE_PREFIX)]

    def task(self, task: str) -> list[float]:
        """The mean reward of a task type, one a step."""
        return self.series(TYPE_PREFIX + task)

    def change(self, key: str = REWARD, window: int = 5) -> tuple[float, float]:
        """Mean of `key` over the first and over the last `window` steps (NaN without any)."""
        values = [value for value in self.series(key) if not math.isnan(value)]
        return mean(values[:window]), mean(values[-window:])


def summary(records: History, wanted: int | None = None) -> str:
    """A finished run in one line; it says so where all rows were used before step `wanted`."""
    first, last = records.change()
    early = wanted is not None and max(records.steps, default=0) < wanted
    why = f" (all rows were used; learner.steps is {wanted})" if early else ""
    return f"done: {sum(step > 0 for step in records.steps)} steps{why}, mean reward {first:.3f} -> {last:.3f}"


def mean(values: Sequence[float] | Sequence[int]) -> float:
    """Arithmetic mean; NaN of nothing."""
    return sum(values) / len(values) if values else math.nan


def numbers(record: Mapping[str, Any]) -> tuple[int, dict[str, float]]:
    """The step of a line of `metrics.jsonl`, and its numbers.

    Raises:
        ValueError, TypeError, OverflowError: the step, or a number, is none that a learner writes.
    """
    step = int(record[STEP])
    if not 0 <= step <= LAST_STEP:
        raise ValueError(f"{step} is no step")
    return step, {key: float(value) for key, value in record.items() if isinstance(value, int | float)}


def parse(lines: Iterable[str]) -> History:
    """Read lines of `metrics.jsonl`; one that is cut short (a killed writer) or damaged is passed over."""
    by_step: dict[int, dict[str, float]] = {}
    for line in lines:
        try:
            record = json.loads(line)
            if isinstance(record, dict) and STEP in record:
                step, values = numbers(record)
                by_step[step] = values
        except (ValueError, TypeError, OverflowError, RecursionError):
            continue
    return History(tuple(by_step[step] for step in sorted(by_step)))


def read(path: Path) -> History:
    """Read `metrics.jsonl`; a run that has not finished a step has no file and an empty history.

    Raises:
        InputError: there is one that cannot be read.
    """
    with reading_from(path):
        try:
            # A damaged byte costs its line, not the table.
            with path.open(encoding="utf-8", errors="replace") as file:
                return parse(file)
        except FileNotFoundError:
            return History(())
