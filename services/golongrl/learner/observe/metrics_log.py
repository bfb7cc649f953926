"""The record of a run, step by step: metrics.jsonl, and what shows it: the trackers (`tracking`) and Prometheus.

Invariants: one JSON object a step, in order, each step once, durable before the next begins; after a resume at step k
the replay writes the steps above k again (their first record is cut off). A record that could not be written completely
is removed.
"""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from golongrl.errors import InputError
from golongrl.learner.fsync import replace, writing
from golongrl.learner.observe.metrics import LearnerMetrics
from golongrl.learner.observe.tracking import TensorBoard, Tracking, WeightsAndBiases

FILE = "metrics.jsonl"
STEP = "training/global_step"


class Records:
    """Opened at a step: everything later is cut off. Use as a context manager.

    Raises:
        NotWrittenError: opening, `write` and `amend`: the storage refused.
    """

    def __init__(
        self, out: Path, resume_at: int, tracking: Tracking | None = None, series: LearnerMetrics | None = None
    ) -> None:
        self._path = out / FILE
        with writing("metrics", self._path):
            out.mkdir(parents=True, exist_ok=True)
            # From the beginning means without a record of step 0, too, which the validation before training has.
            kept = _until(self._path, resume_at or -1)
            replace(self._path, _lines(kept))
            self._file = self._path.open("a", encoding="utf-8")
        self._last: dict[str, float] = kept[-1] if kept else {}
        self._trackers: list[TensorBoard | WeightsAndBiases] = [TensorBoard(out, resume_at)]
        self._series = series
        if tracking is not None:
            self._trackers.append(WeightsAndBiases(out, tracking))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        for tracker in self._trackers:
            tracker.close()

    def has(self, step: int, name: str) -> bool:
        """Whether the last record is of `step` and has the metric."""
        return self._last.get(STEP) == step and name in self._last

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One step's record; numbers that are not finite are left out (JSON has none)."""
        finite = _finite(metrics)
        self._last = {STEP: step, **finite}
        with writing("metrics", self._path):
            self._append(_lines([self._last]))
        self._show(step, finite)

    def amend(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add to the record of `step`, which is the last one, or else is written now."""
        if self._last.get(STEP) != step:
            self.write(step, metrics)
            return
        finite = _finite(metrics)
        self._last |= finite
        with writing("metrics", self._path):
            self._file.close()
            replace(self._path, _lines([*_until(self._path, step - 1), self._last]))
            self._file = self._path.open("a", encoding="utf-8")
        self._show(step, finite)

    def _append(self, line: str) -> None:
        size = self._path.stat().st_size
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            # Closing would write what is left in its buffer.
            with contextlib.suppress(OSError):
                self._file.close()
            os.truncate(self._path, size)
            raise

    def _show(self, step: int, finite: Mapping[str, float]) -> None:
        if self._series is not None:
            self._series.observe(step, finite)
        for tracker in self._trackers:
            tracker.show(step, finite)


def check(out: Path) -> None:
    """
    Raises:
        InputError: the metrics file in `out` is another program's.
    """
    _until(out / FILE, -1)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}


def _lines(records: list[dict[str, float]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _until(path: Path, last: int) -> list[dict[str, float]]:
    """The records of steps up to `last`, without a torn last line (a crash while writing).

    Raises:
        InputError: it is another program's file.
    """
    if not path.exists():
        return []
    kept, lines, torn = [], path.read_bytes().splitlines(), 0
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            torn += 1
            continue
        if not isinstance(record, dict) or not isinstance(record.get(STEP), int):
            raise InputError(
                f"{path} is not a learner's: line {number} has no {STEP}; move it, or choose another folder"
            )
        if record[STEP] <= last:
            kept.append(record)
    if torn and torn == len(lines) > 1:
        raise InputError(f"{path} is not a learner's: no line of it is JSON; move it, or choose another folder")
    return kept
