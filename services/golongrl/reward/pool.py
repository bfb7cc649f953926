"""A pool of processes in which every item has a deadline and a bad item harms no other item.

Invariants:
- one item is in flight per worker, so a hang or a crash is always that item's;
- an item accepted by `submit` gets exactly one answer: the function's value, or `Lost` with the reason;
- a worker over its deadline is killed; a worker that is gone is replaced, also while nothing is waiting;
- the event loop never blocks on a worker: sockets are non-blocking, processes start in a thread.

Why not a library: the candidates share one pipe and its lock among all workers, so a worker killed from outside (the
kernel's OOM killer) while it holds the lock stalls or breaks the whole pool. Here every worker has a socket of its own.
"""

import asyncio
import multiprocessing
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import Any

import structlog

from golongrl.errors import GolongrlError, machine_trouble
from golongrl.restart import describe_exit
from golongrl.reward import worker as worker_process
from golongrl.reward.items import Answer, Lost, ScoreJob
from golongrl.reward.pool_worker import Ending, PoolWorker
from golongrl.telemetry.waits import SHORT_S, PendingWait, longest

log = structlog.get_logger()

# After this many failed starts in a row, waiting items are answered as lost: no worker will start any more.
_GIVE_UP_AFTER = 3
_BACKOFF_S = (0.1, 5.0)  # first and longest pause between failed starts
_REAP_S = 5.0  # a killed process ends within milliseconds; one that does not is left to the kernel


class PoolFullError(Exception):
    """The queue has no room for the batch; `retry_after_s` says when it probably has."""

    def __init__(self, queued: int, retry_after_s: int) -> None:
        super().__init__(f"{queued} items are waiting")
        self.retry_after_s = retry_after_s


class NoWorkerError(GolongrlError):
    """No worker can be started on this machine; the message says why."""


class PoolNotReadyError(Exception):
    """No worker is warm (yet, or any more)."""


@dataclass
class PoolStats:
    """Counters for metrics; `ended` counts workers by why they ended."""

    ended: Counter[Ending] = field(default_factory=Counter)
    started: int = 0


def retry_after_s(queued: int, workers: int, seconds_per_item: float) -> int:
    """Whole seconds until about half of the queue is done, between 1 and 60."""
    return max(1, min(60, round(queued * seconds_per_item / workers / 2)))


