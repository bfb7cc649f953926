"""The pool's side of one worker process (`worker` is what runs inside it).

Invariants: one item is in flight at most, and it is answered or handed back to the pool; a worker is warm with its
first frame, which is empty; every end kills the process and is reported once.
"""

import asyncio
import pickle
from multiprocessing.process import BaseProcess
from typing import Literal, Protocol, cast

from golongrl.reward.items import ScoreJob
from golongrl.reward.worker import HEADER

Ending = Literal["deadline", "died", "start_failed", "recycled", "stopped"]


class PoolOwner(Protocol):
    """The pool, as far as its workers know it."""

    loop: asyncio.AbstractEventLoop
    start_timeout_s: float

    def on_idle(self, worker: "PoolWorker") -> None:
        """The worker can take an item."""

    def on_answer(self, job: ScoreJob) -> None:
        """An item has its answer."""

    def on_end(self, worker: "PoolWorker", why: Ending, job: ScoreJob | None) -> None:
        """The worker's process is killed; `job` was in flight."""


class PoolWorker(asyncio.Protocol):
    """The service's side of one worker process: parses frames, enforces the deadline of the item in flight."""

    def __init__(self, pool: PoolOwner, process: BaseProcess) -> None:
        self.pool = pool
        self.process = process
        self.job: ScoreJob | None = None
        self.answered = 0
        self.warm = False
        self.gone = False
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    # What the loop calls.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self.pool.loop.call_later(self.pool.start_timeout_s, self.end, "start_failed")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            self._on_frame(body)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.end("died" if self.warm else "start_failed")

    # What the pool calls.
    def run(self, job: ScoreJob) -> None:
        assert self._transport is not None
        self.job = job
        job.started_at = self.pool.loop.time()
        self._timer = self.pool.loop.call_later(job.deadline_s, self.end, "deadline")
        self._transport.write(HEADER.pack(len(job.payload)))
        self._transport.write(job.payload)

    def end(self, why: Ending) -> None:
        """Kill the process, whatever it does, and hand the item in flight to the pool. Safe to call twice."""
        if self.gone:
            return
        self.gone = True
        self._disarm()
        if self._transport is not None:
            self._transport.abort()
        self.process.kill()
        job, self.job = self.job, None
        self.pool.on_end(self, why, job)

    def _on_frame(self, body: bytes) -> None:
        self._disarm()
        if not self.warm:
            self.warm = True
            self.pool.on_idle(self)
        elif self.job is not None:
            job, self.job = self.job, None
            self.answered += 1
            job.answer(pickle.loads(body), self.pool.loop.time())
            self.pool.on_answer(job)
            self.pool.on_idle(self)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
