"""What cannot be trained: refused when handed in, dealt a bounded number of times, set aside when found later."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
import redis

from golongrl.errors import InputError
from golongrl.queue import (
    Batch,
    FencedError,
    Group,
    Lease,
    OutOfOrderError,
    QueueError,
    Response,
    SampleQueue,
    Stopped,
    SubmitOutcome,
    UnreadableGroupError,
    VersionSpan,
    decode,
    encode,
    fault,
)
from golongrl.queue.submission import refusal
from support import queue_picture
from support.groups import group_for, response

from .conftest import Play

VOCABULARY = 100


def changed(group: Group, **changes: Any) -> Group:
    """`group` with another first response."""
    first = replace(group.responses[0], **changes)
    return replace(group, responses=(first, *group.responses[1:]))


def ids(*values: int, dtype: Any = np.int64) -> Callable[[Group], Group]:
    return lambda group: changed(group, ids=np.array([*values, 1, 1, 1], dtype))


def logprob(value: float, dtype: Any = np.float32) -> Callable[[Group], Group]:
    return lambda group: changed(group, logprobs=np.array([-1, value, 0, -0.0], dtype))


FAULTS: dict[str, Callable[[Group], Group]] = {
    "response 0: token id -7 is negative": ids(-7),
    "response 0: token id 100 is outside of the vocabulary of 100": ids(100),
    "response 0: token id 999999 is outside of the vocabulary of 100": ids(999999, dtype=np.int32),
    "response 0: token id 1099511627776 is outside of the vocabulary of 100": ids(2**40),
    "response 0: token ids of type float64 and shape (4,)": ids(1, dtype=np.float64),
    "response 0: log-prob nan of token 1 is not a finite number of at most 0": logprob(np.nan),
    "response 0: log-prob inf of token 1 is not a finite number of at most 0": logprob(np.inf),
    "response 0: log-prob -inf of token 1 is not a finite number of at most 0": logprob(-np.inf),
    "response 0: log-prob 0.5 of token 1 is not a finite number of at most 0": logprob(0.5),
    "response 0: log-probs of type int64 and shape (4,)": logprob(0, np.int64),
    "response 0: reward nan": lambda group: changed(group, reward=np.nan),
    "response 0: reward 'good'": lambda group: changed(group, reward="good"),
    "prompt: token id 100 is outside of the vocabulary of 100": lambda group: replace(
        group, prompt_ids=np.array([100], np.int32)
    ),
    "prompt: token ids of type int32 and shape (1, 2)": lambda group: replace(
        group, prompt_ids=np.array([[1, 2]], np.int32)
    ),
    "it has no responses": lambda group: replace(group, responses=()),
}


@pytest.mark.parametrize("reason", FAULTS)
async def test_a_group_that_cannot_be_trained_is_refused_and_its_row_dealt_again(play: Play, reason: str) -> None:
    await play.start(vocabulary=VOCABULARY)
    lease = await play.lease()
    assert (lease.vocabulary, lease.tries) == (VOCABULARY, 0)
    sound = group_for(lease)
    assert fault(sound, VOCABULARY) is None
    assert fault(FAULTS[reason](sound), VOCABULARY) == reason
    assert await play.queue.submit(lease, FAULTS[reason](sound)) is SubmitOutcome.INVALID
    again = await play.lease()
    assert (again.uid, again.tries) == (lease.uid, 1)
    assert await play.queue.submit(lease, FAULTS[reason](sound)) is SubmitOutcome.STALE
    assert await play.submit(again) == SubmitOutcome.ACCEPTED
    assert (await play.queue.stats()).redone_by == {"invalid": 1}


REFUSALS: dict[str, Callable[[Group], Group]] = {
    "row 7 differs from its lease's 0": lambda group: replace(group, row=7),
    "row 0.0 differs from its lease's 0": lambda group: replace(group, row=0.0),  # type: ignore[arg-type]
    "epoch 1 differs from its lease's 0": lambda group: replace(group, epoch=1),
    "worker 'v' differs from its lease's 'w'": lambda group: replace(group, worker="v"),
    "engine_version 1 differs from its lease's 0": lambda group: replace(group, engine_version=1),
    "task_key is not text, but of type NoneType": lambda group: replace(group, task_key=None),  # type: ignore[arg-type]
    "task has half a character (a lone surrogate): 'T\\udc80'": lambda group: replace(group, task="T\udc80"),
    "metric has 5000 characters, more than 1000": lambda group: replace(group, metric="F" * 5000),
    "timings: 'generate' is not a finite number of seconds": lambda group: replace(group, timings={"generate": "1"}),  # type: ignore[dict-item]
    "timings: 'a' is not a finite number of seconds": lambda group: replace(group, timings={"a": np.nan}),
    "timings: 'b' is not a finite number of seconds": lambda group: replace(group, timings={"a": 1.0, "b": np.inf}),
    "timings: 'c' is not a finite number of seconds": lambda group: replace(group, timings={"c": 10**400}),
    "timings are not a table of seconds by name": lambda group: replace(group, timings=None),  # type: ignore[arg-type]
    "moments: 'leased' is not a finite number of seconds": lambda group: replace(group, moments={"leased": -np.inf}),
    "moments are not a table of seconds by name": lambda group: replace(group, moments={1: 1.0}),  # type: ignore[dict-item]
    "response 0: reward 2 is not from 0 to 1": lambda group: changed(group, reward=2),
    "response 0: reward -1.0 is not from 0 to 1": lambda group: changed(group, reward=-1.0),
    "response 0: reason has 1000000 characters, more than 1000": lambda group: changed(group, reason="r" * 1_000_000),
    "response 0: finish_reason is not text, but of type int": lambda group: changed(group, finish_reason=1),
    f"response 0: versions of its tokens are not whole numbers of at most {2**53}": lambda group: changed(
        group, version_spans=(VersionSpan(2**70, 0, 4),)
    ),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_group_that_is_not_the_leases_or_cannot_travel_is_refused(reason: str) -> None:
    lease = Lease("0-0", 0, 0, 1, "t", "w", 0, "", 0.0, 60.0)
    assert refusal(group_for(lease), lease) is None
    assert refusal(REFUSALS[reason](group_for(lease)), lease) == reason


async def test_what_is_refused_is_dealt_again(play: Play) -> None:
    await play.start()
    wrong = await play.lease()
    assert await play.queue.submit(wrong, replace(group_for(wrong), row=7)) is SubmitOutcome.INVALID
    again = await play.lease()
    assert (again.uid, again.tries) == (wrong.uid, 1)
    assert await play.submit(again) == SubmitOutcome.ACCEPTED


async def test_a_group_of_another_task_than_its_rows_is_refused(play: Play) -> None:
    await play.start(rows=2, tasks=["F1", "F2"], data="these rows")
    leases = await play.leases(2)
    assert [lease.task_key for lease in leases] == ["F1", "F2"]
    first, second = (group_for(lease) for lease in leases)
    assert refusal(first, leases[0]) is None
    other = replace(second, task_key="F1")
    assert refusal(other, leases[1]) == "task_key 'F1' differs from its row's 'F2'"
    assert await play.queue.submit(leases[1], other) is SubmitOutcome.INVALID
    assert await play.queue.submit(leases[1], second) is SubmitOutcome.STALE


STORED: dict[str, Callable[[Group], Group]] = {
    "response 0: reward 1.5 is not from 0 to 1": lambda group: changed(group, reward=1.5),
    "response 0: reward nan": lambda group: changed(group, reward=np.nan),
    "task_key 'F2' differs from its row's 'F1'": lambda group: replace(group, task_key="F2"),
    "its body is of another lease, 0-0": lambda group: replace(group, row=7),
}


@pytest.mark.parametrize("reason", STORED)
async def test_a_stored_group_is_checked_as_one_that_is_handed_in(play: Play, redis_url: str, reason: str) -> None:
    """Its worker may be of an older version, or of nobody's."""
    await play.start(rows=4, tasks=["F1"] * 4, data="these rows")
    for lease in await play.leases(3):
        await play.submit(lease)
    with redis.Redis.from_url(redis_url) as raw:
        key = play.queue._connection.key("body:0-0")
        raw.set(key, encode(STORED[reason](decode(raw.get(key)))))
    assert await play.batch(1) == ["0-1", "0-2"]
    (aside,) = await play.queue.set_aside_groups()
    assert aside.reason.startswith(reason)


