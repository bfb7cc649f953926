"""Batches taken ahead, with a real queue: a group that cannot be trained is set aside, and a replay is without it."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from golongrl.learner.batch.batch_metrics import step_metrics
from golongrl.learner.batch.check import untrainable
from golongrl.learner.batch.prepare import PreparedBatch, prepare
from golongrl.learner.batch.samples import BatchError
from golongrl.learner.batches import Batches
from golongrl.queue import Batch, Group, Lease, SampleQueue, Wait
from golongrl.recipe import Recipe, load
from support.groups import group_for, queue_settings

GROUPS = 3
# Prompts have 8 tokens, responses 4.
FITS, LONGEST = 4, 40


@pytest.fixture
async def queue(redis_url: str, run_name: str) -> AsyncIterator[SampleQueue]:
    async with SampleQueue.from_url(redis_url, run_name) as client:
        rows = np.arange(6, dtype=np.int32)
        await client.setup(queue_settings(groups_per_step=GROUPS), [rows], ["a"] * 6)
        yield client


def recipe(max_tokens: int = LONGEST) -> Recipe:
    """A recipe whose ranks hold sequences of so many tokens: fewer than its longest, which no file may say."""
    found = load("quickstart", [f"queue.groups_per_step={GROUPS}", "learner.steps=1"])
    return found.model_copy(update={"learner": found.learner.model_copy(update={"max_tokens_per_rank": max_tokens})})


async def submit(queue: SampleQueue, *tokens: int) -> None:
    for length in tokens:
        lease = await queue.lease("worker-7", 0)
        assert isinstance(lease, Lease)
        await queue.submit(lease, group_for(lease, tokens=length))


async def take(queue: SampleQueue, fence: str, step: int = 1, max_tokens: int = LONGEST) -> PreparedBatch:
    async with Batches(recipe(max_tokens), queue, fence, lambda step, wait: None, None) as batches:
        batches.prefetch(step)
        assert batches.upcoming is not None
        batch = await batches.upcoming
        assert isinstance(batch, PreparedBatch)
        return batch


def content(batch: PreparedBatch) -> list[Any]:
    return [
        [shard.responses.tolist(), shard.logprobs.tolist(), shard.advantages.tolist(), shard.weights.tolist()]
        for mini in batch.minis
        for shard in mini
    ]


@pytest.mark.parametrize("long", [{1}, {0, 2}, {0, 1, 2}])
async def test_the_step_is_trained_on_other_groups_instead(long: set[int], queue: SampleQueue) -> None:
    fence = (await queue.attach(0)).token
    await submit(queue, *(LONGEST if place in long else FITS for place in range(GROUPS)), *[FITS] * len(long))
    batch = await take(queue, fence)
    kept = [place for place in range(GROUPS + len(long)) if place not in long]
    assert batch.rows.tolist() == [[0, place] for place in kept]
    assert (batch.metrics["batch/groups"], batch.metrics["batch/set_aside"]) == (GROUPS, len(long))
    assert batch.metrics["batch/replayed"] == 0
    assert sum(len(shard) for mini in batch.minis for shard in mini) == 2 * GROUPS
    found = {aside.uid: aside for aside in await queue.set_aside_groups()}
    assert set(found) == {f"0-{place}" for place in long}
    for aside in found.values():
        assert (aside.worker, aside.step) == ("worker-7", 1)
        assert aside.reason.startswith(f"a sequence of {8 + LONGEST} tokens is longer than the {LONGEST}")
        assert "raise learner.max_tokens_per_rank" in aside.reason
    # A learner that died before and one that died after the step get the same.
    for finished in (False, True):
        if finished:
            await queue.finish(fence, 1)
        fence = (await queue.attach(0)).token
        again = await take(queue, fence)
        assert content(again) == content(batch)
        assert again.metrics["batch/replayed"] == 1


async def test_a_group_that_is_still_generated_is_waited_for(queue: SampleQueue) -> None:
    fence = (await queue.attach(0)).token
    await submit(queue, FITS, LONGEST, FITS)
    waits: list[str] = []
    come = asyncio.Event()

    def waited(step: int, wait: Wait) -> None:
        waits.append(wait.detail)
        come.set()

    async with Batches(recipe(), queue, fence, waited, None) as batches:
        batches.prefetch(1)
        await come.wait()
        await submit(queue, FITS)
        assert batches.upcoming is not None
        batch = await batches.upcoming
    assert isinstance(batch, PreparedBatch)
    assert batch.rows.tolist() == [[0, 0], [0, 2], [0, 3]]
    assert waits[0] == "step 1 waits for 1 more, because as many of its groups were set aside: 0 ready, 0 leased"


async def test_the_last_step_is_trained_on_what_is_left(queue: SampleQueue) -> None:
    fence = (await queue.attach(0)).token
    await submit(queue, *[LONGEST] * 5, FITS)
    batch = await take(queue, fence)
    assert batch.rows.tolist() == [[0, 5]]
    assert batch.metrics["batch/set_aside"] == 5


async def test_what_was_trained_is_not_set_aside_in_a_replay(queue: SampleQueue) -> None:
    """The recipe's limit was lowered since: without the group the step would be another."""
    fence = (await queue.attach(0)).token
    await submit(queue, FITS, 2 * FITS, FITS)
    await take(queue, fence)
    await queue.finish(fence, 1)
    fence = (await queue.attach(0)).token
    with pytest.raises(BatchError, match=r"group 0-1 of worker worker-7 was trained in step 1.*max_tokens_per_rank"):
        await take(queue, fence, 1, 14)
    assert await queue.set_aside_groups() == []


