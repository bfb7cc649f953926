"""What the learner is doing now, as its heartbeat and /healthz report it."""

import time
from dataclasses import dataclass, field


@dataclass
class LearnerStatus:
    """What the learner is doing now, at which step, and since when (monotonic clock)."""

    doing: str = "starting"
    step: int = 0
    since: float = field(default_factory=time.monotonic)

    def set(self, doing: str, step: int | None = None) -> None:
        """Record what is being done; the same words for the same step again do not restart the clock."""
        step = self.step if step is None else step
        if (doing, step) != (self.doing, self.step):
            self.doing, self.step, self.since = doing, step, time.monotonic()

    def heartbeat(self) -> dict[str, str]:
        """The fields of the learner's heartbeat."""
        return {"doing": self.doing, "step": str(self.step), "for_s": f"{time.monotonic() - self.since:.0f}"}
