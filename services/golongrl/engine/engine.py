"""The engine as asyncio code sees it: generate, pause, change weights. The work is the model thread's.

Coroutines send closures to that thread (`call`) and read their futures; a caller's snapshots come back through its own
queue. A failure of the thread is final: every open request gets `EngineDeadError`, and `alive` turns False.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedModel

from golongrl.engine.config import Limits
from golongrl.engine.metrics import EngineMetrics
from golongrl.engine.model_thread import EngineDeadError, ModelJob, ModelThread
from golongrl.engine.sampling import Uniforms
from golongrl.engine.scheduler import Decode, GenerationRequest, PauseMode
from golongrl.engine.snapshot import RequestSnapshot, Timeline
from golongrl.engine.weights import check_finite, check_tensors, checksums, read_tensors
from golongrl.telemetry.waits import PendingWait, Waits, longest

T = TypeVar("T")


class CacheNotFlushedError(Exception):
    """The cache is in use. After a weight update: the weights ARE the new ones, the version is still the old one."""


class EmbeddedEngine:
    """Generates for many callers at once, and changes weights between two steps. Use from one event loop."""

    def __init__(
        self,
        model: PreTrainedModel,
        decode: Decode,
        metrics: EngineMetrics,
        limits: Limits,
        *,
        version: str,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self._thread = ModelThread(model, decode, metrics, limits, version=version, on_death=on_death)
        self.model = model
        self.metrics = metrics
        self.scheduler = self._thread.scheduler
        self.generator = self._thread.generator
        self.in_flight = 0
        self._updating = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._changed = asyncio.Condition()
        self._waits = Waits()

    def start(self) -> None:
        """Start the model thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Abort what is left and end the thread."""
        if self.alive:
            await self.abort()
            await self.call(self._thread.stop)
        await asyncio.to_thread(self._thread.join)

    @property
    def alive(self) -> bool:
        """Whether the model thread works."""
        return self._thread.alive

    @property
    def failed(self) -> bool:
        """Whether the model thread broke; after `stop` it is neither alive nor failed."""
        return self._thread.failed

    @property
    def paused(self) -> bool:
        """Whether generation is paused."""
        return self.scheduler.paused is not None

    def waits(self) -> list[PendingWait]:
        """What holds up its requests, the longest waits first."""
        return longest([*self._thread.waits(), *self._waits.current()])

    def memory(self) -> dict[str, list[torch.Tensor]]:
        """The tensors that take memory, by what for."""
        return {"weight": list(self.model.parameters()), "kv_cache": self.generator.tensors}

    async def call(self, command: Callable[[], T]) -> T:
        """Run `command` in the model thread between two steps.

        Raises:
            EngineDeadError: the thread has failed.
        """
        return await asyncio.wrap_future(self._thread.post(command))

    async def generate(
        self, requests: Sequence[GenerationRequest], *, stream: bool
    ) -> AsyncGenerator[tuple[int, RequestSnapshot]]:
        """Run `requests` together; yields (index, snapshot) as they finish, and with `stream` before that at their
        first token and every `stream_interval` tokens after it.

        Leaving the iterator early aborts what has not finished.

        Raises:
            DuplicateRequestError, QueueFullError: nothing was started.
            EngineDeadError: the thread failed.
        """
        loop = asyncio.get_running_loop()
        received = time.time()
        updates: asyncio.Queue[tuple[int, RequestSnapshot | None]] = asyncio.Queue()

        def listener(index: int) -> Callable[[RequestSnapshot | None], None]:
            def notify(snapshot: RequestSnapshot | None) -> None:
                loop.call_soon_threadsafe(updates.put_nowait, (index, snapshot))

            return notify

        jobs = [
            ModelJob(request, Timeline(received), Uniforms(request.seed), stream, listener(index))
            for index, request in enumerate(requests)
        ]
        await self._open.wait()
        self.in_flight += 1
        left = len(jobs)
        try:
            await self.call(lambda: self._thread.submit(jobs))
            while left:
                index, snapshot = await updates.get()
                if snapshot is None:
                    raise EngineDeadError
                left -= snapshot.finish is not None
                yield index, snapshot
        finally:
            self.in_flight -= 1
            if left:
                # By identity: a refused duplicate must not end the request it duplicates.
                mine = {id(request) for request in requests}
                with suppress(EngineDeadError):
                    self._thread.post(lambda: self._thread.abort(lambda request: id(request) in mine))
            async with self._changed:
                self._changed.notify_all()

    async def pause(self, mode: PauseMode) -> None:
        """Stop generating; with `abort` it returns when every request has ended."""
        await self.call(lambda: self._thread.pause(mode))
        async with self._changed:
            self._changed.notify_all()

    async def resume(self) -> None:
        """Continue generating."""
        await self.call(self.scheduler.resume)

    async def abort(self, rid: str | None = None) -> None:
        """End the requests that `rid` names, or all."""
        await self.call(lambda: self._thread.abort(lambda request: rid is None or request.named(rid)))

    async def flush(self) -> bool:
        """Whether the cache is empty now; it is not emptied under live requests."""
        return await self.call(lambda: not self.scheduler.busy)

    async def set_version(self, version: str) -> None:
        """Name the current weights."""
        await self.call(lambda: self._thread.set_version(version))

    async def checksums(self) -> dict[str, str]:
        """Checksum of every tensor of the model."""
        return await self.call(lambda: checksums(self.model))

    async def update_from_disk(self, path: Path, version: str | None, *, flush: bool, abort_all: bool) -> None:
        """Replace all weights by those of a model folder. Unpaused, it holds new requests and waits for open ones.

        Raises:
            WeightsError: the folder is no good; nothing has changed.
            CacheNotFlushedError: the weights are new, but requests hold cache of the old: the version stays.
        """
        async with self._updating:
            with self._waits.on("storage", "{on} to give new weights"):
                tensors = await asyncio.to_thread(read_tensors, path)
            check_tensors(self.model, {name: tensor.shape for name, tensor in tensors.items()}, complete=True)
            await asyncio.to_thread(check_finite, tensors)
            await self._replace(tensors, version, flush=flush, abort_all=abort_all)

    async def update_from_group(
        self, receive: Callable[[], dict[str, torch.Tensor]], version: str | None, *, flush: bool, abort_all: bool
    ) -> None:
        """Replace the weights that `receive` (run in a thread) brings, which may be some of them; raises likewise."""
        async with self._updating:
            with self._waits.on("learner", "{on} to send new weights"):
                tensors = await asyncio.to_thread(receive)
            await asyncio.to_thread(check_finite, tensors)
            await self._replace(tensors, version, flush=flush, abort_all=abort_all)

    async def _replace(
        self, tensors: dict[str, torch.Tensor], version: str | None, *, flush: bool, abort_all: bool
    ) -> None:
        if abort_all:
            await self.abort()
        if not self.paused:
            self._open.clear()
        try:
            async with self._changed:
                with self._waits.on("engine", "its open requests to end before it changes weights"):
                    await self._changed.wait_for(lambda: self.in_flight == 0 or self.paused)
            flushed = await self.call(lambda: self._thread.update(tensors, version, flush))
        finally:
            self._open.set()
        if not flushed:
            raise CacheNotFlushedError