def _group(**changes: Any) -> Group:
    lease = Lease("0-0", 0, 0, 0, "t", "w", 0, "", 0.0, 0.0)
    return replace(group_for(lease), **changes)


class _Unequal:
    """A response as no checked path makes it."""

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(
            {"ids": [1, 2], "logprobs": [-1.0, -1.0], "reward": 0.0, "finish_reason": "stop", **fields}
        )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"prompt_ids": np.empty(0, np.int32)}, "no prompt tokens"),
        ({"responses": ()}, "no responses"),
        ({"responses": (_Unequal(logprobs=[-1.0]),)}, "2 tokens but 1 log-probabilities"),
        ({"responses": (_Unequal(ids=["a", "b"]),)}, "invalid literal"),
        ({"responses": (_Unequal(ids=[2**40, 1]),)}, "out of bounds for int32"),
        ({"responses": (_Unequal(logprobs=["x", "y"]),)}, "could not convert"),
        ({"responses": (_Unequal(reward="much"),)}, "could not convert"),
        ({"responses": (_Unequal(reward=float("inf")),)}, "reward inf"),
    ],
)
def test_whatever_a_group_lacks_is_its_own_reason(changes: dict[str, Any], reason: str) -> None:
    good, bad = _group(), _group(uid="0-1", **changes)
    found = untrainable(Batch(1, (good, bad), replayed=False), recipe())
    assert list(found) == ["0-1"]
    assert reason in found["0-1"]
    assert len(prepare(Batch(1, (good,), replayed=False), recipe(), pairs_per_token=None).minis) == 1


async def test_groups_being_generated_are_counted_while_the_batch_is_waited_for(queue: SampleQueue) -> None:
    fence = (await queue.attach(0)).token
    leases = [await queue.lease("worker-7", 0) for _ in range(GROUPS)]
    waited = asyncio.Event()
    async with Batches(recipe(), queue, fence, lambda step, wait: waited.set(), None) as batches:
        batches.prefetch(1)
        await waited.wait()
        for lease in leases:
            assert isinstance(lease, Lease)
            await queue.submit(lease, group_for(lease))
        assert batches.upcoming is not None
        batch = await batches.upcoming
    assert isinstance(batch, PreparedBatch)
    assert 0 < batch.metrics["queue/leased"] <= GROUPS
    stats = await queue.stats()
    assert stats.leased == 0
    clock = {"timing_s/step": 1.0}
    assert step_metrics(batch.metrics, clock, stats, 1, 0)["queue/leased"] == batch.metrics["queue/leased"]
    assert step_metrics({}, clock, stats, 1, 0)["queue/leased"] == 0
