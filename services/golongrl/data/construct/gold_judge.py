"""Scoring golds one after the other in a process that can be killed, so that none can hold up a check.

A gold that is evaluated (a number such as 9^9^9) may never end; one that is compared as text cannot, and is scored
here. The process is started when the first one needs it.
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from golongrl.reward.items import Lost, encode
from golongrl.reward.pool import WorkerPool
from golongrl.tasks import Mode, Outcome, task_of
from golongrl.tasks.gold import own_score

# Metrics that evaluate what the gold says.
_EVALUATING: Final = frozenset({"math_verify"})
_START_S: Final = 300.0
T = TypeVar("T")


class GoldJudge:
    """`own_score` with a deadline; a context manager, because it may hold a process."""

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pool: WorkerPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None and self._thread is not None:
            if self._pool is not None:
                self._wait(self._pool.stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def __call__(self, data_source: object, truth: object, extra_info: Mapping[str, Any] | None, mode: Mode) -> Outcome:
        """What the gold earns; unscored where it took too long."""
        task = task_of(data_source, (extra_info or {}).get("reward_mode"))
        if task.metric not in _EVALUATING:
            return own_score(data_source, truth, extra_info, mode)
        value = self._wait(self._scored(encode(data_source, truth, extra_info, mode)))
        if isinstance(value, Outcome):
            return value
        reason = value.reason if isinstance(value, Lost) else "no answer"
        return Outcome(None, "unscored", task.metric, task.type, reason)

    async def _scored(self, payload: bytes) -> object:
        if self._pool is None:
            self._pool = WorkerPool(
                own_score, workers=1, preload=("golongrl.reward.preload",), start_timeout_s=_START_S
            )
            await self._pool.start()
            await self._pool.wait_warm()
        (future,) = self._pool.submit([payload], self._deadline_s)
        return (await future).value

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="gold judge", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
