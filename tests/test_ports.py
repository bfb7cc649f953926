"""Ports for processes that bind them later: free, all different, from the range that is asked for."""

import socket

import pytest

from golongrl.ports import NoFreePortError, unused
from support.redis_server import free_port

# Outside the ports that processes of other tests listen on meanwhile (conftest.py), and below the system's own.
_RANGE = range(30_100, 30_120)


@pytest.fixture
def small_range(monkeypatch: pytest.MonkeyPatch) -> range:
    """The ports that may be given in this test."""
    monkeypatch.setenv("GOLONGRL_PORTS", f"{_RANGE.start}-{_RANGE.stop - 1}")
    return _RANGE


def test_ports_are_different_and_from_the_range_of_the_environment(small_range: range) -> None:
    found = unused(5)
    assert len(set(found)) == 5
    assert set(found) <= set(small_range)


def test_a_port_that_is_taken_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOLONGRL_PORTS", raising=False)
    (port,) = unused(1)
    monkeypatch.setenv("GOLONGRL_PORTS", f"{port}-{port}")
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(NoFreePortError, match=f"fewer than 1 free ports from {port} to {port}"),
    ):
        unused(1)


@pytest.mark.parametrize("text", ["25000", "25000-", "30000-25000", "80-90", "60000-70000", "a-b", "-"])
def test_a_range_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("GOLONGRL_PORTS", text)
    with pytest.raises(NoFreePortError, match="GOLONGRL_PORTS"):
        unused(1)


def test_a_port_that_a_supervisor_gave_to_another_process_is_left_out(
    monkeypatch: pytest.MonkeyPatch, small_range: range
) -> None:
    """Its process binds it seconds after it was told it."""
    monkeypatch.setenv("GOLONGRL_PORTS_GIVEN", ",".join(map(str, small_range)))
    with pytest.raises(NoFreePortError, match="fewer than 1 free ports"):
        unused(1)


@pytest.mark.usefixtures("small_range")
def test_a_port_is_given_to_one_test_only() -> None:
    assert len({free_port() for _ in range(15)}) == 15
