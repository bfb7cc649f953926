"""What a process waits for now: registered where it waits, published with its heartbeat.

Invariants: a wait is registered for exactly as long as it lasts; what is published is bounded, however many there are;
text of another version, or of nobody, reads as no wait.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace
from typing import Final

# Waits of one heartbeat, the longest first. A worker waits for an engine, a reward service and Redis.
MOST: Final = 8
# What is over sooner is no news: each heartbeat waits for Redis itself.
SHORT_S: Final = 1.0
# Of the words of one wait in a heartbeat.
_LONGEST: Final = 200


@dataclass(frozen=True, slots=True)
class PendingWait:
    """One thing that a process waits for.

    Attributes:
        on: who has to act: learner, rollout, rollout/ID, engine (the worker's own), reward, redis, ranks, storage.
        what: what for, as it continues "X waits for"; `{on}` stands for the name of who has to act.
        for_s: how long it has lasted, or how long nothing has moved.
        deadline_s: when the process itself gives up; None if it does not.
        count: how many such waits there are; `for_s` is that of the longest.
        unit: what `count` counts: "group".
    """

    on: str
    what: str
    for_s: float
    deadline_s: float | None = None
    count: int = 1
    unit: str = ""

    @property
    def late(self) -> bool:
        """Whether it has passed its deadline."""
        return self.deadline_s is not None and self.for_s > self.deadline_s

    def words(self, name: str) -> str:
        """In words, where `name` has to act."""
        counted = "" if not self.unit else f" a {self.unit}" if self.count == 1 else f" {self.count} {self.unit}s"
        return f"{self.what.replace('{on}', name)}{counted}, {self.for_s:.0f} s"


class Entry:
    """A registered wait, until it ends."""

    __slots__ = ("_now", "since", "wait")

    def __init__(self, wait: PendingWait, now: Callable[[], float]) -> None:
        self.wait, self._now, self.since = wait, now, now()

    def moved(self) -> None:
        """Something came that was waited for, and more is expected."""
        self.since = self._now()


class Waits:
    """The waits of one process.

    Args:
        now: a monotonic clock.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._open: set[Entry] = set()

    @contextmanager
    def on(self, on: str, what: str, deadline_s: float | None = None, unit: str = "") -> Iterator[Entry]:
        """Registered while the block runs."""
        entry = Entry(PendingWait(on, what, 0.0, deadline_s, 1, unit), self._now)
        self._open.add(entry)
        try:
            yield entry
        finally:
            self._open.discard(entry)

    def current(self) -> list[PendingWait]:
        """The waits of this moment that are not short, equal ones as one, the longest first."""
        now, found = self._now(), dict[tuple[str, str, str], PendingWait]()
        for entry in self._open:
            wait = replace(entry.wait, for_s=now - entry.since)
            if wait.for_s < SHORT_S:
                continue
            key = (wait.on, wait.what, wait.unit)
            found[key] = _both(found[key], wait) if key in found else wait
        return longest(found.values())


def longest(waits: Iterable[PendingWait]) -> list[PendingWait]:
    """As many as are published, the longest first."""
    return sorted(waits, key=lambda wait: -wait.for_s)[:MOST]


def _both(one: PendingWait, other: PendingWait) -> PendingWait:
    older = one if one.for_s >= other.for_s else other
    return replace(older, count=one.count + other.count)


def dumps(waits: Iterable[PendingWait]) -> str:
    """As text for a heartbeat."""
    rows = [astuple(replace(wait, what=wait.what[:_LONGEST], for_s=round(wait.for_s, 1))) for wait in longest(waits)]
    return json.dumps(rows, separators=(",", ":"))


def loads(text: str) -> list[PendingWait]:
    """The waits of a heartbeat."""
    try:
        return [
            PendingWait(
                str(on), str(what), float(for_s), None if deadline is None else float(deadline), int(count), str(unit)
            )
            for on, what, for_s, deadline, count, unit in json.loads(text or "[]")
        ]
    except (ValueError, OverflowError, TypeError, RecursionError):
        return []
