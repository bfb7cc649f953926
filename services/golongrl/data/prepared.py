"""A prepared dataset: tokenised rows in one memory-mapped Arrow file, so that a row costs the same wherever it lies.

Worker and learner open the same folder; the queue deals in row numbers only.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from golongrl.data.errors import DataError
from golongrl.reading import file_sha256, read_text

FILE = "rows.arrow"
# What the file was when it was written: Arrow has no checksums, and any number is a prompt's id.
CHECKSUM = "rows.sha256"
# Folders of the splits under a prepared root.
TRAIN, VALIDATION = "train", "validation"
# The `task` of a held-out row that is a benchmark's problem: the learner scores its answers, not the reward service.
BENCHMARK = "benchmark"
# Rows in a record batch: fixed, so that a row's batch is a division. 64 prompts of 160K tokens are 40 MB.
BATCH_ROWS = 64

# Of a prompt, so many ids at its two ends are part of the digest: a run may have gigabytes of prompts.
_HEAD, _TAIL = 64, 256
_DIGEST_BYTES = 16
# Bytes of a checksum's file.
_LONGEST_CHECKSUM = 100
_BREAK = "\n"

_SCHEMA = pa.schema(
    [
        ("prompt_ids", pa.list_(pa.int32())),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("task_key", pa.string()),
        ("data_source", pa.string()),
        ("reward_mode", pa.string()),
        ("ability", pa.string()),
        ("ground_truth", pa.string()),
        ("extra_info", pa.string()),
    ]
)
# Columns with JSON objects.
_OBJECTS = ("ground_truth", "extra_info")


@dataclass(frozen=True, slots=True)
class PreparedRow:
    """A prompt ready to be generated from and scored. `prompt_ids` is int32 of shape [tokens], read-only."""

    index: int
    prompt_ids: NDArray[np.int32]
    task: str
    metric: str
    task_key: str
    data_source: str
    reward_mode: str
    ground_truth: dict[str, Any]
    extra_info: dict[str, Any]
    ability: str


def open_splits(root: Path, *, every_byte: bool = False) -> "tuple[Prepared, Prepared | None]":
    """The prompts to train on and, where there are any, to validate on: `root/train` and `root/validation`.

    Args:
        every_byte: compare the files with their checksums, about a second for each gigabyte.

    Raises:
        DataError: one of them is not a prepared dataset, is damaged, or there is none to train on.
    """
    held_out = Path(root) / VALIDATION
    if every_byte:
        for folder in (Path(root) / TRAIN, held_out):
            _refuse_changed(folder)
    return Prepared.open(Path(root) / TRAIN), Prepared.open(held_out) if held_out.is_dir() else None


class Prepared:
    """Read access to a prepared folder."""

    def __init__(self, batches: list[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rows: int = sum(batch.num_rows for batch in batches)
        self.tasks: list[str] = [key for batch in batches for key in batch.column("task_key").to_pylist()]
        self.task_types: list[str] = [name for batch in batches for name in batch.column("task").to_pylist()]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Map the folder's rows into memory.

        Raises:
            DataError: it is not a prepared dataset.
        """
        path = Path(folder) / FILE
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            if not reader.schema.equals(_SCHEMA):
                raise DataError(f"prepared data {path}: written by another version; prepare the data again")
            batches = [_whole(reader.get_batch(i)) for i in range(reader.num_record_batches)]
        except FileNotFoundError as error:
            raise DataError(f"prepared data {path}: no such file; prepare the data again") from error
        except (OSError, ValueError, RecursionError, pa.ArrowException) as error:
            raise DataError(
                f"prepared data {path}: damaged ({str(error).partition(_BREAK)[0]}); prepare the data again"
            ) from error
        return cls(batches)

    def __len__(self) -> int:
        return self._rows

    def row(self, index: int) -> PreparedRow:
        """One row; the ids are a view of the file.

        Raises:
            IndexError: there is no such row.
        """
        if not 0 <= index < self._rows:
            raise IndexError(f"row {index} of {self._rows}")
        batch = self._batches[index // BATCH_ROWS]
        at = index % BATCH_ROWS

        def text(name: str) -> str:
            value: str = batch.column(name)[at].as_py()
            return value

        ids = batch.column("prompt_ids")[at].values.to_numpy(zero_copy_only=True)
        return PreparedRow(
            index=index,
            prompt_ids=ids,
            task=text("task"),
            metric=text("metric"),
            task_key=text("task_key"),
            data_source=text("data_source"),
            reward_mode=text("reward_mode"),
            ground_truth=json.loads(text("ground_truth")),
            extra_info=json.loads(text("extra_info")),
            ability=text("ability"),
        )

    @cached_property
    def digest(self) -> str:
        """What tells these rows from others, which learner and workers of a run must share: of all rows in their order,
        all fields, the length of each prompt and the ids at its ends."""
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for batch in self._batches:
            for name in _SCHEMA.names[1:]:
                digest.update(json.dumps(batch.column(name).to_pylist()).encode())
            prompts = batch.column("prompt_ids")
            ids, ends = prompts.values.to_numpy(zero_copy_only=True), prompts.offsets.to_numpy()
            digest.update(np.diff(ends).tobytes())
            for start, end in pairwise(ends.tolist()):
                digest.update(ids[start : min(end, start + _HEAD)].tobytes())
                digest.update(ids[max(start, end - _TAIL) : end].tobytes())
        return digest.hexdigest()

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Prompt tokens of each row, shape [rows]."""
        from pyarrow import compute

        parts = [compute.list_value_length(batch.column("prompt_ids")).to_numpy() for batch in self._batches]
        return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)


def _refuse_changed(folder: Path) -> None:
    path = folder / FILE
    try:
        written = read_text(folder / CHECKSUM, _LONGEST_CHECKSUM).strip()
        changed = written != file_sha256(path)
    except FileNotFoundError:
        return  # of an earlier version, or no rows, which `Prepared.open` names
    except OSError as error:
        raise DataError(f"prepared data {folder}: {error.strerror}; prepare the data again") from error
    if changed:
        raise DataError(f"prepared data {path}: damaged (it is not what {CHECKSUM} says); prepare the data again")


def _whole(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, none of whose values can end the process or a row. The ids are not looked at: they are gigabytes.

    Raises:
        ValueError, RecursionError, pa.ArrowException: it is damaged.
    """
    # Arrow trusts a file: reading values through wrong offsets would be a crash.
    batch.validate(full=True)
    for name in _SCHEMA.names:
        if batch.column(name).null_count:
            raise ValueError(f"{name} has rows without a value")
    for name in _OBJECTS:
        for text in batch.column(name).to_pylist():
            if not isinstance(json.loads(text), dict):
                raise ValueError(f"{name} has a row that is no object")
    return batch


def write_prepared(rows: Iterable[PreparedRow], folder: Path) -> int:
    """Write rows (their `index` is given by position) as a prepared folder; returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    pending: list[dict[str, Any]] = []
    with pa.OSFile(str(folder / FILE), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
        for row in rows:
            pending.append(_record(row))
            count += 1
            if len(pending) == BATCH_ROWS:
                writer.write_batch(pa.RecordBatch.from_pylist(pending, schema=_SCHEMA))
                pending = []
        if pending:
            writer.write_batch(pa.RecordBatch.from_pylist(pending, schema=_SCHEMA))
    (folder / CHECKSUM).write_text(file_sha256(folder / FILE) + "\n", "utf-8")
    return count


def _record(row: PreparedRow) -> dict[str, Any]:
    return {
        "prompt_ids": row.prompt_ids,
        "task": row.task,
        "metric": row.metric,
        "task_key": row.task_key,
        "data_source": row.data_source,
        "reward_mode": row.reward_mode,
        "ability": row.ability,
        "ground_truth": json.dumps(row.ground_truth, ensure_ascii=False),
        "extra_info": json.dumps(row.extra_info, ensure_ascii=False),
    }
