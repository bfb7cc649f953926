"""The root of every error that a person can act on: its message is one line that names the thing and what to do.

The rules of the tree, which `tests/test_names.py` holds:
- every exception class of this repository is a `GolongrlError`, except for the few that never leave their module;
- a class ends in `Error` and its name is defined once in the whole repository;
- bad input is an `InputError` (exit 2); everything else exits with 1. A service that a supervisor or Kubernetes would
  restart exits with 74 where the disk is full (`NoSpaceError`), because a restart would not help.

An error is raised wherever the problem shows, and printed in one place: `one_line`, around each process's command.
"""

import errno
import json
import os
import re
import signal
import sys
import traceback
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final
from urllib.parse import quote

# Exit code of a service whose storage is full, read-only or failing (EX_IOERR of sysexits.h): a restart would not help.
NO_SPACE_EXIT: Final = 74

# The system's answers about a path that a person can act on.
_PATH_REFUSED: Final = frozenset(
    {errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS}
)
# Of these, what no restart can change.
_NO_PATH: Final = frozenset({errno.ELOOP, errno.ENAMETOOLONG})
# Characters of a path in a line.
_LONGEST_PATH: Final = 200
# A longer word is a value that was put in the wrong place.
_LONG_WORD: Final = re.compile(r"(\S{500})\S{500,}")
# What the machine lacks, or a disk that fails: another try may work.
_MACHINE: Final = {
    errno.EMFILE: "too many open files in this process; raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine",
    errno.EIO: "the storage failed (Input/output error)",
    errno.ESTALE: "the network file system lost it (Stale file handle)",
    errno.EFBIG: "File too large (a limit of the file system, or ulimit -f)",
}
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# The password of a URL: up to the last @ of the word, because a person may not have escaped an earlier one. A URL that
# was taken for a path has one slash. No scheme is long: without a bound, a long word would take quadratic time.
_URL_PASSWORD: Final = re.compile(r"([a-z][a-z0-9+.-]{0,30}:/{1,2}[^\s:/@]*):\S+@", re.IGNORECASE)
# Without a colon it is a key; of a Redis it is a user's name.
_URL_KEY: Final = re.compile(r"(https?:/{1,2})[^\s:/@?#]+@", re.IGNORECASE)
_QUERY_PASSWORD: Final = re.compile(
    r"([?&;#](?:[\w.-]*[._-])?(?:pass|password|passwd|pwd|(?:access|api|auth)?(?:token|key)|secret|signature|sig|auth|"
    r"credentials?)=)[^&;#\s]+",
    re.IGNORECASE,
)
_HEADER: Final = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{6,}", re.IGNORECASE)
# As their issuers mark them: Hugging Face, OpenAI and its like, AWS, GitHub.
_KEY: Final = re.compile(r"\b(?:(?:hf_|AKIA|gh[opsur]_)[A-Za-z0-9]{16,}|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{16,})")
# A recipe of an evaluation names the variable of its key.
_SECRET_NAME: Final = re.compile(
    r"(PASSWORD|PASSWD|TOKEN|KEY|SECRET|CREDENTIALS?|OTLP_(TRACES_)?HEADERS)$", re.IGNORECASE
)
# A file system is full of what it has less than this part left of: what failed has been removed by then.
_SCARCE: Final = 20
# Before a place that an option names.
_OPTION: Final = re.compile(r"^--[a-z-]+ ")
# In the place of a character that a terminal would obey or not show.
_UNSHOWN: Final = "?"
# A shorter value would blot out ordinary words.
_SHORTEST_SECRET: Final = 6


class GolongrlError(Exception):
    """The command line prints it as `error: MESSAGE` and exits with `exit_code`."""

    exit_code = 1


class InputError(GolongrlError):
    """Something the user gave is wrong: a recipe key, a file, a port, an option. Retrying would fail the same way."""

    exit_code = 2


class NoSpaceError(GolongrlError):
    """The disk is full, or the quota used up; the message names the folder."""


def is_full(error: OSError) -> bool:
    """Whether the storage refused because there is no space left."""
    return error.errno in _FULL


def machine_trouble(error: BaseException) -> str | None:
    """The words for what the machine or this process lacks; None for any other error."""
    return _MACHINE.get(error.errno or 0) if isinstance(error, OSError) else None


def no_space(folder: Path | str) -> str:
    """The words for a full disk, be it full of files and not of bytes."""
    files = ""
    with suppress(OSError, ValueError):
        found = os.statvfs(folder)
        if found.f_favail * _SCARCE < found.f_files and found.f_bavail * _SCARCE > found.f_blocks:
            files = " (it has room, but for no more files: see df -i)"
    return f"no space left on {folder}{files}"


