"""Work in the background of training: at most one piece at a time, and no error of it is lost."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

T = TypeVar("T")
P = ParamSpec("P")


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but a cancellation takes effect when the thread is done: it works on files that whoever
    cancels may remove."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])
        raise


class Background:
    """Runs one coroutine at a time, which returns metrics. Leaving the context cancels what is not done."""

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
            # If it failed, something else failed first.
            with contextlib.suppress(asyncio.CancelledError):
                self._task.exception()

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """What to wait for together with other things; call `look` when it is done."""
        return set() if self._task is None else {self._task}

    def start(self, work: Coroutine[Any, Any, dict[str, float]]) -> None:
        """Begin; what was begun before must be settled."""
        assert self._task is None
        self._task = asyncio.create_task(work)

    async def settled(self) -> None:
        """Wait until nothing is running. Raises what stopped it."""
        if self._task is not None:
            await asyncio.wait([self._task])
            self.look()

    def look(self) -> None:
        """Take the result if there is one. Raises what stopped it."""
        if self._task is not None and self._task.done():
            done, self._task = self._task, None
            self._news.update(done.result())

    def news(self) -> dict[str, float]:
        """The metrics of what was completed since the last call. Raises what stopped it."""
        self.look()
        news, self._news = self._news, {}
        return news
