"""Why a pod, a Ray cluster or a volume does not exist or is held back. Pure: the API server's JSON in, lines out."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from golongrl.kubernetes.kinds import KUEUE_QUEUE
from golongrl.kubernetes.look.objects import age_s, conditions, holds, overdue

Json = Mapping[str, Any]

# The clocks of those who write an event and of the API server, which writes when an object was made, may differ.
_SKEW_S: Final = 60.0
# KubeRay looks at a new RayJob within seconds.
_SEEN_S: Final = 300.0
# What a deleted object has made needs no longer to go, unless somebody has set a long grace period.
_GONE_S: Final = 900.0
# Parts without which nothing goes on, and which nobody but a person scales to zero.
_NEVER_ZERO: Final = frozenset({("StatefulSet", "redis"), ("Deployment", "operator")})


def read_refusals(owners: Iterable[Json], events: Iterable[Json]) -> list[str]:
    """Why each object still lacks what it makes: its newest warning, else what its own conditions say.

    Admission (Pod Security, quotas, a missing RuntimeClass) and KubeRay's validation refuse without a pod to look at.

    Args:
        owners: the release's Deployments, ReplicaSets, StatefulSets, LeaderWorkerSets, Jobs, RayJobs, RayClusters,
            ScaledObjects, claims and pods.
        events: the namespace's warnings.
    """
    owners = list(owners)
    older = {_key(item) for item in _learners(owners)[:-1]}
    lacking = {_key(item): item for item in owners if _lacks(item) and _key(item) not in older}
    told = {key: why for key, item in lacking.items() if (why := _own_words(item))}
    for event in sorted(events, key=_last_seen):
        if (key := _about(event, lacking)) and not _is_history(event, lacking[key]):
            told[key] = f"{event.get('reason', '')}: {event.get('message', '')}"
    return [f"{kind.lower()} {name}: {why}" for (kind, name), why in sorted(told.items())]


def _about(event: Json, lacking: Collection[tuple[str, str]]) -> tuple[str, str] | None:
    """Which of these it is about.

    A LeaderWorkerSet's pods are made by StatefulSets without its labels: one of its name, and NAME-N for each engine.
    """
    about = event.get("involvedObject") or {}
    kind, name = about.get("kind", ""), about.get("name", "")
    sets = ("LeaderWorkerSet", name), ("LeaderWorkerSet", re.sub(r"-[0-9]+$", "", name))
    keys = (kind, name), *(sets if kind == "StatefulSet" else ())
    return next((key for key in keys if key in lacking), None)


def _is_history(event: Json, item: Json) -> bool:
    """It is about an earlier object of this name, or what this one did before it was started again, or scheduled."""
    began = (item.get("status") or {}).get("startTime") or item["metadata"].get("creationTimestamp")
    seen = _last_seen(event)
    return bool(seen and began) and age_s(seen, datetime.fromisoformat(began)) > _SKEW_S


def _own_words(item: Json) -> str:
    """What it says of itself; an event is gone after an hour."""
    told = conditions(item)
    failure = told.get("ReplicaFailure", {})
    if failure.get("status") != "True":
        failure = told.get("Progressing", {}) if _has_no_replica_set(item) else {}
    return f"{failure.get('reason', '')}: {failure.get('message', '')}" if failure else ""


def read_stopped(owners: Iterable[Json], now: datetime | None = None) -> Iterator[str]:
    """What has no pods because somebody said so, was not seen by its operator, or should be gone by now.

    Args:
        now: for tests.
    """
    now = now or datetime.now(UTC)
    for item in owners:
        metadata, where = item["metadata"], f"{item['kind'].lower()} {item['metadata']['name']}"
        component = (metadata.get("labels") or {}).get("app.kubernetes.io/component", "")
        spec, status = item.get("spec") or {}, item.get("status") or {}
        if "deletionTimestamp" in metadata:
            if why := overdue(metadata, _GONE_S, now):
                yield f"{where}: {why}"
        elif (item["kind"], component) in _NEVER_ZERO and spec.get("replicas") == 0:
            yield f"{where}: has no pod, because its spec.replicas is 0"
        elif item["kind"] == "RayJob" and not spec.get("suspend") and not status.get("jobDeploymentStatus"):
            made = metadata.get("creationTimestamp")
            if made and age_s(made, now) > _SEEN_S:
                yield f"{where}: KubeRay has not looked at it since {made}: does it run, and watch this namespace?"


def read_claims(claims: Iterable[Json]) -> Iterator[str]:
    """Claims that will not be bound, as far as they say so themselves."""
    for item in claims:
        phase, name = (item.get("status") or {}).get("phase"), item["metadata"]["name"]
        if "deletionTimestamp" in item["metadata"]:
            yield f"persistentvolumeclaim {name}: is being deleted: it goes, with its data, once no pod uses it"
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
        queue = (item["metadata"].get("labels") or {}).get(KUEUE_QUEUE)
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
        done, failed = holds(newest, "Complete"), holds(newest, "Failed")
        end = conditions(newest).get("Failed", {})
        reason, message = end.get("reason", ""), end.get("message", "")
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


def _has_no_replica_set(item: Json) -> bool:
    return conditions(item).get("Progressing", {}).get("reason") == "ReplicaSetCreateError"


def _lacks(item: Json) -> bool:
    status = item.get("status") or {}
    if (item.get("spec") or {}).get("suspend"):
        return False
    match item["kind"]:
        case "ReplicaSet" | "StatefulSet":
            return int(status.get("replicas", 0)) < int(item["spec"].get("replicas", 1))
        case "LeaderWorkerSet":
            return int(status.get("readyReplicas", 0)) < int(item["spec"].get("replicas", 1))
        case "Deployment":
            # Of pods that may not be made its ReplicaSet says more.
            return _has_no_replica_set(item)
        case "Job":
            return not any(status.get(count) for count in ("active", "succeeded"))
        case "RayJob":
            return status.get("jobDeploymentStatus") not in ("Running", "Complete")
        case "RayCluster":
            # Once it was ready, KubeRay says so for ever.
            head = conditions(item).get("HeadPodReady", {}).get("status", "True")
            ranks = status.get("readyWorkerReplicas", 0) < status.get("desiredWorkerReplicas", 0)
            return status.get("state") != "ready" or head != "True" or ranks
        case "PersistentVolumeClaim":
            return status.get("phase") != "Bound"
        case "Pod":
            # The kubelet cannot mount a volume, or make the sandbox: no container says so.
            containers = [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]
            waiting = [(entry.get("state", {}).get("waiting") or {}).get("reason") for entry in containers]
            return bool(waiting) and set(waiting) <= {"ContainerCreating", "PodInitializing"}
        case "ScaledObject":
            return conditions(item).get("Ready", {}).get("status") == "False"
    return False


def _last_seen(event: Json) -> str:
    # RFC 3339 in UTC sorts as text.
    series = event.get("series") or {}
    return str(series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime") or "")
