"""An answer that its metric cannot score in time is wrong if the row's own gold answer can be scored in time.

Unscored responses leave their group's statistics. A policy could otherwise leave out a zero by an answer that outlasts
the deadline. Only strict mode decides so; compat keeps "unscored", and so does a row whose gold outlasts the deadline
itself, and a service too busy to check.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from golongrl.reward.items import Answer, Lost, encode
from golongrl.reward.models import Item
from golongrl.reward.pool import PoolFullError, PoolNotReadyError, WorkerPool
from golongrl.reward.reading import ScoreBatch
from golongrl.tasks import Outcome, Task
from golongrl.tasks.gold import earns_full_marks, gold_response


async def answers_of(
    pool: WorkerPool, batch: ScoreBatch, futures: "Sequence[asyncio.Future[Answer]]"
) -> Sequence[Answer]:
    """The answers to a batch that the pool has accepted, those over the deadline checked against their gold."""
    answers = await asyncio.gather(*futures)
    late = [i for i, answer in enumerate(answers) if isinstance(answer.value, Lost) and answer.value.kind == "deadline"]
    if batch.request.mode != "strict" or not late:
        return answers
    payloads = {i: _gold_payload(batch.request.items[i]) for i in late}
    sound = await _sound(pool, {payload for payload in payloads.values() if payload is not None}, batch.deadline_s)
    checked = list(answers)
    for i, payload in payloads.items():
        if payload is not None and sound.get(payload):
            checked[i] = replace(answers[i], value=_wrong(batch.tasks[i], batch.deadline_s))
    return checked


def _gold_payload(item: Item) -> bytes | None:
    try:
        response = gold_response(item.data_source, item.ground_truth, item.extra_info)
        return encode(item.data_source, response, item.ground_truth, item.extra_info, "strict")
    except RecursionError:
        return None


async def _sound(pool: WorkerPool, payloads: set[bytes], deadline_s: float) -> Mapping[bytes, bool]:
    """Which golds earn full marks within the deadline; none where the pool has no room."""
    ordered = list(payloads)
    try:
        futures = pool.submit(ordered, deadline_s)
    except (PoolFullError, PoolNotReadyError):
        return {}
    try:
        answers = await asyncio.gather(*futures)
    finally:
        for future in futures:
            future.cancel()
    return {payload: _full(answer.value) for payload, answer in zip(ordered, answers, strict=True)}


def _full(value: object) -> bool:
    return isinstance(value, Outcome) and earns_full_marks(value, "strict")


def _wrong(task: Task, deadline_s: float) -> Outcome:
    reason = f"the answer was not scored within {deadline_s:g} s, its gold answer was"
    return Outcome(0.0, "scored", task.metric, task.type, reason)