async def test_names_and_numbers_that_cannot_be_sent_are_one_clear_error(play: Play) -> None:
    await play.start()
    lease = await play.lease()
    with pytest.raises(QueueError, match="lease: a name or number in it cannot be sent"):
        await play.queue.lease("w\udc80", 0)
    with pytest.raises(QueueError, match="renew: a name or number in it cannot be sent"):
        await play.queue.renew("w", {lease.token: 2**70})
    for ttl in (np.inf, -np.inf, np.nan):
        with pytest.raises(ValueError, match="ttl_s must be a finite number of seconds"):
            await play.queue.beat("rollout", "w", {}, ttl)
    with pytest.raises(InputError, match="its name has half a character"):
        SampleQueue.from_url("redis://localhost", "run\ud800")


@pytest.mark.parametrize(
    "wrong",
    [
        {"logprobs": np.zeros(3, np.float32)},
        {"version_spans": (VersionSpan(0, 0, 3),)},
        {"version_spans": (VersionSpan(0, 0, 3), VersionSpan(1, 2, 4))},
        {"version_spans": (VersionSpan(0, 1, 4),)},
        {"reward": None},
    ],
)
def test_lengths_that_differ_cannot_even_be_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"log-probs|version spans|contradicts"):
        replace(response(4, 0), **wrong)


