"""How many calls are in flight: as many as the server takes, found by additive increase and halving.

The rule is TCP's: every answer raises the limit by a share that adds up to one for each full round of answers, a push
back (429, 503) halves it. Calls that began before the last cut do not cut again, because their push backs are the same
event.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class Limit:
    """The limit on calls in flight, between 1 and `most`. Pure."""

    most: int
    value: float
    cuts: int = 0

    def answered(self) -> None:
        """A call was answered."""
        self.value = min(float(self.most), self.value + 1.0 / self.value)

    def pushed_back(self, began_at: int) -> None:
        """The server was too busy for a call that began when `cuts` was `began_at`."""
        if began_at == self.cuts:
            self.value = max(1.0, self.value / 2)
            self.cuts += 1

    @property
    def room(self) -> int:
        return int(self.value)


class Gate:
    """Lets callers through while fewer calls are in flight than the limit allows, in the order in which they came."""

    def __init__(self, most: int) -> None:
        self.limit = Limit(most, float(most))
        self.in_flight = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Room for one call; gives the mark that `Limit.pushed_back` wants."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.in_flight < self.limit.room)
            self.in_flight += 1
        try:
            yield self.limit.cuts
        finally:
            self.in_flight -= 1
            async with self._changed:
                self._changed.notify_all()
