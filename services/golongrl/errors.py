"""The base of every error that a person can act on: its message is one line that names the thing and what to do.

It is raised wherever the problem shows, and printed in one place: `one_line`, around each process's command.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class GolongrlError(Exception):
    """The command line prints it as `error: MESSAGE` and exits with `exit_code`."""

    # 1: failed. 2: bad usage or input, which another try would meet again.
    exit_code = 1


class InputError(GolongrlError):
    """Something the user gave is wrong: a recipe key, a file, a port, an option."""

    exit_code = 2


@contextmanager
def writing_to(what: str, kind: type[InputError] = InputError) -> Iterator[None]:
    """Around writing to a place that the user named.

    Raises:
        InputError, of that kind: the storage refused.
    """
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: cannot be written: {error.strerror or error}") from error


@contextmanager
def one_line() -> Iterator[None]:
    """End the process with an error's line and exit code; any other exception is a defect and keeps its traceback."""
    try:
        yield
    except GolongrlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