async def test_tokens_of_a_version_that_cannot_exist_are_refused(play: Play) -> None:
    await play.start()
    one, two = await play.leases(2)
    assert await play.submit(one, version=1) == SubmitOutcome.ACCEPTED
    assert await play.submit(two, version=2) == SubmitOutcome.INVALID
    assert (await play.queue.stats()).redone_by == {"invalid": 1}


async def fail_by_release(play: Play, lease: Lease) -> None:
    assert await play.queue.release(lease, "engine_failed", failed=True, detail="the engine answered 500")


async def fail_by_expiry(play: Play, lease: Lease) -> None:
    await play.queue.advance(61)


async def fail_by_stalling(play: Play, lease: Lease) -> None:
    for _ in range(6):
        await play.queue.renew("w", {lease.token: 0})
        await play.queue.advance(55)


async def fail_by_a_worker_that_dies(play: Play, lease: Lease) -> None:
    play.queue.incarnation += "+"


async def fail_by_an_invalid_group(play: Play, lease: Lease) -> None:
    assert await play.queue.submit(lease, replace(group_for(lease), responses=())) is SubmitOutcome.INVALID


@pytest.mark.parametrize(
    ("fail", "reason"),
    [
        (fail_by_release, "engine_failed"),
        (fail_by_expiry, "expired"),
        (fail_by_stalling, "stalled"),
        (fail_by_a_worker_that_dies, "worker_restarted"),
        (fail_by_an_invalid_group, "invalid"),
    ],
)
async def test_a_row_that_always_fails_is_rejected_with_its_reason(play: Play, fail: Any, reason: str) -> None:
    """And the run goes on to its end."""
    await play.start(rows=3, max_tries=3)
    for tries in range(3):
        lease = await play.lease()
        assert (lease.uid, lease.tries) == ("0-0", tries)
        await fail(play, lease)
    lease = await play.lease()
    assert lease.uid == "0-1"
    stats = await play.queue.stats()
    assert stats.rejected_by == {f"failed:{reason}": 1}
    assert stats.redone_by == {reason: 2}
    peek = await play.queue.peek("0-0")
    assert (peek.state, peek.meta["reason"], peek.meta["tries"], peek.meta["worker"]) == ("rejected", reason, 3, "w")
    await play.submit(lease)
    await play.submit(await play.lease())
    assert await play.batch(1) == ["0-1", "0-2"]


