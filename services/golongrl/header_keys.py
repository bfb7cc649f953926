"""Keys that go with requests: what an HTTP header can carry, checked where they enter."""

import os

from golongrl.errors import InputError


def environment_key(variable: str) -> str | None:
    """The key in an environment variable; None without one. Raises InputError as `header_key` does."""
    return header_key(os.environ.get(variable), variable)


def header_key(key: str | None, name: str) -> str | None:
    """The key from the option or environment variable `name`; None without one. White space around it, such as the line
    break at the end of a file, is no part of it.

    Raises:
        InputError: no header can carry it; the message does not have it.
    """
    key = (key or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"{name}: a key has printable ASCII characters only, and this one has others")
    return key or None
