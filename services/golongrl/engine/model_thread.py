"""The thread that owns scheduler, model and cache: everything that changes them runs here, so nothing needs a lock.

It alternates: obey the commands that came in, then do one unit of work (a prefill, or one decode step for all running
requests). Between two steps at most one unit of work passes, so a pause or an abort takes effect within one step.

A failure of the thread is final: every open request gets None instead of a snapshot, `alive` turns False, `on_death`
is called.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
import torch
from transformers import PreTrainedModel

from golongrl.engine.config import Limits
from golongrl.engine.generator import Generator
from golongrl.engine.metrics import EngineMetrics
from golongrl.engine.routes import RouteLog, of_prompts
from golongrl.engine.sampling import Uniforms, sample
from golongrl.engine.scheduler import (
    Decode,
    DuplicateRequestError,
    GenerationRequest,
    PauseMode,
    Prefill,
    QueueFullError,
    Scheduler,
    TokenSpan,
)
from golongrl.engine.snapshot import RequestSnapshot, Timeline
from golongrl.engine.weights import EngineWeightsError, copy_tensors
from golongrl.telemetry.waits import SHORT_S, PendingWait

log = structlog.get_logger()
T = TypeVar("T")

# What a command may raise without meaning that the thread is broken.
_EXPECTED = (DuplicateRequestError, QueueFullError, EngineWeightsError)


class EngineDeadError(Exception):
    """The model thread has failed; the log has its traceback."""


@dataclass(eq=False, slots=True)
class ModelJob:
    """A live request with what the thread needs to serve it."""

    request: GenerationRequest
    timeline: Timeline
    uniforms: Uniforms
    stream: bool
    notify: Callable[[RequestSnapshot | None], None]
    routes: RouteLog | None = None

    def __post_init__(self) -> None:
        if self.request.routes_from is not None:
            self.routes = RouteLog(self.request.routes_from)


@dataclass(slots=True)
class _DecodeBatch:
    """Sampling parameters of the rows, as tensors; rebuilt when rows come or go."""

    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    floors: list[tuple[int, GenerationRequest]] = field(default_factory=list)


class ModelThread:
    """Runs requests, and commands between two steps. Other threads look, and change things by `post` alone."""

    def __init__(
        self,
        model: PreTrainedModel,
        decode: Decode,
        metrics: EngineMetrics,
        limits: Limits,
        *,
        version: str,
        on_death: Callable[[], None],
    ) -> None:
        self.model = model
        self.scheduler = Scheduler(limits.max_batch, limits.max_queue, version, decode)
        self.generator = Generator(model, limits.max_batch)
        self.failed = False
        self._metrics = metrics
        self._max_prefill_tokens = limits.max_prefill_tokens
        self._on_death = on_death
        self._jobs: dict[str, ModelJob] = {}
        self._rows: list[ModelJob] = []
        self._batch: _DecodeBatch | None = None
        self._commands: queue.SimpleQueue[tuple[Callable[[], object], Future[object]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._stopping = False
        self._step_since: float | None = None
        self._paused_since = 0.0

    # --- for other threads --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, which `stop` brings."""
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive() and not self.failed

    def post(self, command: Callable[[], T]) -> Future[T]:
        """Run `command` between two steps.

        Raises:
            EngineDeadError: the thread has failed; the future raises it where that happens before the command ran.
        """
        if not self.alive:
            raise EngineDeadError
        future: Future[T] = Future()
        self._commands.put((command, future))  # type: ignore[arg-type]
        if self.failed:  # it died in between and may not have seen the command
            self._bury()
        return future

    def waits(self) -> list[PendingWait]:
        """What holds up the requests, as far as it takes long; values may be of a moment ago."""
        now, since, held = time.monotonic(), self._step_since, len(self._jobs)
        found = []
        if self.scheduler.paused is not None:
            what = f"{{on}} to let it continue (paused, {self.scheduler.paused})"
            found.append(PendingWait("rollout", what, now - self._paused_since))
        elif since is not None:
            found.append(
                PendingWait("engine", "its model to end a step for", now - since, None, max(1, held), "request")
            )
        return [wait for wait in found if wait.for_s >= SHORT_S]

    # --- commands, to be posted ---------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[ModelJob]) -> None:
        """Take on requests, all or none. Raises DuplicateRequestError, QueueFullError."""
        self.scheduler.submit([job.request for job in jobs])
        for job in jobs:
            self._jobs[job.request.rid] = job

    def pause(self, mode: PauseMode) -> None:
        """Stop generating; see `Scheduler.pause`."""
        if self.scheduler.paused is None:
            self._paused_since = time.monotonic()
        for request in self.scheduler.pause(mode):
            self._close(self._jobs[request.rid])
        if mode != "in_place":
            self._drop_rows(range(len(self._rows)))

    def abort(self, which: Callable[[GenerationRequest], bool]) -> None:
        """End the requests for which `which` holds."""
        for request in self.scheduler.abort(which):
            self._close(self._jobs[request.rid])
        self._drop_rows([row for row, job in enumerate(self._rows) if job.request.finish is not None])

    def set_version(self, version: str) -> None:
        """Name the current weights."""
        self.scheduler.version = version

    def update(self, tensors: dict[str, torch.Tensor], version: str | None, flush: bool) -> bool:
        """Copy checked tensors into the model and name the version; False where live requests kept the cache and with
        it the old version."""
        copy_tensors(self.model, tensors)
        if flush and self.scheduler.busy:
            return False
        if version is not None:
            self.set_version(version)
        return True

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True

    # --- the thread's own ---------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        try:
            while not self._stopping:
                self._obey()
                if self.scheduler.paused is None:
                    self._step_since = time.monotonic()
                    self._step()
                    self._step_since = None
        except Exception:
            # The boundary of the thread: after any error nothing can be generated, and every caller must be told.
            log.exception("the model thread failed")
            self.failed = True
            self._bury()
            self._on_death()

    def _obey(self) -> None:
        """Run all commands that wait; when there is nothing to generate, wait for one."""
        idle = self.scheduler.paused is not None or not (self._rows or self.scheduler.waiting)
        if idle:
            self._metrics.throughput.idle()
        while idle or not self._commands.empty():
            command, future = self._commands.get()
            idle = False
            if not future.set_running_or_notify_cancel():  # who asked is gone
                continue
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
            future = self._commands.get()[1]
            if future.set_running_or_notify_cancel():
                future.set_exception(EngineDeadError())

    def _step(self) -> None:
        prefills = self.scheduler.admit(self._max_prefill_tokens)
        if prefills:
            self._prefill(prefills)
        elif self._rows:
            recorder = self.generator.recorder
            recorder.wanted = any(job.routes is not None for job in self._rows)
            logits = self.generator.decode([job.request.output[-1] for job in self._rows])
            if (routes := recorder.take()) is not None:
                for row, job in enumerate(self._rows):
                    if job.routes is not None:
                        computed = len(job.request.prompt) + len(job.request.output) - 1
                        job.routes.add(routes[row : row + 1], computed)
            self._sample(0, logits)

    def _prefill(self, prefills: Sequence[Prefill]) -> None:
        admitted = time.time()
        logs = [self._jobs[request.rid].routes for prefill in prefills for request in prefill.requests]
        recorder = self.generator.recorder
        recorder.wanted = any(each is not None for each in logs)
        logits = self.generator.prefill([(prefill.tokens, len(prefill.requests)) for prefill in prefills])
        if (routes := recorder.take()) is not None:
            rows = of_prompts(routes, [prefill.tokens for prefill in prefills])
            copies = [part for part, prefill in zip(rows, prefills, strict=True) for _ in prefill.requests]
            for each, part in zip(logs, copies, strict=True):
                if each is not None:
                    each.add(part, 0)
        first = len(self._rows)
        self._rows.extend(self._jobs[request.rid] for prefill in prefills for request in prefill.requests)
        self._batch = None
        prefilled = time.time()
        for job in self._rows[first:]:
            if job.timeline.admitted is None:
                job.timeline.admitted, job.timeline.prefilled = admitted, prefilled
                self._metrics.admitted(job.timeline.received, admitted, prefilled, stream=job.stream)
        self._metrics.prefilled(prefills)
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
        self._metrics.sampled(len(rows))

    def _parameters(self) -> _DecodeBatch:
        if self._batch is None:
            samplings = [job.request.sampling for job in self._rows]
            self._batch = _DecodeBatch(
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

    def _close(self, job: ModelJob) -> None:
        """Tell the caller that its request has finished."""
        job.timeline.finished = time.time()
        del self._jobs[job.request.rid]
        snapshot = self._snapshot(job)
        self._metrics.finished(snapshot, stream=job.stream)
        job.notify(snapshot)

    def _snapshot(self, job: ModelJob) -> RequestSnapshot:
        request = job.request
        return RequestSnapshot(
            rid=request.rid,
            prompt_tokens=len(request.prompt),
            output=tuple(request.output),
            logprobs=tuple(request.logprobs),
            spans=tuple(TokenSpan(span.version, span.start, span.end) for span in request.spans),
            version=self.scheduler.version,
            finish=request.finish,
            retractions=request.retractions,
            cached_tokens=request.cached_tokens,
            timeline=job.timeline,
            routes=None if request.finish is None else job.routes,
        )
