"""How much of an engine's time taking new weights costs. Pure: times and shares in, a share out.

An engine that takes weights generates nothing, and one that drains for them has empty places. Each engine pays this
for each version, however many engines there are, so the operator counts it apart from the work that they share.
"""

import math
from typing import Final

# The mean is over about so many seconds: longer than most steps, short enough to follow another way of adopting.
_WINDOW_S: Final = 600.0
# Before it has seen that much, it says nothing.
_LEAST_S: Final = 60.0


class AdoptionLoss:
    """The mean share of the engine's time that was lost, since it first generated."""

    def __init__(self) -> None:
        self._mean = 0.0
        self._age_s = 0.0
        self._at: float | None = None
        self._now_lost = 0.0

    def see(self, lost: float, now: float) -> None:
        """From `now` on (monotonic seconds) this share of the engine is lost."""
        if self._at is not None and now > self._at:
            passed = now - self._at
            self._age_s += passed
            # At first the plain mean, so that the first minutes do not count as without loss.
            weight = max(1.0 - math.exp(-passed / _WINDOW_S), passed / self._age_s if self._age_s < _WINDOW_S else 0.0)
            self._mean += weight * (self._now_lost - self._mean)
        self._at, self._now_lost = now, lost

    def share(self, now: float) -> float | None:
        """In [0, 1]; None while too little has been seen."""
        if self._at is None:
            return None
        self.see(self._now_lost, now)
        return self._mean if self._age_s >= _LEAST_S else None
