"""Why a pod or a run does not even exist, or does not train. Pure: the API server's JSON in, lines out."""

from collections.abc import Iterable, Mapping
from typing import Any

Json = Mapping[str, Any]


def read_refusals(owners: Iterable[Json], events: Iterable[Json]) -> list[str]:
    """Why a pod, or a Ray cluster, is not even there: the newest warning of each object that still lacks what it makes.

    Admission (Pod Security, quotas, a missing RuntimeClass) and KubeRay's validation refuse without a pod to look at.

    Args:
        owners: the release's ReplicaSets, StatefulSets, Jobs, RayJobs and RayClusters, as `kubectl get -o json` lists
            them.
        events: the namespace's warnings, listed alike.
    """
    lacking = {(item["kind"], item["metadata"]["name"]) for item in owners if _lacks(item)}
    newest: dict[tuple[str, str], Json] = {}
    for event in sorted(events, key=_last_seen):
        about = event["involvedObject"]
        if (key := (about.get("kind", ""), about.get("name", ""))) in lacking:
            newest[key] = event
    return [
        f"{kind.lower()} {name}: {event.get('reason', '')}: {event.get('message', '')}"
        for (kind, name), event in sorted(newest.items())
    ]


def read_runs(runs: Iterable[Json], release: str) -> list[str]:
    """TrainingRuns of a release that do not train and why, of a `kubectl get trainingruns -o json`."""
    found = []
    for item in runs:
        status = item.get("status") or {}
        reasons = {entry.get("reason") for entry in status.get("conditions") or []}
        if item["spec"].get("release") != release:
            continue
        if status.get("phase") in ("Invalid", "Failed") or "Refused" in reasons:
            found.append(f"trainingrun {item['metadata']['name']}: {status['phase']}: {status.get('message', '')}")
    return found


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
    return False


def _last_seen(event: Json) -> str:
    # RFC 3339 in UTC sorts as text.
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
