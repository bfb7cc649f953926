"""Reading what a person names as input, so that no command waits for ever, fills the memory, or takes another encoding.

- `open_input` opens a plain file, or a pipe, whose silence is bounded; a folder, device or socket is refused;
- `read_text` reads a small text up to a bound, as UTF-8;
- `small_text` does so for a file of this program's own, which may be damaged;
- `refuse_special` is for files that are read more than once, or by a library;
- `refuse_endless` is for a folder that this program wrote, before any of its files is read;
- `file_sha256` is a file's checksum.
"""

import codecs
import errno
import hashlib
import io
import os
import select
import stat
import sys
from pathlib import Path
from typing import Any, BinaryIO, Final

from golongrl.errors import InputError

# The longest silence of a pipe that is read: a writer that is not heard of for a minute is lost.
_SILENCE_S: Final = 60.0
_TOLD_S: Final = 15.0
# Bytes of the longest file that is read at once and is no data: the manifest of a model with a million tensors.
_SMALL: Final = 64 << 20
# What downloads and copies leave in the place of a file.
OTHER_FILES: Final = (
    (b"version https://git-lfs", "a pointer of git LFS; fetch the file itself (git lfs pull)"),
    (b"<!DOCTYPE", "a web page; download the file itself"),
    (b"<!doctype", "a web page; download the file itself"),
    (b"<html", "a web page; download the file itself"),
    (b"\x1f\x8b", "gzip; unpack it"),
    (b"PK\x03\x04", "a zip file; unpack it"),
    (b"\x28\xb5\x2f\xfd", "zstd; unpack it"),
    (b"\xfd7zXZ", "xz; unpack it"),
    (b"BZh", "bzip2; unpack it"),
)
_ENCODINGS: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


class NotUtf8Error(InputError):
    """A text file has another encoding; the message names the file."""


class _Pipe(io.RawIOBase):
    """The reading end of a pipe, which gives up on a writer that is silent or never comes."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle, self._path = handle, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Bytes read; 0 at the end.

        Raises:
            InputError: nothing came.
        """
        ready = select.poll()
        ready.register(self._handle, select.POLLIN)
        waited = 0.0
        while not ready.poll(min(_TOLD_S, _SILENCE_S) * 1000):
            waited += min(_TOLD_S, _SILENCE_S)
            if waited < _SILENCE_S:
                print(f"waiting for {self._path}: a pipe, silent for {waited:g} s", file=sys.stderr, flush=True)
                continue
            raise InputError(f"{self._path}: is a pipe, and nothing was written to it for {_SILENCE_S:g} s")
        return os.readv(self._handle, [buffer])

    def close(self) -> None:
        if not self.closed:
            os.close(self._handle)
        super().close()


def open_input(path: Path) -> BinaryIO:
    """Open a file that a person named: a plain file, or a pipe (`<(command)`), which is waited for within a bound.

    Raises:
        InputError: it is a folder, a device or a socket, which have no content or no end.
        OSError: it cannot be opened.
    """
    try:
        # A pipe without a writer is opened at once, too.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise InputError(f"{path}: is a socket, not a file") from error
        raise
    mode = os.fstat(handle).st_mode
    if stat.S_ISFIFO(mode):
        os.set_blocking(handle, True)
        return io.BufferedReader(_Pipe(handle, path))
    if (what := _special(path, mode)) is not None:
        os.close(handle)
        raise InputError(f"{path}: is {what}, not a file")
    return open(handle, "rb")


def _special(path: Path, mode: int) -> str | None:
    """What stands there instead of a plain file; None for one, and for /dev/null, which is empty."""
    if stat.S_ISREG(mode) or (stat.S_ISCHR(mode) and os.path.samefile(path, os.devnull)):
        return None
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((words for is_it, words in kinds.items() if is_it(mode)), "a device")


def refuse_special(path: Path) -> None:
    """Refuse what is not a plain file, where a file is read more than once or by a library.

    Raises:
        InputError: so.
        OSError: there is no such file.
    """
    if (what := _special(path, path.stat().st_mode)) is not None:
        raise InputError(f"{path}: is {what}, not a file; write its content to a file")


def refuse_endless(folder: Path, what: str) -> None:
    """Refuse a folder in which a pipe or a device has the place of a file: whoever reads that waits for ever.

    Args:
        what: whose folder it is, for the message.

    Raises:
        InputError: so.
    """
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            if path.is_fifo() or path.is_char_device():
                raise InputError(f"{what}: {path} is not a plain file, as a run writes them; remove it")


def file_sha256(path: Path) -> str:
    """The file's sha256, hexadecimal; reads all of it. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path, most_bytes: int) -> str:
    """A text file that has at most so many bytes; it may be a pipe.

    Raises:
        InputError: it is longer, or no file.
        NotUtf8Error: it has another encoding.
        OSError: it cannot be read.
    """
    with open_input(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise InputError(f"{path}: longer than {most_bytes} bytes")
    return utf8(content, path)


def small_text(path: Path) -> str:
    """A file that this program wrote, and that is small unless somebody damaged it.

    Raises:
        OSError: it cannot be read, or is too large.
        UnicodeDecodeError: it is not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(_SMALL + 1)
    if len(content) > _SMALL:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content.decode("utf-8")


def other_kind(start: bytes) -> str | None:
    """What a file is that should be another one, as far as its first bytes show, and what to do; None where they do
    not."""
    return next((kind for mark, kind in OTHER_FILES if start.startswith(mark)), None)


def encoding_of(start: bytes) -> str | None:
    """The encoding that a byte order mark shows, unless it is UTF-8, and what to do."""
    return next((f"{name}; save it as UTF-8" for mark, name in _ENCODINGS if start.startswith(mark)), None)


def utf8(content: bytes, path: Path) -> str:
    """The text of a file.

    Raises:
        NotUtf8Error: it has another encoding; the message says which, as far as its first bytes show.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        if kind := other_kind(content):
            raise NotUtf8Error(f"{path}: it is {kind}") from error
        kind = encoding_of(content)
        found = f"it is {kind.partition(';')[0]}" if kind else None
        line = content.count(b"\n", 0, error.start) + 1
        where = found or f"byte {content[error.start]:#04x} in line {line}"
        raise NotUtf8Error(f"{path}: not UTF-8 ({where}); save it as UTF-8") from error
