"""The engine: one thread that owns scheduler, model and cache, and an asyncio face for everyone else.

The thread alternates: obey the commands that came in, then do one unit of work (a prefill, or one decode step for all
running requests). Everything that touches the scheduler or the model runs there, so nothing needs a lock; coroutines
send closures (`call`) and read their futures. Between two steps at most one unit of work passes, so a pause or an abort
takes effect within one step.

A failure of the thread is final: every open request gets `EngineDeadError`, `alive` turns False, `on_death` is called.
"""

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
import torch
from transformers import PreTrainedModel

from golongrl.engine.generator import Generator
from golongrl.engine.metrics import Metrics
from golongrl.engine.sampling import Uniforms, sample
from golongrl.engine.scheduler import (
    Decode,
    DuplicateRequestError,
    Finish,
    PauseMode,
    Prefill,
    QueueFullError,
    Request,
    Scheduler,
    Span,
)
from golongrl.engine.weights import WeightsError, check_tensors, checksums, copy_tensors, read_tensors

log = structlog.get_logger()
T = TypeVar("T")

# What a command may raise without meaning that the thread is broken.
_EXPECTED = (DuplicateRequestError, QueueFullError, WeightsError)


class EngineDeadError(Exception):
    """The model thread has failed; the log has its traceback."""


class CacheNotFlushedError(Exception):
    """The cache is in use. After a weight update: the weights ARE the new ones, the version is still the old one."""


@dataclass(slots=True)
class Timeline:
    """When things happened to a request: `time.time()`, or None as long as they have not."""

    received: float
    admitted: float | None = None
    prefilled: float | None = None
    finished: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A request as it was at one moment; with `finish` set it is the last one."""

    rid: str
    prompt_tokens: int
    output: tuple[int, ...]
    logprobs: tuple[float, ...]
    spans: tuple[Span, ...]
    version: str
    finish: Finish | None
    retractions: int
    cached_tokens: int
    timeline: Timeline


@dataclass(eq=False, slots=True)
class _Job:
    """A live request with what the thread needs to serve it."""

    request: Request
    timeline: Timeline
    uniforms: Uniforms
    stream: bool
    notify: Callable[[Snapshot | None], None]


@dataclass(slots=True)
class _Batch:
    """Sampling parameters of the rows, as tensors; rebuilt when rows come or go."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    floors: list[tuple[int, Request]] = field(default_factory=list)


