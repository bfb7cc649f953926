"""Fixtures of the worker's tests: the reward service in process, an engine on a socket, a dataset."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from golongrl.reward.app import create_app
from golongrl.reward.config import RewardConfig
from rollout import scoring
from rollout.harness import embedded_engine, write_rows


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
