"""One group from lease to its end: sample, score, judge, hand in.

Invariants:
- every lease ends in exactly one of submit, reject, release, or in losing it, whatever goes wrong on the way;
- a token whose version the worker did not confirm never reaches the queue;
- while the reward service is down the finished group is kept; its lease lives as long as the queue allows a lease
  without progress, and then the row is done again. It is never scored 0.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import structlog

from golongrl.data.prepared import Prepared, PreparedRow
from golongrl.errors import InputError
from golongrl.queue import Group, Lease, RejectReason, SampleQueue, SubmitOutcome
from golongrl.queue.errors import NotDurableError, NotSetUpError, QueueError, QueueUnavailableError
from golongrl.recipe import Recipe
from golongrl.reward.client import RewardClient, RewardError, RewardUnavailableError
from golongrl.reward.models import Item, ScoreResult
from golongrl.rollout.backoff import Pause
from golongrl.rollout.groups.assemble import ForeignWeightsError, group_of, response, version_spans
from golongrl.rollout.groups.generate import Prompt, generate_group
from golongrl.rollout.groups.progress import LiveGroup, Pace
from golongrl.rollout.groups.verdict import GroupVerdict, Reject, RowRelease, Verdict, judge, overlong
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State
from golongrl.rollout.sglang.answers import Generation
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import (
    EngineBusyError,
    EngineError,
    EngineProtocolError,
    EngineRefusedError,
    EngineUnavailableError,
)
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.adopt import Confirmed

log = structlog.get_logger(__name__)
T = TypeVar("T")

# The reward and queue clients have their own retries; this is the pause between two of their whole attempts.
_PAUSE_S = 2.0
# When the queue cannot be told that a row comes back, the lease runs out by itself: not worth delaying a stop for.
RELEASE_S = 3.0


@dataclass
class Bench:
    """What a group is made with; one for the life of a worker."""

    recipe: Recipe
    worker: str
    queue: SampleQueue
    engine: EngineClient
    reward: RewardClient
    data: Prepared
    metrics: RolloutMetrics
    state: State
    validation: Prepared | None = None
    """The validation set, where the data has one."""
    pace: Pace = field(default_factory=Pace)
    validation_pace: Pace = field(default_factory=Pace)
    """Apart, because validation is sampled otherwise and its responses have another usual length."""
    suspect: Callable[[EngineError], None] | None = None
    """Told when the engine did not do what a healthy engine holding confirmed weights does."""


async def produce(bench: Bench, lease: Lease, live: LiveGroup, held: Confirmed) -> None:
    """Work on one leased row until its lease has ended.

    Raises:
        InputError: recipe, data and model do not fit together, which every further row would meet again.
        asyncio.CancelledError: after the row was released under `live.give_back`.
    """
    try:
        verdict, group = await _make(bench, lease, live, held)
        await _conclude(bench, lease, live, verdict, group)
    except asyncio.CancelledError:
        # Where the group had reached the queue all the same, this changes nothing there.
        await _release(bench, lease, live, live.give_back)
        raise
    except (EngineUnavailableError, EngineProtocolError, ForeignWeightsError) as error:
        log.warning("the group is given back: the engine failed", uid=lease.uid, error=str(error))
        await _fail(bench, lease, live, "engine_failed", error)
    except EngineBusyError as error:
        log.warning("the group is given back: the engine takes no more", uid=lease.uid, error=str(error))
        await _fail(bench, lease, live, "engine_busy", error)
    except (EngineRefusedError, ValueError) as error:
        await _release(bench, lease, live, "refused")
        raise InputError(f"row {lease.row} cannot be sampled: {error}") from error
    except IndexError as error:
        await _release(bench, lease, live, "refused")
        raise InputError(f"{error}: this worker's --data is not the learner's") from error
    except (RewardError, InputError) as error:
        await _release(bench, lease, live, "refused")
        raise InputError(str(error)) from error
    except NotSetUpError as error:
        bench.metrics.released.labels("lease_lost").inc()
        log.warning("the group is lost: the queue lost its run", uid=lease.uid, error=str(error))


async def _fail(bench: Bench, lease: Lease, live: LiveGroup, reason: str, error: EngineError) -> None:
    await _release(bench, lease, live, reason)
    if bench.suspect is not None:
        bench.suspect(error)


async def _make(bench: Bench, lease: Lease, live: LiveGroup, held: Confirmed) -> tuple[Verdict, Group | None]:
    recipe = bench.recipe
    row = bench.data.row(lease.row)
    live.prompt_tokens = row.prompt_ids.size
    fits = not overlong(
        row.prompt_ids.size,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        max_response_tokens=recipe.rollout.max_response_tokens,
        context_length=recipe.model.context_length,
    )
    if not fits:
        return Reject(RejectReason.OVERLONG), None
    begun = time.monotonic()
    prompt = Prompt(lease.uid, row.prompt_ids, held.vocab_size, recipe.seed)
    answers = await generate_group(
        bench.engine, prompt, SamplingParams.training(recipe.rollout), recipe.rollout.n, live, bench.pace
    )
    generated = time.monotonic()
    bench.metrics.generation.observe(generated - begun)
    count(bench.metrics, answers)
    if any(answer.finish == "abort" for answer in answers):
        return RowRelease("aborted"), None
    spans = [version_spans(answer, lease.engine_version, bench.state.engine_version) for answer in answers]
    live.phase = "scoring"
    results = await score(bench, row, live, answers)
    scored = time.monotonic()
    bench.metrics.scoring.observe(scored - generated)
    bench.metrics.unscored.inc(sum(result.score is None for result in results))
    responses = [response(*parts) for parts in zip(answers, spans, results, strict=True)]
    outcomes = [GroupVerdict(a.finish, r.reward) for a, r in zip(answers, responses, strict=True)]
    verdict = judge(outcomes, group_filter=recipe.rollout.group_filter, min_scored=recipe.rollout.min_scored)
    timings = {"generate_s": generated - begun, "score_s": scored - generated}
    return verdict, group_of(lease, row, responses, timings)


async def score(bench: Bench, row: PreparedRow, live: LiveGroup, answers: Sequence[Generation]) -> list[ScoreResult]:
    """Scores of a row's answers, in order; waits for a reward service that is down, and says so in `live`.

    Raises:
        RewardError: it refused the request, or is no reward service of this version.
    """
    items = [
        Item(
            id=f"{live.uid}.{index}",
            data_source=row.data_source,
            response=answer.text,
            ground_truth=row.ground_truth,
            extra_info=row.extra_info,
        )
        for index, answer in enumerate(answers)
    ]
    reward = bench.recipe.reward
    while True:
        try:
            results = await bench.reward.score(items, reward.mode, deadline_s=reward.deadline_s)
        except RewardUnavailableError as error:
            # Bounded by the lease: without progress the queue ends it after stall_s, and this task with it.
            log.warning("the finished group waits for the reward service", uid=live.uid, error=str(error))
            live.held_up = Pause("waiting", "reward", str(error))
            await asyncio.sleep(_PAUSE_S)
        else:
            live.held_up = None
            return results


async def _conclude(bench: Bench, lease: Lease, live: LiveGroup, verdict: Verdict, group: Group | None) -> None:
    metrics, state = bench.metrics, bench.state
    if isinstance(verdict, RowRelease):
        await _release(bench, lease, live, verdict.reason)
    elif isinstance(verdict, Reject) or group is None:
        reason = verdict.reason if isinstance(verdict, Reject) else RejectReason.OVERLONG
        if await patiently(lambda: bench.queue.reject(lease, reason), live):
            metrics.rejected.labels(reason).inc()
            state.rejected[reason] = state.rejected.get(reason, 0) + 1
            log.info("group rejected", uid=lease.uid, reason=str(reason))
    else:
        outcome = await patiently(lambda: bench.queue.submit(lease, group), live)
        if outcome in (SubmitOutcome.ACCEPTED, SubmitOutcome.DUPLICATE):
            metrics.submitted.inc()
            state.submitted += 1
            if state.announced_version is not None:
                metrics.staleness.observe(max(0, state.announced_version - group.lowest_version))
        else:
            metrics.released.labels(str(outcome)).inc()
            log.warning("the finished group came too late", uid=lease.uid, outcome=str(outcome))


async def patiently(call: Callable[[], Awaitable[T]], live: LiveGroup) -> T:
    """Tell the queue what became of a group, as long as it takes; bounded by the lease, as in `score`."""
    while True:
        try:
            return await call()
        except (QueueUnavailableError, NotDurableError) as error:
            log.warning("the finished group waits for the queue", uid=live.uid, error=str(error))
            live.held_up = Pause("waiting", "queue", f"the queue: {error}")
            await asyncio.sleep(_PAUSE_S)


async def _release(bench: Bench, lease: Lease, live: LiveGroup, reason: str) -> None:
    if live.lost:
        bench.metrics.released.labels("lease_lost").inc()
        return
    live.ending = True
    bench.metrics.released.labels(reason).inc()
    try:
        async with asyncio.timeout(RELEASE_S):
            await bench.queue.release(lease, reason)
    except (QueueError, TimeoutError) as error:
        log.warning("the row could not be given back and will expire", uid=lease.uid, error=str(error))


def count(metrics: RolloutMetrics, answers: Sequence[Generation]) -> None:
    """Count the tokens of finished responses."""
    metrics.tokens.inc(sum(len(answer.ids) for answer in answers))
    cached = sum(answer.cached_tokens or 0 for answer in answers)
    metrics.prompt_tokens.labels("true").inc(cached)
    metrics.prompt_tokens.labels("false").inc(sum(answer.prompt_tokens or 0 for answer in answers) - cached)
