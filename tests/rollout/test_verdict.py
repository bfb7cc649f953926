"""What becomes of a finished group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.queue.types import RejectReason
from golongrl.rollout.groups.verdict import Reject, Submit, judge, overlong


@pytest.mark.parametrize(
    ("rewards", "verdict"),
    [
        pytest.param([0.0, 1.0], Submit(), id="differing"),
        pytest.param([0.0, 0.0, 0.0], Reject(RejectReason.ALL_EQUAL), id="all wrong"),
        pytest.param([0.5, 0.5, None], Reject(RejectReason.ALL_EQUAL), id="an unscored one does not differ"),
        pytest.param([0.0, None, None], Reject(RejectReason.FEW_SCORED), id="one score of three"),
        pytest.param([None, None], Reject(RejectReason.FEW_SCORED), id="no score is not all zero"),
        pytest.param([0.0, 1.0, None], Submit(), id="enough scores: the unscored stays in"),
    ],
)
def test_table(rewards: list[float | None], verdict: object) -> None:
    assert judge(rewards, group_filter=True, min_scored=2) == verdict


def test_without_the_filter_equal_rewards_are_submitted() -> None:
    assert judge([1.0, 1.0], group_filter=False, min_scored=2) == Submit()


def test_a_single_response_is_not_all_equal() -> None:
    assert judge([1.0], group_filter=True, min_scored=1) == Submit()


@given(st.lists(st.none() | st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=8), st.integers(1, 4))
def test_only_groups_that_teach_something_are_submitted(rewards: list[float | None], least: int) -> None:
    verdict = judge(rewards, group_filter=True, min_scored=least)
    scored = [reward for reward in rewards if reward is not None]
    assert (verdict == Submit()) == (len(scored) >= least and len(set(scored)) > 1)


@pytest.mark.parametrize(("tokens", "expected"), [(100, False), (101, True), (80, False)])
def test_a_prompt_must_leave_room_for_the_longest_response(tokens: int, expected: bool) -> None:
    limits = {"max_prompt_tokens": 100, "max_response_tokens": 20, "context_length": 120}
    assert overlong(tokens, **limits) is expected
    assert overlong(tokens, **{**limits, "context_length": tokens + 19})
