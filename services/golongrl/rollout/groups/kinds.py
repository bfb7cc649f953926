"""What differs between the two kinds of leased rows, training and validation; `work` and `leases` do the rest.

How a worker's engine is shared: it holds up to `concurrent_groups` x n responses at a time; a leased group takes n of
these places, a validation row one. Groups in progress continue, and free places go to validation first, because the
learner waits for it; they go back to groups when no row is left to lease. A round asks for each row once and ends by a
deadline of the learner's, so training rollouts are held back for a bounded time.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

import structlog

from golongrl.data.prepared import Prepared, PreparedRow
from golongrl.queue import Lease, RejectReason, SubmitOutcome, ValidationItem, ValidationResult, VersionSpan
from golongrl.queue.errors import NotDurableError, QueueUnavailableError
from golongrl.reward.models import ScoreResult
from golongrl.rollout.backoff import Pause
from golongrl.rollout.groups.assemble import group_of, group_routes, response, version_spans
from golongrl.rollout.groups.bench import Bench
from golongrl.rollout.groups.progress import LiveGroup, Pace
from golongrl.rollout.groups.verdict import Reject, RowRelease, judge
from golongrl.rollout.sglang.answers import Generation
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.adopt import Confirmed
from golongrl.routes.model import MoeRouting
from golongrl.routes.reference import RoutesReference, object_name
from golongrl.routes.store import RoutesError, folder_in, remove_routes, write_routes
from golongrl.telemetry.tracing import of_group

log = structlog.get_logger(__name__)
T = TypeVar("T")
R = TypeVar("R")

# Why a benchmark's answer comes without a reward.
LEARNER_SCORES = "the learner scores it"
# The queue's client has its own retries; this is the pause between two of its whole attempts.
_PAUSE_S = 2.0
# A finished group waits this share of a lease's time without progress for a store that cannot be written; then the row
# is given back before its lease is lost, which would count as a failed try of the row.
_STORE_SHARE = 0.4


@dataclass(frozen=True)
class TooLong:
    """The prompt leaves no room for a response: nothing was asked of the engine."""

    tokens: int


@dataclass(frozen=True)
class Scored:
    """All responses of a row, with what the reward service said of each (nothing of a benchmark's, which the learner
    scores), and seconds by phase."""

    row: PreparedRow
    answers: Sequence[Generation]
    spans: Sequence[tuple[VersionSpan, ...]]
    results: Sequence[ScoreResult]
    timings: dict[str, float]
    held: Confirmed
    """The weights at the lease."""
    leased: float = 0.0
    """When the work on it began: seconds since 1970."""


class RowKind(ABC, Generic[T]):
    """Training or validation rows: their data, their sampling, and how the queue is told about them."""

    name: ClassVar[str]
    stalls: ClassVar[bool]
    """Whether a lost lease means no progress; otherwise the row is only not wanted any more."""
    traced: ClassVar[bool] = False
    """Whether a row has a trace."""
    routed: ClassVar[bool] = False
    """Whether the learner needs the experts of each token."""
    exact: ClassVar[bool]
    """Whether all tokens must be from the weights at the lease; else newer ones may be among them."""

    def __init__(self, bench: Bench, data: Prepared, sampling: SamplingParams, n: int) -> None:
        self.bench = bench
        self.data = data
        self.sampling = sampling
        self.n = n
        # Each kind has its own, because validation is sampled otherwise and its responses have another usual length.
        self.pace = Pace()

    def row(self, item: T) -> PreparedRow:
        """The leased row's data. Raises IndexError: this worker's data has no such row."""
        return self.data.row(self.index(item))

    def live(self, item: T, row: PreparedRow, held: Confirmed) -> LiveGroup:
        """The progress of a leased row, none of whose responses has a token yet."""
        return LiveGroup.begin(
            uid=self.uid(item),
            token=self.token(item),
            version=held.ref.version,
            prompt_tokens=row.prompt_ids.size,
            n=self.n,
            max_response_tokens=self.bench.recipe.rollout.max_response_tokens,
        )

    def routing(self, held: Confirmed) -> MoeRouting | None:
        """How tokens are routed to experts, where the engine is to tell; else None."""
        return held.routing if self.routed and self.bench.recipe.learner.routing_replay else None

    def spans(self, live: LiveGroup, answer: Generation) -> tuple[VersionSpan, ...]:
        """The versions of an answer's tokens. Raises ForeignWeightsError: not the ones this row may have."""
        newest = live.oldest_version if self.exact else self.bench.state.engine_version
        return version_spans(answer, live.oldest_version, newest)

    @abstractmethod
    def index(self, item: T) -> int:
        """Which row of the data is leased."""

    @abstractmethod
    def uid(self, item: T) -> str:
        """The name of the work, from which requests and seeds derive."""

    @abstractmethod
    def token(self, item: T) -> str:
        """What proves the lease."""

    @abstractmethod
    async def renew(self, rows: Sequence[tuple[T, LiveGroup]]) -> Sequence[bool]:
        """Prolong leases; False where one is lost. Raises QueueError."""

    @abstractmethod
    async def hand_in(self, item: T, live: LiveGroup, made: Scored | TooLong) -> None:
        """Tell the queue what became of the row, for as long as that takes."""

    @abstractmethod
    async def give_back(self, item: T, back: RowRelease) -> None:
        """Give the row back. Raises QueueError."""


