"""Which operator acts: decisions as a table, then two operators at one API server."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golongrl.kubernetes.cluster import connect
from golongrl_operator.lease import DURATION_S, LeaderLease, Observed, decide
from support.api_http import serving
from support.operator_server import OperatorApi


def lease(holder: str, renewed: str = "t0") -> dict[str, Any]:
    return {"spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": DURATION_S}}


@pytest.mark.parametrize(
    ("found", "observed", "action"),
    [
        (None, Observed(), "create"),
        (lease("me"), Observed(), "renew"),
        (lease(""), Observed(), "take"),
        # Another's counts from when this process first saw it so, whatever its clock says.
        (lease("other"), Observed(), "wait"),
        (lease("other"), Observed(("other", "t0"), 1000.0 - DURATION_S + 1), "wait"),
        (lease("other"), Observed(("other", "t0"), 1000.0 - DURATION_S), "take"),
        (lease("other", "t1"), Observed(("other", "t0"), 0.0), "wait"),
    ],
)
def test_decisions(found: dict[str, Any] | None, observed: Observed, action: str) -> None:
    assert decide(found, "me", observed, 1000.0).action == action


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OperatorApi]:
    """The API server that `connect` finds."""
    api = OperatorApi()
    with serving(api):
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "kubeconfig", "rl", token="secret")))
        yield api


async def kept(lease: LeaderLease) -> asyncio.Task[None]:
    """What keeps the lease, once it has it."""
    keeping = asyncio.create_task(lease.keep())
    async with asyncio.timeout(60):
        while not lease.held:
            await asyncio.sleep(0.01)
    return keeping


async def test_of_two_operators_one_acts_and_the_other_takes_over(server: OperatorApi) -> None:
    async with connect() as calls:
        first, second = (LeaderLease(calls, "golongrl-operator-demo", name) for name in ("a", "b"))
        keeping = await kept(first)
        await second.once()
        assert (second.held, second.holder) == (False, "a")
        # At its end the first one gives it back.
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert not first.held
        await second.once()
        assert (second.held, second.holder) == (True, "b")
        (found,) = server.live("Lease").values()
        assert found["spec"]["leaseTransitions"] == 2
        # A write that another one has overtaken changes nothing.
        server.refuse["leases", "update"] = 409
        await first.once()
        assert not first.held


async def test_a_lease_that_somebody_has_emptied_ends_no_operator_with_an_error(server: OperatorApi) -> None:
    async with connect() as calls:
        keeping = await kept(LeaderLease(calls, "golongrl-operator-demo", "a"))
        (found,) = server.live("Lease").values()
        server.put({key: value for key, value in found.items() if key != "spec"})
        keeping.cancel()
        (ended,) = await asyncio.gather(keeping, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
