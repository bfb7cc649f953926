"""The life of a group or of a step, told from the log lines of a run's processes. Pure.

The events it reads have stable names; lines that are not one of them are passed over.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

# Which group is in which batch, and what else a step has.
TAKEN: Final = "group taken"
OF_STEP: Final = frozenset({"batch taken", "step", "validation", "checkpoint"})
OF_VERSION: Final = frozenset({"weights published", "weights taken"})

UID: Final = re.compile(r"\d+-\d+")
# What every line has, or what the first words of a told line say.
_PLAIN = frozenset({"event", "timestamp", "level", "service", "run", "worker", "logger", "uid"})


@dataclass(frozen=True)
class LifeEvent:
    """One log line: when (seconds since 1970), by whom, what, and its fields."""

    at: float
    who: str
    what: str
    fields: Mapping[str, Any]


def read(lines: Iterable[str]) -> list[LifeEvent]:
    """The events of log lines, in the order of their times; text between them is passed over."""
    found = []
    for line in lines:
        try:
            fields = json.loads(line)
            at = datetime.fromisoformat(fields["timestamp"].replace("Z", "+00:00")).timestamp()
            who = fields.get("worker") or fields["service"]
            found.append(LifeEvent(at, str(who), str(fields["event"]), fields))
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            continue
    return sorted(found, key=lambda event: event.at)


def of_group(events: Iterable[LifeEvent], uid: str) -> list[LifeEvent]:
    """All that is told of a group, with the batch it was in, that batch's step, and the version that step made."""
    everything = list(events)
    own = [event for event in everything if event.fields.get("uid") == uid]
    steps = {event.fields.get("step") for event in own if event.what == TAKEN}
    return [event for event in everything if event.fields.get("uid") == uid or _of_step(event, steps)]


def of_step(events: Iterable[LifeEvent], step: int) -> list[LifeEvent]:
    """The batch of a step, the lives of its groups, the step, and its version's way to the engines."""
    everything = list(events)
    taken = [event for event in everything if event.what == TAKEN and event.fields.get("step") == step]
    uids = {event.fields.get("uid") for event in taken}
    return [event for event in everything if event.fields.get("uid") in uids or _of_step(event, {step})]


def _of_step(event: LifeEvent, steps: set[Any]) -> bool:
    if event.what in OF_STEP:
        return event.fields.get("step") in steps
    return event.what in OF_VERSION and event.fields.get("version") in steps


def tell(events: Iterable[LifeEvent]) -> Iterator[str]:
    """A line an event: seconds since the first one, who, what, and its fields."""
    first = None
    for event in events:
        first = event.at if first is None else first
        uid = f" {event.fields['uid']}" if event.fields.get("uid") else ""
        fields = ", ".join(f"{name} {value}" for name, value in event.fields.items() if name not in _PLAIN)
        yield f"{event.at - first:+9.2f} s  {event.who:12} {event.what}{uid}{': ' if fields else ''}{fields}"
