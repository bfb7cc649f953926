"""What a run writes down of itself, step by step: metrics.jsonl and TensorBoard events.

Invariants: one JSON object a step, in order, each step once, durable before the next begins; after a resume at step k
the steps above k are written anew by the replay (their first record is cut off).
"""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from golongrl.learner.durable import replace, writing

FILE = "metrics.jsonl"
STEP = "training/global_step"


class Records:
    """Opened at a step: everything later is cut off. Use as a context manager.

    Raises:
        NotWritten: opening, `write` and `amend`: the storage refused.
    """

    def __init__(self, out: Path, resume_at: int) -> None:
        self._path = out / FILE
        with writing("metrics", self._path):
            out.mkdir(parents=True, exist_ok=True)
            # From the beginning means without a record of step 0, too, which the validation before training has.
            kept = _until(self._path, resume_at or -1)
            replace(self._path, _lines(kept))
            self._file = self._path.open("a", encoding="utf-8")
        self._last: dict[str, float] = kept[-1] if kept else {}
        # Imported here: it takes a second, and only a learner needs it.
        from torch.utils.tensorboard import SummaryWriter

        # purge_step: TensorBoard hides what an earlier process wrote at or after it.
        self._events: Any = SummaryWriter(str(out / "tensorboard"), purge_step=resume_at + 1 if resume_at else 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._events.close()
        self._file.close()

    def has(self, step: int, name: str) -> bool:
        """Whether the last record is of `step` and has the metric."""
        return self._last.get(STEP) == step and name in self._last

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One step's record; numbers that are not finite are left out (JSON has none)."""
        finite = _finite(metrics)
        self._last = {STEP: step, **finite}
        with writing("metrics", self._path):
            self._file.write(_lines([self._last]))
            self._file.flush()
            os.fsync(self._file.fileno())
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

    def _show(self, step: int, finite: Mapping[str, float]) -> None:
        for name, value in finite.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}


def _lines(records: list[dict[str, float]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def _until(path: Path, last: int) -> list[dict[str, float]]:
    """The records of steps up to `last`, without a torn last line (a crash while writing)."""
    if not path.exists():
        return []
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record[STEP] <= last:
            kept.append(record)
    return kept
