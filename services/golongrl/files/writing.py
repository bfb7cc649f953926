"""Files that replace others in one step, and what is left of them when a process is killed."""

import hashlib
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from golongrl.errors import InputError

# Of a staged file's name: half a digest of the name it is to have, half random.
_STAGED_BYTES: Final = 6
STAGED: Final = re.compile(rf"\.[0-9a-f]{{{2 * _STAGED_BYTES}}}\.tmp(\..*)?", re.DOTALL)
# Writing one file takes seconds to minutes; a staged file that is older was left by a process that was killed.
_ABANDONED_S: Final = 3600.0


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write to the path that this gives: it becomes `path` when the block ends well, and vanishes when it does not.

    A link is followed, and an existing file's mode is kept, as if it had been written in place.

    Raises:
        OSError: the storage refused; `path` is as it was.
    """
    target = Path(os.path.realpath(path))
    if is_direct(path, target):
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


def refuse_input(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse an --out that is one of the files which are read.

    Raises:
        InputError: it is.
    """
    for path in inputs:
        with suppress(OSError):
            if os.path.samefile(out, path) and out.is_file():
                raise InputError(f"--out {out}: this file is what is read ({path}); choose another name")


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
                or not STAGED.fullmatch(entry.name)
                or not entry.is_file(follow_symlinks=False)
            ):
                continue
            if time.time() - entry.stat(follow_symlinks=False).st_mtime >= older_s:
                Path(entry).unlink(missing_ok=True)


def _staged(path: Path, suffix: str = "") -> Path:
    """Short, so that it fits wherever the name itself fits; its first half shows which file it is to become."""
    return path.with_name(f".{_mark(path.name)}{secrets.token_hex(_STAGED_BYTES // 2)}.tmp{suffix}")


def _mark(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:_STAGED_BYTES]


def is_direct(path: Path, target: Path) -> bool:
    """A pipe, a terminal or a name of the system's (/dev/stdout): what stands there must not be replaced."""
    if str(path.absolute()).startswith(("/dev/", "/proc/")):
        return True
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)
