"""Free space and size of the folders that the learner writes to, measured for a scrape."""

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

# For a network volume that hangs: a scrape has ten seconds, three of which the queue may take.
_DISK_S = 2.0


class Disks:
    """Free space and size of folders, by their label."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders
        self._measuring: asyncio.Task[dict[str, tuple[int, int]]] | None = None
        self.found: dict[str, tuple[int, int]] = {}

    async def refresh(self) -> None:
        """Measure; a volume that does not answer leaves nothing known, and is asked only once at a time."""
        measuring = self._measuring or asyncio.create_task(asyncio.to_thread(self._measure))
        self._measuring = measuring  # also of a scrape that comes meanwhile
        done, _ = await asyncio.wait({measuring}, timeout=_DISK_S)
        self.found = measuring.result() if done else {}
        if done and self._measuring is measuring:
            self._measuring = None

    def _measure(self) -> dict[str, tuple[int, int]]:
        found = {}
        for name, folder in self._folders.items():
            with contextlib.suppress(OSError):  # not made yet, or its volume is gone
                disk = os.statvfs(folder)
                found[name] = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize)
        return found
