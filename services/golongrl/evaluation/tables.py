"""Reading a benchmark's data: a pass over short columns, then any single row by its number.

Rows hold up to 16 MB of text, so a table never keeps more than a few of them:
- jsonl and a JSON array are indexed by byte offsets (a .json file may be either);
- parquet is read by row group; where those are large, the rows are first spooled to an unnamed temporary file, because
  a row group can only be decoded from its start. For that moment it takes about three times the row group's bytes: a
  writer that saw all rows at once has put them into one dictionary, which is decoded whole;
- csv and tsv files are small and read whole.

Invariants: rows are numbered from 1 in file order (in jsonl blank lines do not count), and everything wrong is an
EvaluationError that names the file and the row.
"""

import codecs
import csv
import json
import mmap
import re
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from golongrl.data import keys_once
from golongrl.errors import InputError, brief, printable
from golongrl.evaluation.errors import EvaluationError
from golongrl.reading import encoding_of, other_kind, refuse_special
from golongrl.whole_text import whole

Record = Mapping[str, Any]

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
# A row group up to this size is decoded for each row that is asked for; larger ones are spooled once.
LARGEST_ROW_GROUP = 32 << 20
# Rows decoded at once while spooling or reading short columns.
_BATCH = 16
# Bytes that show what a file is instead.
_LONGEST_MARK = 64
# Bytes of a memory map that are looked at before their pages are given back.
_RELEASED = 32 << 20
# The tokens of JSON that matter for finding the elements of an array: whole strings, brackets.
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


