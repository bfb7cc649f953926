"""When silence counts as hanging."""

from hypothesis import given
from hypothesis import strategies as st

from golongrl.local.health import Liveness, Pulse


def test_the_defaults_are_a_minute_of_silence_as_in_the_chart() -> None:
    assert Liveness().longest_s == 60


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_a_service_hangs_after_so_many_failures_in_a_row_and_not_before(answers: list[bool], failures: int) -> None:
    pulse = Pulse(Liveness(failures=failures))
    for index, answered in enumerate(answers):
        last = answers[max(0, index + 1 - failures) : index + 1]
        assert pulse.observe(answered) is (len(last) == failures and not any(last))
