"""Locks: one command at a time in a folder, or at a file that a user names as output."""

import errno
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from golongrl.errors import GolongrlError, InputError, writing_to
from golongrl.files.places import ForeignFilesError, Made, refuse_elsewhere
from golongrl.files.writing import is_direct, sweep_staged

# The answers of file systems without locks (some network mounts).
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
# Bytes read of a lock file: more than any process's id has digits.
_LONGEST_PID: Final = 32
# Of the digest of a file's name: enough that no two files of a folder share a lock.
_LOCK_DIGITS: Final = 12


class LockHeldError(InputError):
    """Another process holds the lock; the message says which, as far as the file tells."""


class NoLockError(InputError):
    """A file system without locks: two processes in one folder could not see each other."""


def lock(path: Path) -> TextIO:
    """The lock file `path` with this process's id in it, locked until it is closed or the process ends.

    Raises:
        LockHeldError: another process has it.
        ForeignFilesError: what is there is not a lock file; it stays as it is.
        NoLockError: the file system has none.
        InputError: it is there, and this user may not open it.
        OSError: it cannot be opened.
    """
    while True:
        file = _opened_lock(path)
        try:
            _flock(file, path)
            if _is_at(file, path):
                file.truncate(0)
                file.write(str(os.getpid()))
                file.flush()
                return file
        except BaseException:
            file.close()
            raise
        # Its owner removed it between our opening and locking it.
        file.close()


def _opened_lock(path: Path) -> TextIO:
    foreign = ForeignFilesError(f"{path} is not a lock file of this program; move it, or choose another folder")
    try:
        # Neither through a link, nor waiting for the other end of a pipe.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR):
            raise foreign from error
        if isinstance(error, PermissionError) and os.path.lexists(path):
            raise InputError(
                f"{path}: the lock of its folder cannot be opened ({error.strerror}): let its owner give you the "
                "right to write it, or choose another folder"
            ) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode) or not re.fullmatch(b"[0-9]*", os.pread(handle, _LONGEST_PID, 0)):
        os.close(handle)
        raise foreign
    return open(handle, "r+", encoding="ascii")


def _flock(file: TextIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise LockHeldError(f"pid {file.read(_LONGEST_PID) or 'unknown'}") from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise NoLockError(
            f"{path.parent}: the file system has no file locks ({error.strerror}), so two processes could write there "
            "at once; choose a folder on another one"
        ) from error


def _is_at(file: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


@contextmanager
def locked_folder(folder: Path, name: str, take: Callable[[Path], TextIO] = lock) -> Iterator[Made]:
    """A folder, made if it is not there, under its lock `name`. What the block has made is removed if it fails, the
    folder and the lock included; `keep` what should stay.

    Raises:
        LockHeldError, NoLockError, ForeignFilesError, OSError: as `take` does.
    """
    made = Made()
    try:
        made.folder(folder)
        was_there = os.path.lexists(folder / name)
        file = take(folder / name)
    except BaseException:
        made.undo()
        raise
    with file:
        if not was_there:
            made.file(folder / name, new=True)
        try:
            yield made
        except BaseException:
            # Still under the lock: nobody else can have taken the folder.
            made.undo()
            raise


@contextmanager
def sole_writer(
    path: Path, kind: type[GolongrlError] = InputError, *, parents: bool = False, beside: Iterable[Path] = ()
) -> Iterator[None]:
    """Let no other command write the file `path` inside the block, and remove what one that was killed left of it.

    Args:
        beside: files that are written with it, whose names follow from it.
        kind: what is raised where nothing can be written.
        parents: make the folders it lacks; they are removed if the block fails.

    Raises:
        GolongrlError: another command writes it, or nothing can be written there.
    """
    refuse_elsewhere(path)
    made = Made()
    with writing_to(f"--out {path}", kind):
        target = Path(os.path.realpath(path))
        # At the end, what is to be written might be the work of hours.
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        # A file without the right to write it could be renamed over all the same.
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        direct = is_direct(path, target)
    if direct:
        yield
        return
    # Short, so that it fits wherever the name itself fits.
    place = target.with_name(f".{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:_LOCK_DIGITS]}.lock")
    try:
        with writing_to(f"--out {path}", kind):
            if parents:
                made.folder(target.parent)
            held = lock(place)
        with held, _removed_after(place):
            for file in (target, *beside):
                sweep_staged(target.parent, 0, file.name)
            yield
    except LockHeldError as error:
        raise InputError(f"--out {path}: another command ({error}) writes it now; choose another name") from error
    except BaseException:
        made.undo()
        raise


@contextmanager
def _removed_after(place: Path) -> Iterator[None]:
    """Remove a lock file while it is still locked: whoever opened it meanwhile sees that it is gone."""
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
