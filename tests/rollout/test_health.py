"""Readiness: a pure rule, and the endpoints over it."""

import httpx
import pytest

from golongrl.rollout.observe.health import create_app
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State, not_ready


def good(**changes) -> State:
    return State(**{"phase": "generating", "engine_up": True, "engine_version": 4, "announced_version": 5, **changes})


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (good(), None),
        (good(announced_version=4), None),
        (good(engine_up=False), "engine: not answering"),
        (good(quarantine="version 5: reads back '4'"), "quarantined: version 5: reads back '4'"),
        (good(engine_version=None), "weights: the engine holds no confirmed version"),
        (good(engine_version=3), "weights: version 3 is 2 behind, more than max_staleness 1"),
        (good(phase="stopping"), "stopping"),
    ],
)
async def test_ready_only_with_a_live_engine_on_trusted_recent_weights(state: State, reason: str | None) -> None:
    assert not_ready(state, max_staleness=1) == ([reason] if reason else [])
    transport = httpx.ASGITransport(create_app(state, 1, RolloutMetrics().registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        answer = await client.get("/readyz")
        assert answer.status_code == (503 if reason else 200)
        assert answer.json()["reasons"] == ([reason] if reason else [])
        assert (await client.get("/healthz")).status_code == 200


async def test_metrics_say_what_is_waited_for_and_nothing_else() -> None:
    metrics = RolloutMetrics()
    metrics.wait_for("engine")
    metrics.wait_for("full")
    transport = httpx.ASGITransport(create_app(State(), 1, metrics.registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        text = (await client.get("/metrics")).text
    assert 'golongrl_rollout_waiting{reason="full"} 1.0' in text
    assert 'reason="engine"' not in text
    assert "golongrl_rollout_engine_version -1.0" in text
