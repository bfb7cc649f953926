"""Which waits of a run's processes mean that it is stuck. Pure: what the queue knows in, lines out.

Invariants:
- a wait is stuck only past its deadline, which depends on what is waited for;
- what only the learner can end (enough groups wait, the weights are not announced yet) is not stuck while it works;
- a process that does not report is named, with who waits for it: silence is not progress.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import Any, Final

from golongrl.telemetry import watchdog

Json = Mapping[str, Any]

# A lease without progress for so long is worth a line. A healthy engine adds tokens every second.
SLOW_S: Final = 120.0
# Most waits end within seconds: calls are repeated, and weights are tried again, at least every 30 s.
_DEADLINE_S: Final = 120.0
# An engine that loads its model, and a learner that starts: the chart's startup probe allows 45 minutes.
_START_S: Final = 45 * 60.0
# The worker gives an engine 60 s to pause and 600 s to load new weights: 60 GB from a network disk take minutes.
_ADOPTION_S: Final = 12 * 60.0
# A response or a group ends when its tokens are made, which may take an hour: its lease's progress tells.
_BY_PROGRESS: Final = frozenset({"slots", "drain"})
# Ended by the learner's next step, weights or checkpoint, or by the end of the run.
_BY_LEARNER: Final = frozenset({"full", "behind", "bytes", "no_rows", "weights"})
_WAITING: Final = "waiting for step"


def long_waits(queue: Json, services: Sequence[Json], *, chains: bool = True) -> Iterator[str]:
    """A line for each wait that is past its deadline, and for each kind of process that does not report.

    Args:
        chains: say who waits for a process in trouble; without, somebody else has.
    """
    stalls = watchdog.stalls(watchdog.read(services))
    if chains:
        yield from map(str, stalls)
    told = {stall.culprit for stall in stalls}
    services = [service for service in services if service["age_s"] <= watchdog.SILENT_S]
    learners = [service["fields"] for service in services if service["service"] == "learner"]
    idle_s = min((_idle_s(fields) for fields in learners), default=inf)
    for service in services:
        fields, where = service["fields"], f"{service['service']} {service['id']}"
        if fields.get("phase") == "quarantined":
            why = fields.get("quarantine") or "it does not confirm the weights"
            yield f"{where}: its engine is quarantined: {why}"
        elif f"engine/{service['id']}" in told and fields.get("wait") == "engine":
            continue  # its chain says more
        elif fields.get("waiting_for") and _is_late(fields, idle_s):
            lasting = f", for {_seconds(fields):.0f} s" if "for_s" in fields else ""
            yield f"{where} waits for {fields['waiting_for']}{lasting}"
    if not learners and "learner" not in told:
        yield "no learner reports to the queue: it has not started, or has ended"
    if not any(service["service"] == "rollout" for service in services) and "rollout" not in {
        stall.kind for stall in stalls
    }:
        yield "no rollout worker reports to the queue: nothing generates"
    blocking = queue.get("blocking")
    if blocking and blocking["progress_age_s"] > SLOW_S:
        yield (
            f"the next batch waits for group {blocking['uid']} on {blocking['worker']}, "
            f"which made no progress for {blocking['progress_age_s']:.0f} s"
        )
    if queue["bytes"] + queue["reserved_bytes"] >= queue["max_bytes"] and idle_s > _DEADLINE_S:
        yield "the queue is full: no lease until the learner's next checkpoint frees its batches"


def _is_late(fields: Json, idle_s: float) -> bool:
    # Workers give the wait's label; the text of a refused lease begins with it too.
    label = fields.get("wait") or str(fields["waiting_for"]).partition(":")[0]
    if label in _BY_PROGRESS or label == "stopped":
        return False
    # Workers may wait through a whole step of the learner: what counts is how long it has been idle since.
    waited = min(_seconds(fields), idle_s) if label in _BY_LEARNER else _seconds(fields)
    starts = label == "setup" or (label == "engine" and not fields.get("engine_version"))
    deadline_s = _ADOPTION_S if label == "adoption" else _DEADLINE_S
    return waited > (_START_S if starts else deadline_s)


def _idle_s(learner: Json) -> float:
    """Seconds that the learner has waited for groups; 0 while it works."""
    return _seconds(learner) if learner.get("doing", "").startswith(_WAITING) else 0.0


def _seconds(fields: Json) -> float:
    """How long it has lasted; where that is not known, too long."""
    try:
        return float(fields["for_s"])
    except (KeyError, ValueError):
        return inf
