"""Ports of this machine for processes that are told theirs when they are started and bind it seconds later."""

import os
import random
import re
import socket
from contextlib import suppress
from typing import Final

from golongrl.errors import GolongrlError

# Below 32768, where Linux begins (net.ipv4.ip_local_port_range) to give ports to outgoing connections and to whoever
# asks for any: one of those, though free when it was looked at, may be Ray's or a connection's when it is wanted.
_CHOICE: Final = range(20_000, 30_000)
# Another range, `25000-25999`, for who must know it: a firewall, or test sessions that share a machine.
_VARIABLE: Final = "GOLONGRL_PORTS"


class NoFreePortError(GolongrlError):
    """There are not as many as were wanted, or the range that the environment names is none."""


def unused(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens at now, all different.

    Raises:
        NoFreePortError: too few of them are free.
    """
    choice = _choice(os.environ.get(_VARIABLE))
    found: list[int] = []
    for port in random.sample(choice, len(choice)):
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            found.append(port)
        if len(found) >= count:
            return found
    raise NoFreePortError(
        f"fewer than {count} free ports from {choice.start} to {choice.stop - 1}; {_VARIABLE} can name another range"
    )


def _choice(text: str | None) -> range:
    if not text:
        return _CHOICE
    parts = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if not parts or not 1024 <= int(parts[1]) <= int(parts[2]) <= 65_535:
        raise NoFreePortError(f"{_VARIABLE} is {text!r}; it must be a range from 1024 to 65535, such as 25000-25999")
    return range(int(parts[1]), int(parts[2]) + 1)
