"""A stage's rows on disk: shards, verdicts and a manifest in one folder.

Invariants:
- a shard, the verdicts and the manifest are each written to a temporary name and renamed, so a process that is killed
  leaves whole files only;
- the manifest is written last and names the shards that count; without it the stage has not ended;
- every row that was made is in the table: rows = kept + the sum of the refused, by reason.
"""

import json
from bisect import bisect_right
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, NonNegativeInt, TypeAdapter

from golongrl import files
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.stage import Row, Verdict
from golongrl.errors import brief
from golongrl.json_files import read_json
from golongrl.reading import refuse_special

MANIFEST = "manifest.json"
# A stage of 10,000,000 rows names 100,000 shards.
_MOST_BYTES = 64 << 20
# No path to another folder.
_SHARD = r"^\w[\w.-]*$"
# Rows decoded together at most.
_BATCH = 32
# Bytes of rows that are written, and so read, together: a row may hold a book.
GROUP_BYTES = 4 << 20
# Bytes of row groups kept decoded by `Lookup`, so that documents that are used together are read once.
_CACHED_BYTES = 32 << 20
_VERDICTS = pa.schema([("number", pa.int64()), ("reason", pa.string()), ("detail", pa.string())])


@dataclass(frozen=True, slots=True)
class StageManifest:
    """What became of a stage's inputs."""

    stage: str
    version: int
    settings: Mapping[str, Any]
    digest: str
    rows_in: NonNegativeInt
    rows: NonNegativeInt
    kept: NonNegativeInt
    refused: Mapping[str, NonNegativeInt]
    shards: Sequence[Annotated[str, Field(pattern=_SHARD)]]

    @property
    def balanced(self) -> bool:
        """No row is missing: every row that was made is kept or has a reason."""
        return self.rows == self.kept + sum(self.refused.values()) and self.rows >= self.rows_in

    def line(self) -> str:
        """For a person: how many came in, and what became of them."""
        made = f" made {self.rows}," if self.rows != self.rows_in else ""
        left_out = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
        return f"{self.stage}: {self.rows_in} in,{made} {self.kept} kept" + (f"; {left_out}" if left_out else "")


_MANIFEST = TypeAdapter(StageManifest)


