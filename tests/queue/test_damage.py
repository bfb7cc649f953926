"""A server that lost keys: whatever key it is, no call answers as if nothing had happened."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest
import redis
from structlog.testing import capture_logs

from golongrl.queue import (
    Behind,
    Lease,
    NotSetUpError,
    QueueDamagedError,
    QueueError,
    RejectReason,
    SampleQueue,
    SettingsMismatchError,
    SubmitOutcome,
    ValidationResult,
)
from support import queue_picture
from support.groups import group_for, queue_settings

from .conftest import Play


@pytest.fixture
def raw(redis_url: str) -> "redis.Redis[bytes]":
    return redis.Redis.from_url(redis_url)


async def lived(play: Play) -> Lease:
    """A run with something in every key; one lease is still held."""
    await play.start(rows=30, max_staleness=3, max_tries=1, order="ready")
    await play.announce(0)
    for step in (1, 2, 3):
        for lease in await play.leases(2):
            await play.submit(lease)
        await play.batch(step)
    await play.queue.set_aside(play.fence, 2, "0-2", "broken")
    await play.announce(1)
    await play.finish(1)
    await play.commit(1)
    failed, rejected, ready, held = await play.leases(4, version=1)
    await play.queue.release(failed, "engine_failed", failed=True)
    await play.queue.reject(rejected, RejectReason.OVERLONG)
    await play.queue.release(await play.lease(1), "shutdown")
    await play.submit(ready)
    await play.queue.beat("rollout", "w", {}, 60)
    return held


def run_keys(raw: "redis.Redis[bytes]", play: Play) -> list[str]:
    prefix = play.queue._connection.prefix
    return sorted(name.decode().removeprefix(prefix) for name in raw.scan_iter(f"{prefix}*"))


def contents(raw: "redis.Redis[bytes]", play: Play) -> dict[str, Any]:
    """What stands in the run's keys. A dump would show a hash in an order that also changes as it is read."""
    readers = {
        b"string": raw.get,
        b"hash": raw.hgetall,
        b"set": raw.smembers,
        b"zset": lambda name: raw.zrange(name, 0, -1, withscores=True),
        b"list": lambda name: raw.lrange(name, 0, -1),
    }
    names = {name: play.queue._connection.key(name) for name in run_keys(raw, play)}
    return {name: readers[raw.type(full)](full) for name, full in names.items()}