class TrainingKind(RowKind[Lease]):
    """Groups for the learner."""

    name = "group"
    traced = True
    routed = True
    stalls = True
    exact = False

    def __init__(self, bench: Bench) -> None:
        rollout = bench.recipe.rollout
        super().__init__(bench, bench.data, SamplingParams.training(rollout), rollout.n)

    def index(self, item: Lease) -> int:
        return item.row

    def uid(self, item: Lease) -> str:
        return item.uid

    def token(self, item: Lease) -> str:
        return item.token

    def live(self, item: Lease, row: PreparedRow, held: Confirmed) -> LiveGroup:
        # A lease whose reply was lost is answered again, as it was granted for the weights of that time.
        return replace(super().live(item, row, held), oldest_version=min(item.engine_version, held.ref.version))

    async def renew(self, rows: Sequence[tuple[Lease, LiveGroup]]) -> Sequence[bool]:
        kept = await self.bench.queue.renew(
            self.bench.worker,
            {live.token: live.progress for _, live in rows},
            {live.token: live.phase for _, live in rows},
        )
        return [kept[live.token] for _, live in rows]

    async def hand_in(self, item: Lease, live: LiveGroup, made: Scored | TooLong) -> None:
        recipe = self.bench.recipe
        if isinstance(made, TooLong):
            return await self._reject(item, live, RejectReason.OVERLONG)
        responses = [response(*parts) for parts in zip(made.answers, made.spans, made.results, strict=True)]
        rewards = [each.reward for each in responses]
        verdict = judge(rewards, group_filter=recipe.rollout.group_filter, min_scored=recipe.rollout.min_scored)
        if isinstance(verdict, Reject):
            return await self._reject(item, live, verdict.reason, sum(made.timings.values()))
        bench, moments = self.bench, {"leased": made.leased, "submitted": time.time()}
        routes = await self._stored(item, live, made)
        group = group_of(item, made.row, responses, made.timings, moments, routes)
        outcome = await patiently(lambda: bench.queue.submit(item, group), live)
        if outcome in (SubmitOutcome.ACCEPTED, SubmitOutcome.DUPLICATE):
            bench.metrics.submitted.inc()
            bench.state.submitted += 1
            log.info(
                "group submitted",
                uid=item.uid,
                tokens=sum(len(answer.ids) for answer in made.answers),
                version=group.lowest_version,
                generate_s=round(made.timings["generate_s"], 3),
                score_s=round(made.timings["score_s"], 3),
            )
            if bench.state.announced_version is not None:
                bench.metrics.staleness.observe(max(0, bench.state.announced_version - group.lowest_version))
        else:
            bench.metrics.released.labels(str(outcome)).inc()
            log.warning("the finished group was not accepted", uid=item.uid, outcome=str(outcome))
            if routes is not None:
                await asyncio.to_thread(remove_routes, _routes_folder(made), [routes.name])
        return None

    async def _stored(self, item: Lease, live: LiveGroup, made: Scored) -> RoutesReference | None:
        """Where the group's routes are, durable by now; None where they are not replayed. A worker that ends between
        this and the submission leaves a file that the learner removes.

        Raises:
            RoutesError: the store could not be written for long.
        """
        routing = self.routing(made.held)
        if routing is None:
            return None
        routes = group_routes(made.answers, made.row.prompt_ids.size, routing.experts)
        until = time.monotonic() + _STORE_SHARE * self.bench.recipe.queue.stall_s
        while True:
            try:
                reference = await asyncio.to_thread(write_routes, _routes_folder(made), object_name(item.token), routes)
            except RoutesError as error:
                if live.held_up is None:
                    log.warning("a finished group waits for the weight store", uid=live.uid, error=str(error))
                live.held_up = Pause("waiting", "storage", str(error))
                if time.monotonic() + _PAUSE_S > until:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                live.held_up = None
                return reference

    async def _reject(self, item: Lease, live: LiveGroup, reason: RejectReason, seconds: float = 0.0) -> None:
        if await patiently(lambda: self.bench.queue.reject(item, reason), live):
            self.bench.metrics.rejected.labels(reason).inc()
            rejected = self.bench.state.rejected
            rejected[reason] = rejected.get(reason, 0) + 1
            log.info("group rejected", uid=item.uid, reason=str(reason))
            now, context = time.time(), of_group(self.bench.queue.run, item.uid)
            attributes = {"rl.group.uid": item.uid, "rl.worker": self.bench.worker, "rl.rejected": str(reason)}
            self.bench.tracing.record("rl.group", context, now - seconds, now, attributes, root=True)

    async def give_back(self, item: Lease, back: RowRelease) -> None:
        self.bench.metrics.released.labels(back.reason).inc()
        await self.bench.queue.release(item, back.reason, failed=back.failed, detail=back.detail)


