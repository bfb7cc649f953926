"""A server that is down, full, loading or not durable: bounded patience that says what it waits for."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from structlog.testing import capture_logs

from golongrl.local.redis_command import ServerFailedError, find_server
from golongrl.queue import (
    Batch,
    Lease,
    Patience,
    QueueError,
    QueueUnavailableError,
    SampleQueue,
    SubmitOutcome,
)
from support.embedded_server import EmbeddedServer
from support.groups import group_for, queue_settings
from support.redis_server import NO_REDIS, free_port, redis_binary

SHORT = Patience(total_s=2.0, longest_pause_s=0.1)


async def set_up(queue: SampleQueue, rows: int = 20) -> str:
    settings = queue_settings(groups_per_step=2, max_staleness=1)
    await queue.setup(settings, [np.arange(rows, dtype=np.int32)], ["a"] * rows)
    return (await queue.attach(0)).token


async def submit_some(queue: SampleQueue, n: int = 2, **more: Any) -> list[str]:
    uids = []
    for _ in range(n):
        lease = await queue.lease("w", 0)
        assert isinstance(lease, Lease)
        assert await queue.submit(lease, group_for(lease, **more)) is SubmitOutcome.ACCEPTED
        uids.append(lease.uid)
    return uids


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(free_port(), tmp_path / "redis") as running:
        yield running


async def test_server_that_never_comes_is_named() -> None:
    port = free_port()
    async with SampleQueue.from_url(f"redis://127.0.0.1:{port}/0", "r", patience=SHORT) as queue:
        with (
            capture_logs() as logs,
            pytest.raises(QueueUnavailableError, match=rf"127.0.0.1:{port}.*waited for a connection"),
        ):
            await queue.lease("w", 0)
    assert {entry["operation"] for entry in logs} == {"lease"}
    assert all("connection" in entry["waits_for"] for entry in logs)


async def test_a_server_that_fails_for_long_is_told_of_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line for each try filled the log."""
    async with SampleQueue.from_url(f"redis://127.0.0.1:{free_port()}/0", "r", patience=SHORT) as queue:
        for said in (1, 0):
            with capture_logs() as logs, pytest.raises(QueueUnavailableError):
                await queue.stats()
            assert len(logs) == said
        monkeypatch.setattr("golongrl.queue.connection.SAY_EVERY_S", 0.0)
        with capture_logs() as logs, pytest.raises(QueueUnavailableError):
            await queue.stats()
        assert len(logs) > 5


async def test_wrong_password_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with EmbeddedServer(free_port(), tmp_path, password="right") as server:
        async with SampleQueue.from_url(server.url.replace("right", "wrong"), "r") as queue:
            with pytest.raises(QueueError, match="invalid username-password"):
                await queue.stats()
        async with SampleQueue.from_url(server.url, "r") as queue:
            assert await set_up(queue)
        monkeypatch.setenv("GOLONGRL_REDIS_PASSWORD", "right")
        async with SampleQueue.from_url(server.url.replace(":right@", ""), "r") as queue:
            assert await queue.stats()


async def test_everything_survives_a_killed_server(server: EmbeddedServer) -> None:
    async with SampleQueue.from_url(server.url, "r") as queue:
        fence = await set_up(queue)
        uids = await submit_some(queue)
        before = await queue.take(fence, 1)
        assert isinstance(before, Batch)
        asked = asyncio.create_task(queue.take(fence, 1))
        await server.kill()
        waiting = asyncio.create_task(queue.take(fence, 1))
        await server.start()
        after = await waiting
        await asked
        assert isinstance(after, Batch)
        assert [group.uid for group in after.groups] == uids
        assert after.replayed


