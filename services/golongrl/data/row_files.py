"""Files of rows: which are read, their records one by one, and writing them.

Built and downloaded data are read the same way. The place of a record names its file and the row's number (from 1; in
jsonl the line's). A line or file that cannot be read is a record of its own, `Unreadable`, so that it does not hide the
rows behind it.
"""

import codecs
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NoReturn

from golongrl import files
from golongrl.data.errors import DataError
from golongrl.data.keys_once import finite, once, refuse_columns
from golongrl.data.rows import Row, Unreadable, parse_row
from golongrl.errors import InputError, brief
from golongrl.reading import OTHER_FILES, refuse_special

if TYPE_CHECKING:
    import pyarrow as pa

# What a file begins with that is no JSON lines, and what it is; a whole file of it is one fault, not one a line.
_OTHER_FILES: Final = (
    *OTHER_FILES,
    (codecs.BOM_UTF32_LE, "UTF-32 text; write it as UTF-8"),
    (codecs.BOM_UTF32_BE, "UTF-32 text; write it as UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16 text; write it as UTF-8"),
    (codecs.BOM_UTF16_BE, "UTF-16 text; write it as UTF-8"),
    (b"PAR1", "parquet; name it .parquet"),
    (b"PARE", "encrypted; write it without encryption"),
    (b"{\x00", "UTF-16 text; write it as UTF-8"),
    (b"\x00{", "UTF-16 text; write it as UTF-8"),
    (b"[\n", "one JSON array; write one object a line"),
    (b"[\r", "one JSON array; write one object a line"),
    (b"[{", "one JSON array; write one object a line"),
    (b"[ {", "one JSON array; write one object a line"),
    (b"{\n", "JSON over several lines; write one object a line"),
    (b"{\r", "JSON over several lines; write one object a line"),
)
_LONGEST_MARK: Final = max(len(mark) for mark, _ in _OTHER_FILES)
# Characters of a name in a message.
_SHOWN: Final = 60
# Rows decoded at once from parquet; a row of a long-context dataset may hold a megabyte.
_PARQUET_BATCH = 16
# Bytes of one row, as many as a rendered prompt may have. A few KB of parquet may unpack to any size.
_LONGEST_ROW = 64 << 20


def files_of(path: str | Path) -> list[Path]:
    """The dataset files that `path` names: itself, or the parquet (else jsonl) files of a folder in name order.

    Raises:
        DataError: nothing there, or a suffix that is not read.
    """
    root = Path(path)
    if root.is_dir():
        found = _below(root)
        for suffix in (".parquet", ".jsonl"):
            if chosen := [file for file in found if file.suffix == suffix]:
                return chosen
        raise DataError(f"data {root}: no .parquet or .jsonl file in this folder")
    if not root.exists():
        raise DataError(f"data {root}: no such file or folder")
    if root.suffix not in (".parquet", ".jsonl"):
        raise DataError(f"data {root}: expected .parquet or .jsonl, got {root.suffix or 'no suffix'}")
    if why := _no_file(root):
        raise DataError(f"data {root}: {why}")
    return [root]


