"""Keys of another run, another name or an older copy: refused by name or healed, no row mixed or repeated."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis

from golongrl.queue import OutOfOrderError, QueueDamagedError, SampleQueue, UnreadableGroupError
from support import queue_picture
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port

from .conftest import Play
from .test_damage import calls, lived, run_keys

# The settings have the number that the marks of the others are compared with; presence is compared entry by entry.
UNMARKED = ("settings", "services")


@pytest.fixture
def raw(redis_url: str) -> "redis.Redis[bytes]":
    return redis.Redis.from_url(redis_url)


@pytest.fixture
async def other(redis_url: str, run_name: str) -> AsyncIterator[Play]:
    """A run of the same rows and settings, which got as far."""
    async with SampleQueue.from_url(redis_url, f"{run_name}-other") as queue:
        play = Play(queue)
        await lived(play)
        yield play


async def test_a_key_of_another_run_is_named(play: Play, other: Play, raw: "redis.Redis[bytes]") -> None:
    held = await lived(play)
    mine, its = play.queue._connection.prefix, other.queue._connection.prefix
    copied = [name for name in run_keys(raw, play) if name not in UNMARKED and not name.startswith(("body:", "batch:"))]
    assert {
        "state",
        "groups",
        "leased",
        "ready",
        "returned",
        "set_aside",
        "tries",
        "rows",
        "outcome",
        "weights",
    } <= set(copied)
    for name in copied:
        saved = raw.dump(mine + name)
        raw.restore(mine + name, 0, raw.dump(its + name), replace=True)
        for what, call in calls(play, held).items():
            if what != "weights" or name == "weights":
                with pytest.raises(QueueDamagedError, match="is another run's, or another key's") as failed:
                    await call()
                assert f"the key {mine}{name} of run" in str(failed.value), what
        raw.restore(mine + name, 0, saved, replace=True)
    assert (await play.queue.stats()).version == 1
    raw.restore(f"{mine}settings", 0, raw.dump(f"{its}settings"), replace=True)
    with pytest.raises(QueueDamagedError, match="is another run's"):
        await play.queue.stats()


@pytest.mark.parametrize(
    ("source", "target"),
    [("leased", "ready"), ("ready", "returned"), ("deadlines", "leased"), ("groups", "set_aside"), ("tries", "groups")],
)
async def test_a_key_under_anothers_name_is_named(
    play: Play, raw: "redis.Redis[bytes]", source: str, target: str
) -> None:
    await lived(play)
    key = play.queue._connection.key
    raw.copy(key(source), key(target), replace=True)
    with pytest.raises(QueueDamagedError, match=f":{target} of run .* is another run's, or another key's"):
        await play.queue.stats()
    raw.rename(key(source), key(target))
    with pytest.raises(QueueDamagedError, match=f"the key .*:({source}|{target}) of run"):
        await play.queue.stats()


async def test_presence_of_another_run_is_not_shown(play: Play, other: Play, raw: "redis.Redis[bytes]") -> None:
    await play.queue.beat("rollout", "mine", {}, 60)
    await other.queue.beat("rollout", "its", {}, 60)
    mine, its = play.queue._connection.key("services"), other.queue._connection.key("services")
    raw.copy(its, mine, replace=True)
    assert await play.queue.services() == []
    await play.queue.beat("rollout", "mine", {}, 60)
    assert [presence.id for presence in await play.queue.services()] == ["mine"]


@pytest.mark.parametrize("of", ["another run", "another row"])
async def test_a_body_of_another_lease_is_replaced(
    play: Play, raw: "redis.Redis[bytes]", redis_url: str, of: str
) -> None:
    await play.start(rows=10)
    for lease in await play.leases(3):
        await play.submit(lease)
    key = play.queue._connection.key
    if of == "another run":
        # The same uid, of the same row: nothing but the lease tells them apart.
        async with SampleQueue.from_url(redis_url, f"{play.queue.run}-third") as third:
            twin = await Play(third).start(rows=10)
            await twin.submit(await twin.lease())
            raw.copy(third._connection.key("body:0-0"), key("body:0-0"), replace=True)
            await third.forget()
    else:
        raw.copy(key("body:0-1"), key("body:0-0"), replace=True)
    assert sorted(await play.batch(1)) == ["0-1", "0-2"]
    (aside,) = await play.queue.set_aside_groups()
    assert aside.uid == "0-0"
    assert "its body is of another lease" in aside.reason
    queue_picture.check(queue_picture.read(raw, play.queue.run))
    await play.finish(1)
    raw.copy(key("body:0-2"), key("body:0-1"), replace=True)
    with pytest.raises(UnreadableGroupError, match="0-1 of step 1, which was trained before: its body is of another"):
        await play.queue.take(play.fence, 1)


async def test_a_batch_that_names_other_groups_is_refused(play: Play, raw: "redis.Redis[bytes]") -> None:
    await lived(play)
    key = play.queue._connection.key
    saved = raw.dump(key("batch:3"))
    for wrong in (["0-9", "0-8"], ["0-2", "0-3"], ["nobody"]):
        raw.delete(key("batch:3"))
        raw.rpush(key("batch:3"), *wrong)
        with pytest.raises(QueueDamagedError, match="batch:3 of run"):
            await play.queue.take(play.fence, 3)
    raw.restore(key("batch:3"), 0, saved, replace=True)
    raw.copy(key("batch:2"), key("batch:3"), replace=True)
    with pytest.raises(QueueDamagedError, match="batch:3 of run"):
        await play.queue.take(play.fence, 3)


async def test_an_older_copy_of_the_data_is_refused_or_replayed(tmp_path: Path) -> None:
    """The server comes back with its append-only file of some steps ago, while learner and workers go on."""
    folder, port = tmp_path / "redis", free_port()
    server = EmbeddedServer(port, folder)
    async with server, SampleQueue.from_url(server.url, "copied") as queue:
        play = await Play(queue).start(rows=20, max_staleness=4)
        trained: dict[int, list[str]] = {}
        for step in (1, 2, 3, 4):
            for lease in await play.leases(2, version=step - 1):
                await play.submit(lease)
            trained[step] = await play.batch(step)
            if step == 2:
                await server.kill()
                shutil.copytree(folder, tmp_path / "older")
                await server.start()
            await play.finish(step)
        late = await play.lease(version=4)
        await server.kill()
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "older", folder)
        await server.start()
        # The learner that goes on is told, and so is one that resumes from a checkpoint that the copy does not know.
        with pytest.raises(OutOfOrderError, match="version 1, its last batch is 2"):
            await queue.take(play.fence, 5)
        with pytest.raises(OutOfOrderError):
            await queue.finish(play.fence, 4)
        with pytest.raises(OutOfOrderError, match=r"attach\(4\): .* behind the checkpoint: .*queue remove --run"):
            await queue.attach(4)
        assert await play.submit(late) == "stale"
        assert await play.refused(version=4)
        # From a checkpoint that it knows the same batches are replayed, and what was lost is trained once more there.
        play.fence = (await queue.attach(1)).token
        assert await play.batch(2) == trained[2]
        await play.finish(2)
        with redis.Redis.from_url(server.url) as client:
            queue_picture.check(queue_picture.read(client, "copied"))


async def test_a_key_deleted_between_set_up_and_the_first_lease_is_named(play: Play, raw: "redis.Redis[bytes]") -> None:
    """The set-up is one script, so that a run is there whole or not at all."""
    await play.start(rows=8)
    for name in run_keys(raw, play):
        if name in ("settings", "services"):
            continue
        saved = raw.dump(play.queue._connection.key(name))
        raw.delete(play.queue._connection.key(name))
        with pytest.raises(QueueDamagedError, match=f":{name} of run"):
            await play.start(rows=8)
        raw.restore(play.queue._connection.key(name), 0, saved)
    await play.start(rows=8)
    assert (await play.queue.stats()).unread == 8
