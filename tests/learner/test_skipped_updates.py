"""Updates with a gradient that is not finite: counted, and the run ends when there are only such."""

import pytest
from structlog.testing import capture_logs

from golongrl.learner.skipped_updates import LIMIT, SkippedUpdates
from golongrl.learner.stopping import TrainingFailedError


def test_one_bad_batch_costs_its_step() -> None:
    seen = SkippedUpdates()
    with capture_logs() as told:
        for step in range(1, 30):
            seen.see(step, float(step % LIMIT > 0), 1)
    assert len(told) == 20
    assert told[0] == {
        "event": "the gradient is not finite, so the weights stay as they were",
        "log_level": "warning",
        "step": 1,
        "skipped": 1.0,
        "of": 1,
    }


def test_part_of_a_step_is_trained() -> None:
    seen = SkippedUpdates()
    for step in range(1, 30):
        seen.see(step, 3.0, 4)
        seen.see(step, 0.0, 0)  # nothing to train on is no update that was skipped


def test_a_run_that_trains_nothing_ends() -> None:
    seen = SkippedUpdates()
    for step in range(5, 5 + LIMIT - 1):
        seen.see(step, 2.0, 2)
    with pytest.raises(TrainingFailedError, match=rf"not finite in the steps 5 to {4 + LIMIT}, so nothing was trained"):
        seen.see(4 + LIMIT, 2.0, 2)
