"""What a run writes down of itself, step by step: metrics.jsonl and TensorBoard events.

Invariants: one JSON object a step, in order, each step once, flushed before the next begins; after a resume at step k
the steps above k are written anew by the replay (their first record is cut off).
"""

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

FILE = "metrics.jsonl"
STEP = "training/global_step"


class Records:
    """Opened at a step: everything later is cut off. Use as a context manager."""

    def __init__(self, out: Path, resume_at: int) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._path = out / FILE
        # From the beginning means without a record of step 0, too, which the validation before training has.
        _cut(self._path, resume_at or -1)
        self._file = self._path.open("a", encoding="utf-8")
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

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """One step's record; numbers that are not finite are left out (JSON has none)."""
        finite = {name: value for name, value in sorted(metrics.items()) if math.isfinite(value)}
        self._file.write(json.dumps({STEP: step, **finite}) + "\n")
        self._file.flush()
        for name, value in finite.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()


def _cut(path: Path, last: int) -> None:
    """Keep the records of steps up to `last`; a torn last line (a crash while writing) goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record[STEP] <= last:
            kept.append(line + "\n")
    staging = path.with_suffix(".tmp")
    staging.write_text("".join(kept), "utf-8")
    os.replace(staging, path)
