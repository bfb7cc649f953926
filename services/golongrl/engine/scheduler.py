"""Which request is waiting, running or finished, and why: a pure state machine, without torch, clock or threads.

    submit -> WAITING -> admit -> RUNNING -> extend ... -> FINISHED
                 ^                   |
                 +---- retract ------+            abort: from anywhere to FINISHED

Invariants (tests/engine/test_scheduler.py checks them over random histories):
- a request id is live at most once; no request is in two places; at most `max_batch` run;
- requests start in the order they came, retracted ones first, so that none starves;
- nothing is admitted or extended while paused;
- the spans of a request cover its output exactly, in order, and neighbours differ in version;
- a finished request never changes again.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

PauseMode = Literal["abort", "retract", "in_place"]
Decode = Callable[[Sequence[int]], str]

# A stop string may begin this many tokens before the newest one and still be found without decoding the whole output:
# a token of a byte-level vocabulary is at least one byte, a character at most four.
_BYTES_PER_CHARACTER = 4


class QueueFullError(Exception):
    """More requests would wait than the engine accepts."""


class DuplicateRequestError(Exception):
    """A live request has this id; the id is `args[0]`."""


class SequencePhase(StrEnum):
    """Where a request is."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class RequestSampling:
    """How to sample one response. `temperature` 0 is greedy; `top_k` -1 and `top_p` 1 switch truncation off."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    min_new_tokens: int = 0
    stop_token_ids: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()
    trim_stop: bool = True
    skip_special_tokens: bool = True
    stream_interval: int = 1


@dataclass(slots=True)
class TokenSpan:
    """Output tokens [start, end) were sampled from the weights `version`."""

    version: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Why a request ended; `matched` is the stop token or string, `message` says why it was aborted."""

    type: Literal["length", "stop", "abort"]
    matched: int | str | None = None
    message: str = ""


@dataclass(eq=False, slots=True)
class GenerationRequest:
    """One response being generated. `seed` decides its random numbers, whatever else is in the batch."""

    rid: str
    prompt: tuple[int, ...]
    sampling: RequestSampling
    seed: int = 0
    parent: str | None = None
    extra_key: str | None = None
    """Requests share computed prompts only with requests of the same key."""
    output: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    spans: list[TokenSpan] = field(default_factory=list)
    phase: SequencePhase = SequencePhase.WAITING
    finish: Finish | None = None
    retractions: int = 0
    cached_tokens: int = 0
    routes_from: int | None = None
    """The first token whose experts the answer has; None: it has none."""

    @property
    def tokens(self) -> tuple[int, ...]:
        """Prompt and output: what a (re-)prefill computes keys and values of."""
        return (*self.prompt, *self.output)

    def named(self, rid: str) -> bool:
        """Whether `rid` means this request: its own id, or that of the call that asked for several responses."""
        return rid in (self.rid, self.parent)


@dataclass(frozen=True, slots=True)
class Prefill:
    """Requests whose key and tokens so far are the same: prefilled once, then each samples on its own."""

    tokens: tuple[int, ...]
    requests: tuple[GenerationRequest, ...]