class Table(ABC):
    """The rows of one file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def where(self, number: int) -> str:
        """How messages name a row."""
        return f"{self.path} row {number}"

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @abstractmethod
    def light(self, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:
        """(number, record) of every row with these columns at least."""

    @abstractmethod
    def row(self, number: int) -> Record:
        """One whole row."""

    def _no_row(self, number: int) -> EvaluationError:
        return EvaluationError(f"{self.where(number)}: there is no such row, the file has {len(self)}")


def open_table(path: Path) -> Table:
    """The table in a file.

    Raises:
        EvaluationError: there is no such file, its suffix is not read, or its content is damaged.
    """
    if not path.exists():
        raise EvaluationError(f"{path}: no such file; fetch it with `golongrl eval fetch`, or name another folder")
    try:
        refuse_special(path)
        with path.open("rb") as file:
            if (kind := other_kind(start := file.read(_LONGEST_MARK))) or (kind := encoding_of(start)):
                raise EvaluationError(f"{path}: it is {kind}")
        if path.suffix == ".parquet":
            return _Parquet(path)
        if path.suffix in (".jsonl", ".json"):
            return _Json(path)
        if path.suffix in (".csv", ".tsv"):
            return _Csv(path)
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except InputError as error:
        raise error if isinstance(error, EvaluationError) else EvaluationError(str(error)) from error
    raise EvaluationError(f"{path}: expected one of {', '.join(SUFFIXES)}")


class _Json(Table):
    """A file of JSON lines, or one JSON array of objects."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with path.open("rb") as file:
            array = path.suffix == ".json" and _first_mark(file) == b"["
            self._spans = list(_elements(path, file) if array else _lines(file))

    def __len__(self) -> int:
        return len(self._spans)

    def light(self, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:  # noqa: ARG002 - a line is decoded whole
        for number in range(1, len(self) + 1):
            yield number, self.row(number)

    def row(self, number: int) -> Record:
        if not 1 <= number <= len(self):
            raise self._no_row(number)
        start, end = self._spans[number - 1]
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                return _object(file.read(end - start), self.where(number))
        except OSError as error:
            raise EvaluationError(f"{self.where(number)}: cannot be read: {error.strerror or error}") from error


def _first_mark(file: BinaryIO) -> bytes:
    """The first byte that is no white space, nor a byte order mark."""
    head = file.read(64).removeprefix(codecs.BOM_UTF8).lstrip()
    file.seek(0)
    return head[:1]


def _lines(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """The spans of the lines that are not blank."""
    start = 0
    for line in file:
        if line.strip():
            yield start, start + len(line)
        start += len(line)


def _elements(path: Path, file: BinaryIO) -> Iterator[tuple[int, int]]:
    """The spans of the objects in a JSON array."""
    with closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as content:
        depth = start = seen = 0
        for token in _JSON_TOKEN.finditer(content):
            if token.start() - seen > _RELEASED:
                length = (token.start() - seen) // mmap.PAGESIZE * mmap.PAGESIZE
                content.madvise(mmap.MADV_DONTNEED, seen, length)
                seen += length
            mark = content[token.start() : token.start() + 1]
            if mark in (b"[", b"{"):
                if not depth and mark != b"[":
                    break
                start = token.start() if depth == 1 else start
                depth += 1
            elif mark in (b"]", b"}"):
                depth -= 1
                if depth == 1:
                    yield start, token.end()
                if not depth:
                    return
    raise EvaluationError(f"{path}: expected one JSON array of objects that ends with ]; is the download complete?")


def _object(text: bytes, where: str) -> Record:
    try:
        value = whole(keys_once.loads(text.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise EvaluationError(f"{where}: not UTF-8: {error.reason} at byte {error.start + 1}") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{where}: not JSON: {brief(error, 200)}") from error
    if not isinstance(value, dict):
        raise EvaluationError(f"{where}: expected an object, got {type(value).__name__}")
    return value


class _Csv(Table):
    """A small file with a header line."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                delimiter = "\t" if path.suffix == ".tsv" else ","
                reader = csv.DictReader(file, delimiter=delimiter, strict=True)
                keys_once.refuse_names(reader.fieldnames or ())
                self._rows: list[Record] = list(reader)
                for number, row in enumerate(self._rows, start=1):
                    if None in row or None in row.values():
                        raise ValueError(
                            f"row {number} has other cells than the header's {len(reader.fieldnames or ())}"
                        )
        except UnicodeDecodeError as error:
            raise EvaluationError(f"{path}: not UTF-8 ({error.reason}); save it as UTF-8") from error
        except (csv.Error, ValueError) as error:
            raise EvaluationError(f"{path}: not readable as {path.suffix[1:]}: {printable(str(error))}") from error

    def __len__(self) -> int:
        return len(self._rows)

    def light(self, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:  # noqa: ARG002 - read already
        yield from enumerate(self._rows, start=1)

    def row(self, number: int) -> Record:
        if not 1 <= number <= len(self):
            raise self._no_row(number)
        return self._rows[number - 1]


class _Parquet(Table):
    """A parquet file; see the module for how single rows are read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._reading("") as reader:
            metadata = reader.metadata
            groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
            self._columns = list(reader.schema_arrow.names)
        self._groups: list[int] = [group.num_rows for group in groups]
        self._rows: int = sum(self._groups)
        self._large = any(group.total_byte_size > LARGEST_ROW_GROUP for group in groups)
        self._spool: _Spool | None = None
        self._spooling = threading.Lock()  # rows may be asked for from threads

    def __len__(self) -> int:
        return self._rows

    def light(self, columns: Sequence[str]) -> Iterator[tuple[int, Record]]:
        wanted = [column for column in columns if column in self._columns]
        number = 0
        with self._reading("") as reader:
            for batch in reader.iter_batches(batch_size=_BATCH, columns=wanted):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record

    def row(self, number: int) -> Record:
        if not 1 <= number <= len(self):
            raise self._no_row(number)
        if self._large:
            return self._spooled().row(number)
        index, group = number - 1, 0
        while index >= self._groups[group]:
            index -= self._groups[group]
            group += 1
        with self._reading(f" row {number}") as reader:
            record: Record = reader.read_row_group(group, use_threads=False).slice(index, 1).to_pylist()[0]
            return record

    def _spooled(self) -> "_Spool":
        with self._spooling:
            if self._spool is None:
                with self._reading("") as reader:
                    batches = reader.iter_batches(batch_size=1, use_threads=False)
                    self._spool = _Spool(self.path, (record for batch in batches for record in batch.to_pylist()))
                _release()
            return self._spool

    def _reading(self, row: str) -> "_ParquetReading":
        return _ParquetReading(self.path, row)


def _release() -> None:
    """Give back what Arrow's allocator keeps for later."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()


class _ParquetReading:
    """An open parquet file, in whose block a damaged file becomes an EvaluationError."""

    def __init__(self, path: Path, row: str) -> None:
        self._path, self._row = path, row

    def __enter__(self) -> Any:
        import pyarrow.parquet as pq

        try:
            self._reader = pq.ParquetFile(self._path, pre_buffer=False, buffer_size=1 << 20)
            keys_once.refuse_columns(self._reader.schema_arrow)
        except Exception as error:
            self._translate(error)
            raise
        return self._reader

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._reader.close()
        if error is not None:
            self._translate(error)

    def _translate(self, error: BaseException) -> None:
        """Damaged bytes show as any of these: a header, a page, a text that is no UTF-8, a size out of range."""
        import pyarrow as pa

        if isinstance(error, pa.ArrowException | OSError | ValueError | OverflowError | MemoryError):
            raise EvaluationError(f"{self._path}{self._row}: not readable as parquet: {brief(error)}") from error


class _Spool:
    """Rows as JSON in an unnamed temporary file (in TMPDIR), found by their offsets."""

    def __init__(self, path: Path, records: Iterator[Record]) -> None:
        self._path = path
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the table
        self._reading = threading.Lock()
        self._ends = [0]
        for record in records:
            line = json.dumps(record, ensure_ascii=False, default=str).encode()
            self._file.write(line)
            self._ends.append(self._ends[-1] + len(line))

    def row(self, number: int) -> Record:
        with self._reading:
            self._file.seek(self._ends[number - 1])
            line = self._file.read(self._ends[number] - self._ends[number - 1])
        record: Record = json.loads(line)
        return record
