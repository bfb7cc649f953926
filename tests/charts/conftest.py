"""Both helms as fixtures."""

from pathlib import Path

import pytest

from support.helm import MAJORS, Helm, tool


@pytest.fixture(autouse=True)
def kube_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """helm and kubectl remember for hours, by host and port, which kinds an API server has: ports of tests come again,
    with other kinds behind them."""
    monkeypatch.setenv("KUBECACHEDIR", str(tmp_path_factory.mktemp("kube-cache")))


@pytest.fixture(params=MAJORS)
def helm(request: pytest.FixtureRequest) -> Helm:
    """Either major."""
    return Helm(tool(request.param))


@pytest.fixture
def helm4() -> Helm:
    """The newer helm, where both are known to render the same."""
    return Helm(tool("helm4"))


@pytest.fixture
def promtool() -> Path:
    return tool("promtool")
