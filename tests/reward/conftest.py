"""Fixtures of the scoring service: an app in process with its lifespan, and real items."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from golongrl.reward.app import create_app
from golongrl.reward.config import RewardConfig
from support.redis_server import free_port

# Workers inherit sys.path: it lets them import `misbehave` by name.
sys.path.insert(0, str(Path(__file__).parent))

import misbehave
from scoring_items import AppFactory, Served, ServerFactory


@pytest.fixture(scope="session")
def running() -> AppFactory:
    """`async with running(score=..., **config) as (app, http)`: the app with all workers warm; no network."""

    @asynccontextmanager
    async def run(
        score: Callable[..., Any] | None = misbehave.score, **config: Any
    ) -> AsyncIterator[tuple[FastAPI, httpx.AsyncClient]]:
        settings = RewardConfig(**{"workers": 2, "deadline_s": 60.0, **config})
        app = create_app(settings) if score is None else create_app(settings, score=score, preload=())
        async with app.router.lifespan_context(app):
            while app.state.pool.warm < settings.worker_count:
                await asyncio.sleep(0.01)
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://reward", timeout=60) as http:
                yield app, http

    return run


@pytest.fixture(scope="module")
def serve() -> Iterator[ServerFactory]:
    """`serve("-m", "golongrl", "reward", "serve", "--port", "{port}")`: a real server process, ready."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str, **environment: str) -> Served:
        port = free_port()
        arguments = [sys.executable, *(part.format(port=port) for part in command)]
        process = subprocess.Popen(arguments, env=os.environ | environment)
        started.append(process)
        served = Served(process, f"http://127.0.0.1:{port}")
        until = time.monotonic() + 240
        while not served.ready():
            assert process.poll() is None, f"the server ended with {process.returncode}"
            assert time.monotonic() < until, "the server was not ready within 240 s"
            time.sleep(0.05)
        return served

    yield start
    for process in started:
        process.kill()
        process.wait()