def calls(play: Play, held: Lease) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Everything that workers, the learner and people do."""
    queue, fence = play.queue, play.fence
    return {
        "stats": queue.stats,
        "weights": queue.weights,
        "lease": lambda: queue.lease("w", 1),
        "renew": lambda: queue.renew("w", {held.token: 1}),
        "submit": lambda: queue.submit(held, group_for(held)),
        "peek": lambda: queue.peek("0-9"),
        "take again": lambda: queue.take(fence, 2),
        "take": lambda: queue.take(fence, 4),
        "finish": lambda: queue.finish(fence, 2),
        "commit": lambda: queue.commit(fence, 1),
        "attach": lambda: queue.attach(1),
        "set_aside": lambda: queue.set_aside(fence, 3, "0-4", "broken"),
        "set aside groups": queue.set_aside_groups,
        "stop": lambda: queue.stop(fence, "failed", "x"),
        "setup": lambda: play.start(rows=30, max_staleness=3, max_tries=1, order="ready", checkpoint=1),
    }


async def test_no_lost_key_goes_unnoticed(play: Play, raw: "redis.Redis[bytes]") -> None:
    held = await lived(play)
    queue_picture.check(queue_picture.read(raw, play.queue.run))
    prefix = play.queue._connection.prefix
    names = run_keys(raw, play)
    assert {"settings", "state", "leased", "returned", "batch:2", "weights", "failures", "set_aside"} <= set(names)
    for name in names:
        if name.startswith("body:") or name in ("services", "settings"):
            continue
        saved = raw.dump(prefix + name)
        raw.delete(prefix + name)
        before = contents(raw, play)
        for what, call in calls(play, held).items():
            if what == "weights" != name:
                assert await call() is not None
                continue
            with pytest.raises(QueueDamagedError) as failed:
                await call()
            assert f"the key {prefix}{name} of run" in str(failed.value), (name, what)
        after = contents(raw, play)
        for one in (before, after):
            # Of the attempt to submit; it expires.
            one.pop(f"staged:{held.token}", None)
        assert after == before
        raw.restore(prefix + name, 0, saved)
    # Restored, the run is whole.
    assert (await play.queue.stats()).version == 1


async def test_a_lost_body_is_named(play: Play, raw: "redis.Redis[bytes]") -> None:
    await lived(play)
    raw.delete(play.queue._connection.key("body:0-3"))
    with pytest.raises(QueueDamagedError, match=r"body:0-3 of run"):
        await play.queue.take(play.fence, 2)
    # That a batch was committed by a successor is another thing.
    old, play.fence = play.fence, (await play.queue.attach(1)).token
    with pytest.raises(QueueError, match="another learner attached"):
        await play.queue.take(old, 2)


async def test_a_lost_staged_body_is_sent_again(play: Play, raw: "redis.Redis[bytes]") -> None:
    """It lives a moment, between two commands; an evicting server may take it, or one whose clock was set ahead."""
    await play.start()
    lease = await play.lease()
    connection = play.queue._connection
    once, uploads = connection._once, []

    async def losing(wanted: Any, packed: Any, blobs: Any, before: Any, durable: bool) -> dict[str, Any]:
        uploads.append(before)
        return await once(wanted, packed, blobs, before if len(uploads) > 2 else (), durable)

    connection._once = losing  # type: ignore[method-assign]
    assert await play.submit(lease) == SubmitOutcome.ACCEPTED
    assert len(uploads) == 3


async def test_leftovers_of_a_run_without_settings_are_removed_never_mixed(
    play: Play, raw: "redis.Redis[bytes]"
) -> None:
    """Found with a server that evicts keys: the batches of the lost run were taken twice."""
    held = await lived(play)
    raw.delete(play.queue._connection.key("settings"))
    for what, call in calls(play, held).items():
        if what not in ("setup", "weights"):
            with pytest.raises(NotSetUpError):
                await call()
    before = run_keys(raw, play)
    behind = Behind(1, np.array([(0, 0), (0, 1)], np.int32))
    settings = queue_settings(2, manual_clock=True)
    with capture_logs() as logs:
        await play.queue.setup(settings, [np.arange(30, dtype=np.int32)], ["a"] * 30, behind)
    removed = [entry["keys"] for entry in logs if "removed" in entry["event"]]
    assert removed == [len(before) - 1], "all but the presence of processes"
    queue_picture.check(queue_picture.read(raw, play.queue.run))
    play.fence = (await play.queue.attach(1)).token
    stats = await play.queue.stats()
    assert (stats.version, stats.unread, stats.ready, stats.in_batches, stats.bytes) == (1, 28, 0, 0, 0)
    assert await play.queue.submit(held, group_for(held)) is SubmitOutcome.STALE
    assert len(await play.queue.services()) == 1
    for lease in await play.leases(2, version=1):
        await play.submit(lease)
    assert await play.batch(2) == ["0-2", "0-3"]


@pytest.mark.parametrize("kept", ["batch:2", "body:0-3", "leased", "state", "groups", "outcome"])
async def test_a_single_leftover_is_removed_too(play: Play, raw: "redis.Redis[bytes]", kept: str) -> None:
    await lived(play)
    key = play.queue._connection.key
    raw.delete(*(key(name) for name in run_keys(raw, play) if name != kept))
    await play.start(rows=8)
    queue_picture.check(queue_picture.read(raw, play.queue.run))


async def test_sweeping_does_not_touch_another_run_nor_one_that_exists(play: Play, redis_url: str) -> None:
    await play.start()
    await play.lease()
    other = play.queue.run + "-other"
    async with SampleQueue.from_url(redis_url, other) as queue:
        await Play(queue).start()
        assert await queue._sweep() == 0
        assert await queue.forget() > 20
    assert (await play.queue.stats()).leased == 1


async def test_a_damaged_run_can_be_removed(play: Play, raw: "redis.Redis[bytes]") -> None:
    await lived(play)
    raw.delete(play.queue._connection.key("groups"))
    with pytest.raises(QueueDamagedError, match=rf"golongrl queue remove --run {play.queue.run}`"):
        await play.queue.stats()
    await play.queue.forget()
    assert run_keys(raw, play) == ["services"]
    await play.start(rows=8)


async def test_a_run_of_another_version_is_refused_in_one_line(play: Play, raw: "redis.Redis[bytes]") -> None:
    await play.start()
    key = play.queue._connection.key("settings")
    settings = msgpack.unpackb(raw.get(key))
    for other in ({**settings, "format": 9}, {"B": 2, "eta": 1, "lease_ms": 5}):
        raw.set(key, msgpack.packb(other))
        for call in (play.queue.stats(), play.queue.lease("w", 0), play.start(), play.queue.attach(0)):
            with pytest.raises(SettingsMismatchError, match=r"another version of golongrl \(queue format [19], this"):
                await call


# -- the validation round --


ROUND = [f"validation{part}" for part in ("", "_todo", "_leased", "_tokens", "_lost", "_done", "_result:0")]


async def validated(play: Play, lineage: str = "one") -> None:
    """A round of four rows: one is done, one was given back, one is leased."""
    await play.start()
    await play.announce(0, lineage)
    work = play.queue.validation
    await work.open(play.fence, 0, lineage, 4)
    done, back, _ = await work.lease(0, lineage, 3)
    await work.submit(done, ValidationResult(0, 1.0, response=play.queue.run))
    await work.release(back, "x", lost=True)


# For each key another one of its type.
TWINS = {"_todo": "_leased", "_leased": "_todo", "_tokens": "_lost", "_lost": "_tokens", "": "_lost"}
DAMAGE = [
    *((name, how) for name in ROUND for how in ("deleted", "another run's")),
    *((f"validation{part}", f"validation{twin}") for part, twin in TWINS.items()),
]


@pytest.mark.parametrize(("name", "how"), DAMAGE)
async def test_a_damaged_validation_is_noticed_and_begun_again(
    play: Play, raw: "redis.Redis[bytes]", redis_url: str, name: str, how: str
) -> None:
    await validated(play)
    key = play.queue._connection.key(name)
    if how == "deleted":
        raw.delete(key)
    elif how == "another run's":
        async with SampleQueue.from_url(redis_url, f"{play.queue.run}-other") as other:
            await validated(Play(other))
            raw.copy(other._connection.key(name), key, replace=True)
            await other.forget()
    else:
        raw.copy(play.queue._connection.key(how), key, replace=True)
    work = play.queue.validation
    with pytest.raises(QueueDamagedError, match=name):
        await work.results(4)
    if name != "validation_result:0":
        assert await work.lease(0, "one", 4) == []
    await work.open(play.fence, 0, "one", 4)
    assert (await work.progress()).todo == 4
    assert await work.results(4) == []
    assert (await play.queue.stats()).bytes == 0


async def test_a_result_of_another_row_is_noticed(play: Play, raw: "redis.Redis[bytes]") -> None:
    await validated(play)
    key = play.queue._connection.key
    raw.copy(key("validation_result:0"), key("validation_result:1"))
    with pytest.raises(QueueDamagedError, match=r"another run's or row's in place of .*validation_result:1"):
        await play.queue.validation.results(4)


# -- clocks --

HOUR_S = 3600.0


@pytest.mark.parametrize("jump_s", [-HOUR_S, -10 * 365 * 24 * HOUR_S])
async def test_a_clock_set_back_does_not_keep_a_dead_workers_lease(play: Play, jump_s: float) -> None:
    await play.start()
    dead = await play.lease()
    await play.queue.advance(30)
    await play.queue.advance(jump_s, jump=True)
    assert (await play.waits(1)).uid == dead.uid
    await play.queue.advance(31)
    stats = await play.queue.stats()
    assert (stats.clock_set_back, stats.leases[0].expires_in_s, stats.leases[0].age_s) == (1, -1.0, 61.0)
    again = await play.lease(worker="other")
    assert again.uid == dead.uid
    assert again.tries == 1


@pytest.mark.parametrize("jump_s", [HOUR_S, 10 * 365 * 24 * HOUR_S])
async def test_a_clock_set_ahead_takes_no_lease_that_is_renewed(play: Play, jump_s: float) -> None:
    await play.start()
    lease = await play.lease()
    for _ in range(4):
        await play.queue.advance(20)
        assert await play.queue.renew("w", {lease.token: 0}) == {lease.token: True}
    await play.queue.advance(jump_s, jump=True)
    assert await play.queue.renew("w", {lease.token: 0}) == {lease.token: True}
    assert await play.submit(lease) == SubmitOutcome.ACCEPTED
    stats = await play.queue.stats()
    assert (stats.clock_gaps, stats.clock_set_back) == (1, 0)


async def test_small_corrections_of_the_clock_are_not_counted(play: Play) -> None:
    await play.start()
    for _ in range(10):
        await play.queue.advance(-0.4, jump=True)
        await play.lease(worker=f"w{_}") if _ < 4 else await play.refused()
    assert (await play.queue.stats()).clock_set_back == 0


async def test_a_clock_that_jumps_to_and_fro_still_goes_on(play: Play) -> None:
    """Every call finds another time; time passes all the same, and leases end."""
    await play.start()
    await play.lease()
    for turn in range(8):
        await play.queue.advance(HOUR_S if turn % 2 else -HOUR_S, jump=True)
        await play.queue.advance(10)
        await play.queue.renew("nobody", {})
    assert (await play.queue.stats()).leases == () or (await play.lease(worker="x")).tries == 1


async def test_presence_survives_a_clock_set_back(play: Play, raw: "redis.Redis[bytes]") -> None:
    """A process that is gone is not shown for an hour because the clock said so."""
    await play.queue.beat("rollout", "gone", {}, 60)
    key = play.queue._connection.key("services")
    entry = msgpack.unpackb(raw.hget(key, "rollout/gone"))
    raw.hset(key, "rollout/gone", msgpack.packb({**entry, "at": entry["at"] + 3_600_000}))
    assert await play.queue.services() == []
    await play.queue.beat("rollout", "gone", {}, 60)
    assert len(await play.queue.services()) == 1


# -- bounded work --


async def test_peek_does_not_walk_through_the_rows(play: Play, raw: "redis.Redis[bytes]") -> None:
    rows = 1_000_000
    order = [np.random.default_rng(0).permutation(rows).astype(np.int32)]
    await play.queue.setup(replace(queue_settings(2), manual_clock=True), order, ["a"] * rows)
    last, first = order[0][-1], order[0][0]
    lease = await play.lease()
    await play.queue.release(lease, "shutdown")
    before = raw.info("commandstats")
    assert (await play.queue.peek(f"0-{last}")).state == "unread"
    assert (await play.queue.peek(f"0-{first}")).state == "returned"
    for uid in (f"0-{rows}", "1-0"):
        with pytest.raises(QueueError, match="has no row"):
            await play.queue.peek(uid)
    after = raw.info("commandstats")
    made = {name: value["calls"] - before.get(name, {"calls": 0})["calls"] for name, value in after.items()}
    # Each call looks at the marks of the run's keys, four of which are strings.
    assert made.get("cmdstat_getrange", 0) <= 20
    assert sum(made.values()) < 200


async def test_a_row_that_is_not_in_the_order_is_unknown(play: Play) -> None:
    await play.queue.setup(queue_settings(2), [np.array([3, 1], np.int32)], ["a"] * 5)
    assert (await play.queue.peek("0-3")).state == "unread"
    with pytest.raises(QueueError, match="has no row 0-2"):
        await play.queue.peek("0-2")
