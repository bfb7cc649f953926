"""What the learner's heartbeat says of its time."""

import pytest

from golongrl.learner.observe.status import LearnerStatus


def test_the_time_without_a_batch_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    status = LearnerStatus(since=100.0, began=100.0)
    status.set("waiting for step 1: 3 of 8 groups", 1)
    now = 110.0
    assert (status.heartbeat()["up_s"], status.heartbeat()["waited_s"]) == ("10.0", "10.0")
    status.set("waiting for step 1: 7 of 8 groups", 1)
    now = 115.0
    status.set("updating", 1)
    now = 175.0
    status.set("waiting for step 2: no group", 2)
    now = 180.0
    assert (status.heartbeat()["up_s"], status.heartbeat()["waited_s"]) == ("80.0", "20.0")


def test_figures_are_those_of_the_last_step() -> None:
    status = LearnerStatus()
    assert {status.heartbeat()[key] for key in ("reward", "tokens_per_s", "step_s")} == {""}
    status.finished({"critic/score/mean": 0.25, "perf/throughput": 100.0, "perf/time_per_step": 12.34}, ranks=4)
    found = status.heartbeat()
    assert (found["reward"], found["tokens_per_s"], found["step_s"]) == ("0.25", "400", "12.3")
