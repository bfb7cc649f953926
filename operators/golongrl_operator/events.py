"""Kubernetes Events of a run: what `kubectl describe trainingrun` shows below it. Pure: two statuses in, events out.

Invariants:
- an event is a transition between two statuses, so a pass that changes nothing posts nothing;
- its name is made from the object that the pass began with: if a pass dies before it writes the status and is repeated,
  the API server already has the event's name, and there is no second event;
- short interruptions post nothing: a run is reported stuck once that has lasted (`conditions.LASTING_S`).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from golongrl.kubernetes.look.objects import conditions
from golongrl.kubernetes.rayjob.site import Manifest
from golongrl_operator.api import GROUP, KIND, VERSION
from golongrl_operator.conditions import NO_ANSWER, REFUSED, STAYS_BLOCKED, STAYS_SILENT
from golongrl_operator.decide import RunPhase

Json = Mapping[str, Any]

# Who reports: a qualified name, as the API server demands.
CONTROLLER: Final = f"{GROUP}/operator"
# The API server refuses a longer note; in bytes.
_LONGEST: Final = 1024
_UNWRITTEN: Final = frozenset({REFUSED, NO_ANSWER})
_WARNINGS: Final = frozenset({RunPhase.INVALID, RunPhase.RESTARTING, RunPhase.FAILED, *_UNWRITTEN})
_NAME_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class Event:
    """One transition."""

    reason: str
    """A phase, or Refused, NoAnswer, HeadReplaced, PoolDiffers, Scaled, EngineReplaced, NodeAvoided, Stuck,
    QueueSilent, Moving; or Evaluation with the phase of the evaluation, Refused or NoAnswer."""
    note: str
    type: Literal["Normal", "Warning"] = "Normal"


def transitions(old: Json, new: Json) -> list[Event]:
    """The events between two statuses of a run."""
    pool = _pool(_aspect(old, "Accepted"), _aspect(new, "Accepted"))
    return [
        *_phase(old, new),
        *_head(old, new),
        *pool,
        *_engines(old, new),
        *_nodes(old, new),
        *_stuck(old, new),
        *_evaluation(old, new),
    ]


def manifest(run: Manifest, event: Event, now: datetime, reporter: str) -> Manifest:
    """The object to create for a run as it was listed.

    Args:
        reporter: the operator's pod.
    """
    metadata = run["metadata"]
    base = f"{metadata['uid']}/{metadata.get('resourceVersion', '')}/{event.reason}"
    namespace = {"namespace": metadata["namespace"]} if "namespace" in metadata else {}
    about = {key: metadata[key] for key in ("name", "uid", "resourceVersion") if key in metadata}
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(base.encode()).hexdigest()[:_NAME_LENGTH]}",
            **namespace,
        },
        # Exactly six digits: the API server reads no other.
        "eventTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": reporter,
        "action": "Reconcile",
        "reason": event.reason,
        "type": event.type,
        "note": event.note.encode()[:_LONGEST].decode(errors="ignore"),
        "regarding": {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, **namespace, **about},
    }


def _phase(old: Json, new: Json) -> Iterator[Event]:
    was, now = _word(old), _word(new)
    # Each new spec error is reported. Why the API server refuses may change with every try, and is reported once.
    if was == now and (now != RunPhase.INVALID or old.get("message") == new["message"]):
        return
    yield Event(now, new["message"], "Warning" if now in _WARNINGS else "Normal")


def _head(old: Json, new: Json) -> Iterator[Event]:
    lost = new.get("headReplacements", 0)
    if lost > old.get("headReplacements", 0):
        step = f" of step {new['lastCheckpoint']}" if new.get("lastCheckpoint") else ""
        note = f"the Ray head of RayJob {new.get('job')} was lost and replaced (replacement {lost})"
        yield Event("HeadReplaced", f"{note}; the learner resumes from its last checkpoint{step}", "Warning")


def _engines(old: Json, new: Json) -> Iterator[Event]:
    was, now = old.get("rollout") or {}, new.get("rollout") or {}
    before, after = was.get("desired"), now.get("desired")
    # The first number, and that of a run that ends, are said by the event of the phase.
    if _same(old, new) and None not in (before, after) and before != after and was.get("name") == now.get("name"):
        yield Event("Scaled", f"{now['name']}: {before} -> {after} engines: {now.get('reason', '')}")
    known = {(one["pod"], one["time"]) for one in old.get("replaced") or []}
    fresh = [one for one in new.get("replaced") or [] if (one["pod"], one["time"]) not in known]
    if fresh:
        note = "; ".join(f"replaced {one['pod']}: {one['reason']}" for one in fresh)
        yield Event("EngineReplaced", note, "Warning")


def _nodes(old: Json, new: Json) -> Iterator[Event]:
    known = {one["node"] for one in old.get("avoidedNodes") or []}
    fresh = [one for one in new.get("avoidedNodes") or [] if one["node"] not in known]
    # Many runs may wait; it is news for those that have pods.
    if fresh and new.get("phase") in (RunPhase.PENDING, RunPhase.RUNNING):
        note = "; ".join(f"{one['node']}: {one['reason']}" for one in fresh)
        yield Event("NodeAvoided", f"new pods prefer other nodes for an hour: {note}", "Warning")


def _pool(old: Json, new: Json) -> Iterator[Event]:
    if new.get("reason") == "PoolDiffers" and old.get("message") != new["message"]:
        yield Event("PoolDiffers", new["message"], "Warning")


def _stuck(old: Json, new: Json) -> Iterator[Event]:
    was, now = _aspect(old, "Stuck"), _aspect(new, "Stuck")
    if was.get("reason") == now.get("reason"):
        return
    since = f"since {now.get('lastTransitionTime')}: {now.get('message')}"
    if now.get("reason") == STAYS_BLOCKED:
        yield Event("Stuck", since, "Warning")
    elif now.get("reason") == STAYS_SILENT:
        yield Event("QueueSilent", since, "Warning")
    # Otherwise the event of the new phase is enough.
    elif was.get("reason") in (STAYS_BLOCKED, STAYS_SILENT) and now.get("status") == "False" and _same(old, new):
        yield Event("Moving", "the run makes progress again")


def _evaluation(old: Json, new: Json) -> Iterator[Event]:
    """Each phase of the evaluation; a refusal may change with every try, and is reported once."""
    was, now = _aspect(old, "Evaluated").get("reason"), _aspect(new, "Evaluated").get("reason")
    told = new.get("evaluation") or {}
    another = (old.get("evaluation") or {}).get("job") != told.get("job")
    if told and (was != now or another):
        yield Event(f"Evaluation{now}", told["message"], "Warning" if now in ("Failed", *_UNWRITTEN) else "Normal")


def _word(status: Json) -> str:
    """The phase, or why its objects are not written."""
    why = _aspect(status, "Progressing").get("reason")
    return str(why if why in _UNWRITTEN else status.get("phase", ""))


def _same(old: Json, new: Json) -> bool:
    return _word(old) == _word(new)


def _aspect(status: Json, kind: str) -> Json:
    return conditions({"status": status}).get(kind, {})
