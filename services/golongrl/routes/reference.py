"""What the queue knows of a group's routes: the name, checksum and size of their file. Needs no numpy."""

import re
import reprlib
from typing import NamedTuple

# The group's uid, and the random part of its lease's token: two workers may sample one row after a lease expired, and
# neither may write over the other's file.
NAME = re.compile(r"[0-9]{1,10}-[0-9]{1,10}\.[0-9a-f]{8,64}\.routes\Z")


class RoutesReference(NamedTuple):
    """Where a group's routes are: a file `name` in the store's folder of routes, its sha256 and size in bytes."""

    name: str
    sha256: str
    bytes: int

    @classmethod
    def of(cls, found: object) -> "RoutesReference | None":
        """The reference in a decoded message; None stays None.

        Raises:
            ValueError: it is something else.
        """
        match found:
            case None:
                return None
            case [str(name), str(digest), int(size)] if NAME.match(name) and size is not True and size > 0:
                return cls(name, digest, size)
        raise ValueError(f"{reprlib.repr(found)} is not a reference to routes")


def object_name(token: str) -> str:
    """The name of the routes that the holder of a lease writes; `token` is the lease's, `UID:RANDOM`.

    Raises:
        ValueError: the token is of another form.
    """
    uid, _, attempt = token.partition(":")
    name = f"{uid}.{attempt}.routes"
    if not NAME.match(name):
        raise ValueError(f"lease token {token!r} is not of the form UID:RANDOM")
    return name
