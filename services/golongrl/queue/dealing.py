"""The order in which a run's rows are dealt, in the form that the script `setup` takes. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgpack

from golongrl.arrays import NDArray, np
from golongrl.queue.types import Behind, QueueSettings


def setup_fields(
    settings: QueueSettings, order: Sequence[NDArray[np.int32]], tasks: Sequence[str], behind: Behind | None
) -> tuple[bytes, bytes, bytes, dict[str, Any]]:
    """Row bytes, task-table bytes, what became of the rows behind, and the settings hash.

    Raises:
        ValueError: a row that is not there, or twice in an epoch; more task keys than a byte tells apart.
    """
    for epoch, indices in enumerate(order):
        unique = np.unique(indices)
        if len(unique) != len(indices) or (len(unique) and not 0 <= unique[0] <= unique[-1] < len(tasks)):
            raise ValueError(f"order of epoch {epoch}: rows must be distinct and below {len(tasks)}")
    names = sorted(set(tasks))
    if len(names) > 256:
        raise ValueError(f"{len(names)} task keys; the queue tells 256 apart")
    number = {name: index for index, name in enumerate(names)}
    table = bytes(number[task] for task in tasks)
    rows, epoch_ends = _sequence(order)
    # Of all rows, whatever is behind: the run stays the same.
    digest = hashlib.sha256(msgpack.packb([rows, table, names, epoch_ends])).hexdigest()
    outcome = np.full((len(order), len(tasks)), b"X", "S1")
    for ended, indices in zip(outcome, order, strict=True):
        ended[indices] = b""
    if behind is not None:
        for epoch, ended in enumerate(outcome):
            ended[behind.rows[behind.rows[:, 0] == epoch, 1]] = b"T"
        left = [indices[outcome[epoch, indices] != b"T"] for epoch, indices in enumerate(order)]
        rows, epoch_ends = _sequence(left)
    return (
        rows,
        table,
        outcome.tobytes(),
        {
            **asdict(settings),
            "row_count": len(rows) // 4,
            "table_rows": len(tasks),
            "digest": f"sha256-{digest}",
            "epoch_ends": epoch_ends,
            "task_names": names,
            "begin": 0 if behind is None else behind.step,
        },
    )


def _sequence(order: Sequence[NDArray[np.int32]]) -> tuple[bytes, list[int]]:
    """All epochs' rows one after the other, and where each epoch ends."""
    rows = b"".join(np.ascontiguousarray(indices, "<i4").tobytes() for indices in order)
    return rows, np.cumsum([len(indices) for indices in order]).tolist()
