"""A recipe's promises of its queue."""

from golongrl.learner.queue_settings import budget_warning
from golongrl.recipe import load


def test_a_budget_that_cannot_hold_what_lies_between_checkpoints_is_said() -> None:
    assert budget_warning(load("quickstart", ())) is None
    warning = budget_warning(load("quickstart", ["queue.max_bytes=10000"]))
    assert warning is not None
    assert warning.startswith("queue.max_bytes 10000 is below (learner.checkpoint_every + queue.max_staleness + 1)")