class ValidationKind(RowKind[ValidationItem]):
    """Answers to the validation set. All tokens of an answer are from exactly the weights that the round validates."""

    name = "validation row"
    stalls = False
    exact = True

    def __init__(self, bench: Bench, data: Prepared) -> None:
        super().__init__(bench, data, SamplingParams.validation(bench.recipe.rollout), 1)

    def index(self, item: ValidationItem) -> int:
        return item.row

    def uid(self, item: ValidationItem) -> str:
        return f"validation-{item.row}"

    def token(self, item: ValidationItem) -> str:
        return item.token

    async def renew(self, rows: Sequence[tuple[ValidationItem, LiveGroup]]) -> Sequence[bool]:
        return await self.bench.queue.validation.renew([item for item, _ in rows])

    async def hand_in(self, item: ValidationItem, live: LiveGroup, made: Scored | TooLong) -> None:
        bench = self.bench
        if isinstance(made, TooLong):
            result = ValidationResult(item.row, reason=f"a prompt of {made.tokens} tokens is too long")
        else:
            [answer] = made.answers
            scored = made.results[0] if made.results else None
            result = ValidationResult(
                item.row,
                scored.score if scored else None,
                (scored.reason or "") if scored else LEARNER_SCORES,
                answer.text,
                len(answer.ids),
                answer.finish,
                bench.worker,
            )
        held = await patiently(lambda: bench.queue.validation.submit(item, result), live)
        unscored = result.reward is None and result.reason != LEARNER_SCORES
        outcome = "late" if not held else "unscored" if unscored else "scored"
        bench.metrics.validated.labels(outcome).inc()

    async def give_back(self, item: ValidationItem, back: RowRelease) -> None:
        await self.bench.queue.validation.release(item, back.detail or back.reason, lost=back.failed)


def _routes_folder(made: Scored) -> Path:
    """Beside the weights that the row was leased with."""
    return folder_in(Path(made.held.ref.path).parent)


async def patiently(call: Callable[[], Awaitable[R]], live: LiveGroup) -> R:
    """Tell the queue what became of a row, for as long as that takes; bounded by the lease."""
    while True:
        try:
            return await call()
        except (QueueUnavailableError, NotDurableError) as error:
            log.warning("a finished row waits for the queue", uid=live.uid, error=str(error))
            live.held_up = Pause("waiting", "queue", f"the queue: {error}")
            await asyncio.sleep(_PAUSE_S)
