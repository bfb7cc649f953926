"""Which engine to replace. Pure: the pods, what their workers report, and what was seen before, in.

Invariants (tests/operators/test_healing.py):
- an engine is replaced only after it has been sick for longer than its worker needs to cure it;
- one at a time, with a pause between two, and at most so many in an hour: a cause that all engines share is not cured
  by replacing them one by one, and is reported instead;
- what is not known is no sickness: without the queue's answer no engine counts as silent, quarantined or behind.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from golongrl.kubernetes.look.pods import Pod
from golongrl.telemetry.watchdog import SILENT_S

Json = Mapping[str, Any]

# Workers repeat an adoption every 30 s and calls of the engine for a few minutes; longer, they do not cure it.
LASTING_S: Final = 300.0
# A worker that has not caught up with the announced weights by then adopts them no more.
_BEHIND_S: Final = 900.0
# The kubelet's pause is at its longest (5 minutes) after as many.
_CRASHES: Final = 5
_PAUSE_S: Final = 120.0
HOUR_S: Final = 3600.0
# Of at least this many engines, more than half: then it is not the engines.
_MANY: Final = 3


@dataclass(frozen=True, slots=True)
class Suspect:
    """An engine that is sick, and since when; times in seconds of any clock."""

    pod: str
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Healing:
    """The engine to replace now, if any, and all that are sick."""

    replace: Suspect | None = None
    suspects: tuple[Suspect, ...] = ()
    reason: str = ""
    """Why none is replaced although some are sick."""


def heal(
    pods: Sequence[Pod],
    picture: Json | None,
    before: Mapping[str, tuple[str, float]],
    replaced: Sequence[float],
    most: int,
    now: float,
) -> Healing:
    """What to do about sick engines.

    Args:
        pods: of the pool.
        picture: the queue's; None if it did not answer.
        before: the suspects of the last pass: pod, and its reason and since when.
        replaced: when engines were replaced.
        most: replacements in an hour.
    """
    suspects = []
    for pod in pods:
        reason = _sickness(pod, picture)
        if reason:
            old, since = before.get(pod.name, ("", now))
            # A reason is a kind and its details, which change.
            same = old.partition(":")[0] == reason.partition(":")[0]
            suspects.append(Suspect(pod.name, reason, since if same else now))
    due = [suspect for suspect in suspects if now - suspect.since >= _lasting_s(suspect)]
    recent = [time for time in replaced if now - time < HOUR_S]
    found = Healing(suspects=tuple(suspects))
    if not due:
        return found
    if len(pods) >= _MANY and 2 * len(due) > len(pods):
        why = f"{len(due)} of {len(pods)} engines are sick at once, so the cause is not an engine: {due[0].reason}"
        return Healing(suspects=found.suspects, reason=why)
    if len(recent) >= most:
        why = f"{len(recent)} engines were replaced in an hour, the most that maxEngineReplacements allows"
        return Healing(suspects=found.suspects, reason=f"{why}; {due[0].pod}: {due[0].reason}")
    if recent and now - max(recent) < _PAUSE_S:
        return found
    return Healing(min(due, key=lambda suspect: (suspect.since, suspect.pod)), found.suspects)


def _lasting_s(suspect: Suspect) -> float:
    if suspect.reason.startswith("crashing"):
        return 0.0
    return _BEHIND_S if suspect.reason.startswith("behind") else LASTING_S


def _sickness(pod: Pod, picture: Json | None) -> str:
    """Why a pod's engine is sick; empty if it is not, or not known to be."""
    return next(iter(_sicknesses(pod, picture)), "")


def _sicknesses(pod: Pod, picture: Json | None) -> Iterator[str]:
    if pod.trouble and pod.restarts >= _CRASHES:
        yield f"crashing: {pod.trouble}"
    # A pod that starts, ends or is not scheduled cannot report; that is no sickness of an engine.
    if picture is None or pod.phase != "Running" or pod.starting or pod.trouble:
        return
    fields = _fields(pod.name, picture)
    if fields is None:
        if pod.ready:
            yield "silent: its worker is ready but does not report to the queue"
        return
    if fields.get("phase") == "quarantined":
        yield f"quarantined: {fields.get('quarantine') or 'it does not confirm the weights'}"
    behind = _behind(fields, picture["queue"])
    if behind:
        yield f"behind: {behind}"


def _fields(pod: str, picture: Json) -> Json | None:
    """What the worker of a pod reports. Its name in the queue is the pod's."""
    found = [one for one in picture["services"] if one["service"] == "rollout" and one["id"] == pod]
    return found[0]["fields"] if found and found[0]["age_s"] <= SILENT_S else None


def _behind(fields: Json, queue: Json) -> str:
    version, weights = str(fields.get("engine_version", "")), queue.get("weights")
    if not weights or not _VERSION.fullmatch(version):
        return ""
    late, most = int(weights["version"]) - int(version), int(queue["max_staleness"])
    return f"its weights are {late} versions old, and max_staleness is {most}" if late > most else ""


def costs(pods: Sequence[Pod], picture: Json | None) -> dict[str, int]:
    """What the deletion of each pod would lose; Kubernetes removes those of the least cost first.

    A sick or starting engine loses nothing. Of the others, what counts is the tokens of its groups in flight, which
    another engine would have to generate again.
    """
    if picture is None:
        return {}
    leases = picture["queue"].get("leases") or []
    lost = {pod.name: 0 for pod in pods}
    for pod in pods:
        if pod.ready and not _sickness(pod, picture):
            mine = [lease for lease in leases if lease.get("worker") == pod.name]
            # A group counts even before its first token: its prompt may be long.
            lost[pod.name] = 1 + sum(100 + int(lease.get("progress") or 0) for lease in mine)
    return {name: min(cost, _LARGEST_COST) for name, cost in lost.items()}


_VERSION: Final = re.compile(r"[0-9]{1,15}")
# The annotation is a 32-bit integer.
_LARGEST_COST: Final = 2**31 - 1