class WorkerPool:
    """Runs `score(*arguments)` in `workers` processes. Use `start`, `submit`, then `stop`, on one event loop.

    `score` must be picklable by name; `preload` names modules whose import makes it fast. `memory_bytes` bounds a
    worker's virtual memory (0: no bound). A worker is replaced after `recycle_after` items.
    """

    def __init__(
        self,
        score: Callable[..., Any],
        *,
        workers: int,
        max_queued: int = 4096,
        preload: Sequence[str] = (),
        memory_bytes: int = 0,
        recycle_after: int = 20_000,
        start_timeout_s: float = 120.0,
    ) -> None:
        self.stats = PoolStats()
        self.start_timeout_s = start_timeout_s
        self.loop: asyncio.AbstractEventLoop
        self._score, self._size, self._max_queued = score, workers, max_queued
        self._preload, self._memory_bytes, self._recycle_after = tuple(preload), memory_bytes, recycle_after
        self._context = multiprocessing.get_context("forkserver")
        self._queue: deque[ScoreJob] = deque()
        self._idle: deque[PoolWorker] = deque()
        self._workers: set[PoolWorker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed_starts = 0
        self._cold_since = 0.0
        self._stopping = asyncio.Event()
        # Every start polls all our children in its thread: an exit code read there and here at once is lost.
        self._processes = asyncio.Lock()
        self._ever_warm = asyncio.Event()
        self._warm_or_broken = asyncio.Event()
        self._last_failure = ""
        self._seconds_per_item = 0.01  # moving average, for Retry-After alone

    @property
    def queued(self) -> int:
        """Items that wait for a worker."""
        return len(self._queue)

    @property
    def in_flight(self) -> int:
        """Items being computed."""
        return sum(worker.job is not None for worker in self._workers)

    @property
    def warm(self) -> int:
        """Workers that compute or could."""
        return sum(worker.warm for worker in self._workers)

    def waits(self) -> list[PendingWait]:
        """What holds up the items, the longest waits first."""
        now, found = self.loop.time(), list[PendingWait]()
        if computing := [worker.job for worker in self._workers if worker.job is not None]:
            job = min(computing, key=lambda job: job.started_at)
            # At its deadline an item's process is killed, which takes a moment.
            allowed = job.deadline_s + _REAP_S
            what = "a process of its own to score"
            found.append(PendingWait("reward", what, now - job.started_at, allowed, len(computing), "item"))
        if self._queue:
            for_s = now - self._queue[0].queued_at
            found.append(PendingWait("reward", "a free process for", for_s, None, len(self._queue), "item"))
        if not self.warm:
            found.append(PendingWait("reward", "its processes to start", now - self._cold_since, self.start_timeout_s))
        return longest(wait for wait in found if wait.for_s >= SHORT_S)

    @property
    def broken(self) -> bool:
        """Workers could not be started several times in a row, and none is left."""
        return self._failed_starts >= _GIVE_UP_AFTER and not self.warm

    async def start(self) -> None:
        """Begin to start the workers; returns at once (see `wait_warm`)."""
        self.loop = asyncio.get_running_loop()
        self._cold_since = self.loop.time()
        # The fork server reads this list when the first worker starts; `__main__` spares every fork its re-import.
        self._context.set_forkserver_preload(["__main__", *self._preload])
        for _ in range(self._size):
            self._spawn_later(0.0)

    async def wait_warm(self) -> None:
        """Wait until a first worker can compute.

        Raises:
            NoWorkerError: several starts in a row have failed, or none was ready in time; the pool is stopped.
        """
        why = f"none was ready within {self.start_timeout_s:g} s"
        with suppress(TimeoutError):
            async with asyncio.timeout(self.start_timeout_s):
                await self._warm_or_broken.wait()
            why = self._last_failure
        if not self._ever_warm.is_set():
            await self.stop()
            raise NoWorkerError(f"no worker process can be started: {why}")

    def submit(self, payloads: Sequence[bytes], deadline_s: float) -> "list[asyncio.Future[Answer]]":
        """Queue a batch, all of it or nothing; one future per item, in order. Cancel a future to drop its item.

        A payload is the pickled tuple of `score`'s arguments. Raises PoolFullError, PoolNotReadyError.
        """
        if self._stopping.is_set():
            raise PoolNotReadyError("the service is shutting down")
        if not self._ever_warm.is_set():
            raise PoolNotReadyError("no worker is warm yet")
        if self.broken:
            raise PoolNotReadyError("workers cannot be started; see the service's log")
        if self.queued + len(payloads) > self._max_queued:
            raise PoolFullError(self.queued, retry_after_s(self.queued, self._size, self._seconds_per_item))
        now = self.loop.time()
        jobs = [ScoreJob(payload, deadline_s, self.loop.create_future(), now) for payload in payloads]
        self._queue.extend(jobs)
        self._dispatch()
        return [job.future for job in jobs]

    async def stop(self) -> None:
        """End the workers. Items still waiting or computing are answered `Lost`: let them finish first."""
        self._stopping.set()
        self._drop_queue("the service is shutting down")
        for worker in tuple(self._workers):
            worker.end("stopped")
        while self._tasks:
            await asyncio.gather(*tuple(self._tasks))

    # What workers report.
    def on_idle(self, worker: PoolWorker) -> None:
        self._failed_starts = 0
        self._ever_warm.set()
        self._warm_or_broken.set()
        if worker.answered >= self._recycle_after:
            worker.end("recycled")
            return
        self._idle.append(worker)
        self._dispatch()

    def on_answer(self, job: ScoreJob) -> None:
        self._seconds_per_item += 0.05 * (self.loop.time() - job.started_at - self._seconds_per_item)

    def on_end(self, worker: PoolWorker, why: Ending, job: ScoreJob | None) -> None:
        self._workers.discard(worker)
        if worker in self._idle:
            self._idle.remove(worker)
        self.stats.ended[why] += 1
        if worker.warm and not self.warm:
            self._cold_since = self.loop.time()
        self._run(self._bury(worker, why, job))
        if why == "start_failed":
            self._start_failed("its process ended as it started")
        elif not self._stopping.is_set():
            self._spawn_later(0.0)

    # Inside.
    def _dispatch(self) -> None:
        while self._idle and self._queue:
            job = self._queue.popleft()
            if not job.future.done():
                self._idle.popleft().run(job)

    def _drop_queue(self, reason: str) -> None:
        while self._queue:
            self._queue.popleft().answer(Lost("no_worker", reason), self.loop.time())

    def _start_failed(self, why: str) -> None:
        """Try again after a pause; items that wait for a first worker are answered once it looks hopeless."""
        self._failed_starts += 1
        self._last_failure = why
        if self.broken:
            self._warm_or_broken.set()
            self._drop_queue("no worker can be started")
        if not self._stopping.is_set():
            self._spawn_later(min(_BACKOFF_S[1], _BACKOFF_S[0] * 2 ** min(self._failed_starts, 10)))

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _spawn_later(self, delay_s: float) -> None:
        self._run(self._spawn(delay_s))

    async def _spawn(self, delay_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._stopping.wait()
        if self._stopping.is_set():
            return
        try:
            ours, process = await self._started()
        # The fork server itself is gone, or this process is out of resources.
        except (OSError, EOFError, struct.error) as error:
            self.stats.ended["start_failed"] += 1
            log.error("worker not started", error=repr(error), failed_in_a_row=self._failed_starts + 1)
            self._start_failed(machine_trouble(error) or repr(error))
            return
        self.stats.started += 1
        worker = PoolWorker(self, process)
        self._workers.add(worker)
        await self.loop.create_connection(lambda: worker, sock=ours)
        if self._stopping.is_set():
            worker.end("stopped")

    async def _started(self) -> tuple[socket.socket, BaseProcess]:
        """Our end of a new process's socket, and the process."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = self._context.Process(
                    target=worker_process.main,
                    args=(theirs, self._score, self._preload, self._memory_bytes),
                    daemon=True,
                )
                async with self._processes:
                    await asyncio.to_thread(process.start)
            except BaseException:
                ours.close()
                raise
        return ours, process

    async def _reap(self, process: BaseProcess) -> str:
        """How the process ended, once it is gone."""
        gone = asyncio.Event()
        self.loop.add_reader(process.sentinel, gone.set)
        try:
            async with asyncio.timeout(_REAP_S):
                await gone.wait()
        except TimeoutError:
            return "still ending"
        finally:
            self.loop.remove_reader(process.sentinel)
        async with self._processes:
            code = process.exitcode
            if code is None:
                return "still ending"
            process.close()
        return describe_exit(code)

    async def _bury(self, worker: PoolWorker, why: Ending, job: ScoreJob | None) -> None:
        """Reap the process, then answer its item: only then is the exit code known."""
        ended_at = self.loop.time()
        if job is not None and why == "deadline":  # nobody needs the exit code: answer before the reaping
            job.answer(Lost("deadline", f"not scored within {job.deadline_s:g} s; its worker was killed"), ended_at)
        how = await self._reap(worker.process)
        if job is not None:
            job.answer(Lost("died", f"its worker died while scoring it ({how})"), ended_at)
        if why in ("deadline", "died", "start_failed"):
            log.warning("worker ended", why=why, exit=how, items_before=worker.answered, waiting=self.queued)
