"""Processes that a killed supervisor left behind: found by the run's folder in their environment, and ended.

They are ended at once: the run's protocol loses nothing by a kill, and a learner that lives on would train beside the
next one until that fences it.
"""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from golongrl.local.plan import FOLDER_VARIABLE

_SERVERS = ("valkey-server", "redis-server")
# Longest that the kernel may take to end what was killed.
_GONE_S = 10.0


def of_run(folder: Path) -> list[psutil.Process]:
    """The processes of the run in `folder` that run now, oldest first."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and _belongs(process, folder):
                found.append(process)
    return sorted(found, key=lambda process: process.pid)


def _belongs(process: psutil.Process, folder: Path) -> bool:
    # A Redis server writes its title over its environment, and works in its data folder.
    if process.name() in _SERVERS:
        return _same(process.cwd(), folder / "redis")
    named = process.environ().get(FOLDER_VARIABLE)
    return named is not None and _same(named, folder)


def _same(name: str, folder: Path) -> bool:
    """Whether both are one folder: the earlier start may have reached it through a link, or by another name."""
    with suppress(OSError):
        return os.path.samefile(name, folder)
    return name == str(folder)


def end(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Kill them and wait for their end; returns those that live on (in an uninterruptible wait of the kernel)."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _, left = psutil.wait_procs(processes, timeout=_GONE_S)
    return list(left)


def names(processes: Sequence[psutil.Process], most: int = 4) -> str:
    """A few of them in words: `golongrl learner (pid 12), raylet (pid 34) and 3 more`."""
    words = []
    for process in processes[:most]:
        with suppress(psutil.Error):
            words.append(f"{_title(process.cmdline())} (pid {process.pid})")
    more = len(processes) - len(words)
    return ", ".join(words) + (f" and {more} more" if more > 0 and words else "" if words else f"{more} processes")


def _title(command: Sequence[str]) -> str:
    if "golongrl" in command:
        return " ".join(["golongrl", *command[command.index("golongrl") + 1 :][:1]])
    return Path(command[0].split(" ")[0]).name if command else "?"
