"""One leased row from its lease to its end, training or validation: sample, score, hand in.

Invariants:
- every lease ends in exactly one of handing in, giving back, or losing it, whatever goes wrong;
- a token whose version the worker did not confirm never reaches the queue;
- a row is never scored 0 because the reward service is down: the finished answers wait for it for most of the time
  that the queue allows a lease without progress, then the row is given back and sampled again;
- what an engine or a reward service does wrong on one row never ends the worker. It is a failed try of the row, which
  the queue gives up after a bounded number of them, and the worker's loop is told about the engine.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

import structlog

from golongrl.data.prepared import BENCHMARK, PreparedRow
from golongrl.errors import InputError
from golongrl.queue import QueueError
from golongrl.queue.errors import NotSetUpError
from golongrl.reward.client import RewardError, RewardRejectedError, RewardUnavailableError
from golongrl.reward.models import Item, ScoreResult
from golongrl.rollout.backoff import Pause
from golongrl.rollout.groups.assemble import ForeignWeightsError
from golongrl.rollout.groups.bench import Bench
from golongrl.rollout.groups.generate import Prompt, generate_group
from golongrl.rollout.groups.kinds import RowKind, Scored, T, TooLong
from golongrl.rollout.groups.progress import LiveGroup
from golongrl.rollout.groups.verdict import RowRelease, overlong
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.sglang.answers import Generation
from golongrl.rollout.sglang.errors import (
    EngineAbortedError,
    EngineBusyError,
    EngineError,
    EngineKeyError,
    EngineProtocolError,
    EngineRefusedError,
)
from golongrl.rollout.weights.adopt import Confirmed
from golongrl.routes.store import RoutesError
from golongrl.telemetry.tracing import Tracing, of_group

log = structlog.get_logger(__name__)

# The reward client has its own retries; this is the pause between two of its whole attempts.
_PAUSE_S = 2.0
# When the queue does not answer, the lease runs out by itself: not worth delaying a stop for.
RELEASE_S = 3.0
# Finished answers wait this share of a lease's time without progress: the row is given back before its lease is lost,
# which would count as a failed try of the row.
_REWARD_SHARE = 0.8
# What the reward service answers to a request that is wrong. Any other refusal is not of the answers that were sent: a
# wrong token, another service, a redirect, something between that fails.
_OF_THE_ANSWERS = frozenset({400, 413, 422})


class _RowFailedError(Exception):
    """This row could not be done, and the engine is not to blame."""

    def __init__(self, back: RowRelease) -> None:
        super().__init__(back.detail)
        self.back = back


async def work(kind: RowKind[T], item: T, row: PreparedRow, live: LiveGroup, held: Confirmed) -> EngineError | None:
    """Work on one leased row until its lease has ended; what the engine did wrong, if it did.

    Raises:
        InputError: recipe, data, model and services do not fit together, which every further row would meet again.
        asyncio.CancelledError: after the row was given back under `live.give_back`.
    """
    # For every line of this task, also of the clients that it calls.
    structlog.contextvars.bind_contextvars(uid=live.uid, version=held.ref.version)
    try:
        await kind.hand_in(item, live, await _make(kind, row, live, held))
    except asyncio.CancelledError:
        # Where the result had reached the queue already, this changes nothing there.
        await give_back(kind, item, live, RowRelease(live.give_back))
        raise
    except EngineError as error:
        log.warning("a row is given back because the engine failed", kind=kind.name, uid=live.uid, error=str(error))
        await give_back(kind, item, live, failed_try(error))
        return error
    except _RowFailedError as failure:
        reason = str(failure) or failure.back.reason
        log.warning("a row is given back", kind=kind.name, uid=live.uid, reason=reason)
        await give_back(kind, item, live, failure.back)
    except RoutesError as error:
        log.warning("a row is given back", kind=kind.name, uid=live.uid, reason=str(error))
        await give_back(kind, item, live, RowRelease("routes_not_stored", detail=str(error)))
    except RewardError as error:
        await give_back(kind, item, live, RowRelease("refused", detail=str(error)))
        raise InputError(str(error)) from error
    except NotSetUpError as error:
        kind.bench.metrics.released.labels("lease_lost").inc()
        log.warning("a row is lost because the queue lost its run", kind=kind.name, uid=live.uid, error=str(error))
    return None


def failed_try(error: EngineError) -> RowRelease:
    """How a row is given back whose engine failed. Only what the row itself may have caused counts against it."""
    match error:
        case EngineBusyError():
            return RowRelease("engine_busy", detail=str(error))
        case EngineKeyError() | ForeignWeightsError():
            return RowRelease("engine_failed", detail=str(error))
        case EngineRefusedError():
            return RowRelease("engine_refused", failed=True, detail=str(error))
        case EngineAbortedError():
            return RowRelease("engine_aborted", failed=True, detail=str(error))
        case EngineProtocolError():
            return RowRelease("engine_protocol", failed=True, detail=str(error))
    return RowRelease("engine_failed", failed=True, detail=str(error))


async def give_back(kind: RowKind[T], item: T, live: LiveGroup, back: RowRelease) -> None:
    """Give the row back unless its lease is lost."""
    if live.lost:
        kind.bench.metrics.released.labels("lease_lost").inc()
        return
    live.ending = True
    # Told to the end even if this task is cancelled meanwhile, as all are when one of them ends the worker.
    telling = asyncio.ensure_future(kind.give_back(item, back))
    try:
        async with asyncio.timeout(RELEASE_S):
            await asyncio.shield(telling)
    except asyncio.CancelledError:
        await asyncio.wait({telling}, timeout=RELEASE_S)
        raise
    except (QueueError, TimeoutError) as error:
        log.warning(
            "a row could not be given back; its lease will expire", kind=kind.name, uid=live.uid, error=str(error)
        )


async def _make(kind: RowKind[T], row: PreparedRow, live: LiveGroup, held: Confirmed) -> Scored | TooLong:
    """Sample a row's answers and have them scored."""
    bench, recipe = kind.bench, kind.bench.recipe
    if overlong(
        row.prompt_ids.size,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        max_response_tokens=recipe.rollout.max_response_tokens,
        context_length=recipe.model.context_length,
    ):
        return TooLong(row.prompt_ids.size)
    begun, leased = time.monotonic(), time.time()
    if kind.traced:
        log.info("group leased", uid=live.uid, version=held.ref.version, prompt_tokens=int(row.prompt_ids.size))
    context, tracing = of_group(bench.queue.run, live.uid), bench.tracing if kind.traced else Tracing("rollout")
    exemplar = tracing.exemplar(context)
    told = {
        "rl.group.uid": live.uid, "rl.worker": bench.worker, "rl.policy.version": held.ref.version,
        "rl.sample.batch_size": kind.n,
    }  # fmt: skip
    with tracing.recorded("rl.sample", context, told) as span:
        answers = await _sample(kind, row, live, held, span.headers)
        span.attributes["gen_ai.usage.input_tokens"] = int(row.prompt_ids.size)
        span.attributes["gen_ai.usage.output_tokens"] = sum(len(answer.ids) for answer in answers)
    generated = time.monotonic()
    spans = [kind.spans(live, answer) for answer in answers]
    bench.metrics.generation.observe(generated - begun, exemplar)
    _count(bench.metrics, answers)
    live.scores(generated)
    results: list[ScoreResult] = []
    with tracing.recorded("rl.reward", context, told) as span:
        if row.task != BENCHMARK:
            with bench.state.waits.on("reward", "{on} to score", recipe.queue.stall_s, kind.name):
                results = await _score(bench, row, live, answers, span.headers)
    scored = time.monotonic()
    live.scoring_since = None
    if row.task != BENCHMARK:
        bench.metrics.scoring.observe(scored - generated, exemplar)
        bench.metrics.unscored.inc(sum(result.score is None for result in results))
    timings = {"generate_s": generated - begun, "score_s": scored - generated}
    return Scored(row, answers, spans, results, timings, held, leased)