class Scheduler:
    """The requests of an engine. See the module for states and invariants."""

    def __init__(self, max_batch: int, max_queue: int, version: str, decode: Decode) -> None:
        self.max_batch = max_batch
        self.max_queue = max_queue
        self.version = version
        self.paused: PauseMode | None = None
        self.waiting: deque[GenerationRequest] = deque()
        self.running: list[GenerationRequest] = []
        self._decode = decode

    @property
    def live(self) -> list[GenerationRequest]:
        """Every request that has not finished, running ones first."""
        return [*self.running, *self.waiting]

    @property
    def busy(self) -> bool:
        """Whether there is key-value cache in use, or about to be: then the cache cannot be flushed."""
        return bool(self.running) or (bool(self.waiting) and self.paused is None)

    def submit(self, requests: Sequence[GenerationRequest]) -> None:
        """Queue `requests`, all or none.

        Raises:
            DuplicateRequestError: an id is live already, or given twice.
            QueueFullError: more than `max_queue` requests would wait beyond those that can run.
        """
        taken = {request.rid for request in self.live}
        for request in requests:
            if request.rid in taken:
                raise DuplicateRequestError(request.rid)
            taken.add(request.rid)
        free = self.max_batch - len(self.running)
        if len(self.waiting) + len(requests) > self.max_queue + free:
            raise QueueFullError
        self.waiting.extend(requests)

    def admit(self, max_tokens: int) -> list[Prefill]:
        """Start waiting requests in order while there is room in the batch; returns what must be prefilled for them.

        At most about `max_tokens` tokens of different prompts at a time (but at least one prompt), so that running
        requests do not stand still for long.
        """
        if self.paused is not None:
            return []
        groups: dict[tuple[str | None, tuple[int, ...]], list[GenerationRequest]] = {}
        tokens = 0
        while self.waiting and len(self.running) < self.max_batch:
            request = self.waiting[0]
            key = (request.extra_key, request.tokens)
            if key not in groups:
                if groups and tokens + len(key[1]) > max_tokens:
                    break
                tokens += len(key[1])
            else:
                request.cached_tokens = len(request.prompt)
            groups.setdefault(key, []).append(request)
            self.waiting.popleft()
            request.phase = SequencePhase.RUNNING
            self.running.append(request)
        return [Prefill(tokens=key[1], requests=tuple(group)) for key, group in groups.items()]

    def extend(self, request: GenerationRequest, token: int, logprob: float) -> bool:
        """Append a sampled token with its log-prob under the current version; True if that ended the request.

        Raises:
            ValueError: the request is not running, or the scheduler is paused.
        """
        if self.paused is not None or request.phase is not SequencePhase.RUNNING:
            raise ValueError(f"{request.rid} cannot be extended: it is {request.phase}, pause mode is {self.paused}")
        at = len(request.output)
        request.output.append(token)
        request.logprobs.append(logprob)
        if request.spans and request.spans[-1].version == self.version:
            request.spans[-1].end = at + 1
        else:
            request.spans.append(TokenSpan(self.version, at, at + 1))
        finish = stopping(request, token, self._decode)
        if finish is None:
            return False
        self.running.remove(request)
        self._finish(request, finish)
        return True

    def abort(self, which: Callable[[GenerationRequest], bool]) -> list[GenerationRequest]:
        """End the live requests for which `which` holds, where they are; returns them."""
        hit = [request for request in self.live if which(request)]
        for request in hit:
            never_ran = request.phase is SequencePhase.WAITING and not request.output
            (self.running if request.phase is SequencePhase.RUNNING else self.waiting).remove(request)
            self._finish(request, Finish("abort", message="Abort in waiting queue" if never_ran else "Aborted"))
        return hit

    def pause(self, mode: PauseMode) -> list[GenerationRequest]:
        """Stop generating. `abort` ends every request, `retract` sends the running ones back to the head of the queue
        (their cache is void), `in_place` leaves them. Returns the requests that `abort` ended."""
        self.paused = mode
        if mode == "abort":
            return self.abort(lambda _: True)
        if mode == "retract":
            for request in self.running:
                request.phase = SequencePhase.WAITING
                request.retractions += 1
            self.waiting.extendleft(reversed(self.running))
            self.running.clear()
        return []

    def resume(self) -> None:
        """Continue generating."""
        self.paused = None

    @staticmethod
    def _finish(request: GenerationRequest, finish: Finish) -> None:
        request.phase = SequencePhase.FINISHED
        request.finish = finish


def stopping(request: GenerationRequest, token: int, decode: Decode) -> Finish | None:
    """Why the output, whose newest token is `token`, ends here, or None.

    As in SGLang the length counts before a stop: a response that fills its budget is a `length` even if its last token
    is a stop token, and stop strings are looked for in the newest tokens only.
    """
    sampling = request.sampling
    if len(request.output) >= sampling.max_new_tokens:
        return Finish("length")
    if token in sampling.stop_token_ids:
        return Finish("stop", matched=token)
    if sampling.stop:
        tail = _BYTES_PER_CHARACTER * max(map(len, sampling.stop)) + 1
        matched = first_stop(decode(request.output[-tail:]), sampling.stop)
        if matched is not None:
            return Finish("stop", matched=matched)
    return None


def first_stop(text: str, stops: Iterable[str]) -> str | None:
    """The stop string that `text` contains (the first of `stops` where several do), or None."""
    return next((stop for stop in stops if stop in text), None)
