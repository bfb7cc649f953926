"""Ports for processes that bind them later: free, all different, from the range that is asked for."""

import socket

import pytest

from golongrl.ports import NoFreePortError, unused
from support.redis_server import free_port


def test_ports_are_different_and_from_the_range_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLONGRL_PORTS", "28000-28019")
    found = unused(5)
    assert len(set(found)) == 5
    assert all(28000 <= port <= 28019 for port in found)


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


def test_a_port_that_a_supervisor_gave_to_another_process_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process binds it seconds after it was told it."""
    monkeypatch.setenv("GOLONGRL_PORTS", "28000-28019")
    first = unused(19)
    monkeypatch.setenv("GOLONGRL_PORTS_GIVEN", ",".join(map(str, first)))
    assert set(unused(1)).isdisjoint(first)


def test_a_port_is_given_to_one_test_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOLONGRL_PORTS", "28000-28019")
    assert len({free_port() for _ in range(15)}) == 15
