"""A run's keys with values that no script of ours writes: one line that says what to do, from every operation."""

from collections.abc import Callable

import msgpack
import numpy as np
import pytest
import redis

from golongrl.queue import Lease, QueueDamagedError, SampleQueue, WeightsRef
from support.groups import group_for, queue_settings

ROWS = 8


def replaced(name: str, value: bytes) -> Callable[[redis.Redis, str], object]:
    """The key as a plain text."""

    def do(raw: redis.Redis, prefix: str) -> None:
        raw.delete(prefix + name)
        raw.set(prefix + name, value)

    return do


def fields(name: str, *, every: bytes) -> Callable[[redis.Redis, str], object]:
    return lambda raw, prefix: raw.hset(prefix + name, mapping=dict.fromkeys(raw.hkeys(prefix + name), every))


FOREIGN: dict[str, Callable[[redis.Redis, str], object]] = {
    "settings: no msgpack": replaced("settings", b"\xc1\xc1"),
    "settings: a text": replaced("settings", b"hello"),
    "settings: of another type": lambda raw, prefix: (
        raw.delete(prefix + "settings"),
        raw.rpush(prefix + "settings", "x"),
    ),
    "state: of another type": replaced("state", b"x"),
    "state: words": lambda raw, prefix: raw.hset(prefix + "state", mapping={"v": "abc", "taken": "x"}),
    "state: no number": lambda raw, prefix: raw.hset(prefix + "state", "v", "nan"),
    "state: a huge number": lambda raw, prefix: raw.hset(prefix + "state", "v", "1e300"),
    "groups": fields("groups", every=b"\xc1"),
    "ready": lambda raw, prefix: raw.zadd(prefix + "ready", {"0-999": 5}),
    "leased": lambda raw, prefix: raw.zadd(prefix + "leased", {"zzz": 5}),
    "weights: no msgpack": replaced("weights", b"\xc1\xc1"),
    "weights: other fields": replaced("weights", msgpack.packb({"version": "x", "path": 5})),
    "set_aside": lambda raw, prefix: raw.hset(prefix + "set_aside", "0-0", b"\xc1"),
}


@pytest.mark.parametrize("what", FOREIGN)
async def test_foreign_values_are_one_line_and_the_run_can_be_removed(what: str, redis_url: str, run_name: str) -> None:
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        await queue.setup(queue_settings(2), [np.arange(ROWS, dtype=np.int32)], ["a"] * ROWS)
        fence = (await queue.attach(0)).token
        for _ in range(2):
            lease = await queue.lease("w", 0)
            assert isinstance(lease, Lease)
            await queue.submit(lease, group_for(lease))
        await queue.announce(fence, WeightsRef(0, "/v0", "a", "c"))
        with redis.Redis.from_url(redis_url) as raw:
            FOREIGN[what](raw, f"golongrl:{{{run_name}}}:")
        refused = []
        for ask in (
            queue.stats,
            queue.set_aside_groups,
            queue.weights,
            queue.services,
            lambda: queue.peek("0-0"),
            lambda: queue.lease("w", 0),
            lambda: queue.take(fence, 1),
        ):
            try:
                await ask()
            except QueueDamagedError as error:
                refused.append(str(error))
        assert refused
        for line in refused:
            assert f"golongrl queue remove --run {run_name}" in line
            assert "\n" not in line
        await queue.forget()
        await queue.setup(queue_settings(2), [np.arange(ROWS, dtype=np.int32)], ["a"] * ROWS)
        assert isinstance(await queue.lease("w", 0), Lease)
