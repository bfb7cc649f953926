"""The endpoints: a loop that hangs is reported dead, one whose passes fail is not, and its metrics say so."""

import httpx
import pytest

from golongrl_operator.metrics import OperatorMetrics
from golongrl_operator.serve import create_app
from support.operator_server import series


async def ask(age: float, metrics: OperatorMetrics, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_app(lambda: age, 180.0, metrics.registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://operator") as client:
        return await client.get(path)


async def test_a_loop_that_hangs_is_reported_dead() -> None:
    alive = await ask(179.0, OperatorMetrics(), "/healthz")
    assert (alive.status_code, alive.json()) == (200, {"seconds_since_pass": 179.0})
    assert (await ask(181.0, OperatorMetrics(), "/healthz")).status_code == 503


async def test_metrics_tell_passes_runs_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 1000.0
    monkeypatch.setattr("golongrl_operator.metrics.time.monotonic", lambda: clock)
    metrics = OperatorMetrics()
    before = series((await ask(0.0, metrics, "/metrics")).text)
    assert (before["golongrl_operator_passes_total ok"], before["golongrl_operator_passes_total failed"]) == (0, 0)
    metrics.passed(True)
    metrics.runs(["Running", "Waiting", "Waiting"])
    clock = 1030.0
    metrics.passed(False)
    metrics.error("403")
    metrics.error("none")
    clock = 1042.0
    answer = await ask(0.0, metrics, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    told = series(answer.text)
    assert told["golongrl_operator_seconds_since_pass"] == 42.0
    assert (told["golongrl_operator_passes_total ok"], told["golongrl_operator_passes_total failed"]) == (1, 1)
    assert (told["golongrl_operator_api_errors_total 403"], told["golongrl_operator_api_errors_total none"]) == (1, 1)
    runs = {phase: told[f"golongrl_operator_runs {phase}"] for phase in ("Running", "Waiting", "Failed")}
    assert runs == {"Running": 1, "Waiting": 2, "Failed": 0}
    metrics.runs([])
    assert series((await ask(0.0, metrics, "/metrics")).text)["golongrl_operator_runs Waiting"] == 0
