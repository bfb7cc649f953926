"""The restart policy, by tables and by hypothesis."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.errors import NO_SPACE_EXIT
from golongrl.restart import MAX_DEATHS, MAX_DELAY_S, GiveUp, Restart, RestartPolicy


def ready_policy() -> RestartPolicy:
    policy = RestartPolicy()
    policy.ready()
    return policy


def test_a_death_before_the_first_ready_ends_the_run() -> None:
    assert RestartPolicy().died(0.0, 1) == GiveUp("was never ready")


@pytest.mark.parametrize("late", [False, True])
def test_a_service_that_a_signal_killed_before_it_was_ready_is_tried_again_unless_it_was_late(late: bool) -> None:
    policy = RestartPolicy()
    first = policy.died(0.0, -9, late=late)
    assert first == (GiveUp("was never ready") if late else Restart(1.0, 1))
    assert late or policy.died(1.0, 1) == GiveUp("was never ready")


def test_a_service_that_signals_kill_at_every_start_is_given_up() -> None:
    policy = RestartPolicy()
    assert [isinstance(policy.died(now, -11), Restart) for now in (0.0, 5.0, 10.0)] == [True, True, False]


def test_a_killed_service_is_started_again_at_once_and_then_later() -> None:
    policy = ready_policy()
    assert policy.died(0.0, -9) == Restart(1.0, 1)
    assert policy.died(10.0, -9) == Restart(2.0, 2)


def test_three_deaths_within_a_minute_end_the_run() -> None:
    policy = ready_policy()
    policy.died(0.0, -9)
    policy.died(30.0, 1)
    assert policy.died(59.0, 1) == GiveUp("died 3 times within a minute")


def test_wrong_input_is_not_tried_again() -> None:
    assert isinstance(ready_policy().died(0.0, 2), GiveUp)


def test_a_storage_that_cannot_be_written_is_not_tried_again() -> None:
    assert ready_policy().died(0.0, NO_SPACE_EXIT) == GiveUp("reports that its storage cannot be written")


def test_rare_deaths_start_over_at_the_first_delay_but_are_bounded_while_no_step_is_finished() -> None:
    policy = ready_policy()
    for death in range(1, MAX_DEATHS):
        assert policy.died(death * 1000.0, -9, step=3) == Restart(1.0, death)
    assert policy.died(MAX_DEATHS * 1000.0, -9, step=3) == GiveUp("died 6 times without a finished step in between")


def test_deaths_that_the_run_trains_past_do_not_add_up() -> None:
    policy = ready_policy()
    for death in range(10 * MAX_DEATHS):
        assert policy.died(death * 61.0, -9, step=death + 1) == Restart(1.0, 1)


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=30))
def test_whatever_the_times_it_gives_up_in_the_end_and_never_waits_too_long(times: list[float]) -> None:
    policy = ready_policy()
    decisions = [policy.died(now, 1) for now in sorted(times)]
    restarts = [decision for decision in decisions if isinstance(decision, Restart)]
    assert all(0 < restart.delay_s <= MAX_DELAY_S for restart in restarts)
    assert len(decisions) < MAX_DEATHS or isinstance(decisions[-1], GiveUp)


@pytest.mark.parametrize("gap", [61.0, 3600.0])
def test_two_deaths_far_apart_are_two_first_deaths(gap: float) -> None:
    policy = ready_policy()
    assert policy.died(0.0, -9) == Restart(1.0, 1)
    assert policy.died(gap, -9) == Restart(1.0, 2)