@pytest.mark.parametrize("order", ["lease", "ready"])
@pytest.mark.parametrize("poisons", [{3, 4}, {4}, {0, 1, 2, 3, 4}, {1, 3}])
async def test_a_run_whose_last_rows_always_fail_ends(play: Play, order: str, poisons: set[int]) -> None:
    """At the end of each epoch, too."""
    await play.start(rows=5, epochs=2, max_tries=2, order=order, max_gen_batches=9)
    trained: list[str] = []
    for step in range(1, 20):
        for _ in range(100):
            answer = await play.queue.lease("w", step - 1)
            if not isinstance(answer, Lease):
                break
            if answer.row in poisons:
                await play.queue.release(answer, "engine_failed", failed=True)
            else:
                await play.submit(answer)
        batch = await play.queue.take(play.fence, step)
        if isinstance(batch, Stopped):
            break
        assert isinstance(batch, Batch)
        trained += [group.uid for group in batch.groups]
        await play.finish(step)
    assert batch == Stopped("exhausted", "every row is trained, rejected or set aside")
    assert trained == [f"{epoch}-{row}" for epoch in (0, 1) for row in range(5) if row not in poisons]
    assert (await play.queue.stats()).rejected_by == {"failed:engine_failed": 2 * len(poisons)}


async def test_what_is_nobodys_fault_is_no_failed_try(play: Play) -> None:
    await play.start(rows=3, max_tries=1)
    for _ in range(5):
        await play.queue.release(await play.lease(), "shutdown")
    lease = await play.lease()
    assert (lease.uid, lease.tries) == ("0-0", 0)


async def test_success_forgets_the_tries_of_a_row(play: Play, redis_url: str) -> None:
    await play.start(rows=4, max_tries=3)
    await play.queue.release(await play.lease(), "engine_failed", failed=True)
    for lease in await play.leases(2):
        await play.submit(lease)
    await play.batch(1)
    await play.finish(1)
    await play.commit(1)
    with redis.Redis.from_url(redis_url) as raw:
        assert set(raw.hgetall(play.queue._connection.key("tries"))) == {queue_picture.MARK}


async def test_a_run_in_which_everything_fails_is_stopped(play: Play) -> None:
    """Not hung, and not silently through with its data."""
    await play.start(rows=20, max_tries=2, max_gen_batches=2)
    for _ in range(8):
        await play.queue.release(await play.lease(), "engine_failed", failed=True)
    stopped = await play.queue.lease("w", 0)
    assert isinstance(stopped, Stopped)
    assert stopped.reason == "failed"
    assert stopped.detail.startswith("4 rows in a row failed at every try (rollout.max_gen_batches reached)")
    assert stopped == await play.queue.take(play.fence, 1)
    # Somebody mends the engines and starts the learner again.
    await play.queue.attach(0)
    await play.lease()


# -- taken, and found out then --


async def taken(play: Play, **changes: Any) -> list[str]:
    await play.start(**{"rows": 6, **changes})
    for lease in await play.leases(2):
        await play.submit(lease)
    return await play.batch(1)


