"""Answers to the validation set, made beside training rollouts.

How a worker's engine is shared: it holds up to `concurrent_groups` x n responses at a time; a leased group takes n of
these places, a validation row one. Groups in progress go on, and free places go to validation first, since the learner
waits for it; they go back to groups when no row is left to lease. A round asks for each row once and ends by a deadline
of the learner's, so training rollouts are held back for a bounded time.

Invariants:
- all tokens of an answer are from exactly the weights that the round validates;
- when the engine must take other weights, rows still being sampled are given back first;
- every leased row ends in one of submit, release, or losing it; what cannot be scored is unscored with a reason.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from golongrl.data.prepared import Prepared
from golongrl.errors import InputError
from golongrl.queue import QueueError, ValidationItem, ValidationResult
from golongrl.queue.errors import NotSetUpError
from golongrl.reward.client import RewardError, RewardRejectedError
from golongrl.rollout.groups.assemble import ForeignWeightsError, version_spans
from golongrl.rollout.groups.generate import Prompt, generate_group
from golongrl.rollout.groups.group_work import (
    RELEASE_S,
    Bench,
    count,
    patiently,
    score,
)
from golongrl.rollout.groups.progress import LiveGroup
from golongrl.rollout.groups.verdict import overlong
from golongrl.rollout.sglang.errors import (
    EngineBusyError,
    EngineProtocolError,
    EngineRefusedError,
    EngineUnavailableError,
)
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.adopt import Confirmed

log = structlog.get_logger(__name__)


@dataclass
class _Row:
    """One leased row: what became of it so far, and the task that works on it."""

    item: ValidationItem
    live: LiveGroup
    task: asyncio.Task[None]


class ValidationRows:
    """The validation rows this worker holds. `ended` is told whenever one of them is over."""

    def __init__(self, bench: Bench, ended: Callable[[], None]) -> None:
        self._bench = bench
        self._ended = ended
        self._rows: dict[str, _Row] = {}

    def __len__(self) -> int:
        return len(self._rows)

    async def lease(self, tasks: asyncio.TaskGroup, held: Confirmed, room: int) -> bool:
        """Take up to `room` rows, if a round for the held weights has any left; whether it had."""
        bench = self._bench
        if bench.validation is None:
            return False
        items = await bench.queue.validation.lease(held.ref.version, held.ref.lineage, room)
        for item in items:
            live = LiveGroup.begin(
                uid=f"validation-{item.row}",
                token=item.token,
                version=held.ref.version,
                prompt_tokens=0,
                n=1,
                max_response_tokens=bench.recipe.rollout.max_response_tokens,
            )
            task = tasks.create_task(_answer(bench, bench.validation, item, live, held), name=live.uid)
            self._rows[item.token] = _Row(item, live, task)
            task.add_done_callback(self._forget(item.token))
        bench.state.validation_rows = len(self)
        return bool(items)

    def _forget(self, token: str) -> Callable[[asyncio.Task[None]], None]:
        def forget(_: asyncio.Task[None]) -> None:
            self._rows.pop(token, None)
            self._bench.state.validation_rows = len(self)
            self._ended()

        return forget

    def drop(self, reason: str) -> bool:
        """Give back what is still being sampled; whether the engine may still be at work on some of it."""
        sampling = [row for row in self._rows.values() if row.live.phase == "generating"]
        for row in sampling:
            _end(row, reason)
        return bool(sampling)

    async def renew(self) -> None:
        """Prolong all leases; work on lost ones ends.

        Raises:
            QueueError: the queue cannot be asked now.
        """
        rows = list(self._rows.values())
        if not rows:
            return
        kept = await self._bench.queue.validation.renew([row.item for row in rows])
        for row, holds in zip(rows, kept, strict=True):
            if not holds and not row.live.ending:
                row.live.lost = True
                _end(row, "lost")

    async def finish(self) -> None:
        """Give everything back."""
        tasks = [row.task for row in self._rows.values()]
        for row in list(self._rows.values()):
            _end(row, "stopped")
        if tasks:
            await asyncio.wait(tasks)


def _end(row: _Row, reason: str) -> None:
    # Once: a second cancellation would interrupt the giving back. And soon, not now: a task cancelled before its first
    # step would never give its row back.
    if not row.live.ending:
        row.live.ending = True
        row.live.give_back = reason
        asyncio.get_running_loop().call_soon(row.task.cancel)


async def _answer(bench: Bench, data: Prepared, item: ValidationItem, live: LiveGroup, held: Confirmed) -> None:
    """Work on one row until its lease has ended.

    Raises:
        InputError: the validation set here is not the learner's.
        asyncio.CancelledError: after the row was given back under `live.give_back`.
    """
    try:
        result = await _make(bench, data, item, live, held)
        if result is None:
            await _release(bench, item, live, "aborted", lost=False)
            return
        held_still = await patiently(lambda: bench.queue.validation.submit(item, result), live)
        outcome = "late" if not held_still else "unscored" if result.reward is None else "scored"
        bench.metrics.validated.labels(outcome).inc()
    except asyncio.CancelledError:
        await _release(bench, item, live, live.give_back, lost=False)
        raise
    except (EngineUnavailableError, EngineProtocolError, ForeignWeightsError) as error:
        log.warning("the validation row is given back: the engine failed", row=item.row, error=str(error))
        await _release(bench, item, live, str(error), lost=True)
        if bench.suspect is not None:
            bench.suspect(error)
    except EngineBusyError as error:
        await _release(bench, item, live, str(error), lost=False)
        if bench.suspect is not None:
            bench.suspect(error)
    except IndexError as error:
        await _release(bench, item, live, str(error), lost=True)
        raise InputError(f"validation {error}: this worker's --data is not the learner's") from error
    except RewardError as error:
        await _release(bench, item, live, str(error), lost=False)
        raise InputError(str(error)) from error
    except NotSetUpError as error:
        log.warning("the validation row is lost: the queue lost its run", row=item.row, error=str(error))


async def _make(
    bench: Bench, data: Prepared, item: ValidationItem, live: LiveGroup, held: Confirmed
) -> ValidationResult | None:
    """The row's result; None when the engine cut the answer short."""
    recipe = bench.recipe
    row = data.row(item.row)
    live.prompt_tokens = row.prompt_ids.size
    fits = not overlong(
        row.prompt_ids.size,
        max_prompt_tokens=recipe.data.max_prompt_tokens,
        max_response_tokens=recipe.rollout.max_response_tokens,
        context_length=recipe.model.context_length,
    )
    if not fits:
        return ValidationResult(item.row, reason=f"a prompt of {row.prompt_ids.size} tokens is too long")
    prompt = Prompt(live.uid, row.prompt_ids, held.vocab_size, recipe.seed)
    try:
        [answer] = await generate_group(
            bench.engine, prompt, SamplingParams.validation(recipe.rollout), 1, live, bench.validation_pace
        )
    except (EngineRefusedError, ValueError) as error:
        return ValidationResult(item.row, reason=f"the engine refused the prompt: {error}")
    if answer.finish == "abort":
        return None
    version_spans(answer, held.ref.version, held.ref.version)
    live.phase = "scoring"
    count(bench.metrics, [answer])
    try:
        [scored] = await score(bench, row, live, [answer])
    except RewardRejectedError as error:
        return ValidationResult(item.row, None, str(error), answer.text, len(answer.ids), answer.finish, bench.worker)
    return ValidationResult(
        item.row, scored.score, scored.reason or "", answer.text, len(answer.ids), answer.finish, bench.worker
    )


async def _release(bench: Bench, item: ValidationItem, live: LiveGroup, reason: str, *, lost: bool) -> None:
    if live.lost:
        return
    live.ending = True
    try:
        async with asyncio.timeout(RELEASE_S):
            await bench.queue.validation.release(item, reason, lost=lost)
    except (QueueError, TimeoutError) as error:
        log.warning("the validation row could not be given back and will expire", row=item.row, error=str(error))
