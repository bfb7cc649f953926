"""One row of a dataset, in the format of `Kwai-Klear/GoLongRL`, and reading files of them.

Built and downloaded data take this same road. Unknown fields are kept, missing or mistyped ones are refused with the
file, the row's number (from 1) and the key.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from golongrl import files
from golongrl.data.errors import DataError

# Rows decoded at once from parquet; a row of a long-context dataset may hold a megabyte.
_PARQUET_BATCH = 64


class _ParquetPart(BaseModel):
    # Datasets carry fields of their own: they are kept, not refused.
    model_config = ConfigDict(extra="allow", frozen=True)


class Message(_ParquetPart):
    """A chat message."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str


class GroundTruth(_ParquetPart):
    """What the response is scored against (which field depends on the task; see `golongrl.tasks`)."""

    doc_ids: list[str] = Field(default_factory=list, description="Gold items of LongBench-Pro rows.")
    golden_label: str | list[str] = Field("", description="Gold answer of the other rows.")
    summary: str = Field("English", description="The LANGUAGE of the row, in spite of its name.")


class RewardModel(_ParquetPart):
    """The dataset nests the gold answer in this."""

    ground_truth: GroundTruth


class ExtraInfo(_ParquetPart):
    """Which rule scores the row, and the bare question."""

    reward_mode: str
    question: str = ""


class Row(_ParquetPart):
    """A prompt with its gold answer."""

    data_source: str
    prompt: list[Message] = Field(min_length=1)
    ability: str = ""
    reward_model: RewardModel
    extra_info: ExtraInfo

    @property
    def ground_truth(self) -> dict[str, Any]:
        """The gold answer as a plain mapping, as `golongrl.tasks.score` takes it."""
        return self.reward_model.ground_truth.model_dump()


def parse_row(record: object, where: str) -> Row:
    """Check one decoded record.

    Raises:
        DataError: naming `where` and the first wrong key.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: expected an object, got {type(record).__name__}")
    try:
        return Row.model_validate(record)
    except ValidationError as error:
        first, *others = error.errors()
        key = ".".join(str(part) for part in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        problem = f"missing key {key}" if first["type"] == "missing" else f"{key}: {first['msg']}"
        raise DataError(f"{where}: {problem}{more}") from error


def files_of(path: str | Path) -> list[Path]:
    """The dataset files that `path` names: itself, or the parquet (else jsonl) files of a folder in name order.

    Raises:
        DataError: nothing there, or a suffix that is not read.
    """
    root = Path(path)
    if root.is_dir():
        for suffix in (".parquet", ".jsonl"):
            if files := sorted(root.rglob(f"*{suffix}")):
                return files
        raise DataError(f"data {root}: no .parquet or .jsonl file in this folder")
    if not root.is_file():
        raise DataError(f"data {root}: no such file or folder")
    if root.suffix not in (".parquet", ".jsonl"):
        raise DataError(f"data {root}: expected .parquet or .jsonl, got {root.suffix or 'no suffix'}")
    return [root]


def read_records(path: str | Path) -> Iterator[tuple[str, object]]:
    """(where, decoded record) of every row, not checked yet; `where` names file and row.

    Raises:
        DataError: a file is missing or not what its suffix says.
    """
    for file in files_of(path):
        records = _parquet(file) if file.suffix == ".parquet" else _jsonl(file)
        for number, record in enumerate(records, start=1):
            yield f"{file} row {number}", record


def read_rows(path: str | Path) -> Iterator[Row]:
    """Every row of a parquet or jsonl file, or of a folder of them, checked.

    Raises:
        DataError: at the first row that is wrong.
    """
    for where, record in read_records(path):
        yield parse_row(record, where)


def write_rows(rows: Iterable[Row], path: Path) -> int:
    """Write rows as jsonl or parquet (by suffix); returns how many.

    Raises:
        DataError: another suffix.
    """
    if path.suffix not in (".parquet", ".jsonl"):
        raise DataError(f"--out {path}: expected .parquet or .jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    records = [row.model_dump(mode="json") for row in rows]
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        with files.replacing(path) as staging:
            pq.write_table(pa.Table.from_pylist(records), staging)
    else:
        files.write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    return len(records)


def _parquet(file: Path) -> Iterator[object]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as reader:
            for batch in reader.iter_batches(batch_size=_PARQUET_BATCH):
                yield from (_without_nulls(record) for record in batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"data {file}: not readable as parquet: {error}") from error


def _without_nulls(value: object) -> object:
    """Parquet has one schema for all rows: a key that a row lacks comes back as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _jsonl(file: Path) -> Iterator[object]:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield json.loads(line)
                except json.JSONDecodeError as error:
                    raise DataError(f"{file} row {number}: not JSON: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data {file}: {error}") from error