class StageTable:
    """The folder of one stage."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder = folder
        self.schema = schema

    def manifest(self) -> StageManifest | None:
        """The manifest, if the stage has ended.

        Raises:
            PipelineError: it is damaged.
        """
        otherwise = "not a stage's manifest; delete the file to make the stage again"
        return read_json(self.folder / MANIFEST, _MOST_BYTES, _MANIFEST, otherwise, PipelineError)

    def needed(self) -> StageManifest:
        """The manifest.

        Raises:
            PipelineError: the stage has not ended.
        """
        manifest = self.manifest()
        if manifest is None:
            raise PipelineError(f"{self.folder}: the stage {self.folder.name} has not ended; run it first")
        return manifest

    def rows(self, columns: Sequence[str] | None = None, *, kept: bool = True) -> Iterator[dict[str, Any]]:
        """The table's rows in order; with `kept` those without a reason.

        Raises:
            PipelineError: the stage has not ended, or a shard is damaged.
        """
        manifest = self.needed()
        for _, row in self.numbered(manifest.shards, columns, self.verdicts(manifest.digest)):
            if not kept or row["reason"] is None:
                yield row

    def numbered(
        self, shards: Sequence[str], columns: Sequence[str] | None, verdicts: Mapping[int, Verdict]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows of these shards with their numbers; a verdict's reason takes the place of none."""
        wanted = None if columns is None else list(dict.fromkeys([*columns, "reason", "detail"]))
        number = 0
        for shard in shards:
            for row in _read(self.folder / shard, wanted):
                if row["reason"] is None and (verdict := verdicts.get(number)):
                    row["reason"], row["detail"] = verdict.reason, verdict.detail
                yield number, row
                number += 1

    def verdicts(self, digest: str) -> dict[int, Verdict]:
        """What the look at all rows of this plan together has refused, by row number."""
        return {row["number"]: Verdict(**row) for row in _read(self.folder / _verdicts(digest), None)}

    def whole(self, manifest: StageManifest) -> bool:
        """Whether every file that the manifest counts on is there."""
        return all(self.has(name) for name in (*manifest.shards, _verdicts(manifest.digest)))

    def has(self, file: str) -> bool:
        """Whether a file of the stage is there.

        Raises:
            InputError: something else is in its place.
        """
        path = self.folder / file
        if path.exists():
            refuse_special(path)
        return path.is_file()

    def write_shard(self, file: str, rows: Sequence[Row]) -> None:
        """Write a shard whole."""
        _write(self.folder / file, rows, self.schema)

    def write_verdicts(self, digest: str, verdicts: Sequence[Verdict]) -> None:
        """Write what was refused by the look at all rows of this plan together."""
        _write(self.folder / _verdicts(digest), [asdict(one) for one in verdicts], _VERDICTS)

    def write_manifest(self, manifest: StageManifest) -> None:
        """Write the manifest, and remove the shards that it does not name."""
        files.write_text(self.folder / MANIFEST, json.dumps(asdict(manifest), indent=2, ensure_ascii=False) + "\n")
        stale = [path for path in self.shards() if path.name not in manifest.shards]
        stale += [path for path in self.folder.glob("verdicts-*") if path.name != _verdicts(manifest.digest)]
        for path in stale:
            path.unlink()

    def count(self, shards: Sequence[str], digest: str) -> tuple[int, Counter[str]]:
        """Kept rows, and refused ones by reason, the most frequent reason first."""
        kept = 0
        reasons: Counter[str] = Counter()
        for _, row in self.numbered(shards, ["reason"], self.verdicts(digest)):
            if row["reason"] is None:
                kept += 1
            else:
                reasons[row["reason"]] += 1
        return kept, reasons

    def shards(self) -> list[Path]:
        """All shards that lie in the folder, whether the manifest names them or not."""
        return sorted(self.folder.glob("[0-9]*.parquet"))

    def made(self, shards: Sequence[str]) -> dict[str, tuple[Path, list[int]]]:
        """Where an earlier run has left the rows of a key: shards of the folder but not of `shards`."""
        found: dict[str, tuple[Path, list[int]]] = {}
        for path in self.shards():
            if path.name in shards:
                continue
            for number, row in enumerate(_read(path, ["key"])):
                found.setdefault(row["key"], (path, []))
                if found[row["key"]][0] == path:
                    found[row["key"]][1].append(number)
        return found

    def clean(self) -> None:
        """Remove what a killed process left half written."""
        for path in self.folder.glob(".*.tmp*"):
            path.unlink(missing_ok=True)


class Lookup:
    """Rows of a finished stage by the value of one column (with the last row groups kept in memory)."""

    def __init__(self, folder: Path, column: str) -> None:
        self._folder = folder
        self._where: dict[str, tuple[str, int]] = {}
        self._sizes: dict[str, list[int]] = {}  # rows of each row group of a shard
        self._cache: OrderedDict[tuple[str, int], pa.Table] = OrderedDict()
        table = StageTable(folder, pa.schema([]))
        manifest = table.needed()
        verdicts = table.verdicts(manifest.digest)
        first = 0
        for shard in manifest.shards:
            number = -1
            for number, row in enumerate(_read(folder / shard, [column, "reason"])):
                if row["reason"] is None and first + number not in verdicts:
                    self._where.setdefault(row[column], (shard, number))
            first += number + 1

    @classmethod
    def of(cls, folder: Path, column: str) -> Self:
        """The lookup of a folder; the process keeps it while the stage's manifest is the same."""
        stamp = (folder / MANIFEST).stat().st_mtime_ns
        place = (cls, folder, column)
        if place not in _LOOKUPS or _LOOKUPS[place][0] != stamp:
            _LOOKUPS[place] = (stamp, cls(folder, column))
        found = _LOOKUPS[place][1]
        assert isinstance(found, cls)
        return found

    def get(self, value: str) -> dict[str, Any]:
        """The row.

        Raises:
            KeyError: there is none.
            PipelineError: its shard is damaged.
        """
        shard, number = self._where[value]
        with _damage_told(self._folder / shard):
            group, place = self._group(shard, number)
            row: dict[str, Any] = group.slice(place, 1).to_pylist()[0]
            return row

    def _group(self, shard: str, number: int) -> tuple[pa.Table, int]:
        """The row group that holds a row of a shard, and the row's place in it."""
        sizes = self._sizes.get(shard)
        if sizes is None:
            metadata = pq.read_metadata(self._folder / shard)
            sizes = self._sizes[shard] = [metadata.row_group(one).num_rows for one in range(metadata.num_row_groups)]
        ends = list(accumulate(sizes))
        index = bisect_right(ends, number)
        key = (shard, index)
        if key not in self._cache:
            with pq.ParquetFile(self._folder / shard) as reader:
                self._cache[key] = reader.read_row_group(index)
            while len(self._cache) > 1 and sum(table.nbytes for table in self._cache.values()) > _CACHED_BYTES:
                self._cache.popitem(last=False)
        self._cache.move_to_end(key)
        return self._cache[key], number - ends[index] + sizes[index]


