"""Free ports of this machine, for processes that get theirs on the command line and bind it seconds later."""

import os
import random
import re
import socket
from contextlib import suppress
from typing import Final

from golongrl.errors import GolongrlError

# Below 32768, where Linux starts (net.ipv4.ip_local_port_range) to hand out ports to outgoing connections and to
# programs that ask for any port: such a port may be free when it is checked, and taken when it is bound.
_CHOICE: Final = range(20_000, 30_000)
# Another range, `25000-25999`, for who must know it: a firewall, or test sessions that share a machine.
_VARIABLE: Final = "GOLONGRL_PORTS"
# Ports between commas that a supervisor has given to its children: one of them may not have bound its own yet when
# another looks for a free one.
GIVEN_VARIABLE: Final = "GOLONGRL_PORTS_GIVEN"


class NoFreePortError(GolongrlError):
    """There are not as many as were wanted, or the range that the environment names is none."""


def unused(count: int) -> list[int]:
    """Ports of 127.0.0.1 that no process listens on now, all different, and none that a supervisor has given away.

    Raises:
        NoFreePortError: too few of them are free.
    """
    choice = _choice(os.environ.get(_VARIABLE))
    given = given_away()
    found: list[int] = []
    for port in random.sample(choice, len(choice)):
        if str(port) in given:
            continue
        with suppress(OSError):
            socket.create_server(("127.0.0.1", port)).close()
            found.append(port)
        if len(found) >= count:
            return found
    raise NoFreePortError(
        f"fewer than {count} free ports from {choice.start} to {choice.stop - 1}; {_VARIABLE} can name another range"
    )


def given_away() -> set[str]:
    """What supervisors above this process have given to others."""
    return set(filter(None, os.environ.get(GIVEN_VARIABLE, "").split(",")))


def _choice(text: str | None) -> range:
    if not text:
        return _CHOICE
    parts = re.fullmatch(r"(\d{1,5})-(\d{1,5})", text)
    if not parts or not 1024 <= int(parts[1]) <= int(parts[2]) <= 65_535:
        raise NoFreePortError(f"{_VARIABLE} is {text!r}; it must be a range from 1024 to 65535, such as 25000-25999")
    return range(int(parts[1]), int(parts[2]) + 1)
