"""Files of JSON lines that a long run appends to: private, and bounded on disk.

Invariants:
- at most two files, `NAME.jsonl` and the older `NAME.1.jsonl`, each of about `most_bytes`;
- a line is whole or, at a file's very end, cut by a crash; reading passes over that one;
- reading and cutting take the memory of one line.
"""

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from golongrl import whole_text
from golongrl.errors import reading_from

# Only the run's owner may read what prompts and answers say.
_MODE: Final = 0o600
MOST_BYTES: Final = 32 << 20
# In the run's folder: groups of each step as text, and what each process did when.
SAMPLES: Final = "samples.jsonl"
TIMELINE: Final = "timeline.jsonl"


class Journal:
    """One such file, for writing.

    Args:
        path: ends with `.jsonl`.
        keep: which lines of an earlier process stay; all by default.

    Raises:
        OSError: from `append` and here: the storage refused.
    """

    def __init__(
        self, path: Path, keep: Callable[[Mapping[str, Any]], bool] | None = None, most_bytes: int = MOST_BYTES
    ) -> None:
        self._path, self._most = path, most_bytes
        if keep is not None:
            for file in files(path):
                _cut(file, keep)

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write the records behind the others."""
        text = "".join(json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records)
        # What UTF-8 cannot carry is replaced; an answer may be any bytes.
        packed = text.encode("utf-8", "replace")
        if not packed:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and self._path.stat().st_size + len(packed) > self._most:
            self._path.replace(older(self._path))
        with _opened(self._path, os.O_APPEND) as handle:
            os.write(handle, _separated(self._path) + packed)


def older(path: Path) -> Path:
    """Where the lines before those of `path` are."""
    return path.with_suffix(f".1{path.suffix}")


def files(path: Path) -> list[Path]:
    """The files of a journal that exist, the older one first."""
    return [file for file in (older(path), path) if file.exists()]


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal in order; none where there is no file.

    Raises:
        InputError: there is one that cannot be read.
    """
    for file in files(path):
        with reading_from(file), file.open("rb") as lines:
            yield from filter(None, map(_parsed, lines))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        found = whole_text.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _separated(path: Path) -> bytes:
    """What has to stand before a new line: the end of one that a crash cut."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return b""
        file.seek(-1, os.SEEK_END)
        return b"" if file.read(1) == b"\n" else b"\n"


def _cut(path: Path, keep: Callable[[Mapping[str, Any]], bool]) -> None:
    staging = path.with_suffix(".tmp")
    with contextlib.suppress(FileNotFoundError):
        staging.unlink()
    with path.open("rb") as lines, _opened(staging, os.O_EXCL) as handle:
        for line in lines:
            record = _parsed(line)
            if record is not None and keep(record):
                os.write(handle, line)
    staging.replace(path)


@contextlib.contextmanager
def _opened(path: Path, how: int) -> Iterator[int]:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, _MODE)
    try:
        yield handle
    finally:
        os.close(handle)
