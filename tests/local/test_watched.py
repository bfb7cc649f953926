"""Who is named where Redis answers its probe and takes no writes: Redis, and not all whose heartbeats it refuses."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis.asyncio as aioredis

from golongrl.local import watched
from golongrl.local.plan import Options, Ports, RunFolder
from golongrl.local.progress import RunSnapshot, starting, waits
from golongrl.local.supervisor import Supervisor
from golongrl.local.watched import Watched
from golongrl.queue import Patience, SampleQueue
from golongrl.recipe import load
from golongrl.telemetry import watchdog
from golongrl.telemetry.history import History
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port

# All services are up, and answer their probes.
WELL = cast(Supervisor, SimpleNamespace(states={"redis": "up", "learner": "up", "rollout-0": "up"}, troubles=dict))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(free_port(), tmp_path / "redis") as server:
        yield server


@pytest.fixture
async def seen(
    server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Watched, aioredis.Redis]]:
    """A run whose learner and worker reported a while ago, and a client to hurt its server with."""
    async with (
        SampleQueue.from_url(server.url, "r", patience=Patience(total_s=0.2)) as queue,
        aioredis.Redis.from_url(server.url) as client,
    ):
        made = Options("r", RunFolder(tmp_path), Ports.of(range(5), 1), tmp_path)
        patient = partial(SampleQueue.from_url, server.url, "r", patience=Patience(total_s=0.2))
        run = Watched(load("quickstart"), made, queue, patient, cast(Any, None), History(()))
        run._lasting = watchdog.Watch(lasting_s=0.0)
        for service, name in (("learner", "l"), ("rollout", "rollout-0")):
            await queue.beat(service, name, {}, 300.0)
        monkeypatch.setattr(watchdog, "SILENT_S", 0.0)
        monkeypatch.setattr(watched, "LOOK_TIMEOUT_S", 60.0)  # a busy machine is no silent Redis
        await asyncio.sleep(0.01)  # the server counts milliseconds
        yield run, client


async def named(run: Watched) -> list[str]:
    _, processes = await run._look()
    return [str(stall) for stall in run._stalls(WELL, processes)]


async def test_who_does_not_report_is_named_where_redis_takes_writes(seen: tuple[Watched, aioredis.Redis]) -> None:
    lines = await named(seen[0])
    assert [line.partition(" has sent no heartbeat")[0] for line in lines] == ["learner", "rollout-0"]
    assert len(await seen[1].client_list()) == 2  # the queue's and ours: what asked has left


async def test_a_full_redis_is_named_alone(seen: tuple[Watched, aioredis.Redis]) -> None:
    run, client = seen
    await client.config_set("maxmemory", 1)
    [line] = await named(run)
    assert line.startswith("redis takes no writes: memory on the server (maxmemory reached)")
    await client.config_set("maxmemory", 0)
    assert len(await named(run)) == 2


@pytest.mark.parametrize("setting", [("requirepass", "changed"), ("maxclients", 2)])
async def test_a_redis_that_takes_no_new_client_is_named_alone(
    seen: tuple[Watched, aioredis.Redis], setting: tuple[str, Any]
) -> None:
    """Our connection is from before, and serves: the worker was blamed whose had broken."""
    run, client = seen
    await client.config_set(*setting)
    [line] = await named(run)
    assert line.startswith("redis takes no writes: ")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (("REPLICAOF", "127.0.0.1", "1"), "a writable primary"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), "enough replicas"),
    ],
)
async def test_a_redis_that_refuses_the_look_is_named_with_its_reason(
    seen: tuple[Watched, aioredis.Redis], command: tuple[str, ...], reason: str
) -> None:
    run, client = seen
    await client.execute_command(*command)
    [line] = await named(run)
    assert line.startswith(f"redis does not serve the queue: {reason}")


async def test_a_redis_whose_writes_are_paused_is_named_alone(
    seen: tuple[Watched, aioredis.Redis], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, client = seen
    monkeypatch.setattr(watched, "LOOK_TIMEOUT_S", 0.2)
    monkeypatch.setattr(watchdog, "UNANSWERED_S", 0.1)
    await client.execute_command("CLIENT", "PAUSE", 600_000, "WRITE")
    [line] = await named(run)
    assert line.startswith("redis has not answered the queue for ")
    await client.execute_command("CLIENT", "UNPAUSE")


async def test_what_a_signal_stopped_is_named_also_while_the_run_ends(seen: tuple[Watched, aioredis.Redis]) -> None:
    words = "was stopped by a signal (pid 7)"
    ending = cast(Supervisor, SimpleNamespace(stopped=lambda: {"learner": words}))
    assert list(map(str, seen[0]._stalls(ending, [], ended=True))) == [f"learner {words}"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: shutil.rmtree(folder.path), "No such file or directory: somebody changed the run's folder"),
        (lambda folder: folder.metrics.mkdir(), "metrics.jsonl"),
    ],
    ids=["gone", "metrics-are-a-folder"],
)
async def test_a_run_whose_folder_is_changed_under_it_ends_at_once(
    seen: tuple[Watched, aioredis.Redis], change: Callable[[RunFolder], None], words: str
) -> None:
    run, failed = seen[0], list[Exception]()
    change(run._options.folder)
    await run.watch(cast(Supervisor, SimpleNamespace(fail=failed.append, stopping=False, states={}, troubles=dict)))
    assert words in str(failed[0])


def test_what_ends_is_not_said_to_start_or_to_be_silent() -> None:
    seen = {"redis": "up", "engine-0": "starting", "learner": "does not answer"}
    supervisor = cast(Any, SimpleNamespace(stopping=False, states=seen, left=lambda: ["redis", "engine-0"]))
    assert watched._states(supervisor, ended=False) == seen
    assert watched._states(supervisor, ended=True) == {**seen, "learner": "ending"}
    supervisor.stopping = True
    states = watched._states(supervisor, ended=True)
    assert states == {"redis": "ending", "engine-0": "ending"}
    assert not starting(RunSnapshot("r", 3, states=states))
    assert waits(RunSnapshot("r", 3, states=states)) == ["redis: ending", "engine-0: ending"]
