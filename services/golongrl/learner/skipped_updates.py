"""Updates that the optimizer skips because their gradient is not finite: counted, reported, and bounded in a row.

A skipped update leaves the weights as they are, so one bad batch costs its step only. A gradient that stays so comes
from the weights or the settings, and more steps would train nothing.
"""

import structlog

from golongrl.learner.stopping import TrainingFailedError

log = structlog.get_logger()

METRIC = "actor/updates_skipped"
# Steps without any update until the run ends.
LIMIT = 3


class SkippedUpdates:
    """What the steps of one attachment skipped."""

    def __init__(self) -> None:
        self._steps = 0  # in a row, the last one included

    def see(self, step: int, skipped: float, updates: int) -> None:
        """A step of so many updates, of which so many were skipped.

        Raises:
            TrainingFailedError: for the last steps no update was made at all.
        """
        if skipped:
            log.warning(
                "the gradient is not finite, so the weights stay as they were", step=step, skipped=skipped, of=updates
            )
        self._steps = self._steps + 1 if updates and skipped == updates else 0
        if self._steps == LIMIT:
            raise TrainingFailedError(
                f"the gradient was not finite in the steps {step - LIMIT + 1} to {step}, so nothing was trained; "
                "lower learner.lr, or resume an older checkpoint with learner.resume"
            )
