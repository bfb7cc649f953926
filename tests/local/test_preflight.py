"""Everything that can be wrong before a run starts, one line each."""

import asyncio
import socket
from pathlib import Path

import pytest

from golongrl.errors import GolongrlError, InputError
from golongrl.heartbeat import GONE_S
from golongrl.local import preflight
from golongrl.local.plan import Options, Ports, RunFolder
from golongrl.local.watched import disk_full
from golongrl.queue import SampleQueue
from golongrl.queue.server_errors import words
from golongrl.redis_url import split_password
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port


def test_free_ports_are_all_different() -> None:
    ports = preflight.free_ports(3).named()
    assert len(set(ports.values())) == len(ports) == 9


def test_a_port_in_use_is_named_with_its_service() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"port {port} for reward: .*; choose another --base-port"):
            preflight.check_ports(Ports(preflight.free_ports(0).redis, port, (), (), preflight.free_ports(0).learner))


def test_a_port_that_is_no_port_is_named() -> None:
    with pytest.raises(InputError, match="port 70000 for redis"):
        preflight.check_ports(Ports.from_base(70000, 1))


@pytest.mark.parametrize("login", ["", ":secret-word@", "user:secret-word@"])
def test_an_outside_redis_that_is_not_there_is_named_without_its_password(login: str) -> None:
    with socket.socket() as held:  # bound, so that nobody else listens there
        held.bind(("127.0.0.1", 0))
        url = f"redis://{login}127.0.0.1:{held.getsockname()[1]}/0"
        shown, _ = split_password(url)
        with pytest.raises(InputError, match=f"--redis-url {shown}: .*connect") as error:
            preflight.check_redis(url, "demo", shown)
        assert "secret-word" not in str(error.value)


def test_what_takes_connections_and_is_silent_is_named_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """It took a minute, and the line gave no reason."""
    monkeypatch.setattr(preflight, "_SILENT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(InputError, match=r"--redis-url shown: takes connections and has not answered for 0\.2 s"),
    ):
        preflight.check_redis(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", "demo", "shown")
    assert words(TimeoutError()) == "no answer"


async def test_another_program_at_the_address_of_redis_is_named_so() -> None:
    """The line was its answer alone, as a protocol error."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        with pytest.raises(InputError, match=r"--redis-url shown: .*what no Redis does .*HTTP/1.1 400.* check the"):
            await asyncio.to_thread(preflight.check_redis, url, "demo", "shown")


def test_a_redis_of_the_environment_is_not_blamed_on_an_option(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody had given --redis-url."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{held.getsockname()[1]}/0"
        monkeypatch.setenv("GOLONGRL_REDIS_URL", url)
        with pytest.raises(InputError, match=f"^GOLONGRL_REDIS_URL {url}: .*connect"):
            preflight.check_redis(url, "demo", url)
    monkeypatch.setenv("GOLONGRL_REDIS_URL", "localhost:6379")
    with pytest.raises(InputError, match=r"^GOLONGRL_REDIS_URL: not a URL of a Redis"):
        preflight.check_redis("localhost:6379", "demo", "localhost:6379")


async def test_an_outside_redis_that_evicts_is_refused_with_the_line_to_set(tmp_path: Path) -> None:
    server = EmbeddedServer(free_port(), tmp_path, maxmemory=1 << 28, settings={"maxmemory-policy": "allkeys-lru"})
    async with server:
        with pytest.raises(InputError, match=r"--redis-url shown: it evicts .*set `maxmemory-policy noeviction`"):
            await asyncio.to_thread(preflight.check_redis, server.url, "demo", "shown")


async def test_a_new_run_of_the_name_of_one_that_is_at_work_on_the_same_redis_is_refused(tmp_path: Path) -> None:
    """Its workers took the places of the other one's, which ended that run."""
    async with EmbeddedServer(free_port(), tmp_path) as server, SampleQueue.from_url(server.url, "demo") as queue:

        async def check(run: str, *, new: bool) -> None:
            await asyncio.to_thread(preflight.check_redis, server.url, run, "shown", new=new)

        await check("demo", new=True)
        await queue.beat("rollout", "rollout-0", {}, 60.0)
        with pytest.raises(InputError, match=r"run demo is at work there \(rollout-0\); choose another --name"):
            await check("demo", new=True)
        await check("demo", new=False)
        await check("other", new=True)
        await queue.beat("rollout", "rollout-0", {}, GONE_S)
        await check("demo", new=True)


async def test_the_password_of_an_outside_redis_may_come_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EmbeddedServer(free_port(), tmp_path, password="secret-word") as server:
        url = f"redis://127.0.0.1:{server.port}/0"

        async def check(url: str) -> None:
            await asyncio.to_thread(preflight.check_redis, url, "demo", split_password(url)[0])

        with pytest.raises(InputError, match=f"--redis-url {url}: .*[Aa]uthentication required"):
            await check(url)
        await check(server.url)
        monkeypatch.setenv("GOLONGRL_REDIS_PASSWORD", "secret-word")
        await check(url)
        with pytest.raises(InputError, match="invalid username-password pair") as error:
            await check(f"redis://:other-word@127.0.0.1:{server.port}/0")
        assert "other-word" not in str(error.value)


def test_a_disk_is_full_below_the_least_room(tmp_path: Path) -> None:
    assert not disk_full(tmp_path, least=1)
    assert disk_full(tmp_path, least=1 << 70)


def test_a_missing_sglang_names_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run `make sglang`"):
        preflight.check_sglang(tmp_path)


def test_sglang_on_a_cpu_is_refused_where_routes_are_replayed(tmp_path: Path) -> None:
    ports = Ports(redis=0, reward=0, engines=(0,), workers=(), learner=0)
    options = Options("mine", RunFolder(tmp_path), ports, tmp_path, engine="sglang", sglang_venv=tmp_path)
    with pytest.raises(InputError, match=r"learner\.routing_replay: .*--engine embedded works"):
        preflight.check(options, routes=True)
    with pytest.raises(InputError, match="run `make sglang`"):
        preflight.check(options)


@pytest.mark.parametrize(
    ("limits", "raised"),
    [
        ((4096, 4096), None),
        ((1024, 4096), None),
        ((-1, -1), None),
        ((256, 4096), (1024, 4096)),
        ((256, -1), (1024, -1)),
        ((64, 1024), (1024, 1024)),
    ],
)
def test_open_files_are_raised_as_far_as_a_run_needs(limits, raised, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr(preflight.resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(preflight.resource, "setrlimit", lambda _, pair: said.append(pair))
    preflight.check_open_files()
    assert said == ([] if raised is None else [raised])


def test_too_few_open_files_are_told_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight.resource, "getrlimit", lambda _: (20, 64))
    with pytest.raises(GolongrlError, match=r"may open 64 files at most here, and a run needs 1024; raise the limit"):
        preflight.check(Options("mine", RunFolder(Path("x")), preflight.free_ports(1), Path("x")))