async def test_a_group_is_set_aside_for_good(play: Play) -> None:
    """And another one takes its place. A replay of the step, by this learner or the next, trains the same groups."""
    assert await taken(play) == ["0-0", "0-1"]
    for _ in range(2):
        await play.queue.set_aside(play.fence, 1, "0-0", "its loss is not finite")
    wait = await play.waits(1)
    assert (wait.wanted, wait.ready, wait.reason) == (1, 0, "groups")
    assert wait.detail == "step 1 waits for 1 more, because as many of its groups were set aside: 0 ready, 0 leased"
    await play.submit(await play.lease())
    again = await play.queue.take(play.fence, 1)
    assert isinstance(again, Batch)
    assert ([group.uid for group in again.groups], again.set_aside) == (["0-1", "0-2"], ("0-0",))
    assert not again.replayed
    await play.announce(1)
    for finished in (False, True):
        if finished:
            await play.finish(1)
        play.fence = (await play.queue.attach(0)).token
        replay = await play.queue.take(play.fence, 1)
        assert isinstance(replay, Batch)
        assert ([group.uid for group in replay.groups], replay.set_aside) == (["0-1", "0-2"], ("0-0",))
        assert replay.replayed
    await play.commit(1)
    (found,) = await play.queue.set_aside_groups()
    assert (found.uid, found.step, found.worker, found.reason) == ("0-0", 1, "w", "its loss is not finite")
    peek = await play.queue.peek("0-0")
    assert peek.state == "set_aside"
    assert peek.group is not None
    stats = await play.queue.stats()
    assert (stats.set_aside, stats.trained, stats.bytes) == (1, 2, 0)


@pytest.mark.parametrize("left", [0, 1])
async def test_the_runs_last_batch_gets_what_is_left(play: Play, left: int) -> None:
    """It may lose all its groups, and a row that is dealt again later does not change it."""
    for uid in await taken(play, rows=2 + left):
        await play.queue.set_aside(play.fence, 1, uid, "broken")
    if left:
        assert (await play.waits(1)).wanted == 2
        await play.submit(await play.lease())
    batch = await play.queue.take(play.fence, 1)
    assert isinstance(batch, Batch)
    assert [group.uid for group in batch.groups] == ["0-2"][:left]
    assert batch.set_aside == ("0-0", "0-1")
    await play.queue.retry_set_aside("0-1")
    await play.submit(await play.lease())
    again = await play.queue.take(play.fence, 1)
    assert isinstance(again, Batch)
    assert len(again.groups) == left
    await play.finish(1)
    assert await play.batch(2) == ["0-1"]
    await play.finish(2)
    await play.commit(2)
    assert (await play.queue.take(play.fence, 3)).reason == "exhausted"  # type: ignore[union-attr]


async def test_what_replaces_a_group_is_admitted_and_as_fresh(play: Play) -> None:
    await taken(play, max_staleness=0)
    assert await play.refused() == "full"
    await play.queue.set_aside(play.fence, 1, "0-0", "broken")
    lease = await play.lease()
    assert await play.refused() == "full"
    await play.submit(lease)
    assert await play.batch(1) == ["0-1", "0-2"]


@pytest.mark.parametrize("order", ["lease", "ready"])
async def test_the_next_group_in_order_takes_the_place(play: Play, order: str) -> None:
    """By lease order the slow one is waited for; by readiness it is not."""
    await taken(play, order=order)
    slow, quick = await play.leases(2)
    await play.submit(quick)
    await play.queue.set_aside(play.fence, 1, "0-0", "broken")
    if order == "lease":
        assert (await play.waits(1)).uid == slow.uid
        await play.submit(slow)
    assert await play.batch(1) == ["0-1", "0-2" if order == "lease" else "0-3"]


@pytest.mark.parametrize("order", ["lease", "ready"])
async def test_a_group_of_an_earlier_batch_is_replaced_behind_one_taken_ahead(play: Play, order: str) -> None:
    await play.start(rows=20, max_staleness=1, order=order)
    for lease in await play.leases(4):
        await play.submit(lease)
    await play.batch(1)
    ahead = await play.batch(2)
    await play.queue.set_aside(play.fence, 1, "0-1", "broken")
    await play.submit(await play.lease())
    assert await play.refused() == "full"
    assert await play.batch(1) == ["0-0", "0-4"]
    assert await play.batch(2) == ahead


