"""Pods, and why one does not run well. Pure: the API server's JSON and a clock's reading in.

Invariants: a pod that starts, or one of its containers again, is in trouble only past its deadline; a dead pod that was
replaced is not in trouble.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from golongrl.kubernetes.look import objects

Json = Mapping[str, Any]

_RUN: Final = "golongrl.io/training-run"
# What a pod is among the pods of one controller.
_ROLES: Final = ("ray.io/node-type", "ray.io/group", "batch.kubernetes.io/job-completion-index")
_TEMPLATE: Final = "pod-template-hash"
# A pod may take so long from its start until it is ready: a node is added, images are pulled and volumes attached. An
# engine also loads its model, for which the chart's startup probe allows 45 minutes; others download a model or prepare
# data first, or wait for who does.
_START_S: Final = 300.0
_LONG_START_S: Final = 45 * 60.0
# A container that was restarted so often is not only slow to start.
_RESTARTS: Final = 3
# How the kubelet begins to say that the node, and not the pod, used too much.
_SHORT: Final = "The node was low on resource"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod, as its API object describes it."""

    name: str
    component: str
    phase: str
    ready: bool
    restarts: int
    trouble: str
    """Why it is not running well; empty if it is, if it still starts, or if it was replaced."""
    starting: str = ""
    """What it does before it is ready."""
    ended: str = ""
    """How it ended, if another pod has replaced it."""
    ray_head: str = ""
    """UID and restarts of the pod, if it is the head of a Ray cluster: another value is another head."""
    run: str = ""
    """TrainingRun that it was made for; empty for the release's own pods."""
    follower: bool = False
    """Another rank of an engine that runs on several nodes; only the leader's worker reports to the queue."""
    last_words: str = ""
    """Termination message of its last container that ended, such as an evaluation's scores."""
    node: str = ""
    uid: str = ""
    """Another pod of that name, as a LeaderWorkerSet makes, has another one."""
    pressure: str = ""
    """Why the kubelet evicted it, if its node ran short of memory, disk or process ids."""
    pressure_at: str = ""
    """When."""


def read_pods(items: Iterable[Json], now: datetime | None = None) -> list[Pod]:
    """The pods of a list, sorted by component and name; `now` is for tests."""
    items, now = list(items), now or datetime.now(UTC)
    replaced = {item["metadata"]["name"] for item in _replaced(items)}
    pods = (_pod(item, item["metadata"]["name"] in replaced, now) for item in items)
    return sorted(pods, key=lambda pod: (pod.component, pod.name))


def _replaced(items: Sequence[Json]) -> Iterator[Json]:
    """Dead pods whose owner has made a newer one: that one counts, as a Job's retry or after an eviction."""
    newest: dict[str, tuple[str, bool]] = {}
    for item in items:
        owner = _owner(item)
        newest[owner] = max(newest.get(owner, ("", False)), _rank(item))
    for item in items:
        owner = _owner(item)
        if owner and _phase(item) == "Failed" and _rank(item) < newest[owner]:
            yield item


def _rank(item: Json) -> tuple[str, bool]:
    """When it was made. What a node turns away at once, and its successor, are made within one second."""
    return item["metadata"].get("creationTimestamp", ""), _phase(item) != "Failed"


def _owner(item: Json) -> str:
    """The controller, and what the pod is to it: pods of another group, or of another index, do not replace it.

    The ReplicaSets of a Deployment, whose names end in the hash of their template, are one.
    """
    owners, labels = item["metadata"].get("ownerReferences") or [], item["metadata"].get("labels") or {}
    owner = next((owner for owner in owners if owner.get("controller")), None)
    if owner is None:
        return ""
    template = labels.get(_TEMPLATE)
    whose = owner.get("name", "").removesuffix(f"-{template}") if template else owner.get("uid", "")
    return " ".join([whose, *(labels.get(key, "") for key in _ROLES)])


def _phase(item: Json) -> str:
    return str(item.get("status", {}).get("phase", "Unknown"))


def _pod(item: Json, replaced: bool, now: datetime) -> Pod:
    status, labels = item.get("status", {}), item["metadata"].get("labels") or {}
    conditions = objects.conditions(item)
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    ready = conditions.get("Ready", {}).get("status") == "True"
    phase, component = _phase(item), labels.get("app.kubernetes.io/component", "?")
    trouble = starting = ""
    if not ready and phase != "Succeeded":
        trouble = _trouble(status, conditions, containers)
        starting = "" if trouble else _unscheduled(conditions) or _step(containers) or _starting(phase, containers)
    if "deletionTimestamp" in item["metadata"]:
        trouble = objects.overdue(item["metadata"], _START_S, now)
        starting = "" if trouble else "is being deleted"
    elif starting:
        long = (component == "rollout" or _step(containers)) and not _unscheduled(conditions)
        if _age_s(item, containers, now) > (_LONG_START_S if long else _START_S):
            trouble, starting = starting, ""
    restarts = sum(entry.get("restartCount", 0) for entry in containers)
    pressure, pressure_at = _pressure(status, conditions)
    is_head = labels.get("ray.io/node-type") == "head"
    return Pod(
        name=item["metadata"]["name"],
        component=component,
        phase=phase,
        ready=ready,
        restarts=restarts,
        trouble="" if replaced else trouble,
        starting=starting,
        ended=trouble if replaced else "",
        run=labels.get(_RUN, ""),
        follower=labels.get("golongrl.io/role") == "follower",
        last_words=next((words for entry in reversed(containers) if (words := _last_words(entry))), ""),
        node=item.get("spec", {}).get("nodeName") or "",
        uid=item["metadata"].get("uid", ""),
        pressure=pressure,
        pressure_at=pressure_at,
        ray_head=f"{item['metadata'].get('uid', '')}/{restarts}" if is_head else "",
    )