def _no_file(path: Path) -> str | None:
    """Why a path that is there is none of a file."""
    try:
        refuse_special(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:
        return error.strerror or str(error)
    return None


def left_aside(path: str | Path) -> list[Path]:
    """The jsonl files of a folder that are not read, because it has parquet files, too."""
    root = Path(path)
    chosen = set(files_of(root))
    return [file for file in _below(root) if file.suffix == ".jsonl" and file not in chosen] if root.is_dir() else []


def _below(root: Path) -> list[Path]:
    """All entries below a folder in name order, folders that look like files left out.

    Raises:
        DataError: a folder cannot be read, so that nobody knows what is in it.
    """

    def refuse(error: OSError) -> NoReturn:
        raise DataError(f"data {error.filename}: {error.strerror}") from error

    found = [Path(folder, name) for folder, _, names in os.walk(root, onerror=refuse) for name in names]
    return sorted(found)


def read_records(path: str | Path) -> Iterator[tuple[str, object]]:
    """(where, decoded record) of every row, not checked yet; `where` names file and row.

    What cannot be decoded is yielded as `Unreadable` in its place.

    Raises:
        DataError: there is no such file, or its suffix is not read.
    """
    for file in files_of(path):
        if why := _no_file(file):
            yield f"data {file}", Unreadable("not readable", why)
        else:
            yield from _parquet(file) if file.suffix == ".parquet" else _jsonl(file)


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
    refuse_suffix(path)
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


def refuse_suffix(path: Path) -> None:
    """
    Raises:
        DataError: `write_rows` does not write such a file.
    """
    if path.suffix not in (".parquet", ".jsonl"):
        raise DataError(f"--out {path}: expected .parquet or .jsonl")


def _parquet(file: Path) -> Iterator[tuple[str, object]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with file.open("rb") as start:
            kind = _other_kind(start)
        if kind and not kind.startswith("parquet"):
            yield f"data {file}", Unreadable("not readable", f"expected parquet, but it is {kind}")
            return
        with pq.ParquetFile(file) as reader:
            refuse_columns(reader.schema_arrow)
            _refuse_unknown_zones(reader.schema_arrow)
            for batch in reader.iter_batches(batch_size=_PARQUET_BATCH):
                for record in _decoded_batch(batch):
                    number += 1
                    yield f"{file} row {number}", record
    # Damaged bytes surface as any of these: a header, a page, a text that is no UTF-8, a size, a date out of range.
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        after = f" after row {number}" if number else ""
        reason = brief(error)
        if "decrypt" in reason.lower():
            reason = "a part of it is encrypted; write it without encryption"
        yield f"data {file}", Unreadable("not readable", f"not readable as parquet{after}: {reason}")


def _decoded_batch(batch: "pa.RecordBatch") -> Iterator[object]:
    """Its records; one by one where they are large, as they take several times the memory in Python."""
    if batch.nbytes <= _LONGEST_ROW:
        yield from map(_without_nulls, batch.to_pylist())
        return
    for row in (batch.slice(i, 1) for i in range(batch.num_rows)):
        yield _too_long(row.nbytes) or _without_nulls(row.to_pylist()[0])


def _too_long(size: int) -> Unreadable | None:
    if size <= _LONGEST_ROW:
        return None
    return Unreadable("too large", f"has {size} bytes; a row may have {_LONGEST_ROW}")


def _refuse_unknown_zones(fields: "Iterable[pa.Field]") -> None:
    """
    Raises:
        ValueError: a column has times of a zone that this machine does not know.
    """
    import pyarrow as pa

    for field in fields:
        kind = field.type
        _refuse_unknown_zones(kind.field(number) for number in range(kind.num_fields))
        if pa.types.is_timestamp(kind) and kind.tz:
            try:
                pa.scalar(0, kind).as_py()
            except pa.ArrowInvalid as error:
                raise ValueError(
                    f"the column {field.name[:_SHOWN]} has the time zone {kind.tz[:_SHOWN]}, which this machine does "
                    "not know; write its times in UTC"
                ) from error


def _without_nulls(value: object) -> object:
    """Parquet has one schema for all rows: a key that a row lacks comes back as null."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _other_kind(file: BinaryIO) -> str | None:
    """What a file is that should hold rows, as far as its first bytes show something else."""
    start = file.read(_LONGEST_MARK)
    file.seek(0)
    return next((kind for mark, kind in _OTHER_FILES if start.startswith(mark)), None)


def _jsonl(file: Path) -> Iterator[tuple[str, object]]:
    try:
        with file.open("rb") as lines:
            if kind := _other_kind(lines):
                yield f"data {file}", Unreadable("not readable", f"expected lines of JSON, but it is {kind}")
                return
            for number, line in enumerate(lines, start=1):
                # Files that were joined have one in the middle.
                text = line.removeprefix(codecs.BOM_UTF8)
                if text.strip():
                    yield f"{file} row {number}", _too_long(len(text)) or _decoded(text)
    except OSError as error:
        yield f"data {file}", Unreadable("not readable", str(error.strerror or error))


def _decoded(line: bytes) -> object:
    try:
        text = line.decode("utf-8")
        return json.loads(text, parse_constant=_no_constant, parse_float=finite, object_pairs_hook=once)
    except UnicodeDecodeError as error:
        return Unreadable("not UTF-8", f"not UTF-8: {error.reason} at byte {error.start + 1}")
    except RecursionError:
        return Unreadable("not JSON", "not JSON that can be read: it nests too deeply")
    except json.JSONDecodeError as error:
        alone = "; lines end with CR alone, write LF" if b"\r" in line.strip() else ""
        return Unreadable("not JSON", f"not JSON: {error}{alone}")
    except ValueError as error:
        # A number of thousands of digits, whose message tells how to change Python.
        return Unreadable("not JSON", f"not JSON that can be read: {str(error).partition(': value has')[0]}")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
