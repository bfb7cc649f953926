"""The weight store's folder of routes as the learner keeps it: made before workers write, emptied of what has served.

A file is deleted once the queue holds no group whose routes it has: after the commit of its step, when a worker died
between writing and submitting, when a lease was lost, or when a person decided on a group that was set aside. A crash
between commit and deletion leaves files that the next commit, or the next start, finds.
"""

import asyncio
from pathlib import Path

import structlog

from golongrl.errors import writing_to
from golongrl.queue import SampleQueue
from golongrl.routes.store import open_folder, orphans, remove_routes, stored_in

log = structlog.get_logger()


class RoutesFolder:
    """The folder of one run; it need not exist."""

    def __init__(self, folder: Path, queue: SampleQueue) -> None:
        self.folder = folder
        self._queue = queue

    async def open(self) -> None:
        """Make it, so that workers may write.

        Raises:
            GolongrlError: something else is there, or the storage refused.
        """
        with writing_to(f"the folder of routes {self.folder}", folder=self.folder.parent):
            await asyncio.to_thread(open_folder, self.folder)

    async def sweep(self) -> None:
        """Delete what no group in the queue refers to.

        Raises:
            QueueError: the queue cannot be asked now.
        """
        try:
            # Before the queue is asked: a file that a worker writes meanwhile is not judged.
            stored = await asyncio.to_thread(stored_in, self.folder)
        except OSError as error:
            log.warning("the folder of routes cannot be read", folder=str(self.folder), error=str(error))
            return
        if not stored:
            return
        unwanted = orphans(stored, await self._queue.live_routes())
        if removed := await asyncio.to_thread(remove_routes, self.folder, unwanted):
            log.info("routes removed", files=removed, kept=len(stored) - removed)
