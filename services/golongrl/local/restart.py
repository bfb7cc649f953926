"""When to start a dead service again: a pure state machine, one instance a service.

It does what Kubernetes would (exponential back-off) and knows when that is pointless. Invariants:
- a service that died before it was ready the first time is never started again: it cannot work here;
- neither is one that died `MAX_DEATHS_A_MINUTE` times within a minute, nor one that died `MAX_DEATHS` times in all;
- an exit code in `FINAL_CODES` is a decision of the service, not an accident: starting it again would repeat it.
"""

from collections import deque
from dataclasses import dataclass, field

# A crash loop this tight is not going to heal by itself.
MAX_DEATHS_A_MINUTE = 3
# Kubernetes' default backoffLimit of a Job: a run that needs more than this is not making progress.
MAX_DEATHS = 6
# The first restart is quick, because most deaths are accidents; Kubernetes doubles likewise.
FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
# 2: the command line or its input is wrong.
FINAL_CODES = frozenset({2})


@dataclass(frozen=True)
class Restart:
    """Start it again after `delay_s` seconds; this is death number `deaths`."""

    delay_s: float
    deaths: int


@dataclass(frozen=True)
class GiveUp:
    """The run cannot go on; `reason` finishes the sentence "engine-0 exited with code 1 and ..."."""

    reason: str


@dataclass
class RestartPolicy:
    """Decides after each death of one service. Times are seconds of any monotonic clock."""

    was_ready: bool = False
    deaths: int = 0
    recent: deque[float] = field(default_factory=deque)

    def ready(self) -> None:
        """The service answered its readiness probe."""
        self.was_ready = True

    def died(self, now: float, code: int) -> Restart | GiveUp:
        """The service ended with `code` (negative: killed by that signal) although nobody asked it to."""
        self.deaths += 1
        self.recent.append(now)
        while now - self.recent[0] > 60:
            self.recent.popleft()
        if code in FINAL_CODES:
            return GiveUp("says that its input is wrong")
        if not self.was_ready:
            return GiveUp("was never ready")
        if len(self.recent) >= MAX_DEATHS_A_MINUTE:
            return GiveUp(f"died {len(self.recent)} times within a minute")
        if self.deaths >= MAX_DEATHS:
            return GiveUp(f"died {self.deaths} times in all")
        return Restart(min(FIRST_DELAY_S * 2 ** (len(self.recent) - 1), MAX_DELAY_S), self.deaths)
