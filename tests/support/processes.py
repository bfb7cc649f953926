"""The processes below one, as they were: each of them may end while the others are looked at."""

import contextlib
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Below:
    """A process that lived when it was looked at."""

    process: psutil.Process
    name: str
    command: str
    """Its words, with a space between them."""


def below(pid: int | None = None) -> list[Below]:
    """Children and their children, of this process by default."""
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(Below(process, process.name(), " ".join(process.cmdline())))
    return found
