"""When silence counts as hanging."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.local.health import Liveness, Pulse, StartDeadline


def test_the_defaults_are_a_minute_of_silence_as_in_the_chart() -> None:
    assert Liveness().longest_s == 60


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_a_service_hangs_after_so_many_failures_in_a_row_and_not_before(answers: list[bool], failures: int) -> None:
    pulse = Pulse(Liveness(failures=failures))
    for index, answered in enumerate(answers):
        last = answers[max(0, index + 1 - failures) : index + 1]
        assert pulse.observe(answered) is (len(last) == failures and not any(last))


@pytest.mark.parametrize(
    ("worked_s", "given_up_s"),
    [
        ((0.0,), 300),
        ((9.0,), 300),
        ((10.0, 12.0), 600),  # it worked, and hangs now
        ((10.0, 20.0, 30.0, 40.0), 1200),  # a machine that is far too busy
        ((300.0, 600.0, 900.0, 1200.0), 1200),  # work without an end
    ],
)
def test_a_start_may_take_longer_while_it_works(worked_s: tuple[float, ...], given_up_s: float) -> None:
    deadline = StartDeadline(300.0)
    *earlier, last = worked_s
    assert not any(deadline.passed(work) for work in earlier)
    assert deadline.passed(last)
    assert deadline.s == given_up_s
