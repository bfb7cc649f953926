"""Fixtures of the worker's tests: the reward service in process, an engine on a socket, a dataset."""

import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from golongrl.recipe import Recipe
from golongrl.reward.app import create_app
from golongrl.reward.config import RewardConfig
from rollout import scoring
from rollout.harness import Rig, Start, embedded_engine, rig, write_rows


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared dataset of 64 random prompts."""
    return write_rows(tmp_path_factory.mktemp("data") / "train")


@pytest.fixture
async def reward_app() -> AsyncIterator[FastAPI]:
    """The reward service with its worker processes, scoring gibberish by its length."""
    assert any(Path(entry, "rollout", "scoring.py").exists() for entry in sys.path), "workers import rollout.scoring"
    app = create_app(RewardConfig(workers=1), score=scoring.by_length, preload=())
    async with app.router.lifespan_context(app):
        await app.state.pool.wait_warm()
        yield app


@pytest.fixture
def reward(reward_app: FastAPI) -> httpx.ASGITransport:
    """The reward service without a socket."""
    return httpx.ASGITransport(reward_app)


@pytest.fixture
async def engine_url(tiny_model: Path) -> AsyncIterator[str]:
    """A fresh embedded engine that holds `tiny_model` as "default"."""
    async with embedded_engine(tiny_model) as url:
        yield url


@pytest.fixture
def start(redis_url: str, run_name: str, rows: Path, engine_url: str, reward: httpx.ASGITransport) -> Start:
    """`async with start(recipe, **config) as rig`: a rig on this test's own run and engine."""

    def begin(
        made: Recipe, *, run: str = "", transport: httpx.AsyncBaseTransport | None = None, **config: Any
    ) -> AbstractAsyncContextManager[Rig]:
        return rig(made, redis_url, run_name + run, rows, engine_url, transport or reward, **config)

    return begin
