"""Real fail-overs: a primary and a replica, promoted by hand or by a real sentinel, under load.

Nothing is lost, repeated or stale, given what `golongrl/queue/README.md` asks of the servers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
import redis
import redis.asyncio as aioredis

from golongrl.local.redis_command import find_server
from golongrl.queue import (
    Batch,
    Lease,
    NotDurableError,
    Patience,
    QueueError,
    QueueServerError,
    QueueUnavailableError,
    SampleQueue,
    Stopped,
    Wait,
    WeightsRef,
)
from support import queue_picture
from support.embedded_server import EmbeddedServer
from support.groups import group_for, queue_settings
from support.redis_server import free_port

PATIENCE = Patience(total_s=120, longest_pause_s=0.2)
# So that both nodes of a pair follow the same rules, whichever is the primary.
REPLICATED = {"min-replicas-to-write": "1", "min-replicas-max-lag": "2", "repl-diskless-sync-delay": "0"}


@asynccontextmanager
async def pair(folder: Path, **settings: str) -> AsyncIterator[tuple[EmbeddedServer, EmbeddedServer]]:
    """A primary with its replica in step."""
    first = EmbeddedServer(free_port(), folder / "one", settings={**REPLICATED, **settings})
    second = EmbeddedServer(
        free_port(), folder / "two", settings={**REPLICATED, **settings, "replicaof": f"127.0.0.1 {first.port}"}
    )
    async with first, second:
        await in_step(first)
        yield first, second


async def in_step(server: EmbeddedServer) -> None:
    async with aioredis.Redis.from_url(server.url) as client, asyncio.timeout(60):
        while (await client.info("replication")).get("slave0", {}).get("state") != "online":
            await asyncio.sleep(0.1)


async def promoted(server: EmbeddedServer) -> None:
    async with aioredis.Redis.from_url(server.url) as client, asyncio.timeout(60):
        while True:
            # The sentinel cuts every connection when it changes a role.
            with contextlib.suppress(redis.ConnectionError):
                if (await client.info("replication"))["role"] == "master":
                    return
            await asyncio.sleep(0.1)


async def work(url: str, name: str) -> None:
    async with SampleQueue.from_url(url, "r", patience=PATIENCE) as queue:
        while True:
            weights = await queue.weights()
            answer = await queue.lease(name, weights.version if weights else 0)
            if isinstance(answer, Stopped):
                return
            if isinstance(answer, Lease):
                await queue.submit(answer, group_for(answer))
            else:
                await asyncio.sleep(0.02)


async def learn(queue: SampleQueue, fence: str, seen: dict[int, list[str]], passed: asyncio.Event) -> None:
    step = 1
    while not isinstance(answer := await queue.take(fence, step), Stopped):
        if isinstance(answer, Wait):
            await asyncio.sleep(0.02)
            continue
        assert isinstance(answer, Batch)
        for group in answer.groups:
            assert step - 1 - group.lowest_version <= 1, "too stale"
        seen[step] = [group.uid for group in answer.groups]
        await queue.announce(fence, WeightsRef(step, "p", "l", "c"))
        await queue.finish(fence, step)
        if step % 3 == 0:
            await queue.commit(fence, step)
        if step == 5:
            passed.set()
        step += 1
    await queue.commit(fence, step - 1)


async def run_through(url: str, rows: int, fail_over: "asyncio.Task[None] | None", passed: asyncio.Event) -> None:
    """A whole run while something happens to the servers; every row is trained once."""
    seen: dict[int, list[str]] = {}
    async with SampleQueue.from_url(url, "r", patience=PATIENCE) as queue:
        await queue.setup(queue_settings(2, lease_s=5, max_tries=100), [np.arange(rows, dtype=np.int32)], ["a"] * rows)
        fence = (await queue.attach(0)).token
        async with asyncio.timeout(300), asyncio.TaskGroup() as group:
            group.create_task(learn(queue, fence, seen, passed))
            for index in range(2):
                group.create_task(work(url, f"w{index}"))
            if fail_over:
                await fail_over
        trained = [uid for uids in seen.values() for uid in uids]
        assert sorted(trained) == sorted(f"0-{row}" for row in range(rows)), "lost or repeated"
        assert (await queue.stats()).trained == rows


@pytest.mark.timeout(400)
async def test_sentinels_promote_a_replica_under_load(tmp_path: Path) -> None:
    """The primary is killed for good; the clients find the new one through a real sentinel."""
    passed = asyncio.Event()
    async with pair(tmp_path, **{"min-replicas-to-write": "0"}) as (first, second), sentinel(tmp_path, first) as url:

        async def kill() -> None:
            await passed.wait()
            await first.kill()

        # Both nodes confirm while there are two: what was confirmed is with the replica when the primary dies.
        seen: dict[int, list[str]] = {}
        rows = 60
        async with SampleQueue.from_url(f"{url}?replicas=1", "r", patience=PATIENCE) as queue:
            settings = queue_settings(2, lease_s=5, max_tries=100)
            await queue.setup(settings, [np.arange(rows, dtype=np.int32)], ["a"] * rows)
            fence = (await queue.attach(0)).token
            async with asyncio.timeout(300), asyncio.TaskGroup() as group:
                learner = group.create_task(learn(queue, fence, seen, passed))
                for index in range(2):
                    group.create_task(work(url, f"w{index}"))
                await kill()
                await promoted(second)
                # The old primary comes back as a replica, as a StatefulSet's pod does; writes need it again.
                await first.start()
                await learner
            trained = [uid for uids in seen.values() for uid in uids]
            assert sorted(trained) == sorted(f"0-{row}" for row in range(rows)), "lost or repeated"
        with redis.Redis.from_url(second.url) as raw:
            queue_picture.check(queue_picture.read(raw, "r"))


@asynccontextmanager
async def sentinel(folder: Path, primary: EmbeddedServer) -> AsyncIterator[str]:
    """A real sentinel that watches `primary`; the URL that asks it."""
    port, config = free_port(), folder / "sentinel.conf"
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor main 127.0.0.1 {primary.port} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
    )
    with (folder / "sentinel.log").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            find_server(), str(config), "--sentinel", stdout=output, stderr=output
        )
    try:
        async with aioredis.Redis(host="127.0.0.1", port=port) as client, asyncio.timeout(60):
            while True:
                try:
                    (state,) = (await client.sentinel_masters()).values()
                    if state["num-slaves"] == 1:
                        break
                except (redis.RedisError, ValueError):
                    pass
                await asyncio.sleep(0.1)
        yield f"redis+sentinel://127.0.0.1:{port}/main/0"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.timeout(400)
async def test_roles_change_under_load_and_back(tmp_path: Path) -> None:
    """By FAILOVER, as managed servers do; clients hold the address of a proxy that follows, as a Service does."""
    passed = asyncio.Event()
    async with pair(tmp_path) as (first, second), following(first) as (url, follow):

        async def change() -> None:
            await passed.wait()
            for old, new in ((first, second), (second, first)):
                async with aioredis.Redis.from_url(old.url) as client:
                    await client.execute_command("FAILOVER", "TO", "127.0.0.1", str(new.port))
                # For a while clients talk to what has become a replica: READONLY.
                await asyncio.sleep(0.5)
                follow(new)
                await in_step(new)

        await run_through(url, 60, asyncio.create_task(change()), passed)


@asynccontextmanager
async def following(server: EmbeddedServer) -> AsyncIterator[tuple[str, object]]:
    """A forwarder whose new connections lead where `follow` said; old ones stay where they are."""
    target = [server.port]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            try:
                while data := await source.read(1 << 16):
                    sink.write(data)
                    await sink.drain()
            except OSError:
                pass
            sink.transport.abort()

        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", target[0])
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(pump(reader, other_writer), pump(other_reader, writer))

    def follow(new: EmbeddedServer) -> None:
        target[0] = new.port

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"redis://127.0.0.1:{listener.sockets[0].getsockname()[1]}/0", follow
    listener.close()


async def lease_until_refused(queue: SampleQueue) -> None:
    async with asyncio.timeout(60):
        while True:
            await queue.lease("w", 0)


async def test_a_primary_without_its_replica_confirms_nothing(tmp_path: Path) -> None:
    """A primary that a network fault has cut off must not be believed: another one may have been promoted."""
    hasty = Patience(total_s=3, longest_pause_s=0.2)
    async with pair(tmp_path) as (first, second), SampleQueue.from_url(first.url, "r", patience=hasty) as queue:
        await queue.setup(queue_settings(2), [np.arange(8, dtype=np.int32)], ["a"] * 8)
        fence = (await queue.attach(0)).token
        second.process.send_signal(19)  # type: ignore[union-attr]
        try:
            with pytest.raises((NotDurableError, QueueUnavailableError), match="replicas"):
                await queue.attach(0)
            with pytest.raises(QueueUnavailableError, match="enough replicas"):
                await lease_until_refused(queue)
        finally:
            second.process.send_signal(18)  # type: ignore[union-attr]
        del fence


async def test_a_replica_is_waited_for_to_become_a_primary(tmp_path: Path) -> None:
    hasty = Patience(total_s=3, longest_pause_s=0.2)
    async with pair(tmp_path) as (_, second), SampleQueue.from_url(second.url, "r", patience=hasty) as queue:
        for call in (queue.inspect_server(), queue.attach(0)):
            with pytest.raises(QueueUnavailableError, match="a writable primary"):
                await call


def cluster_node(folder: Path, bus: int) -> EmbeddedServer:
    """`bus`: its second port, by default the first plus 10,000: one of those that the kernel gives to clients."""
    return EmbeddedServer(free_port(), folder, settings={"cluster-enabled": "yes", "cluster-port": str(bus)})


async def test_a_cluster_without_slots_is_waited_for(tmp_path: Path) -> None:
    hasty = Patience(total_s=3, longest_pause_s=0.2)
    server = cluster_node(tmp_path, free_port())
    async with server, SampleQueue.from_url(server.url, "r", patience=hasty) as queue:
        with pytest.raises(QueueUnavailableError, match="waited for the cluster"):
            await queue.lease("w", 0)


async def test_a_node_of_a_cluster_that_has_other_keys_is_one_line(tmp_path: Path) -> None:
    bus = free_port()
    one, other = cluster_node(tmp_path / "one", bus), cluster_node(tmp_path / "other", free_port())
    async with one, other, SampleQueue.from_url(one.url, "r") as queue, aioredis.Redis.from_url(other.url) as admin:
        await admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with aioredis.Redis.from_url(one.url) as client, asyncio.timeout(60):
            await admin.execute_command("CLUSTER", "MEET", "127.0.0.1", one.port, bus)
            while b"cluster_state:ok" not in await client.execute_command("CLUSTER", "INFO"):
                await asyncio.sleep(0.1)
        with pytest.raises(QueueError, match=rf"on another node of a cluster, 127.0.0.1:{other.port}"):
            await queue.lease("w", 0)


async def test_an_evicting_server_is_refused_at_set_up(tmp_path: Path) -> None:
    server = EmbeddedServer(free_port(), tmp_path, maxmemory=1 << 28, settings={"maxmemory-policy": "allkeys-lru"})
    async with server, SampleQueue.from_url(server.url, "r") as queue, aioredis.Redis.from_url(server.url) as admin:
        with pytest.raises(QueueServerError, match=r"cannot hold.*set `maxmemory-policy noeviction`") as refused:
            await queue.setup(queue_settings(2), [np.arange(8, dtype=np.int32)], ["a"] * 8)
        assert refused.value.exit_code == 2
        assert isinstance(refused.value, QueueError)
        assert await admin.dbsize() == 0
        assert (await queue.inspect_server()).refusals
        await admin.config_set("maxmemory-policy", "noeviction")
        await queue.setup(queue_settings(2), [np.arange(8, dtype=np.int32)], ["a"] * 8)
