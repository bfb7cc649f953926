"""What a command may create, overwrite and delete.

The rules, and who keeps them:
- a folder is taken only if it is new, empty or the program's own, which a marker file in it shows (`look`, `Place`);
- what a failed command made is removed, and nothing else (`Made`);
- a folder that is deleted or replaced later holds a marker too (`remove_own`, `make_way`);
- a file that a user or another process reads is written to a temporary name and renamed, so that a reader, or a crash,
  finds the old content or the new (`replacing`, `write_text`);
- what a user names as output and is not a plain file (a pipe, a terminal) is written to directly;
- the lock of a folder, or of a file that a user names as output (`sole_writer`), comes before the first write, and is
  never a link or a file of somebody else (`lock`).

`Place` decides over names alone; the functions below it are the system calls.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TextIO

from golongrl.errors import GolongrlError, InputError, writing_to

# What a file system itself puts at its root.
_NOBODYS: Final = frozenset({"lost+found"})
# Entries listed in a refusal.
_NAMED: Final = 3
_SCRATCH_BYTES: Final = 4
_STAGED_BYTES: Final = 6
_LOCK_DIGITS: Final = 12
_STAGED: Final = re.compile(rf"\.[0-9a-f]{{{2 * _STAGED_BYTES}}}\.tmp(\..*)?", re.DOTALL)
# Writing one file takes seconds to minutes; a staged file that is older was left by a process that was killed.
_ABANDONED_S: Final = 3600.0
# The answers of file systems without locks (some network mounts).
_NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
_LONGEST_PID: Final = 32


class ForeignFilesError(InputError):
    """A folder would be deleted or replaced that holds files which the program did not write."""


class LockHeldError(InputError):
    """Another process holds the lock; the message says which, as far as the file tells."""


class NoLockError(InputError):
    """A file system without locks: two processes in one folder could not see each other."""


class PlaceState(StrEnum):
    """What stands where a command wants its folder."""

    MISSING = "missing"
    EMPTY = "empty"
    OWN = "own"
    FOREIGN = "foreign"
    NOT_A_FOLDER = "not a folder"


@dataclass(frozen=True)
class Place:
    """A path that a command wants as its folder, and what is there."""

    path: Path
    state: PlaceState
    entries: tuple[str, ...] = ()

    @property
    def free(self) -> bool:
        """A command may begin here."""
        return self.state in (PlaceState.MISSING, PlaceState.EMPTY)

    def why_not(self, owner: str) -> str:
        """Why a place that is neither free nor own cannot be taken; `owner` is whose files would be fine."""
        if self.state is PlaceState.NOT_A_FOLDER:
            return f"{self.path} is not a folder"
        named = ", ".join(self.entries[:_NAMED]) + (", ..." if len(self.entries) > _NAMED else "")
        return f"{self.path} holds files that are not {owner} ({named})"


def judge(path: Path, entries: Iterable[str] | None, markers: frozenset[str], harmless: frozenset[str]) -> Place:
    """The place of a folder with these entries (None: no such folder).

    Args:
        markers: files of which one at least shows that the folder is the program's own.
        harmless: names that the program may have left there before it wrote a marker; so may be staged files.
    """
    if entries is None:
        return Place(path, PlaceState.MISSING)
    names = set(entries)
    if names & markers:
        return Place(path, PlaceState.OWN)
    others = tuple(sorted(name for name in names - harmless - _NOBODYS if not _STAGED.fullmatch(name)))
    return Place(path, PlaceState.FOREIGN if others else PlaceState.EMPTY, others)


def look(path: Path, markers: Iterable[str], harmless: Iterable[str] = ()) -> Place:
    """See what is at `path`.

    Raises:
        OSError: the folder cannot be read, or its name is impossible.
    """
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        # A link to nothing is not a free place: making the folder would fail.
        return (
            Place(path, PlaceState.NOT_A_FOLDER) if path.is_symlink() else judge(path, None, frozenset(), frozenset())
        )
    except NotADirectoryError:
        if not os.path.lexists(path):
            raise  # a file stands where one of its parents should be
        return Place(path, PlaceState.NOT_A_FOLDER)
    return judge(path, entries, frozenset(markers), frozenset(harmless))


def make_way(folder: Path, markers: Iterable[str], owner: str) -> None:
    """See to it that nothing is at `folder`, by deleting what the program itself wrote there.

    Raises:
        ForeignFilesError: it holds other files, and stays.
        OSError: the storage refused.
    """
    if refuse_foreign(folder, markers, owner).state is not PlaceState.MISSING:
        _delete(folder)


def refuse_foreign(folder: Path, markers: Iterable[str], owner: str) -> Place:
    """What is at `folder`: nothing, or files that the program itself wrote there.

    Raises:
        ForeignFilesError: it holds other files.
        OSError: it cannot be read.
    """
    place = look(folder, markers)
    if not (place.free or place.state is PlaceState.OWN):
        raise ForeignFilesError(f"{place.why_not(owner)}; move them, or choose another folder")
    return place


def remove_own(folder: Path, markers: Iterable[str]) -> None:
    """Delete a folder if the program wrote it, as far as possible."""
    with suppress(OSError):
        if look(folder, markers).state is PlaceState.OWN:
            _delete(folder)


def _delete(folder: Path) -> None:
    # Under a scratch name: half deleted, it might have lost its marker.
    scratch = scratch_name(folder)
    folder.rename(scratch)
    shutil.rmtree(scratch, ignore_errors=True)


def scratch_name(path: Path) -> Path:
    """A new name near `path`, by which `sweep` finds what a process that was killed left there."""
    return path.with_name(f"{path.name}.{secrets.token_hex(_SCRATCH_BYTES)}.tmp")


def sweep(root: Path, name: str) -> None:
    """Delete the folders in `root` with scratch names of paths that match the pattern `name`, as far as possible."""
    scratch = re.compile(rf"({name})\.[0-9a-f]{{{2 * _SCRATCH_BYTES}}}\.tmp")
    with suppress(OSError):
        for entry in os.listdir(root):
            if scratch.fullmatch(entry):
                shutil.rmtree(root / entry, ignore_errors=True)


def lock(path: Path) -> TextIO:
    """The lock file `path` with this process's id in it, locked until it is closed or the process ends.

    Raises:
        LockHeldError: another process has it.
        ForeignFilesError: what is there is not a lock file; it stays as it is.
        NoLockError: the file system has none.
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


