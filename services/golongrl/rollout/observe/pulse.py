"""Whether a service that a worker depends on still answers: asked every few seconds, whatever calls wait for it.

A group may take an hour, so a call that makes one says nothing for long. A question that costs nothing does.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

# Together below the time after which a service counts as one that does not answer (telemetry.watchdog).
_PERIOD_S = 2.0
_PATIENCE_S = 5.0


class SilenceClock:
    """How long a service has been silent."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._heard: float | None = None

    @property
    def silent_s(self) -> float:
        """Seconds since its last answer; below the period between two questions it is well."""
        return 0.0 if self._heard is None else self._now() - self._heard

    def hear(self) -> None:
        """It answered."""
        self._heard = self._now()

    def forget(self) -> None:
        """Nobody asks it now."""
        self._heard = None

    async def follow(
        self, ask: Callable[[], Awaitable[bool]], wanted: Callable[[], bool] = lambda: True, *, starts: bool = False
    ) -> None:
        """Ask until cancelled.

        Args:
            ask: whether it answered; must not raise.
            wanted: whether anything is expected of the service now.
            starts: it may still start, so that silence counts from its first answer on; else from the first question.
        """
        while True:
            if not wanted():
                self.forget()
            else:
                if self._heard is None and not starts:
                    self.hear()
                if await self._answers(ask):
                    self.hear()
            await asyncio.sleep(_PERIOD_S)

    async def _answers(self, ask: Callable[[], Awaitable[bool]]) -> bool:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await ask()
        except TimeoutError:
            return False
