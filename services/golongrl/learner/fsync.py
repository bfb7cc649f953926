"""Files that have reached the storage, and the one line that says which did not.

Invariants: a file is written under another name and renamed, so whoever reads it sees the old or the new content; what
could not be written completely is removed, which also gives a full disk the room to log why the run ends.
"""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError

from golongrl.errors import NO_SPACE_EXIT, GolongrlError
from golongrl.files import sync
from golongrl.reading import file_sha256

# What only a person can change: a full or exhausted, read-only or failing storage, or a limit on files.
_STORAGE = {
    errno.ENOSPC: "no space left on",
    errno.EDQUOT: "no space left (disk quota exceeded) on",
    errno.EROFS: "read-only file system under",
    errno.EIO: "input/output error under",
    errno.EFBIG: "a file is larger than may be written (ulimit -f, or the file system's limit) under",
}
# Below this a write that failed without a reason failed for lack of space: safetensors' writer reports no errno. So did
# one of a Redis on the same storage.
_FULL_BYTES = 1 << 20


class NotWrittenError(GolongrlError):
    """A file could not be written; the message names it."""


class StorageError(NotWrittenError):
    """The storage is full, read-only or failing; the message names the folder first.

    Its exit code tells a supervisor that a restart would not help.
    """

    exit_code = NO_SPACE_EXIT


@contextmanager
def writing(what: str, path: Path, *, scratch: Path | None = None) -> Iterator[None]:
    """Around the writing of `path`, which is a `what`; `scratch` is removed if that fails.

    Raises:
        StorageError: the storage is full, read-only or failing.
        NotWrittenError: it refused for another reason (gone, not ours).
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        cause = _cause(error)
        reason = _storage_reason(cause, path)
        if scratch is not None:
            remove(scratch)
        if reason is not None:
            raise StorageError(f"{reason} {path.parent}: {what} {path.name} could not be written") from error
        first = (str(cause) or type(cause).__name__).splitlines()[0]
        raise NotWrittenError(f"{what} {path} could not be written: {first}") from error


@contextmanager
def discarded_on_error(scratch: Path) -> Iterator[None]:
    """Remove `scratch` if the block fails, whatever the reason."""
    try:
        yield
    except BaseException:
        remove(scratch)
        raise


def remove(scratch: Path) -> None:
    """Delete a file or a staging folder (`*.tmp`) as far as possible."""
    if scratch.is_dir():
        if scratch.suffix == ".tmp":
            shutil.rmtree(scratch, ignore_errors=True)
    else:
        scratch.unlink(missing_ok=True)


def has_no_room(folder: Path) -> bool:
    """Whether the storage of `folder` is as good as full."""
    return shutil.disk_usage(folder).free < _FULL_BYTES


def replace(path: Path, text: str) -> None:
    """Make `text` the durable content of `path` in one step."""
    staging = path.with_suffix(".tmp")
    with discarded_on_error(staging):
        staging.write_text(text, "utf-8")
        sync(staging)
        staging.rename(path)
    sync(path.parent)


@dataclass(frozen=True)
class FileSum:
    """Size and sha256 (hexadecimal) of a file."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "FileSum":
        """Of the file as it is now; reads all of it."""
        return cls(path.stat().st_size, file_sha256(path))


@dataclass(frozen=True)
class Written:
    """Files that are durable, by path in their folder, and the seconds it took to make them so."""

    seconds: float
    files: dict[str, FileSum]


def _cause(error: BaseException) -> BaseException:
    """The system's own error where there is one: torch raises RuntimeError as it closes what could not be written."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, OSError):
        found = found.__cause__ or found.__context__
    return found or error


def _storage_reason(error: BaseException, path: Path) -> str | None:
    """What is wrong with the storage, if that is what `error` comes from."""
    if isinstance(error, OSError) and error.errno is not None:
        return _STORAGE.get(error.errno)
    place = next((folder for folder in path.parents if folder.is_dir()), None)
    return _STORAGE[errno.ENOSPC] if place is not None and has_no_room(place) else None