# Of this process: a worker makes thousands of rows from the same documents.
_LOOKUPS: dict[tuple[type, Path, str], tuple[int, Lookup]] = {}


def rows_at(path: Path, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """These rows of a shard.

    Raises:
        PipelineError: it is damaged.
    """
    with _damage_told(path):
        taken: list[dict[str, Any]] = pq.read_table(path).take(pa.array(numbers, pa.int64())).to_pylist()
        return taken


def parquet_slice(path: Path, start: int, end: int) -> Iterator[dict[str, Any]]:
    """The rows from `start` to `end` of any parquet file, without reading the row groups before them.

    Raises:
        PipelineError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as reader:
            for number, batch in _batches(reader, start, end):
                low, high = max(0, start - number), min(batch.num_rows, end - number)
                if low < high:
                    yield from batch.slice(low, high - low).to_pylist()
    # UnicodeDecodeError and what makes no date are ValueError and OverflowError.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = brief(error)
        raise PipelineError(f"{path}: not readable as parquet: {reason}") from error


def _batches(reader: pq.ParquetFile, start: int, end: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The batches of the row groups that have some of these rows, each with the number of its first row."""
    following = 0
    for group in range(reader.num_row_groups):
        number, following = following, following + reader.metadata.row_group(group).num_rows
        if number >= end or following <= start:
            continue
        for batch in reader.iter_batches(batch_size=_BATCH, row_groups=[group]):
            yield number, batch
            number += batch.num_rows


def _verdicts(digest: str) -> str:
    return f"verdicts-{digest[:16]}.parquet"


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    """Around reading a shard."""
    try:
        yield
    except FileNotFoundError as error:
        raise PipelineError(f"{path}: is gone; run its stage again") from error
    # UnicodeDecodeError and what makes no date are ValueError and OverflowError.
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        reason = brief(error)
        raise PipelineError(f"{path}: {reason}; delete the file to make its rows again") from error


def _read(path: Path, columns: Sequence[str] | None) -> Iterator[dict[str, Any]]:
    with _damage_told(path):
        refuse_special(path)
        with pq.ParquetFile(path) as reader:
            names = None if columns is None else [name for name in columns if name in reader.schema_arrow.names]
            # A batch must not join row groups, or it would hold many books.
            for group in range(reader.num_row_groups):
                for batch in reader.iter_batches(batch_size=_BATCH, row_groups=[group], columns=names):
                    yield from batch.to_pylist()


def _write(path: Path, rows: Sequence[Row], schema: pa.Schema) -> None:
    with files.replacing(path) as staging, writer(staging, schema) as out:
        for row in rows:
            out.write(row)


class GroupWriter:
    """Writes rows to a parquet file, in row groups of about `GROUP_BYTES`."""

    def __init__(self, file: pq.ParquetWriter, schema: pa.Schema, most_rows: int) -> None:
        self._file = file
        self._schema = schema
        self._most_rows = most_rows
        self._rows: list[pa.RecordBatch] = []
        self._bytes = 0

    def write(self, row: Row) -> None:
        """Write a row, sooner or later."""
        self._rows.append(pa.RecordBatch.from_pylist([dict(row)], schema=self._schema))
        self._bytes += self._rows[-1].nbytes
        if self._bytes >= GROUP_BYTES or len(self._rows) >= self._most_rows:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait as a row group."""
        if self._rows:
            self._file.write_table(pa.Table.from_batches(self._rows, self._schema).combine_chunks())
        self._rows, self._bytes = [], 0


@contextmanager
def writer(path: Path, schema: pa.Schema, most_rows: int = 1024) -> Iterator[GroupWriter]:
    """Write a parquet file row by row."""
    with pq.ParquetWriter(path, schema, compression="zstd") as file:
        groups = GroupWriter(file, schema, most_rows)
        yield groups
        groups.flush()