async def _sample(
    kind: RowKind[T], row: PreparedRow, live: LiveGroup, held: Confirmed, headers: Mapping[str, str]
) -> Sequence[Generation]:
    """All answers of a row.

    Raises:
        EngineError: the engine failed.
        _RowFailedError: the engine cannot be asked for this row, or the worker aborted an answer for new weights.
    """
    bench, recipe = kind.bench, kind.bench.recipe
    prompt = Prompt(
        live.uid, row.prompt_ids, held.vocab_size, recipe.seed, held.cache_key, kind.routing(held), headers
    )  # fmt: skip
    try:
        with bench.state.waits.on("engine", "{on} to generate", recipe.queue.stall_s, kind.name) as live.wait:
            answers = await generate_group(bench.engine, prompt, kind.sampling, kind.n, live, kind.pace)
    except ValueError as error:
        raise _RowFailedError(RowRelease("unfit", failed=True, detail=str(error))) from error
    if any(answer.finish == "abort" for answer in answers):
        raise _RowFailedError(RowRelease("aborted"))
    return answers


async def _score(
    bench: Bench, row: PreparedRow, live: LiveGroup, answers: Sequence[Generation], headers: Mapping[str, str]
) -> list[ScoreResult]:
    """Scores of a row's answers, in order; waits for a reward service that is down, and says so in `live`.

    An answer that is none of this row's scores is asked for again, too, where the service has given some before or
    says itself that it failed (500).

    Raises:
        RewardError: it refused this worker, or is no reward service of this version.
        _RowFailedError: it refused these answers, was down for too long, or answered nonsense for as long.
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
    until = time.monotonic() + _REWARD_SHARE * bench.recipe.queue.stall_s
    while True:
        try:
            results = await bench.reward.score(items, reward.mode, reward.deadline_s, headers)
        except RewardError as error:
            down = isinstance(error, RewardUnavailableError)
            status = error.status if isinstance(error, RewardRejectedError) else 0
            if status in _OF_THE_ANSWERS:
                raise _RowFailedError(RowRelease("reward_refused", failed=True, detail=str(error))) from error
            if not (down or bench.reward.proven or status >= 500):
                raise
            log.warning("finished answers wait for the reward service", uid=live.uid, error=str(error))
            live.held_up = Pause("waiting", "reward", str(error))
            if time.monotonic() + _PAUSE_S > until:
                if 0 < status < 500:
                    raise
                reason = "reward_unavailable" if down else "reward_protocol"
                raise _RowFailedError(RowRelease(reason, failed=not down, detail=str(error))) from error
            await asyncio.sleep(_PAUSE_S)
        else:
            live.held_up = None
            return results


def _count(metrics: RolloutMetrics, answers: Sequence[Generation]) -> None:
    """Count the tokens of finished responses."""
    metrics.tokens.inc(sum(len(answer.ids) for answer in answers))
    cached = sum(answer.cached_tokens or 0 for answer in answers)
    metrics.prompt_tokens.labels("true").inc(cached)
    computed = sum(answer.prompt_tokens or 0 for answer in answers) - cached
    metrics.prompt_tokens.labels("false").inc(max(0, computed))
