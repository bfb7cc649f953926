"""What the queue says about the size of a pool. Pure: the queue's picture in, figures out.

Invariants:
- a figure that is not known is None, never 0: the controller then changes nothing;
- the learner's time is counted by the learner itself, so that a missed pass loses nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from golongrl.telemetry.watchdog import SILENT_S

Json = Mapping[str, Any]

# The queue's refusals that mean that enough is generated already.
_ENOUGH: Final = frozenset({"full", "bytes", "no_rows"})
# What an engine waits for that more engines would not bring.
_BLOCKED: Final = frozenset({"reward", "queue", "source", "quarantine", "setup", "engine"})
# Of an engine's KV cache: with more in use, the next long answer makes it retract another one.
KV_FULL: Final = 0.9
# The first step always waits for its groups, however many engines there are; but one that takes longer than this says
# that there are too few.
_FIRST_STEP_S: Final = 1800.0
# Seconds, groups and rows of any real run are fewer; a NaN is not either.
_LARGEST: Final = 1e12
# Shorter than this, a share of the learner's time is rounding.
_LEAST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Signals:
    """The figures of one moment; the controller's only input."""

    engines: int
    """That the workload asks for now."""
    ready: int
    """Of them, those that report to the queue."""
    wait_share: float | None = None
    """Of the learner's time since the last measurement, how much it waited for groups."""
    busy: float | None = None
    """Engines that generate, adopt weights or drain, and so would not do with less time."""
    blocked: float = 0.0
    """Engines that wait for something that more engines would not bring."""
    held: int = 0
    """Groups in flight."""
    slots: int = 1
    """Groups that an engine can hold."""
    step_s: float | None = None
    """How long the learner's last step took."""
    kv: float = 0.0
    """KV caches that groups use, added up: in engines. One that does not say counts as full while it has groups."""
    kv_short: int = 0
    """Engines whose KV cache is full while requests wait for it: they compute retracted answers again."""
    lost: float | None = None
    """Share of its time that an engine loses by taking new weights; more engines lose as much each."""


def read_signals(picture: Json | None, engines: int, slots: int, last: str) -> tuple[Signals, str]:
    """The signals of a look at the queue, and the learner's counters to remember.

    Args:
        picture: `{"queue": ..., "services": [...]}`; None if the queue did not answer.
        last: the learner's counters at the last measurement.
    """
    if picture is None:
        return Signals(engines, 0, slots=slots), last
    services = [service for service in picture["services"] if service["age_s"] <= SILENT_S]
    workers = [service["fields"] for service in services if service["service"] == "rollout"]
    learners = [service for service in services if service["service"] == "learner"]
    counters, share = _learner(learners, last)
    blocked = sum(_label(fields) in _BLOCKED for fields in workers)
    busy = float(sum(_works(fields) for fields in workers)) if workers else None
    losses = [value for fields in workers if (value := _number(fields, "adoption_share")) is not None]
    steps = [value for service in learners if (value := _number(service["fields"], "step_s")) is not None]
    signals = Signals(
        engines=engines,
        ready=len(workers),
        wait_share=None if _begins(learners) else share,
        busy=busy,
        blocked=float(blocked),
        held=int(picture["queue"].get("leased", 0)),
        slots=slots,
        step_s=max(steps, default=None),
        kv=sum(_kv(fields) for fields in workers),
        kv_short=sum(_kv_short(fields) for fields in workers),
        lost=sum(losses) / len(losses) if losses else None,
    )
    return signals, counters


def _begins(learners: Sequence[Json]) -> bool:
    """Whether the learner is in its first step since it started."""
    return any(
        _number(one["fields"], "step_s") is None and (_number(one["fields"], "up_s") or 0.0) < _FIRST_STEP_S
        for one in learners
    )


def _learner(learners: Sequence[Json], last: str) -> tuple[str, float | None]:
    """The learner's counters, and the share of its time since the last ones that it waited."""
    if len(learners) != 1:
        return "", None
    (learner,) = learners
    up, waited = _number(learner["fields"], "up_s"), _number(learner["fields"], "waited_s")
    if up is None or waited is None:
        return "", None
    counters = f"{learner['id']} {up:.1f} {waited:.1f}"
    name, _, rest = last.partition(" ")
    before = rest.split(" ")
    if name != learner["id"] or len(before) != 2:
        return counters, None
    then_up, then_waited = _finite(before[0]), _finite(before[1])
    if then_up is None or then_waited is None or up < then_up or waited < then_waited:
        return counters, None
    passed, idle = up - then_up, waited - then_waited
    if passed < _LEAST_S:
        # Too short to tell; measured from the same start next time.
        return last, None
    return counters, min(1.0, idle / passed)


def _works(fields: Json) -> bool:
    """Whether a worker's engine has something to do."""
    if int(_number(fields, "groups") or 0) > 0 or int(_number(fields, "validation_rows") or 0) > 0:
        return True
    return _label(fields) not in _ENOUGH | _BLOCKED and fields.get("phase") in ("generating", "adopting")


def _kv(fields: Json) -> float:
    """Share of its engine's KV cache that is in use."""
    share = _number(fields, "kv_use")
    return min(1.0, share) if share is not None else float(int(_number(fields, "groups") or 0) > 0)


def _kv_short(fields: Json) -> bool:
    return (_number(fields, "kv_use") or 0.0) >= KV_FULL and (_number(fields, "kv_waiting") or 0.0) > 0


def _label(fields: Json) -> str:
    return str(fields.get("wait", ""))


def _number(fields: Json, key: str) -> float | None:
    """A finite figure of at least 0; None if it is not there, or is none."""
    return None if (value := _finite(str(fields.get(key, "")))) is None or value < 0 else value


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) <= _LARGEST else None
