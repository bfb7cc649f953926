"""What a complete run says of its end, which `golongrl status` shows."""

import pytest

from golongrl.learner.loop import told_end
from golongrl.queue import Stopped

ROWS = Stopped("exhausted", "every row is trained, rejected or set aside")


@pytest.mark.parametrize(
    ("done", "wanted", "stopped", "line"),
    [
        (40, 40, None, "40 steps"),
        (40, 40, ROWS, "40 steps"),
        (7, 40, ROWS, "7 of 40 steps: every row is trained, rejected or set aside"),
        (7, None, ROWS, "7 steps"),
    ],
)
def test_a_run_that_ends_before_its_last_step_says_why(
    done: int, wanted: int | None, stopped: Stopped | None, line: str
) -> None:
    assert told_end(done, wanted, stopped) == line