def _last_words(entry: Json) -> str:
    return str((entry.get("state", {}).get("terminated") or {}).get("message", ""))


def _pressure(status: Json, conditions: Mapping[str, Json]) -> tuple[str, str]:
    """Why and when its node ran short, if it did. A pod over its own limit is evicted too, with other words."""
    target = conditions.get("DisruptionTarget", {})
    evicted = status.get("reason") == "Evicted" or (
        target.get("status") == "True" and target.get("reason") == "TerminationByKubelet"
    )
    why = str(status.get("message") or target.get("message") or "")
    if not evicted or _SHORT not in why:
        return "", ""
    times = [entry["lastTransitionTime"] for entry in conditions.values() if entry.get("lastTransitionTime")]
    return why, str(target.get("lastTransitionTime") or max(times, default=""))


def _age_s(item: Json, containers: Sequence[Json], now: datetime) -> float:
    """Since it, or what is not ready of it, began to start. A pod that does not tell is taken for old."""
    began = [item.get("status", {}).get("startTime") or item["metadata"].get("creationTimestamp")]
    for entry in containers:
        ended = entry.get("state", {}).get("terminated") or {}
        if ended.get("exitCode") == 0:
            # The next step began then.
            began.append(ended.get("finishedAt"))
        if not entry.get("ready") and entry.get("restartCount", 0) < _RESTARTS:
            began.append((entry.get("state", {}).get("running") or {}).get("startedAt"))
            began.append((entry.get("lastState", {}).get("terminated") or {}).get("finishedAt"))
    ages = [objects.age_s(time, now) for time in began if time]
    return min(ages, default=float("inf"))


def _trouble(status: Json, conditions: Mapping[str, Json], containers: Sequence[Json]) -> str:
    """What waiting alone does not end."""
    # Evicted, Preempting, NodeLost: of the pod as a whole.
    if status.get("phase") in ("Failed", "Unknown") and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    for entry in containers:
        if why := _container_trouble(entry):
            return why
    # Init containers that run are the sidecars, and those that the others wait for.
    up = [entry.get("ready") for entry in containers if "running" in entry.get("state", {})]
    if len(up) >= len(status.get("containerStatuses") or []) > 0 and all(up):
        why = conditions.get("Ready", {}).get("message") or "is its node lost?"
        return f"not ready, although its containers are: {why}"
    return "failed" if status.get("phase") == "Failed" else ""


def _unscheduled(conditions: Mapping[str, Json]) -> str:
    """Why it has no node yet: engines wait for the ranks to have theirs, others for a volume or a node to be added."""
    scheduled = conditions.get("PodScheduled", {})
    said = scheduled.get("message", scheduled.get("reason", ""))
    return f"not scheduled: {said}" if scheduled.get("status") == "False" else ""


def _step(containers: Sequence[Json]) -> str:
    """An init container that runs is what the pod waits for; a native sidecar runs beside the others."""
    for entry in containers:
        waits = entry["name"].startswith(("wait", "prepare", "download"))
        if waits and "running" in entry.get("state", {}) and not entry.get("ready"):
            return f"{entry['name']} is running"
    return ""


def _starting(phase: str, containers: Sequence[Json]) -> str:
    unready = [entry["name"] for entry in containers if "running" in entry.get("state", {}) and not entry.get("ready")]
    return f"{', '.join(unready)} not ready" if unready else phase.lower()


def _container_trouble(entry: Json) -> str:
    waiting = entry.get("state", {}).get("waiting") or {}
    ended = entry.get("state", {}).get("terminated") or entry.get("lastState", {}).get("terminated") or {}
    how = f"{entry['name']} ended with {ended['exitCode']} ({ended.get('reason', 'no reason')})" if ended else ""
    if waiting.get("reason") == "CrashLoopBackOff" and how:
        return f"{how}; it is restarted after a pause, {entry.get('restartCount', 0)} restarts so far"
    if waiting and waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
        return f"{entry['name']}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    # A container that runs again after a failure, or is about to, starts like any other.
    return how if ended.get("exitCode") and "terminated" in entry.get("state", {}) else ""
