"""What taking weights costs an engine, as its worker reports it."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.rollout.observe.losses import AdoptionLoss
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.rollout.observe.state import State
from golongrl.rollout.observe.waits import WaitReport


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1e5)), max_size=30), st.floats(0, 1e5))
def test_it_is_a_share_whatever_happens(seen: list[tuple[float, float]], now: float) -> None:
    loss = AdoptionLoss()
    for share, at in seen:
        loss.see(share, at)
    found = loss.share(now)
    assert found is None or 0 <= found <= 1


def test_at_first_nothing_is_said() -> None:
    loss = AdoptionLoss()
    assert loss.share(0.0) is None
    loss.see(1.0, 0.0)
    assert loss.share(59.0) is None
    assert loss.share(61.0) == pytest.approx(1.0)


def test_a_fifth_of_the_time_is_a_fifth_from_the_first_minutes_on() -> None:
    loss, found = AdoptionLoss(), []
    for step in range(120):
        loss.see(0.0, step * 60.0)
        loss.see(1.0, step * 60.0 + 48.0)
        found.append(loss.share(step * 60.0 + 60.0))
    assert all(share == pytest.approx(0.2, abs=0.05) for share in found if share is not None)
    assert found[1] is not None


def test_what_is_over_is_forgotten() -> None:
    loss = AdoptionLoss()
    loss.see(1.0, 0.0)
    loss.see(0.0, 600.0)
    assert loss.share(600.0 + 3600.0) == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize(
    ("phase", "label", "groups", "lost"),
    [
        ("generating", None, 2, 0.0),
        ("waiting", "full", 0, 0.0),
        ("adopting", "adoption", 2, 1.0),
        ("waiting", "drain", 1, 0.5),
        ("waiting", "drain", 2, 0.0),
        # A place is also one of a group that is being scored.
        ("waiting", "drain", 3, 0.0),
        ("waiting", "reward", 2, 0.0),
    ],
)
def test_which_share_each_moment_costs(phase: str, label: str | None, groups: int, lost: float) -> None:
    state = State()
    report = WaitReport(state, RolloutMetrics(), 2)
    report.does("adopting", "the engine", "adoption")
    assert state.adoption._at is None, "the first load is no loss"
    report.does("generating")
    state.groups = groups
    report.does(phase, None, label)
    assert state.adoption._now_lost == lost


def test_the_heartbeat_says_what_is_known() -> None:
    state = State()
    fields = state.heartbeat("http://engine")
    assert (fields["kv_use"], fields["kv_waiting"], fields["adoption_share"]) == ("", "", "")
    state.kv_use, state.kv_waiting = 0.9174, 3
    state.adoption.see(0.25, 0.0)
    state.adoption.see(0.25, 100.0)
    fields = state.heartbeat("http://engine")
    assert (fields["kv_use"], fields["kv_waiting"], fields["adoption_share"]) == ("0.917", "3", "0.2500")


def test_the_metric_is_absent_until_something_is_known() -> None:
    state, metrics = State(), RolloutMetrics()
    metrics.watch(state.adoption)
    assert metrics.registry.get_sample_value("golongrl_rollout_adoption_lost_ratio") is None
    now = time.monotonic()
    state.adoption.see(1.0, now - 100.0)
    assert metrics.registry.get_sample_value("golongrl_rollout_adoption_lost_ratio") == pytest.approx(1.0)
