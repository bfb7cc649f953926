"""Progress and pace: what renewals and the adoption rule are fed with."""

from hypothesis import given
from hypothesis import strategies as st

from golongrl.rollout.groups.progress import LiveGroup, Pace


def begin(n: int = 2) -> LiveGroup:
    return LiveGroup.begin(uid="0-1", token="t", version=3, prompt_tokens=90, n=n, max_response_tokens=64)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 64))))
def test_progress_never_falls_even_when_a_response_starts_again(events: list[tuple[int, int]]) -> None:
    live = begin()
    for index, tokens in events:
        before = live.progress
        live.advance(index, tokens)
        assert live.progress >= before


def test_progress_stands_still_exactly_when_nothing_happens() -> None:
    live = begin()
    live.advance(0, 5)
    before = live.progress
    live.advance(0, 5)
    assert live.progress == before
    live.ended[0] = True
    assert live.progress == before + 1
    live.phase = "scoring"
    assert live.progress == before + 2


def test_in_flight_counts_the_prompt_once_and_unfinished_responses_only() -> None:
    live = begin(3)
    live.advance(0, 10)
    live.advance(1, 30)
    live.ended[1] = True
    seen = live.in_flight(expected_tokens=40.0)
    assert (seen.prompt_tokens, seen.generated_tokens, seen.remaining_tokens) == (90, 10, 40)
    assert live.in_flight(expected_tokens=None).remaining_tokens == 64
    # Beyond the usual length a response may still go on to the longest.
    live.ended[2] = True
    assert live.in_flight(expected_tokens=5.0).remaining_tokens == 54


def test_a_finished_group_holds_nothing_in_the_engine() -> None:
    live = begin()
    live.ended = [True, True]
    seen = live.in_flight(expected_tokens=40.0)
    assert (seen.prompt_tokens, seen.generated_tokens, seen.remaining_tokens) == (0, 0, 0)


def test_pace_is_unknown_until_something_was_seen() -> None:
    pace = Pace()
    assert (pace.speed.decode_per_response, pace.speed.prefill) == (None, None)
    pace.saw_response(1, 0.0)
    assert pace.speed.decode_per_response is None
    pace.saw_response(101, 2.0)
    pace.saw_prefill(1000, 0.5)
    assert (pace.speed.decode_per_response, pace.speed.prefill) == (50.0, 2000.0)
    assert pace.response_tokens == 1 + 0.1 * 100
