"""How many engines a pool should have. Pure, in virtual time: signals and a memory in, a number and a memory out.

The measure. An engine is idle only while the queue refuses it a lease, because enough is generated; the learner is idle
only while too few groups are ready. If `busy` engines generate and the learner waits for a share w of its time, then
the learner would need busy / (1 - w) engines to wait no more. This does not depend on how many engines there are, so it
stays true after a change.

An engine that takes new weights generates nothing. Each version costs every engine the same time, however many there
are: if that is a share a of the time now, an engine generates for 1 - a of it, and for 1 - w - a once the learner waits
no more. So the learner needs busy / (1 - w - a), where `busy` counts only engines that generate.

Invariants (tests/operators/test_scaling.py):
- the result is within the limits, whatever the signals; a changed limit takes effect at once;
- what is not known changes nothing;
- it grows if the learner waits for engines, and not if it waits for something else: the reward service, or engines that
  spend most of their time on taking weights;
- it never shrinks below what the groups in flight need, by their number and by the KV cache that they use;
- it grows and shrinks in bounded steps with pauses between them, and a need that does not move far is one size: the
  bounds for growing and shrinking overlap, so the pool does not flap.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

from golongrl_operator.scaling.signals import KV_FULL, Signals

# The learner may wait 3 % of its time before an engine is added; an engine is removed if the others have 3 % to spare.
_SPARE: Final = 0.03
# The need is a mean over so many steps, because engines are idle at the end of a step and busy at its beginning.
_STEPS: Final = 3.0
_SHORTEST_S: Final = 300.0
_LONGEST_S: Final = 7200.0
# A learner that always waits would need endlessly many engines.
_MOST_WAIT: Final = 0.9
# Of the engines, added or removed at a time; at least one.
_GROW: Final = 0.5
_SHRINK: Final = 0.5
# An engine that does not report for so long after a change is lost and not loading: the chart's startup probe.
_LOADS_S: Final = 45 * 60.0
# New engines must have shown what they change before more are added.
_GROW_PAUSE_S: Final = 120.0
# Of the engines that report, waiting for the reward service or for weights.
_BLOCKED: Final = 0.25
# Of an engine's time, lost by taking weights: then twice as many engines would not even give half as much again.
_MOSTLY_LOST: Final = 0.5
# Less is no limit: it allows a thousand times as many engines.
_LEAST_LOST: Final = 0.001
# A mean that is older than this is not continued.
_FORGET_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What the spec and the budget allow."""

    least: int
    most: int

    def clamp(self, engines: int) -> int:
        return max(self.least, min(self.most, engines))


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered between two measurements; times in seconds of any clock."""

    busy: float | None = None
    """Engines that generated, smoothed."""
    wait: float = 0.0
    """Share of its time that the learner waited, smoothed."""
    at: float | None = None
    changed: float | None = None
    """When the number of engines last changed."""
    low: float | None = None
    """Since when fewer engines would do."""
    lost: float = 0.0
    """Share of its time that an engine lost by taking weights, smoothed."""

    @property
    def need(self) -> float | None:
        """Engines that would keep the learner busy.

        From the means, and not the mean of their ratio: within a step they go up and down, at different times.
        """
        return None if self.busy is None else self.busy / (1.0 - min(_MOST_WAIT, max(0.0, self.wait) + self.lost))


@dataclass(frozen=True, slots=True)
class Size:
    """A number of engines and why."""

    engines: int
    reason: str
    memory: Memory


def resize(signals: Signals, limits: PoolLimits, memory: Memory, now: float) -> Size:
    """The number of engines to ask for now."""
    memory = _measured(signals, memory, now)
    wanted, reason, memory = _wanted(signals, memory, now)
    engines = limits.clamp(wanted)
    if engines != wanted:
        bound = f"at most {limits.most}" if engines < wanted else f"at least {limits.least}"
        reason = f"{reason}; the run may have {bound}"
    if engines != signals.engines:
        memory = replace(memory, changed=now, low=None)
    return Size(engines, reason, memory)


def window_s(signals: Signals) -> float:
    """Over how long the need is smoothed."""
    return min(_LONGEST_S, max(_SHORTEST_S, _STEPS * (signals.step_s or 0.0)))


def _measured(signals: Signals, memory: Memory, now: float) -> Memory:
    busy, wait = signals.busy, signals.wait_share
    if not _known(signals) or busy is None or wait is None:
        return memory
    # Workers that have not seen enough of their engines do not say; the last figure holds.
    lost = memory.lost if signals.lost is None else signals.lost
    busy = max(0.0, busy - lost * signals.ready)
    passed = None if memory.at is None else now - memory.at
    if memory.busy is None or passed is None or not 0 <= passed <= _FORGET_S:
        return replace(memory, busy=busy, wait=wait, lost=lost, at=now)
    weight = 1.0 - math.exp(-passed / window_s(signals))
    return replace(
        memory,
        busy=memory.busy + weight * (busy - memory.busy),
        wait=memory.wait + weight * (wait - memory.wait),
        lost=memory.lost + weight * (lost - memory.lost),
        at=now,
    )


def _known(signals: Signals) -> bool:
    """Whether the signals say how many engines the learner needs."""
    if signals.wait_share is None or signals.busy is None or signals.ready == 0:
        return False
    # Otherwise the learner waits for something else than the number of engines.
    return signals.blocked <= _BLOCKED * signals.ready


def _wanted(signals: Signals, memory: Memory, now: float) -> tuple[int, str, Memory]:
    engines, need = signals.engines, memory.need
    if not _known(signals) or need is None:
        # A missed answer does not restart the wait; many in a row do.
        fresh = memory.at is not None and now - memory.at <= window_s(signals)
        why = "the queue does not say whether there are too many or too few"
        return engines, why, memory if fresh else replace(memory, low=None)
    told = f"the learner needs {need:.1f} engines"
    since = math.inf if memory.changed is None else now - memory.changed
    # Engines that compute retracted answers again are rid of that with fewer groups each, so one comes at once.
    short = 2 * signals.kv_short > signals.ready
    spare = 0.0 if short else _SPARE
    if need > engines * (1.0 + spare):
        memory = replace(memory, low=None)
        useful = _useful(engines, max(memory.lost, signals.lost or 0.0))
        if useful <= engines:
            why = f"engines spend {memory.lost:.0%} of their time on taking weights, and more would lose as much"
            return engines, f"{told}; {why}", memory
        if signals.ready < engines and since < _LOADS_S:
            return engines, f"{told}; {engines - signals.ready} still start", memory
        if since < _GROW_PAUSE_S:
            return engines, f"{told}; the last change is recent", memory
        wanted = math.ceil(need / (1.0 + spare))
        return min(wanted, useful, engines + max(1, int(engines * _GROW))), told, memory
    fewer = max(math.ceil(need / (1.0 - _SPARE)), _in_flight(signals))
    if fewer >= engines:
        return engines, told, replace(memory, low=None)
    memory = replace(memory, low=now if memory.low is None else memory.low)
    lasting = window_s(signals)
    if memory.low is None or now - memory.low < lasting or since < lasting:
        return engines, f"{told}; fewer engines must do for {lasting:.0f} s before some are removed", memory
    return max(fewer, engines - max(1, int(engines * _SHRINK))), told, memory


def _useful(engines: int, lost: float) -> int:
    """Up to how many engines generate for most of their time, if each loses as much time for a version as now."""
    generates = (1.0 - lost) / max(lost, _LEAST_LOST)
    return math.floor(engines * generates * _MOSTLY_LOST / (1.0 - _MOSTLY_LOST))


def _in_flight(signals: Signals) -> int:
    """Engines that hold the groups in flight: by places, and by room in their KV caches."""
    return max(math.ceil(signals.held / signals.slots), math.ceil(signals.kv / KV_FULL))