async def test_a_batch_that_is_trained_short_stays_so(play: Play) -> None:
    """By a learner that does not ask for more."""
    await taken(play)
    await play.queue.set_aside(play.fence, 1, "0-0", "broken")
    await play.submit(await play.lease())
    await play.finish(1)
    assert await play.batch(1) == ["0-1"]


async def test_a_batch_without_enough_of_a_task_after_a_replacement_says_so(play: Play) -> None:
    await play.start(rows=6, tasks=["a", "a", "b", "a", "a", "a"], min_prompts_per_task=2)
    for lease in await play.leases(2):
        await play.submit(lease)
    await play.batch(1)
    await play.queue.set_aside(play.fence, 1, "0-0", "broken")
    await play.submit(await play.lease())
    batch = await play.queue.take(play.fence, 1)
    assert isinstance(batch, Batch)
    assert batch.tasks_given_up
    assert (await play.queue.stats()).tasks_given_up == 1


async def test_a_run_in_which_no_group_can_be_trained_is_stopped(play: Play) -> None:
    """Rather than silently through with its data."""
    await play.start(rows=20, max_gen_batches=2)
    for lease in await play.leases(2):
        await play.submit(lease)
    uids = await play.batch(1)
    for _ in range(4):
        await play.queue.set_aside(play.fence, 1, uids[-1], "broken")
        stopped = await play.queue.take(play.fence, 1)
        if not isinstance(stopped, Stopped):
            await play.submit(await play.lease())
            uids = await play.batch(1)
    assert stopped.reason == "failed"  # type: ignore[union-attr]
    assert stopped.detail.startswith("4 groups in a row could not be trained (rollout.max_gen_batches reached)")
    assert stopped == await play.queue.lease("w", 0)
    # Somebody mends the cause and starts the learner again.
    play.fence = (await play.queue.attach(0)).token
    await play.submit(await play.lease())
    await play.batch(1)
    await play.finish(1)


async def test_a_row_that_was_set_aside_can_be_dealt_again(play: Play) -> None:
    await taken(play)
    await play.queue.set_aside(play.fence, 1, "0-0", "broken")
    assert await play.queue.retry_set_aside("0-0")
    assert not await play.queue.retry_set_aside("0-0")
    lease = await play.lease()
    assert lease.uid == "0-0"
    await play.submit(lease)
    # Even back into the batch that it left, where it can be set aside again.
    assert await play.batch(1) == ["0-1", "0-0"]
    await play.queue.set_aside(play.fence, 1, "0-0", "broken again")
    for lease in await play.leases(3):
        await play.submit(lease)
    assert await play.batch(1) == ["0-1", "0-2"]
    assert await play.batch(2) == ["0-3", "0-4"]
    for step in (1, 2):
        await play.finish(step)
    await play.commit(2)
    assert (await play.queue.stats()).trained == 4


async def test_a_row_that_was_set_aside_can_be_rejected(play: Play) -> None:
    await taken(play)
    await play.queue.set_aside(play.fence, 1, "0-0", "broken")
    assert await play.queue.drop_set_aside("0-0")
    assert not await play.queue.drop_set_aside("0-0")
    assert await play.queue.set_aside_groups() == []
    stats = await play.queue.stats()
    assert (stats.set_aside, stats.rejected_by) == (0, {"set_aside": 1})
    assert (await play.queue.peek("0-0")).state == "rejected"


async def test_only_a_group_of_the_batch_in_hand_is_set_aside(play: Play) -> None:
    await taken(play)
    for step, uid, error in (
        (1, "0-2", ValueError),
        (1, "9-9", ValueError),
        (2, "0-0", OutOfOrderError),
        (0, "0-0", OutOfOrderError),
    ):
        with pytest.raises(error):
            await play.queue.set_aside(play.fence, step, uid, "broken")
    await play.finish(1)
    with pytest.raises(OutOfOrderError):
        await play.queue.set_aside(play.fence, 1, "0-0", "it was trained with")
    old = play.fence
    await play.queue.attach(0)
    with pytest.raises(FencedError):
        await play.queue.set_aside(old, 1, "0-0", "broken")


