"""What the learner is doing now, as its heartbeat and /healthz report it."""

import time
from dataclasses import dataclass, field

from golongrl.telemetry.waits import Wait, Waits, dumps, longest


@dataclass
class LearnerStatus:
    """What the learner is doing now, at which step, and since when (monotonic clock).

    Attributes:
        on: who ends it, if the learner waits for somebody, as `Wait.on`.
        what: what the learner waits for then, in a few words.
        waits: other waits of this process.
    """

    doing: str = "starting"
    step: int = 0
    since: float = field(default_factory=time.monotonic)
    on: str = ""
    what: str = ""
    waits: Waits = field(default_factory=Waits)

    def set(self, doing: str, step: int | None = None, *, on: str = "", what: str = "") -> None:
        """Record what is being done. The clock does not restart for the same step and the same words before a colon:
        counts follow it."""
        step = self.step if step is None else step
        if (doing.partition(":")[0], step) != (self.doing.partition(":")[0], self.step):
            self.since = time.monotonic()
        self.doing, self.step, self.on, self.what = doing, step, on, what or doing.removeprefix("waiting for ")

    def current(self) -> list[Wait]:
        """What the learner waits for."""
        own = [Wait(self.on, self.what, self.for_s)] if self.on else []
        return longest([*own, *self.waits.current()])

    @property
    def for_s(self) -> float:
        """How long it has been doing that."""
        return time.monotonic() - self.since

    def heartbeat(self) -> dict[str, str]:
        """The fields of the learner's heartbeat."""
        return {
            "doing": self.doing,
            "step": str(self.step),
            "for_s": f"{self.for_s:.0f}",
            "waits": dumps(self.current()),
        }