async def test_full_server_is_waited_for_and_nothing_is_half_done(server: EmbeddedServer) -> None:
    async with SampleQueue.from_url(server.url, "r") as queue, aioredis.Redis.from_url(server.url) as admin:
        fence = await set_up(queue)
        await submit_some(queue)
        lease = await queue.lease("w", 0)
        assert isinstance(lease, Lease)
        await admin.config_set("maxmemory", 1)
        waiting = asyncio.create_task(queue.submit(lease, group_for(lease)))
        async with SampleQueue.from_url(server.url, "r", patience=SHORT) as hasty:
            with pytest.raises(QueueUnavailableError, match="memory on the server"):
                await hasty.lease("x", 0)
        # What empties the queue works all the same.
        assert isinstance(await queue.take(fence, 1), Batch)
        await queue.finish(fence, 1)
        await queue.commit(fence, 1)
        assert not waiting.done()
        await admin.config_set("maxmemory", 0)
        assert await waiting is SubmitOutcome.ACCEPTED
        assert (await queue.stats()).ready == 1


async def test_script_cache_lost(server: EmbeddedServer) -> None:
    async with SampleQueue.from_url(server.url, "r") as queue, aioredis.Redis.from_url(server.url) as admin:
        await set_up(queue)
        await admin.script_flush()
        await submit_some(queue)


@pytest.mark.parametrize(("appendfsync", "warned"), [("everysec", False), ("always", False), (None, True)])
async def test_lack_of_durability_is_said(tmp_path: Path, appendfsync: Any, warned: bool) -> None:
    server = EmbeddedServer(free_port(), tmp_path, appendfsync=appendfsync)
    async with server, SampleQueue.from_url(server.url, "r") as queue:
        with capture_logs() as logs:
            fence = await set_up(queue)
            await submit_some(queue)
            assert isinstance(await queue.take(fence, 1), Batch)
        assert [entry["event"] for entry in logs] == ["queue is not crash-safe"] * warned


async def test_confirmed_writes_are_flushed_even_when_a_repeat_changes_nothing(server: EmbeddedServer) -> None:
    """WAITAOF waits only for its own connection's writes: a repeated finish must write, or it would confirm nothing."""
    async with SampleQueue.from_url(server.url, "r") as queue, aioredis.Redis.from_url(server.url) as admin:
        fence = await set_up(queue)
        await submit_some(queue)
        await queue.take(fence, 1)
        for _ in range(2):
            before = (await admin.info("replication"))["master_repl_offset"]
            await queue.finish(fence, 1)
            assert (await admin.info("replication"))["master_repl_offset"] > before


async def test_embedded_server_says_why_it_failed(server: EmbeddedServer, tmp_path: Path) -> None:
    with pytest.raises(ServerFailedError, match=r"ended at once|did not answer"):
        await EmbeddedServer(free_port(), tmp_path / "other", settings={"no-such-option": "1"}).start()


def test_a_server_is_found() -> None:
    assert Path(find_server()).exists()


@pytest.mark.skipif(redis_binary() is None, reason=NO_REDIS)
@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
async def test_real_redis_7(tmp_path: Path, appendfsync: Any) -> None:
    """7.0 has no WAITAOF: durable with appendfsync always, a clear warning otherwise."""
    server = EmbeddedServer(free_port(), tmp_path, server=redis_binary(), appendfsync=appendfsync)
    async with server, SampleQueue.from_url(server.url, "r") as queue, aioredis.Redis.from_url(server.url) as admin:
        version = (await admin.info("server"))["redis_version"]
        with capture_logs() as logs:
            fence = await set_up(queue)
            await submit_some(queue, 4)
            assert isinstance(await queue.take(fence, 1), Batch)
            await queue.finish(fence, 1)
            await queue.commit(fence, 1)
        stats = await queue.stats()
        assert (stats.version, stats.trained, stats.ready) == (1, 2, 2)
        warned = any(entry["event"] == "queue is not crash-safe" for entry in logs)
        assert warned == (appendfsync == "everysec" and tuple(map(int, version.split(".")[:2])) < (7, 2))
