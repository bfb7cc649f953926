"""An API server in memory, and a kubeconfig that points at it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.api_http import serving
from support.api_server import ApiServer


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with serving(ApiServer()) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig", "rl")))
        yield server
