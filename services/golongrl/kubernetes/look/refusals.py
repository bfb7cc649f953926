"""Why a pod, a Ray cluster or a volume does not exist or is held back. Pure: the API server's JSON in, lines out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

Json = Mapping[str, Any]

_KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"


def read_refusals(owners: Iterable[Json], events: Iterable[Json]) -> list[str]:
    """The newest warning of each object that still lacks what it makes.

    Admission (Pod Security, quotas, a missing RuntimeClass) and KubeRay's validation refuse without a pod to look at.

    Args:
        owners: the release's ReplicaSets, StatefulSets, Jobs, RayJobs, RayClusters, ScaledObjects, claims and pods.
        events: the namespace's warnings.
    """
    owners = list(owners)
    older = {_key(item) for item in _learners(owners)[:-1]}
    lacking = {_key(item) for item in owners if _lacks(item)} - older
    newest: dict[tuple[str, str], Json] = {}
    for event in sorted(events, key=_last_seen):
        about = event.get("involvedObject") or {}
        if (key := (about.get("kind", ""), about.get("name", ""))) in lacking:
            newest[key] = event
    return [
        f"{kind.lower()} {name}: {event.get('reason', '')}: {event.get('message', '')}"
        for (kind, name), event in sorted(newest.items())
    ]


def read_claims(claims: Iterable[Json]) -> Iterator[str]:
    """Claims that will not be bound, as far as they say so themselves."""
    for item in claims:
        phase, name = (item.get("status") or {}).get("phase"), item["metadata"]["name"]
        if phase == "Lost":
            yield f"persistentvolumeclaim {name}: Lost: its volume no longer exists"
        if phase == "Pending" and item["spec"].get("storageClassName") is None:
            yield f"persistentvolumeclaim {name}: Pending without a StorageClass: the cluster has no default one"


def read_held(owners: Iterable[Json]) -> Iterator[str]:
    """Jobs that are suspended: by a gang scheduler's queue, or by a person."""
    for item in owners:
        suspended = item["kind"] in ("RayJob", "Job") and (item.get("spec") or {}).get("suspend")
        # An owner's Job or cluster is suspended with it.
        if not suspended or item["metadata"].get("ownerReferences"):
            continue
        queue = (item["metadata"].get("labels") or {}).get(_KUEUE_QUEUE)
        why = f"Kueue's queue {queue} has not admitted it" if queue else "spec.suspend is set"
        yield f"{item['kind'].lower()} {item['metadata']['name']} is suspended: {why}"


def learner_end(owners: Iterable[Json]) -> tuple[str, str]:
    """How the newest learner's job ended: that it is done, or why it failed; both empty while it runs.

    Older jobs do not count, as those of a TrainingRun, whose own status says more.
    """
    jobs = _learners(owners)
    if not jobs:
        return "", ""
    newest = jobs[-1]
    where, status = f"{newest['kind'].lower()} {newest['metadata']['name']}", newest.get("status") or {}
    if newest["kind"] == "Job":
        ended = {entry["type"]: entry for entry in status.get("conditions") or [] if entry.get("status") == "True"}
        done, failed = "Complete" in ended, ended.get("Failed", {})
        reason, message = failed.get("reason", ""), failed.get("message", "")
    else:
        deployment, result = status.get("jobDeploymentStatus", ""), status.get("jobStatus", "")
        done = deployment == "Complete" and result == "SUCCEEDED"
        failed = deployment in ("Failed", "ValidationFailed", "Complete") and not done
        reason, message = status.get("reason") or result or deployment, " ".join(status.get("message", "").split())
    if done:
        return f"done: {where} is complete", ""
    return "", f"{where} failed: {reason}: {message}".rstrip(": ") if failed else ""


def _key(item: Json) -> tuple[str, str]:
    return item["kind"], item["metadata"]["name"]


def _learners(owners: Iterable[Json]) -> list[Json]:
    """The learner's jobs, the newest last: it is the one that counts."""
    jobs = [item for item in owners if item["kind"] in ("RayJob", "Job") and _is_learner(item)]
    return sorted(jobs, key=lambda item: str(item["metadata"].get("creationTimestamp", "")))


def _is_learner(item: Json) -> bool:
    metadata = item["metadata"]
    learner = (metadata.get("labels") or {}).get("app.kubernetes.io/component") == "learner"
    return learner and not metadata.get("ownerReferences")


def _lacks(item: Json) -> bool:
    status = item.get("status") or {}
    match item["kind"]:
        case "ReplicaSet" | "StatefulSet":
            return int(status.get("replicas", 0)) < int(item["spec"].get("replicas", 1))
        case "Job":
            return not any(status.get(count) for count in ("active", "succeeded"))
        case "RayJob":
            return status.get("jobDeploymentStatus") not in ("Running", "Complete")
        case "RayCluster":
            return status.get("state") != "ready"
        case "PersistentVolumeClaim":
            return status.get("phase") != "Bound"
        case "Pod":
            # The kubelet cannot mount a volume, or make the sandbox: no container says so.
            containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
            waiting = [(entry.get("state", {}).get("waiting") or {}).get("reason") for entry in containers]
            return bool(waiting) and set(waiting) <= {"ContainerCreating", "PodInitializing"}
        case "ScaledObject":
            conditions = {entry["type"]: entry["status"] for entry in status.get("conditions") or []}
            return conditions.get("Ready") == "False"
    return False


def _last_seen(event: Json) -> str:
    # RFC 3339 in UTC sorts as text.
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
