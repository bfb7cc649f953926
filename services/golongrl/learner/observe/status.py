"""What the learner is doing now, as its heartbeat and /healthz report it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from golongrl.telemetry.waits import PendingWait, Waits, dumps, longest

# How what it does begins while it has no batch. `golongrl status` and the operator read these words.
WAITING: Final = "waiting for step"


@dataclass
class LearnerStatus:
    """What the learner is doing now, at which step, and since when (monotonic clock).

    Attributes:
        on: who ends it, if the learner waits for somebody, as `PendingWait.on`.
        what: what the learner waits for then, in a few words.
        waits: other waits of this process.
        waited_s: seconds spent without a batch, without the present wait.
    """

    doing: str = "starting"
    step: int = 0
    since: float = field(default_factory=time.monotonic)
    on: str = ""
    what: str = ""
    waits: Waits = field(default_factory=Waits)
    began: float = field(default_factory=time.monotonic)
    waited_s: float = 0.0
    reward: float | None = None
    tokens_per_s: float | None = None
    step_s: float | None = None

    def set(self, doing: str, step: int | None = None, *, on: str = "", what: str = "") -> None:
        """Record what is being done. The clock does not restart for the same step and the same words before a colon:
        counts follow it."""
        step = self.step if step is None else step
        if (doing.partition(":")[0], step) != (self.doing.partition(":")[0], self.step):
            self.waited_s = self.all_waited_s
            self.since = time.monotonic()
        self.doing, self.step, self.on, self.what = doing, step, on, what or doing.removeprefix("waiting for ")

    def finished(self, record: Mapping[str, float], ranks: int) -> None:
        """Record what a step's metrics say."""
        self.reward = record.get("critic/score/mean")
        self.tokens_per_s = record.get("perf/throughput", 0.0) * ranks
        self.step_s = record.get("perf/time_per_step")

    def current(self) -> list[PendingWait]:
        """What the learner waits for."""
        own = [PendingWait(self.on, self.what, self.for_s)] if self.on else []
        return longest([*own, *self.waits.current()])

    @property
    def for_s(self) -> float:
        """How long it has been doing that."""
        return time.monotonic() - self.since

    def heartbeat(self) -> dict[str, str]:
        """The fields of the learner's heartbeat; the operator sizes the pool by `waited_s` of `up_s`."""
        return {
            "doing": self.doing,
            "step": str(self.step),
            "for_s": f"{self.for_s:.0f}",
            "up_s": f"{time.monotonic() - self.began:.1f}",
            "waited_s": f"{self.all_waited_s:.1f}",
            "step_s": "" if self.step_s is None else f"{self.step_s:.1f}",
            "reward": "" if self.reward is None else f"{self.reward:.4g}",
            "tokens_per_s": "" if self.tokens_per_s is None else f"{self.tokens_per_s:.0f}",
            "waits": dumps(self.current()),
        }

    @property
    def all_waited_s(self) -> float:
        """Seconds spent without a batch, with the present wait."""
        return self.waited_s + (self.for_s if self.doing.startswith(WAITING) else 0.0)
