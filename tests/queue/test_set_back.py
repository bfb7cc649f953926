"""A key is set back to an older value of its own in mid-run: nothing is lost, repeated, stale or waited for endlessly.

Whole small runs of honest workers and a learner, seeded. Most are refused by name at the next lease, take or attach;
where the older value changes nothing that counts, they end with every row trained once.
"""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
import redis

from golongrl.queue import Batch, Lease, OutOfOrderError, QueueDamagedError, Stopped, UnreadableGroupError

from .conftest import Play

ROWS = 24
MAX_STALENESS = 2
COMMIT_EVERY = 3
# What the rows' places stand in, and what only goes with them.
COUNTED = ("state", "returned", "leased", "ready", "deadlines", "groups")
OTHERS = ("requests", "given_up", "tries", "incarnations", "outcome", "batch:1", "batch:2", "batch:4", "counts",
          "failures", "weights", "past_incarnations")  # fmt: skip
# An honest run of this size ends within a third of it.
MOST_MOVES = 1500


@dataclass
class Life:
    """A run that lives by random honest moves."""

    play: Play
    rng: random.Random
    held: list[Lease] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    step: int = 0
    over: bool = False

    async def move(self) -> None:
        chance, queue = self.rng.random(), self.play.queue
        if chance < 0.35:
            answer = await queue.lease(f"w{self.rng.randrange(2)}", self.step)
            if isinstance(answer, Lease):
                self.held.append(answer)
            self.over = isinstance(answer, Stopped)
        elif chance < 0.76:
            if self.held:
                await self._end_a_lease(chance)
        elif chance < 0.8:
            await queue.advance(25)
            for lease in self.held:
                await queue.renew(lease.worker, {lease.token: self.rng.randrange(1, 9999)})
        else:
            await self._train()

    async def _end_a_lease(self, chance: float) -> None:
        lease = self.held.pop(self.rng.randrange(len(self.held)))
        if chance < 0.65:
            await self.play.submit(lease)
        elif chance < 0.72:
            await self.play.queue.release(lease, "shutdown", failed=self.rng.random() < 0.2)
        # Else its worker died.

    async def _train(self) -> None:
        answer = await self.play.queue.take(self.play.fence, self.step + 1)
        self.over = isinstance(answer, Stopped)
        if isinstance(answer, Batch):
            assert all(self.step - group.lowest_version <= MAX_STALENESS for group in answer.groups)
            self.step += 1
            self.trained += [group.uid for group in answer.groups]
            await self.play.finish(self.step)
            if self.step % COMMIT_EVERY == 0:
                await self.play.commit(self.step)

    async def moves(self, most: int) -> None:
        for number in range(1, most + 1):
            if self.over:
                return
            if number % 40 == 0:
                # The leases of dead workers expire.
                await self.play.queue.advance(65)
            await self.move()


async def set_back(play: Play, raw: "redis.Redis[bytes]", key: str, seed: int, order: str) -> str:
    """What became of a run whose `key` was set back: "named", "whole", or "" where it never changed."""
    life = Life(play, random.Random(seed))
    await play.start(rows=ROWS, max_staleness=MAX_STALENESS, order=order, max_tries=4)
    name = play.queue._connection.key(key)
    await life.moves(life.rng.randrange(3, 70))
    older = raw.dump(name)
    await life.moves(life.rng.choice([1, 2, 4, 8, 20, 50]))
    if older is None or life.over or raw.dump(name) == older:
        return ""
    raw.restore(name, 0, older, replace=True)
    try:
        await life.moves(MOST_MOVES)
    except (QueueDamagedError, OutOfOrderError, UnreadableGroupError):
        return "named"
    assert life.over, f"{key} of seed {seed}: waits without end"
    assert not [uid for uid, times in Counter(life.trained).items() if times > 1], f"{key} of seed {seed}"
    assert len(life.trained) + (await play.queue.stats()).rejected == ROWS, f"{key} of seed {seed}: a row is lost"
    return "whole"


async def several(play: Play, redis_url: str, key: str, seeds: range) -> Counter[str]:
    found = Counter[str]()
    with redis.Redis.from_url(redis_url) as raw:
        for seed in seeds:
            for order in ("lease", "ready"):
                found[await set_back(play, raw, key, seed, order)] += 1
                await play.queue.forget()
    return found


@pytest.mark.parametrize("key", COUNTED)
async def test_a_key_that_is_set_back_loses_and_repeats_nothing(play: Play, redis_url: str, key: str) -> None:
    found = await several(play, redis_url, key, range(3))
    assert found["named"] or key == "returned"


@pytest.mark.full
@pytest.mark.parametrize("key", COUNTED + OTHERS)
async def test_any_key_that_is_set_back_loses_and_repeats_nothing(play: Play, redis_url: str, key: str) -> None:
    found = await several(play, redis_url, key, range(100, 130))
    assert found["named"] or key not in COUNTED


async def test_an_older_key_is_named_with_what_to_do(play: Play, redis_url: str) -> None:
    await play.start(rows=8)
    with redis.Redis.from_url(redis_url) as raw:
        key = play.queue._connection.key
        first = await play.lease()
        older = raw.dump(key("ready"))
        await play.submit(first)
        await play.submit(await play.lease())
        newer = raw.dump(key("ready"))
        raw.restore(key("ready"), 0, older, replace=True)
        for call in (lambda: play.batch(1), play.lease, lambda: play.queue.attach(0)):
            with pytest.raises(QueueDamagedError, match=r"one of the keys of run .* was set back .*queue remove --run"):
                await call()
        raw.restore(key("ready"), 0, newer, replace=True)
        assert await play.batch(1) == ["0-0", "0-1"]
        # As many members as before, and others: the key itself is known.
        for lease in await play.leases(2):
            await play.submit(lease)
        raw.restore(key("ready"), 0, newer, replace=True)
        with pytest.raises(QueueDamagedError, match=r"the key .*:ready of run .* was set back to an older value"):
            await play.batch(2)


async def test_a_run_of_an_older_version_has_no_tallies_and_goes_on(play: Play, redis_url: str) -> None:
    await play.start(rows=8)
    with redis.Redis.from_url(redis_url) as raw:
        raw.hdel(play.queue._connection.key("state"), "ended", "batched")
        for lease in await play.leases(2):
            await play.submit(lease)
        assert len(await play.batch(1)) == 2
        assert raw.hexists(play.queue._connection.key("state"), "batched") == 0
