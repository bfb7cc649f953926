"""When what the API server refused is tried again. Pure but for what it remembers.

A quota, a webhook or Pod Security would refuse the same object at every pass. So the same writes wait longer after each
refusal; other ones (an edit, a suspension) are tried at once. A restarted operator has forgotten all, and tries once.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

# A person who has raised a quota, or an API server that is back, waits no longer than this.
_LONGEST_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    what: Hashable
    why: str
    tries: int
    again: float


class Refusals:
    """What was refused, by whose it is."""

    def __init__(self, first_s: float) -> None:
        """`first_s`: how long the first pause is; each next one is twice as long."""
        self._first_s = first_s
        self._known: dict[Hashable, _Refusal] = {}

    def pending(self, whose: Hashable, what: Hashable, now: float) -> str:
        """Why the writes `what` are not tried now; empty if they are."""
        known = self._known.get(whose)
        return known.why if known and known.what == what and now < known.again else ""

    def refused(self, whose: Hashable, what: Hashable, why: str, now: float) -> None:
        """The writes `what` were refused."""
        known = self._known.get(whose)
        tries = known.tries + 1 if known and known.what == what else 1
        pause = min(_LONGEST_S, self._first_s * 2.0 ** min(tries - 1, 20))
        self._known[whose] = _Refusal(what, why, tries, now + pause)

    def accepted(self, whose: Hashable) -> None:
        """All writes of it were accepted."""
        self._known.pop(whose, None)