def _staged(path: Path, suffix: str = "") -> Path:
    """Short, so that it fits wherever the name itself fits; its first half shows which file it is to become."""
    return path.with_name(f".{_mark(path.name)}{secrets.token_hex(_STAGED_BYTES // 2)}.tmp{suffix}")


def _mark(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:_STAGED_BYTES]


def sweep_staged(folder: Path, older_s: float = _ABANDONED_S, name: str | None = None) -> None:
    """Delete the staged files in `folder` that a process which was killed left there, as far as possible.

    Args:
        older_s: files older than this were left; 0 under a lock that everybody takes who writes there.
        name: only those that were to become the file of this name.
    """
    begin = "." if name is None else f".{_mark(name)}"
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (
                not entry.name.startswith(begin)
                or not _STAGED.fullmatch(entry.name)
                or not entry.is_file(follow_symlinks=False)
            ):
                continue
            if time.time() - entry.stat(follow_symlinks=False).st_mtime >= older_s:
                Path(entry).unlink(missing_ok=True)


class Made:
    """What a command has made so far; `undo` removes that and leaves everything else."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._files: list[Path] = []
        self._trees: list[Path] = []

    def folder(self, path: Path, mode: int = 0o777) -> None:
        """Make a folder and the parents it lacks; only the folder itself gets `mode` (within the umask)."""
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            self._make(parent, 0o777)
        self._make(path, mode)

    def _make(self, path: Path, mode: int) -> None:
        with suppress(FileExistsError):
            path.mkdir(mode)
            self._folders.append(path)

    def file(self, path: Path, *, new: bool = False) -> None:
        """`path` is made by this command, if it is not there yet (`new`: it is there, and was not before)."""
        if new or not os.path.lexists(path):
            self._files.append(path)

    def tree(self, path: Path) -> None:
        """`path` and all below it is made by this command, if it is not there yet."""
        if not os.path.lexists(path):
            self._trees.append(path)

    def keep(self) -> None:
        """What was made so far stays."""
        self._folders, self._files, self._trees = [], [], []

    def undo(self) -> None:
        """Remove what was made; a folder into which somebody else put a file stays."""
        for path in self._trees:
            shutil.rmtree(path, ignore_errors=True)
        for path in self._files:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        for path in reversed(self._folders):
            with suppress(OSError):
                path.rmdir()


def sync(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def follow_umask(folder: Path) -> None:
    """Give the files of a folder the mode that the umask says: safetensors writes 0600 whatever that is."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o666 & ~mask)


def refuse_input(out: Path, inputs: Iterable[Path], option: str = "--out") -> None:
    """Refuse an output that is one of the files which are read.

    Raises:
        InputError: so.
    """
    for path in inputs:
        with suppress(OSError):
            if os.path.samefile(out, path) and out.is_file():
                raise InputError(f"{option} {out}: this file is what is read ({path}); choose another name")


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
    made = Made()
    with writing_to(f"--out {path}", kind):
        target = Path(os.path.realpath(path))
        direct = _is_direct(path, target)
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
        with held:
            try:
                for file in (target, *beside):
                    sweep_staged(target.parent, 0, file.name)
                yield
            finally:
                # Still under the lock: whoever opened it meanwhile sees that it is gone.
                place.unlink(missing_ok=True)
    except LockHeldError as error:
        raise InputError(f"--out {path}: another command ({error}) writes it now; choose another name") from error
    except BaseException:
        made.undo()
        raise


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path that this gives: it becomes `path` when the block ends well, and vanishes when it does not.

    A link is followed, and an existing file's mode is kept, as if it had been written in place.

    Raises:
        OSError: the storage refused; `path` is as it was.
    """
    target = Path(os.path.realpath(path))
    if _is_direct(path, target):
        yield path
        return
    if target.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    staging = _staged(target, target.suffix)
    try:
        yield staging
        if target.exists():
            shutil.copymode(target, staging)
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Make `text` the content of `path` in one step.

    Raises:
        OSError: the storage refused; `path` is as it was.
    """
    with replacing(path) as staging:
        staging.write_text(text, "utf-8")


def write_private(path: Path, text: str) -> None:
    """Like `write_text`, for a secret: readable for this user alone, also while it is being written.

    Raises:
        OSError: the storage refused.
    """
    staging = _staged(path)
    try:
        with open(os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def _is_direct(path: Path, target: Path) -> bool:
    """A pipe, a terminal or a name of the system's (/dev/stdout): what stands there must not be replaced."""
    if str(path.absolute()).startswith(("/dev/", "/proc/")):
        return True
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
