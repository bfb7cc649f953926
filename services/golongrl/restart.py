"""How a process ended, in words, and when to start it again: a pure state machine, one instance a process.

It does what Kubernetes would (exponential back-off) and knows when that is pointless. Invariants:
- a process that ended by itself before it was ready the first time is never restarted: it cannot work here. One that a
  signal killed then (the system does, where memory is short) may work at the next try;
- neither is one that died `MAX_DEATHS_A_MINUTE` times within a minute;
- nor one that died `MAX_DEATHS` times while the run finished no step: deaths that a run trains past do not add up;
- an exit code in `FINAL_CODES` is a decision of the process, not an accident: a restart would repeat it.
"""

import signal
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from golongrl.errors import NO_SPACE_EXIT, InputError

# A crash loop this tight does not heal by itself.
MAX_DEATHS_A_MINUTE: Final = 3
# Kubernetes' default backoffLimit of a Job: a run that needs more than this is not making progress.
MAX_DEATHS: Final = 6
# The first restart is quick, because most deaths are accidents; Kubernetes doubles likewise.
FIRST_DELAY_S: Final = 1.0
MAX_DELAY_S: Final = 30.0
FINAL_CODES: Final[Mapping[int, str]] = {
    InputError.exit_code: "reports that its input is wrong",
    NO_SPACE_EXIT: "reports that its storage cannot be written",
}


@dataclass(frozen=True)
class Restart:
    """Restart it after `delay_s` seconds; this is death number `deaths` since the last finished step."""

    delay_s: float
    deaths: int


@dataclass(frozen=True)
class GiveUp:
    """The run cannot continue; `reason` finishes the sentence "engine-0 exited with code 1 and ..."."""

    reason: str


@dataclass
class RestartPolicy:
    """Decides after each death of one process. Times are seconds of any monotonic clock."""

    was_ready: bool = False
    deaths: int = 0
    step: int = 0
    recent: deque[float] = field(default_factory=deque)

    def ready(self) -> None:
        """It answered its readiness probe."""
        self.was_ready = True

    def died(self, now: float, code: int, step: int = 0, *, late: bool = False) -> Restart | GiveUp:
        """The process ended with `code` (negative: killed by that signal) although nobody asked it to.

        Args:
            step: the newest step that the run has finished.
            late: it was ended because it was not ready in time.
        """
        if step > self.step:
            self.step, self.deaths = step, 0
        self.deaths += 1
        self.recent.append(now)
        while now - self.recent[0] > 60:
            self.recent.popleft()
        if code in FINAL_CODES:
            return GiveUp(FINAL_CODES[code])
        if not self.was_ready and (late or code >= 0):
            return GiveUp("was never ready")
        if len(self.recent) >= MAX_DEATHS_A_MINUTE:
            return GiveUp(f"died {len(self.recent)} times within a minute")
        if self.deaths >= MAX_DEATHS:
            return GiveUp(f"died {self.deaths} times without a finished step in between")
        return Restart(min(FIRST_DELAY_S * 2 ** (len(self.recent) - 1), MAX_DELAY_S), self.deaths)


def describe_exit(code: int) -> str:
    """`exit code 1`, or `signal SIGKILL` for a negative code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