async def test_bodies_of_set_aside_groups_are_bounded(play: Play, redis_url: str) -> None:
    """The oldest are dropped first; the records stay."""
    await play.start(rows=40, max_bytes=16 * 1500, max_staleness=9)
    for step in range(1, 4):
        for lease in await play.leases(2):
            await play.submit(lease, tokens=40)
        for uid in await play.batch(step):
            await play.queue.set_aside(play.fence, step, uid, "broken")
        for lease in await play.leases(2):
            await play.submit(lease)
        await play.batch(step)
        await play.finish(step)
        await play.commit(step)
        with redis.Redis.from_url(redis_url) as raw:
            queue_picture.check(queue_picture.read(raw, play.queue.run))
    found = await play.queue.set_aside_groups()
    assert [group.uid for group in found] == [f"0-{row}" for row in (0, 1, 4, 5, 8, 9)]
    assert [group.bytes > 0 for group in found] == sorted(group.bytes > 0 for group in found)
    assert 0 < sum(group.bytes for group in found) <= 1500


def damaged(body: bytes, how: str) -> bytes:
    fields = msgpack.unpackb(body[5:])
    match how:
        case "a flipped bit":
            place = len(body) // 2
            return body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        case "cut":
            return body[:-7]
        case "other schema":
            fields["schema"] = 99
        case "an id outside of the vocabulary":
            fields["prompt_ids"] = [np.array([70], "<u2").tobytes()]
        case "not a map":
            return bytes(msgpack.packb([1, 2]))
        case "a NaN":
            fields["responses"][0]["logprobs"] = np.full(4, np.nan, "<f4").tobytes()
        case _:
            fields["responses"][0]["logprobs"] = b"\0\0\0"
    return bytes(msgpack.packb(fields))


@pytest.mark.parametrize(
    "how",
    ["cut", "other schema", "an id outside of the vocabulary", "not a map", "a NaN", "odd bytes", "a flipped bit"],
)
async def test_a_stored_group_that_cannot_be_read_is_set_aside(play: Play, redis_url: str, how: str) -> None:
    await play.start(rows=6, vocabulary=70)
    for lease in await play.leases(2):
        await play.submit(lease)
    with redis.Redis.from_url(redis_url) as raw:
        key = play.queue._connection.key("body:0-0")
        raw.set(key, damaged(raw.get(key), how))
    assert (await play.waits(1)).wanted == 1
    await play.submit(await play.lease())
    for _ in range(2):
        batch = await play.queue.take(play.fence, 1)
        assert isinstance(batch, Batch)
        assert ([group.uid for group in batch.groups], batch.set_aside) == (["0-1", "0-2"], ("0-0",))
    assert [group.uid for group in await play.queue.set_aside_groups()] == ["0-0"]


async def test_a_group_of_a_finished_step_that_cannot_be_read_is_an_error(play: Play, redis_url: str) -> None:
    """It was trained with: a replay without it would give other weights."""
    await taken(play)
    await play.finish(1)
    with redis.Redis.from_url(redis_url) as raw:
        raw.set(play.queue._connection.key("body:0-0"), b"junk")
    with pytest.raises(UnreadableGroupError, match="group 0-0 of step 1, which was trained before"):
        await play.queue.take(play.fence, 1)


def test_what_is_sound_is_not_called_a_fault() -> None:
    empty = Response(np.zeros(0, np.int32), np.zeros(0, np.float32), (), "stop", 0.0)
    lease = Lease("0-0", 0, 0, 1, "t", "w", 0, "", 0.0, 60.0)
    sound = group_for(lease, rewards=(None, 0, 1.5, -2))
    for group in (sound, replace(sound, responses=(empty,)), replace(sound, prompt_ids=np.zeros(0, np.int32))):
        assert fault(group, 8) is None
        assert fault(group) is None
        assert encode(group)
