"""Ports of this machine for processes that are told theirs when they are started and bind it seconds later."""

import random
import socket
from contextlib import suppress
from typing import Final

from golongrl.errors import GolongrlError

# Below 32768, where Linux begins (net.ipv4.ip_local_port_range) to give ports to outgoing connections and to whoever
# asks for any: one of those, though free when it was looked at, may be Ray's or a connection's when it is wanted.
_CHOICE: Final = range(20_000, 30_000)


class NoFreePortError(GolongrlError):
    """There are not as many as were wanted."""


def unused(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at now, all different.

    Raises:
        NoFreePortError: too few of them are free.
    """
    found: list[int] = []
    for port in random.sample(_CHOICE, len(_CHOICE)):
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            found.append(port)
        if len(found) >= count:
            return found
    raise NoFreePortError(f"no {count} free ports from {_CHOICE.start} to {_CHOICE.stop - 1}")
