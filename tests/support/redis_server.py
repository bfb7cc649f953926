"""A real server for tests: one for the session, a run of its own for each test."""

import asyncio
import secrets
import socket
from collections.abc import Iterator

import pytest

from golongrl.queue.embedded import EmbeddedServer


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey server with an append-only file. Shared: use keys of your own run only."""
    server = EmbeddedServer(free_port(), tmp_path_factory.mktemp("redis"), appendfsync="always")
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


@pytest.fixture
def run_name() -> str:
    """A run that no other test uses."""
    return f"test-{secrets.token_hex(6)}"
