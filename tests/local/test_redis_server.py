"""The run's own Redis: its password, and what a damaged file means."""

import asyncio
from pathlib import Path

import psutil
import pytest
import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from golongrl.errors import InputError
from golongrl.local import redis_server
from golongrl.local.process import Service, ServiceSpec
from golongrl.local.supervisor import RunFailedError, Stage, Supervisor
from support.redis_server import free_port


def client(port: int, password: str | None) -> aioredis.Redis:
    return aioredis.Redis(port=port, password=password, retry=Retry(NoBackoff(), 0), socket_timeout=60)


def spec(port: int, folder: Path, password: str, server: aioredis.Redis) -> ServiceSpec:
    return ServiceSpec(
        "redis",
        redis_server.command(port, folder, password),
        lambda: redis_server.answers(server),
        60,
        explain=lambda lines: redis_server.damage(lines, folder),
    )


async def test_the_server_wants_a_password_that_no_command_line_and_no_other_user_sees(tmp_path: Path) -> None:
    port = free_port()
    password = redis_server.password_of(tmp_path)
    assert redis_server.password_of(tmp_path) == password
    async with client(port, password) as server, client(port, None) as stranger:
        service = await Service.start(spec(port, tmp_path, password, server), tmp_path)
        try:
            assert await service.until_ready()
            assert not await redis_server.answers(stranger)
            assert await redis_server.lives(stranger)  # it refuses, so it lives
            words = [word for process in psutil.process_iter() for word in _command_line(process)]
            assert not any(password in word for word in words)
        finally:
            await service.stop()
        assert not await redis_server.lives(server)
    secret = [path for path in tmp_path.rglob("*") if path.is_file() and password in path.read_text(errors="replace")]
    assert sorted(path.name for path in secret) == ["password", "server.conf"]
    assert {path.stat().st_mode & 0o777 for path in secret} == {0o600}


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def written(folder: Path) -> int:
    """A server folder with an append-only file of some length; returns the server's port."""
    port = free_port()
    async with client(port, "pw") as server:
        service = await Service.start(spec(port, folder, "pw", server), folder)
        assert await service.until_ready()
        for number in range(200):
            await server.set(f"key{number}", "x" * 100)
        await service.stop()
    return port


async def test_a_server_that_stopped_in_order_is_started_again_with_its_data(tmp_path: Path) -> None:
    port = await written(tmp_path)
    async with client(port, "pw") as server:
        service = await Service.start(spec(port, tmp_path, "pw", server), tmp_path)
        assert await service.until_ready()
        assert await server.dbsize() == 200
        await service.stop()


@pytest.mark.parametrize("place", ["middle", "start", "all", "manifest", "gone", "base"])
async def test_a_damaged_append_only_file_is_one_line_with_the_way_out(tmp_path: Path, place: str) -> None:
    port = await written(tmp_path)
    (file,) = (tmp_path / "appendonlydir").glob("*.incr.aof")
    match place:
        case "manifest":
            next((tmp_path / "appendonlydir").glob("*.manifest")).write_text("nonsense\n")
        case "gone":
            file.unlink()
        case "base":
            next((tmp_path / "appendonlydir").glob("*.base.*")).write_bytes(b"\xff" * 50)
        case _:
            begin, length = {"middle": (9000, 40), "start": (0, 40), "all": (0, 1 << 20)}[place]
            content = bytearray(file.read_bytes())
            content[begin : begin + length] = b"\xff" * len(content[begin : begin + length])
            file.write_bytes(content)
    async with client(port, "pw") as server:
        stages = [Stage((spec(port, tmp_path, "pw", server),), gate=True)]
        with pytest.raises(InputError, match=f"append-only file in {tmp_path} is damaged; remove that folder") as error:
            await asyncio.wait_for(Supervisor(stages, "redis", tmp_path, print).run(), 60)
    assert error.value.exit_code == 2


async def test_another_end_at_the_start_is_not_called_damage(tmp_path: Path) -> None:
    port = await written(tmp_path)
    async with client(port, "pw") as server:
        wrong = spec(port, tmp_path, "pw", server)
        command = (*wrong.argv, "--no-such-option", "1")
        stages = [Stage((ServiceSpec("redis", command, wrong.probe, 60, explain=wrong.explain),), gate=True)]
        with pytest.raises(RunFailedError, match="was never ready"):
            await Supervisor(stages, "redis", tmp_path, print).run()


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"short", b"two words", b"a" * 20 + b"\nport 1"])
def test_a_damaged_password_is_replaced(damage: bytes, tmp_path: Path) -> None:
    kept = redis_server.password_of(tmp_path)
    assert redis_server.password_of(tmp_path) == kept
    redis_server.password_file(tmp_path).write_bytes(damage)
    made = redis_server.password_of(tmp_path)
    assert made != kept
    assert redis_server.password_of(tmp_path) == made


def test_a_password_that_was_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".0123456789ab.tmp"
    left.write_text("half a pass")
    redis_server.password_of(tmp_path)
    assert not left.exists()
