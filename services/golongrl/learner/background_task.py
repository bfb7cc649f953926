"""Work that goes on beside training: at most one piece at a time, and no error of it is lost."""

import asyncio
import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self


class Background:
    """Runs one coroutine at a time, which answers metrics. Leaving the context gives up what is not done."""

    def __init__(self) -> None:
        self._task: asyncio.Task[dict[str, float]] | None = None
        self._news: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            # What it failed with, if it did, is not the first trouble.
            with contextlib.suppress(asyncio.CancelledError):
                self._task.exception()

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What to wait for beside other things; `look` when it is done."""
        return set() if self._task is None else {self._task}

    def start(self, work: Coroutine[Any, Any, dict[str, float]]) -> None:
        """Begin; what was begun before has been settled."""
        assert self._task is None
        self._task = asyncio.create_task(work)

    async def settled(self) -> None:
        """Wait until nothing is going on. Raises what stopped it."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self.look()

    def look(self) -> None:
        """Take the result, where there is one. Raises what stopped it."""
        if self._task is not None and self._task.done():
            done, self._task = self._task, None
            self._news.update(done.result())

    def news(self) -> dict[str, float]:
        """The metrics of what was completed since the last call. Raises what stopped it."""
        self.look()
        news, self._news = self._news, {}
        return news
