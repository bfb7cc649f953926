"""Processes that die or are told to: the worker's command under signals, and an engine killed in mid-generation."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from golongrl.queue import SampleQueue
from golongrl.recipe import dump
from rollout.harness import Learner, publish, recipe, rig, served, set_up, write_rows
from support.redis_server import free_port


@asynccontextmanager
async def process(*arguments: str | Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m ARGUMENTS`, killed at the end if it still runs."""
    made = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *map(str, arguments), stderr=asyncio.subprocess.PIPE
    )
    try:
        yield made
    finally:
        if made.returncode is None:
            made.kill()
            await made.wait()


def engine_process(model: Path, port: int):
    return process("golongrl", "engine", "--model-path", model, "--port", str(port), "--context-length", "1024")


async def reached(url: str, wanted: int = 200, seconds: float = 240.0) -> dict[str, object]:
    """The JSON at `url` once it answers `wanted`."""
    async with asyncio.timeout(seconds), httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                answer = await client.get(url)
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == wanted:
                return dict(answer.json())
            await asyncio.sleep(0.05)


@pytest.fixture
async def learner(redis_url: str, run_name: str) -> AsyncIterator[Learner]:
    async with SampleQueue.from_url(redis_url, run_name) as queue:
        yield await set_up(queue, recipe())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_worker_in_order(
    learner: Learner,
    redis_url: str,
    run_name: str,
    tmp_path: Path,
    tiny_model: Path,
    engine_url: str,
    reward_app: FastAPI,
    number: signal.Signals,
) -> None:
    made = recipe("rollout.max_response_tokens=900")
    (tmp_path / "recipe.yaml").write_text(dump(made))
    write_rows(tmp_path / "data" / "train")
    await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
    port = free_port()
    arguments = (
        "golongrl", "rollout", "--recipe", tmp_path / "recipe.yaml", "--run", run_name, "--redis-url", redis_url,
        "--engine-url", engine_url, "--data", tmp_path / "data", "--worker", "w7", "--port", str(port), "--grace", "0",
    )  # fmt: skip
    async with served(reward_app) as reward_url, process(*arguments, "--reward-url", reward_url) as worker:
        ready = await reached(f"http://127.0.0.1:{port}/readyz")
        assert ready["engine_version"] == 0
        while (await learner.queue.stats()).leased < 2:
            await asyncio.sleep(0.02)
        worker.send_signal(number)
        _, errors = await asyncio.wait_for(worker.communicate(), 120)
        assert worker.returncode == 0, errors.decode()
    stats = await learner.queue.stats()
    assert stats.leased == 0
    assert set(stats.redone_by) <= {"released:stopped"}


@pytest.mark.full  # `make test` kills one in a whole run (test_train)
async def test_an_engine_killed_in_mid_generation_costs_nothing_but_time(
    learner: Learner,
    redis_url: str,
    run_name: str,
    tmp_path: Path,
    rows: Path,
    tiny_model: Path,
    reward: httpx.ASGITransport,
) -> None:
    await learner.queue.announce(learner.fence, publish(tmp_path, 0, tiny_model))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    made = recipe("rollout.max_response_tokens=512")
    async with rig(made, redis_url, run_name, rows, url, reward) as bench:
        bench.start()
        async with engine_process(tiny_model, port) as engine:
            await bench.until(lambda: bench.state.groups == 2)
            engine.kill()
            await engine.wait()
            await bench.until(lambda: bench.state.groups == 0 and not bench.state.engine_up)
        stats = await learner.queue.stats()
        assert stats.leased == 0
        assert set(stats.redone_by) <= {"engine_failed", "released:engine_lost"}
        async with engine_process(tiny_model, port):
            batch = await bench.take()
            assert [group.row for group in batch.groups] == [0, 1]
            assert all(group.lowest_version == 0 for group in batch.groups)
            bench.worker.stop()
            await bench.tasks.pop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--recipe": "quickstrat"}, "did you mean quickstart"),
        ({"--data": "/nowhere"}, "prepared data /nowhere"),
        ({"--port": "BUSY"}, "Address already in use; choose another --port"),
    ],
)
def test_a_wrong_option_is_one_line(changes: dict[str, str], message: str, rows: Path, redis_url: str) -> None:
    port = redis_url.rsplit(":", 1)[1].split("/")[0]
    options = {
        "--recipe": "quickstart",
        "--run": "r",
        "--redis-url": redis_url,
        "--engine-url": "http://127.0.0.1:1",
        "--reward-url": "http://127.0.0.1:1",
        "--data": str(rows.parent),
        "--port": "0",
        **{name: port if value == "BUSY" else value for name, value in changes.items()},
    }
    flat = [word for pair in options.items() for word in pair]
    done = subprocess.run(
        [sys.executable, "-m", "golongrl", "rollout", *flat], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in done.stderr


def test_help_has_an_example() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "golongrl", "rollout", "--help"], capture_output=True, text=True, timeout=240, check=True
    )
    assert "Example" in done.stdout