@contextmanager
def writing_to(what: str, kind: type[GolongrlError] = InputError, folder: Path | None = None) -> Iterator[None]:
    """Around writing to a place that the user named.

    Args:
        what: the option or file, for the message.
        kind: what is raised where the storage refused.
        folder: where the files go, for the message about a full disk; without it, the folder of the file at fault.

    Raises:
        NoSpaceError: the disk is full.
        GolongrlError: of that kind, where the storage refused for another reason. What the machine lacks is no wrong
            input.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            named = Path(os.fsdecode(error.filename)).parent if error.filename else _OPTION.sub("", what)
            place = folder or named
            raise NoSpaceError(no_space(place)) from error
        trouble = machine_trouble(error)
        refused = GolongrlError if trouble and kind is InputError else kind
        raise refused(f"{what}: cannot be written: {trouble or error.strerror or error}") from error


@contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Around reading a file whose damage a person can mend.

    Raises:
        InputError: the system does not give it.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def url_without_secret(url: str) -> str:
    """`url`, which is kept in files and shown.

    Raises:
        ValueError: it has a password or a key in it.
    """
    if (shown := without_secrets(url, {})) != url:
        raise ValueError(f"{shown}: a password or key stands in the URL; give it by its environment variable")
    return url


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """`text` without the passwords of URLs and the values of secret environment variables."""
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    text = _URL_KEY.sub(r"\1***@", text)
    text = _QUERY_PASSWORD.sub(r"\1***", text)
    text = _HEADER.sub(r"\1***", text)
    text = _KEY.sub("***", text)
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            # As it stands in a URL and in JSON, too.
            for form in (value, quote(value, safe=""), quote(value), json.dumps(value)[1:-1]):
                text = text.replace(form, "***")
    return text


def show_defect(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback without secrets: as `sys.excepthook`."""
    with suppress(OSError):
        print(without_secrets("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


@contextmanager
def one_line(*, service: bool = False) -> Iterator[None]:
    """End the process with an error's line and exit code. The system's refusal of a path has a line too, and so has an
    output that cannot be written; Ctrl-C has none. Any other exception is a defect and keeps its traceback.

    Args:
        service: the process is one that somebody restarts when it ends.
    """
    try:
        with _output():
            yield
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except GolongrlError as error:
        _say(str(error))
        sys.exit(NO_SPACE_EXIT if service and isinstance(error, NoSpaceError) else error.exit_code)
    except OSError as error:
        if (line := _of_a_path(error)) is None:
            raise
        _say(line)
        if is_full(error):
            sys.exit(NO_SPACE_EXIT if service else 1)
        # What a service reads may be readable again when it is restarted.
        again = error.errno in _MACHINE or (service and error.errno not in _NO_PATH)
        sys.exit(1 if again else InputError.exit_code)


def has_half_character(text: str) -> bool:
    """Whether a lone surrogate is in it, which UTF-8 cannot carry."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def printable(text: str) -> str:
    """Text of a run (a worker's id, an error) for a terminal, which would obey its control characters."""
    if text.isprintable():
        return text
    kept = "\n\t"
    return "".join(
        letter if letter in kept or not unicodedata.category(letter).startswith("C") else _UNSHOWN for letter in text
    )


def brief(said: object, most: int = 300) -> str:
    """What another program says, or an error of a library (by its type where it says nothing), as a line that logs,
    terminals and the queue take: of at most so many characters, without control characters and halves of a surrogate
    pair.
    """
    # Of megabytes, what could be shown of the first ones.
    text = printable(" ".join(str(said)[: 10 * most].split())[:most])
    return text or (type(said).__name__ if isinstance(said, BaseException) else "")


class OutputError(GolongrlError):
    """What a command printed went nowhere."""


@contextmanager
def _output() -> Iterator[None]:
    """Everything printed is written out before the process ends; a reader that left (`| head`) is no error to tell."""
    try:
        try:
            yield
        finally:
            if not sys.stdout.closed:
                sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        sys.exit(1)
    except OSError as error:
        # Of a stream, the only thing without a name that a command writes.
        if error.filename is not None or error.errno not in _FULL | {errno.EIO, errno.EBADF, errno.EFBIG}:
            raise
        _forget_output()
        kind = NoSpaceError if is_full(error) else OutputError
        raise kind(f"the output cannot be written: {error.strerror}") from error


def _forget_output() -> None:
    """What is still in the buffers would raise once more at the end of the interpreter."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _say(message: str) -> None:
    # The exit code says it, too, where nobody can be told.
    with suppress(OSError):
        # What is listed is indented; any other line break is of a name, and might look like a line of ours.
        line = re.sub(r"\n(?!  )", _UNSHOWN, printable(_LONG_WORD.sub(r"\1...", without_secrets(message))))
        print(f"error: {line}", file=sys.stderr, flush=True)


def _of_a_path(error: OSError) -> str | None:
    """The line for a path that the system refuses, whoever asked for it; None for any other error."""
    said = _MACHINE.get(error.errno or 0)
    if not isinstance(error.filename, str | bytes):
        return said
    if said is None and error.errno not in _PATH_REFUSED | _FULL:
        return None
    path = os.fsdecode(error.filename)
    shown = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}..."
    return no_space(Path(shown).parent) if is_full(error) else f"{shown}: {said or error.strerror}"
