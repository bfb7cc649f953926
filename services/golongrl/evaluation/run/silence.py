"""A server that gives no replies any more: it is gone, and what was asked of it meanwhile is no failure of the samples.

Invariant: what had no reply is kept as failed only when something is answered after it, or at the end of a run in which
something was. Otherwise the next run asks it again.
"""

from collections.abc import Callable
from typing import Final

from golongrl.errors import GolongrlError
from golongrl.llm import LlmUnavailableError

# So many requests in a row without any reply, each after all its attempts: the server is gone, not the samples wrong.
_DEAD_AFTER: Final = 8


class TargetGoneError(GolongrlError):
    """The evaluated model's server, or the judge's, gives no replies any more. What was answered is kept."""


class SilenceCount:
    """Counts requests in a row that had no reply."""

    def __init__(self) -> None:
        self._since = 0
        self._heard = False
        self._last: LlmUnavailableError | None = None
        self._held: list[Callable[[], object]] = []

    def broken(self) -> None:
        """Something answered."""
        self._since, self._heard = 0, True
        self._keep()

    def lasts(self, error: LlmUnavailableError) -> None:
        """Nothing did.

        Raises:
            TargetGoneError: for too long.
        """
        self._since += 1
        self._last = error
        if self._since >= _DEAD_AFTER:
            raise TargetGoneError(f"{self._since} requests in a row had no reply; {error}") from error

    def hold(self, keep: Callable[[], object]) -> None:
        """Keep what had no reply, by a call of `keep`, as soon as the server turns out to be there."""
        self._held.append(keep)

    def ended(self) -> None:
        """Everything was asked.

        Raises:
            TargetGoneError: nothing was ever answered.
        """
        if self._last is not None and not self._heard:
            raise TargetGoneError(f"no request had a reply; {self._last}") from self._last
        self._keep()

    def _keep(self) -> None:
        held, self._held = self._held, []
        for keep in held:
            keep()
