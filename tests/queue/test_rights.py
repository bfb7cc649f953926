"""A user with few rights, or a server without some commands: one line that names what is lacking."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis

from golongrl.local.redis_command import server_command
from golongrl.queue import Patience, QueueDamagedError, QueueError, QueueServerError, SampleQueue
from golongrl.queue.scripts import commands
from support.embedded_server import EmbeddedServer
from support.groups import queue_settings
from support.redis_server import NO_REDIS, free_port, redis_binary

from .conftest import Play

HASTY = Patience(total_s=3.0, longest_pause_s=0.1)
# Without them the queue works: they only tell more of the server.
SPARED = {"CONFIG", "WAITAOF", "WAIT", "CLIENT", "COMMAND"}
OUTSIDE = {"INFO", "EVALSHA", "SCRIPT", "SCAN", "MGET"}


async def lived(queue: SampleQueue) -> None:
    """What a short run does."""
    play = Play(queue)
    await play.start(rows=6)
    await play.announce(0)
    for lease in [await play.lease() for _ in range(2)]:
        await queue.renew("w", {lease.token: 3})
        await play.submit(lease)
    await play.batch(1)
    await queue.set_aside(play.fence, 1, "0-0", "test")
    await queue.stats()
    await queue.peek("0-1")
    await queue.set_aside_groups()
    await queue.forget()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(free_port(), tmp_path) as one:
        yield one


@pytest.fixture(params=["valkey", "redis"])
async def either(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """Redis 7.0 has other words for a script that lacks a right."""
    binary = redis_binary() if request.param == "redis" else None
    if request.param == "redis" and binary is None:
        pytest.skip(NO_REDIS)
    async with EmbeddedServer(free_port(), tmp_path, server=binary, appendfsync=None) as one:
        yield one


async def refused(url: str, run: str) -> str:
    """The line in which a short life of a run fails; empty where it does not."""
    async with SampleQueue.from_url(url, run, patience=HASTY) as queue:
        try:
            await lived(queue)
        except QueueDamagedError as error:
            raise AssertionError(f"nothing is damaged: {error}") from error
        except QueueError as error:
            return str(error)
    return ""


async def test_each_missing_right_is_named(server: EmbeddedServer) -> None:
    admin = redis.Redis.from_url(server.url)
    url = server.url.replace("redis://", "redis://few:s3cr3ts3cr3t@")
    used = set()
    for command in sorted({*commands(), *OUTSIDE, *SPARED}):
        admin.script_flush()
        admin.acl_setuser("few", reset=True, enabled=True, passwords=["+s3cr3ts3cr3t"], keys=["golongrl:*"],
                          commands=["+@all", f"-{command.lower()}"])  # fmt: skip
        line = await refused(url, f"without-{command}")
        if line:
            used.add(command)
            assert "\n" not in line
            assert "permissions to run" in line, line
            assert f"'{command.lower()}" in line, line
            assert f"its user needs this right, on the keys golongrl:{{without-{command}}}:*" in line
    assert used >= OUTSIDE | {"GET", "SET", "HSET", "HGET", "ZADD", "RENAME", "LRANGE", "UNLINK", "TIME"}
    assert not used & SPARED


async def test_a_right_that_is_used_hours_later_is_named_at_set_up(either: EmbeddedServer) -> None:
    admin = redis.Redis.from_url(either.url)
    url = either.url.replace("redis://", "redis://few:s3cr3ts3cr3t@")
    for command in commands():
        admin.acl_setuser("few", reset=True, enabled=True, passwords=["+s3cr3ts3cr3t"], keys=["golongrl:*"],
                          commands=["+@all", f"-{command.lower()}", "-lset"])  # fmt: skip
        async with SampleQueue.from_url(url, command, patience=HASTY) as queue:
            with pytest.raises(QueueError, match=rf"no permissions to run .*'{command.lower()}'") as error:
                await queue.setup(queue_settings(2), [np.arange(4, dtype=np.int32)], ["a"] * 4)
        assert isinstance(error.value, QueueServerError)
        assert f"'{command.lower()}'" in str(error.value)
        assert "'lset'" in str(error.value)
        assert f"needs this right, on the keys golongrl:{{{command}}}:*" in str(error.value)
    assert not [name for name in admin.scan_iter("golongrl:*") if not admin.pttl(name) > 0]
    admin.acl_setuser("few", reset=True, enabled=True, passwords=["+s3cr3ts3cr3t"], keys=["golongrl:*"],
                      commands=["+@all"])  # fmt: skip
    async with SampleQueue.from_url(url, "all", patience=HASTY) as queue:
        await queue.setup(queue_settings(2), [np.arange(4, dtype=np.int32)], ["a"] * 4)
        # Taken away in mid-run: nothing is called damaged.
        admin.acl_setuser("few", commands=["-hset"])
        with pytest.raises(QueueError, match="its user needs this right") as error:
            await queue.attach(0)
    assert not isinstance(error.value, QueueDamagedError)


@pytest.mark.parametrize("keys", ["~other:*", "%R~*", "%W~*"])
async def test_a_user_without_the_runs_keys_is_told_which_it_needs(server: EmbeddedServer, keys: str) -> None:
    redis.Redis.from_url(server.url).execute_command(
        "ACL", "SETUSER", "few", "reset", "on", ">long-enough", keys, "+@all"
    )
    line = await refused(server.url.replace("redis://", "redis://few:long-enough@"), "r")
    assert "golongrl:{r}:*" in line


@pytest.mark.parametrize("lacking", [["UNLINK"], ["TIME", "HGETALL"], ["SCAN"], ["EVALSHA"], ["INFO"]], ids="+".join)
async def test_a_server_with_renamed_commands_is_refused_at_set_up(tmp_path: Path, lacking: list[str]) -> None:
    port = free_port()
    renamed = [word for name in lacking for word in ("--rename-command", name, f"renamed-{name}")]
    process = await asyncio.create_subprocess_exec(
        *server_command(port, tmp_path), *renamed, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with SampleQueue.from_url(f"redis://127.0.0.1:{port}", "r", patience=Patience(total_s=30)) as queue:
            with pytest.raises(QueueError) as error:
                await lived(queue)
        for name in lacking:
            assert f"'{name}'" in str(error.value) or f"no command {', '.join(sorted(lacking))}" in str(error.value)
        if "UNLINK" in lacking or "TIME" in lacking:
            assert isinstance(error.value, QueueServerError)
        assert "with args" not in str(error.value)
        assert "remove" not in str(error.value)
    finally:
        process.kill()
        await process.wait()


async def test_a_script_that_is_forgotten_as_it_is_called_is_loaded_again(server: EmbeddedServer) -> None:
    """A server that flushes its scripts, or another one after a fail-over, between the loading and the call."""
    async with (
        SampleQueue.from_url(server.url, "r", patience=HASTY) as queue,
        redis.asyncio.Redis.from_url(server.url) as admin,
    ):
        client = queue._connection.client
        load, flushed = client.script_load, set()

        async def load_and_flush(source: str) -> str:
            sha = await load(source)
            if sha not in flushed:
                flushed.add(sha)
                await admin.script_flush()
            return str(sha)

        client.script_load = load_and_flush  # type: ignore[method-assign,assignment]
        await lived(queue)
        assert len(flushed) > 10


async def test_a_client_that_is_killed_before_each_of_its_calls_does_them_once(server: EmbeddedServer) -> None:
    async with (
        SampleQueue.from_url(server.url, "r", patience=HASTY) as queue,
        redis.asyncio.Redis.from_url(server.url) as admin,
    ):
        connection, killed = queue._connection, 0
        once, own = connection._once, await admin.client_id()

        async def killed_before(*args: Any) -> Any:
            nonlocal killed
            for client in await admin.client_list():
                if int(client["id"]) != own:
                    killed += await admin.execute_command("CLIENT", "KILL", "ID", client["id"])
            return await once(*args)

        connection._once = killed_before  # type: ignore[method-assign]
        await lived(queue)
        assert killed > 10


async def test_a_server_that_is_full_before_each_call_does_it_once_there_is_room(server: EmbeddedServer) -> None:
    async with (
        SampleQueue.from_url(server.url, "r", patience=HASTY) as queue,
        redis.asyncio.Redis.from_url(server.url) as admin,
    ):
        connection, refused = queue._connection, 0
        once = connection._once

        async def full_before(*args: Any) -> Any:
            nonlocal refused
            await admin.config_set("maxmemory", 1)
            try:
                return await once(*args)
            except redis.OutOfMemoryError:
                refused += 1
                await admin.config_set("maxmemory", 0)
                return await once(*args)

        connection._once = full_before  # type: ignore[method-assign]
        await lived(queue)
        assert refused > 4
