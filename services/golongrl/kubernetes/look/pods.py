"""Pods, and why one does not run well. Pure: the API server's JSON in."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

# What a pod is among the pods of one controller.
_ROLES = ("ray.io/node-type", "ray.io/group", "batch.kubernetes.io/job-completion-index")


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod, as its API object describes it."""

    name: str
    component: str
    phase: str
    ready: bool
    restarts: int
    trouble: str
    """Why it is not running well; empty if it is, or if it was replaced."""
    ended: str = ""
    """How it ended, if another pod has replaced it."""
    ray_head: str = ""
    """The pod's uid, if it is the head of a Ray cluster."""


def read_pods(items: Iterable[Json]) -> list[Pod]:
    """The pods of a list, sorted by component and name."""
    items = list(items)
    replaced = {item["metadata"]["name"] for item in _replaced(items)}
    pods = (_pod(item, item["metadata"]["name"] in replaced) for item in items)
    return sorted(pods, key=lambda pod: (pod.component, pod.name))


def _replaced(items: Sequence[Json]) -> Iterator[Json]:
    """Dead pods whose owner has made a newer one: that one counts, as a Job's retry or after an eviction."""
    newest: dict[str, str] = {}
    for item in items:
        owner, made = _owner(item), item["metadata"].get("creationTimestamp", "")
        newest[owner] = max(newest.get(owner, ""), made)
    for item in items:
        owner, made = _owner(item), item["metadata"].get("creationTimestamp", "")
        if owner and _phase(item) == "Failed" and made < newest[owner]:
            yield item


def _owner(item: Json) -> str:
    """The controller, and what the pod is to it: pods of another group, or of another index, do not replace it."""
    owners, labels = item["metadata"].get("ownerReferences") or [], item["metadata"].get("labels") or {}
    roles = (labels.get(key, "") for key in _ROLES)
    return next((" ".join([owner["uid"], *roles]) for owner in owners if owner.get("controller")), "")


def _phase(item: Json) -> str:
    return str(item.get("status", {}).get("phase", "Unknown"))


def _pod(item: Json, replaced: bool) -> Pod:
    status, labels = item.get("status", {}), item["metadata"].get("labels") or {}
    conditions = {entry["type"]: entry for entry in status.get("conditions") or []}
    containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
    ready = conditions.get("Ready", {}).get("status") == "True"
    phase = _phase(item)
    trouble = "" if ready or phase == "Succeeded" else _trouble(status, conditions, containers)
    if trouble and "deletionTimestamp" in item["metadata"]:
        trouble = f"is being deleted since {item['metadata']['deletionTimestamp']}"
    return Pod(
        name=item["metadata"]["name"],
        component=labels.get("app.kubernetes.io/component", "?"),
        phase=phase,
        ready=ready,
        restarts=sum(entry.get("restartCount", 0) for entry in containers),
        trouble="" if replaced else trouble,
        ended=trouble if replaced else "",
        ray_head=str(item["metadata"].get("uid", "")) if labels.get("ray.io/node-type") == "head" else "",
    )


def _trouble(status: Json, conditions: Mapping[str, Json], containers: Sequence[Json]) -> str:
    phase = str(status.get("phase", "Unknown"))
    # Evicted, Preempting, NodeLost: of the pod as a whole.
    if phase == "Failed" and status.get("reason"):
        return f"{status['reason']}: {status.get('message', '')}".rstrip(": ")
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', scheduled.get('reason', ''))}"
    for entry in containers:
        if why := _container_trouble(entry):
            return why
    # An init container that runs is what the pod waits for; a native sidecar runs beside the others.
    for entry in containers:
        waits = entry["name"].startswith(("wait", "prepare", "download"))
        if waits and "running" in entry.get("state", {}) and not entry.get("ready"):
            return f"{entry['name']} is running"
    unready = [entry["name"] for entry in containers if "running" in entry.get("state", {}) and not entry.get("ready")]
    return f"{', '.join(unready)} not ready" if unready else phase.lower()


def _container_trouble(entry: Json) -> str:
    waiting = entry.get("state", {}).get("waiting", {})
    ended = entry.get("state", {}).get("terminated", {}) or entry.get("lastState", {}).get("terminated", {})
    how = f"{entry['name']} ended with {ended['exitCode']} ({ended.get('reason', 'no reason')})" if ended else ""
    if waiting.get("reason") == "CrashLoopBackOff" and how:
        return f"{how} and restarts after a pause, restart {entry.get('restartCount', 0)}"
    if waiting and waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
        return f"{entry['name']}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    return how if ended.get("exitCode") else ""
