"""When to try again what an engine could not do: take the announced weights, make a group. Pure: no client, no clock.

If the engine does not get the weights (the engine or the worker cannot read the store, the sender is gone or busy, the
engine does not confirm them), they are retried with back-off as long as they are announced. Giving up would leave the
engine idle for good, because the learner waits for this engine's groups before there is another version. Ending the
worker would not help: a restarted worker finds the same engine, until its supervisor gives up.
"""

from dataclasses import dataclass
from typing import NamedTuple

# Longest pause between two tries to take weights: a repair is noticed within this time.
LONGEST_S = 30.0
# Longest pause between two groups; they cost the queue more than the engine.
LONGEST_GROUP_S = 10.0


class Pause(NamedTuple):
    """What the worker does instead: its phase, the label of what it waits for, and that in words."""

    phase: str
    label: str
    reason: str


@dataclass
class Tries:
    """The failed tries to take the weights that are announced now; times in seconds of any one clock."""

    count: int = 0
    _not_before: float = 0.0
    _instead: Pause | None = None

    def reset(self) -> None:
        """The engine is another, or the weights are."""
        self.count, self._not_before, self._instead = 0, 0.0, None

    def fail(self, now: float, instead: Pause) -> None:
        """The engine could not be brought to the weights; `instead` says what is waited for."""
        self.count += 1
        self._not_before = now + min(LONGEST_S, 2.0 ** min(self.count - 1, 10))
        self._instead = instead

    def explain(self, instead: Pause) -> None:
        """Replace what is waited for; the pause stays as long."""
        self._instead = instead

    def pause(self, now: float) -> Pause | None:
        """What to wait for before they are tried again; None when it is time."""
        return self._instead if now < self._not_before else None


@dataclass
class Setbacks:
    """Groups that failed in a row at an engine that answers: the next one is asked for later and later."""

    count: int = 0
    _ended: int = 0
    _not_before: float = 0.0
    _why: str = ""

    def fail(self, now: float, ended: int, why: str) -> None:
        """One more failed; `ended` is how many groups have ended so far."""
        self.count = 1 if ended > self._ended else self.count + 1
        self._ended = ended
        self._not_before = now + min(LONGEST_GROUP_S, 0.1 * 2.0 ** min(self.count, 10))
        self._why = why

    def pause(self, now: float) -> Pause | None:
        """What to wait for before the next group is leased; None when it is time."""
        if now >= self._not_before:
            return None
        return Pause(
            "waiting", "engine", f"an engine that failed {self.count} groups in a row, the last one: {self._why}"
        )