class Engine:
    """Generates for many callers at once, and changes weights between two steps. Use from one event loop."""

    def __init__(
        self,
        model: PreTrainedModel,
        decode: Decode,
        metrics: Metrics,
        *,
        version: str,
        max_batch: int,
        max_queue: int,
        max_prefill_tokens: int,
        on_death: Callable[[], None] = lambda: None,
    ) -> None:
        self.model = model
        self.scheduler = Scheduler(max_batch, max_queue, version, decode)
        self.generator = Generator(model, max_batch)
        self.metrics = metrics
        self.in_flight = 0
        self._max_prefill_tokens = max_prefill_tokens
        self._on_death = on_death
        self._jobs: dict[str, _Job] = {}
        self._rows: list[_Job] = []
        self._batch: _Batch | None = None
        self._commands: queue.SimpleQueue[tuple[Callable[[], object], Future[object]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._stopping = False
        self.failed = False
        self._updating = asyncio.Lock()
        self._open = asyncio.Event()
        self._open.set()
        self._changed = asyncio.Condition()

    # --- the asyncio side ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the model thread."""
        self._thread.start()

    async def stop(self) -> None:
        """Abort what is left and end the thread."""
        if self.alive:
            await self.abort()
            await self.call(self._stop)
        await asyncio.to_thread(self._thread.join)

    @property
    def alive(self) -> bool:
        """Whether the model thread works."""
        return self._thread.is_alive() and not self.failed

    @property
    def paused(self) -> bool:
        """Whether generation is paused."""
        return self.scheduler.paused is not None

    def memory(self) -> dict[str, list[torch.Tensor]]:
        """The tensors that take memory, by what for."""
        return {"weight": list(self.model.parameters()), "kv_cache": self.generator.tensors}

    async def call(self, command: Callable[[], T]) -> T:
        """Run `command` in the model thread between two steps.

        Raises:
            EngineDeadError: the thread has failed.
        """
        if not self.alive:
            raise EngineDeadError
        future: Future[T] = Future()
        self._commands.put((command, future))  # type: ignore[arg-type]
        if self.failed:  # it died in between and may not have seen the command
            self._bury()
        return await asyncio.wrap_future(future)

    async def generate(self, requests: Sequence[Request], *, stream: bool) -> AsyncGenerator[tuple[int, Snapshot]]:
        """Run `requests` together; yields (index, snapshot) as they finish, and with `stream` before that at their
        first token and every `stream_interval` tokens after it.

        Leaving the iterator early aborts what has not finished.

        Raises:
            DuplicateRequestError, QueueFullError: nothing was started.
            EngineDeadError: the thread failed.
        """
        loop = asyncio.get_running_loop()
        received = time.time()
        updates: asyncio.Queue[tuple[int, Snapshot | None]] = asyncio.Queue()

        def listener(index: int) -> Callable[[Snapshot | None], None]:
            def notify(snapshot: Snapshot | None) -> None:
                loop.call_soon_threadsafe(updates.put_nowait, (index, snapshot))

            return notify

        jobs = [
            _Job(request, Timeline(received), Uniforms(request.seed), stream, listener(index))
            for index, request in enumerate(requests)
        ]
        await self._open.wait()
        self.in_flight += 1
        left = len(jobs)
        try:
            await self.call(lambda: self._submit(jobs))
            while left:
                index, snapshot = await updates.get()
                if snapshot is None:
                    raise EngineDeadError
                left -= snapshot.finish is not None
                yield index, snapshot
        finally:
            self.in_flight -= 1
            if left and self.alive:
                # By identity: a refused duplicate must not end the request it duplicates.
                mine = {id(request) for request in requests}
                self._commands.put((lambda: self._abort(lambda request: id(request) in mine), Future()))
            async with self._changed:
                self._changed.notify_all()

    async def pause(self, mode: PauseMode) -> None:
        """Stop generating; with `abort` it returns when every request has ended."""
        await self.call(lambda: self._pause(mode))
        async with self._changed:
            self._changed.notify_all()

    async def resume(self) -> None:
        """Go on generating."""
        await self.call(self.scheduler.resume)

    async def abort(self, rid: str | None = None) -> None:
        """End the requests that `rid` names, or all."""
        await self.call(lambda: self._abort(lambda request: rid is None or request.named(rid)))

    async def flush(self) -> bool:
        """Whether the cache is empty now; it is not emptied under live requests."""
        return await self.call(lambda: not self.scheduler.busy)

    async def set_version(self, version: str) -> None:
        """Name the current weights."""
        await self.call(lambda: self._set_version(version))

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
            tensors = await asyncio.to_thread(read_tensors, path)
            check_tensors(self.model, {name: tensor.shape for name, tensor in tensors.items()}, complete=True)
            await self._replace(tensors, version, flush=flush, abort_all=abort_all)

    async def update_from_group(
        self, receive: Callable[[], dict[str, torch.Tensor]], version: str | None, *, flush: bool, abort_all: bool
    ) -> None:
        """Replace the weights that `receive` (run in a thread) brings, which may be some of them; raises likewise."""
        async with self._updating:
            tensors = await asyncio.to_thread(receive)
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
                await self._changed.wait_for(lambda: self.in_flight == 0 or self.paused)
            flushed = await self.call(lambda: self._update(tensors, version, flush))
        finally:
            self._open.set()
        if not flushed:
            raise CacheNotFlushedError

    # --- the model thread ---------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while not self._stopping:
                self._obey()
                if self.scheduler.paused is None:
                    self._step()
        except Exception:
            # The boundary of the thread: whatever it was, nothing can be generated any more, and everyone must know.
            log.exception("the model thread failed")
            self.failed = True
            self._bury()
            self._on_death()

    def _obey(self) -> None:
        """Run all commands that wait; when there is nothing to generate, wait for one."""
        idle = self.scheduler.paused is not None or not (self._rows or self.scheduler.waiting)
        if idle:
            self.metrics.throughput.idle()
        while idle or not self._commands.empty():
            command, future = self._commands.get()
            idle = False
            try:
                result = command()
            except _EXPECTED as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _bury(self) -> None:
        for job in list(self._jobs.values()):
            job.notify(None)
        while not self._commands.empty():
            self._commands.get()[1].set_exception(EngineDeadError())

    def _stop(self) -> None:
        self._stopping = True

    def _submit(self, jobs: Sequence[_Job]) -> None:
        self.scheduler.submit([job.request for job in jobs])
        for job in jobs:
            self._jobs[job.request.rid] = job

    def _pause(self, mode: PauseMode) -> None:
        for request in self.scheduler.pause(mode):
            self._close(self._jobs[request.rid])
        if mode != "in_place":
            self._drop_rows(range(len(self._rows)))

    def _abort(self, which: Callable[[Request], bool]) -> None:
        for request in self.scheduler.abort(which):
            self._close(self._jobs[request.rid])
        self._drop_rows([row for row, job in enumerate(self._rows) if job.request.finish is not None])

    def _set_version(self, version: str) -> None:
        self.scheduler.version = version

    def _update(self, tensors: dict[str, torch.Tensor], version: str | None, flush: bool) -> bool:
        copy_tensors(self.model, tensors)
        if flush and self.scheduler.busy:
            return False
        if version is not None:
            self.scheduler.version = version
        return True

    def _step(self) -> None:
        prefills = self.scheduler.admit(self._max_prefill_tokens)
        if prefills:
            self._prefill(prefills)
        elif self._rows:
            logits = self.generator.decode([job.request.output[-1] for job in self._rows])
            self._sample(0, logits)

    def _prefill(self, prefills: Sequence[Prefill]) -> None:
        admitted = time.time()
        logits = self.generator.prefill([(prefill.tokens, len(prefill.requests)) for prefill in prefills])
        first = len(self._rows)
        self._rows.extend(self._jobs[request.rid] for prefill in prefills for request in prefill.requests)
        self._batch = None
        prefilled = time.time()
        for job in self._rows[first:]:
            if job.timeline.admitted is None:
                job.timeline.admitted, job.timeline.prefilled = admitted, prefilled
                self.metrics.admitted(job.timeline.received, admitted, prefilled, stream=job.stream)
        self.metrics.prefilled(prefills)
        self._sample(first, logits)

    def _sample(self, first: int, logits: torch.Tensor) -> None:
        """Draw the next token of the rows from `first` on; close those that end."""
        rows = self._rows[first:]
        batch = self._parameters()
        for row, request in batch.floors:
            if row >= first and len(request.output) < request.sampling.min_new_tokens:
                logits[row - first, list(request.sampling.stop_token_ids)] = float("-inf")
        uniform = torch.tensor([job.uniforms[len(job.request.output)] for job in rows], dtype=torch.float64)
        tokens, logprobs = sample(logits, batch.temperature[first:], batch.top_k[first:], batch.top_p[first:], uniform)
        ended = []
        for row, (job, token, logprob) in enumerate(zip(rows, tokens.tolist(), logprobs.tolist(), strict=True), first):
            if self.scheduler.extend(job.request, token, logprob):
                ended.append(row)
                self._close(job)
            elif job.stream and (len(job.request.output) - 1) % job.request.sampling.stream_interval == 0:
                job.notify(self._snapshot(job))
        self._drop_rows(ended)
        self.metrics.sampled(len(rows))

    def _parameters(self) -> _Batch:
        if self._batch is None:
            samplings = [job.request.sampling for job in self._rows]
            self._batch = _Batch(
                temperature=torch.tensor([s.temperature for s in samplings], dtype=torch.float32),
                top_k=torch.tensor([s.top_k for s in samplings], dtype=torch.long),
                top_p=torch.tensor([s.top_p for s in samplings], dtype=torch.float64),
                floors=[
                    (row, job.request)
                    for row, job in enumerate(self._rows)
                    if job.request.sampling.min_new_tokens and job.request.sampling.stop_token_ids
                ],
            )
        return self._batch

    def _drop_rows(self, rows: Sequence[int]) -> None:
        """Free the slots of `rows` (ascending), keeping `_rows` parallel to the generator's slots."""
        for row in reversed(rows):
            self.generator.release(row)
            self._rows[row] = self._rows[-1]
            self._rows.pop()
        if rows:
            self._batch = None

    def _close(self, job: _Job) -> None:
        """Tell the caller that its request has finished."""
        job.timeline.finished = time.time()
        del self._jobs[job.request.rid]
        snapshot = self._snapshot(job)
        self.metrics.finished(snapshot, stream=job.stream)
        job.notify(snapshot)

    def _snapshot(self, job: _Job) -> Snapshot:
        request = job.request
        return Snapshot(
            rid=request.rid,
            prompt_tokens=len(request.prompt),
            output=tuple(request.output),
            logprobs=tuple(request.logprobs),
            spans=tuple(Span(span.version, span.start, span.end) for span in request.spans),
            version=self.scheduler.version,
            finish=request.finish,
            retractions=request.retractions,
            cached_tokens=request.cached_tokens,
            timeline=job.timeline,
        )
