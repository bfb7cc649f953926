"""When to try again to bring an engine to the announced weights. Pure: no client, no clock.

What an engine did not confirm is tried a few times; then the engine stays quarantined until it restarts or other
weights are announced. Weights that cannot be had now (a store that is not mounted, a sender that is gone or busy) say
nothing about the engine: they are asked for as long as they are announced, ever less often. Giving up on them would
leave the engine idle for good, where the learner in turn waits for its groups before there is another version.
"""

from dataclasses import dataclass
from typing import NamedTuple

# Longest pause between two tries.
_LONGEST_S = 30.0


class Pause(NamedTuple):
    """What the worker does instead: its phase, the label of what it waits for, and that in words."""

    phase: str
    label: str
    reason: str


@dataclass
class Tries:
    """The tries to take the weights that are announced now; times in seconds of any one clock."""

    limit: int
    failed: int = 0
    missed: int = 0
    _not_before: float = 0.0
    _missing: Pause | None = None

    def reset(self) -> None:
        """The engine is another, or the weights are."""
        self.failed, self.missed, self._not_before, self._missing = 0, 0, 0.0, None

    def fail(self, now: float) -> None:
        """The engine did not confirm the weights."""
        self.failed += 1
        self._not_before, self._missing = now + _backoff(self.failed), None

    def miss(self, now: float, pause: Pause) -> None:
        """The weights could not be had; `pause` says what is waited for."""
        self.missed += 1
        self._not_before, self._missing = now + _backoff(self.missed), pause

    def pause(self, now: float, version: int) -> Pause | None:
        """What to wait for before `version` is tried again; None when it is time."""
        if self.failed >= self.limit:
            return Pause("quarantined", "quarantine", f"newer weights than version {version}, or a new engine")
        if now >= self._not_before:
            return None
        return self._missing or Pause("quarantined", "quarantine", f"the next try to take version {version}")


def _backoff(count: int) -> float:
    return min(_LONGEST_S, 2.0 ** min(count - 1, 10))
