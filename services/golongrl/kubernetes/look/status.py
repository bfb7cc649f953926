"""What a release is doing, in lines: pods, processes, queue, and what is stuck. Pure: JSON in, text out.

Invariant: everything that holds the loop up is named with its pod or group; where nobody answered, that is said.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

# Seconds without progress after which a lease, or a process that should have reported, is worth a line.
SLOW_S = 120.0


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod as `kubectl get pods -o json` tells it."""

    name: str
    component: str
    phase: str
    ready: bool
    restarts: int
    trouble: str
    """Why it is not running well, empty if it is."""


def read_pods(listing: Json) -> list[Pod]:
    """The pods of a `kubectl get pods -o json`, sorted by component and name."""
    return sorted((_pod(item) for item in listing.get("items", [])), key=lambda pod: (pod.component, pod.name))


def _pod(item: Json) -> Pod:
    status = item.get("status", {})
    conditions = {entry["type"]: entry for entry in status.get("conditions", [])}
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    ready = conditions.get("Ready", {}).get("status") == "True"
    phase = status.get("phase", "Unknown")
    return Pod(
        name=item["metadata"]["name"],
        component=item["metadata"].get("labels", {}).get("app.kubernetes.io/component", "?"),
        phase=phase,
        ready=ready,
        restarts=sum(entry.get("restartCount", 0) for entry in containers),
        trouble="" if ready or phase == "Succeeded" else _trouble(phase, conditions, containers),
    )


def _trouble(phase: str, conditions: Mapping[str, Json], containers: Sequence[Json]) -> str:
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return f"not scheduled: {scheduled.get('message', scheduled.get('reason', ''))}"
    for entry in containers:
        waiting = entry.get("state", {}).get("waiting", {})
        if waiting and waiting.get("reason") not in (None, "PodInitializing", "ContainerCreating"):
            return f"{entry['name']}: {waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        ended = entry.get("state", {}).get("terminated", {}) or entry.get("lastState", {}).get("terminated", {})
        if ended and ended.get("exitCode"):
            return f"{entry['name']} ended with {ended['exitCode']} ({ended.get('reason', 'no reason')})"
    for entry in containers:
        if (
            "running" in entry.get("state", {})
            and not entry.get("ready")
            and entry["name"].startswith(("wait", "prepare", "download"))
        ):
            return f"{entry['name']} is running"
    unready = [entry["name"] for entry in containers if "running" in entry.get("state", {}) and not entry.get("ready")]
    return f"{', '.join(unready)} not ready" if unready else phase.lower()


def read_refusals(owners: Json, events: Json) -> list[str]:
    """Why a pod, or a Ray cluster, is not even there: the newest warning of each object that still lacks what it makes.

    Admission (Pod Security, quotas, a missing RuntimeClass) and KubeRay's validation refuse without a pod to look at.

    Args:
        owners: the release's ReplicaSets, StatefulSets, Jobs, RayJobs and RayClusters, as `kubectl get -o json` lists
            them.
        events: the namespace's warnings, listed alike.
    """
    lacking = {(item["kind"], item["metadata"]["name"]) for item in owners.get("items", []) if _lacks(item)}
    newest: dict[tuple[str, str], Json] = {}
    for event in sorted(events.get("items", []), key=_last_seen):
        about = event["involvedObject"]
        if (key := (about.get("kind", ""), about.get("name", ""))) in lacking:
            newest[key] = event
    return [
        f"{kind.lower()} {name}: {event.get('reason', '')}: {event.get('message', '')}"
        for (kind, name), event in sorted(newest.items())
    ]


def read_runs(runs: Json, release: str) -> list[str]:
    """TrainingRuns of a release that do not train and why, of a `kubectl get trainingruns -o json`."""
    found = []
    for item in runs.get("items", []):
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


def stuck(
    pods: Sequence[Pod], queue: Json | None, services: Sequence[Json] | None, refused: Sequence[str] = ()
) -> list[str]:
    """What holds the loop up, most telling first; empty when nothing does."""
    found: list[str] = []
    if queue is not None and queue.get("stopped"):
        found.append(f"the run is over ({queue['stopped']['reason']}): {queue['stopped']['detail']}")
    found += refused
    found += [f"pod {pod.name}: {pod.trouble}" for pod in pods if pod.trouble]
    # As many groups as eta allows lie ready: workers wait, and nothing is stuck while the learner works on them.
    doing = [service["fields"].get("doing", "") for service in services or [] if service["service"] == "learner"]
    learning = any(not words.startswith("waiting") for words in doing)
    for service in services or []:
        where = f"{service['service']} {service['id']}"
        waits = service["fields"].get("waiting_for")
        if waits and not (learning and waits.startswith("full:")):
            found.append(f"{where} waits for {waits}")
        if service["fields"].get("phase") == "quarantined":
            found.append(f"{where}: its engine is quarantined")
    if queue is None:
        return [*found, "the queue: nobody could be asked (no running worker or learner answered)"]
    blocking = queue.get("blocking")
    if blocking and blocking["progress_age_s"] > SLOW_S:
        found.append(
            f"the next batch waits for group {blocking['uid']} on {blocking['worker']}, "
            f"without progress for {blocking['progress_age_s']:.0f} s"
        )
    if queue["bytes"] + queue["reserved_bytes"] >= queue["max_bytes"]:
        found.append("the queue is full: no lease until the learner's next checkpoint frees its batches")
    return found


def lines(
    pods: Sequence[Pod] | None, queue: Json | None, services: Sequence[Json] | None, refused: Sequence[str] = ()
) -> Iterator[str]:
    """The whole picture; `pods` is None outside a cluster."""
    if pods is not None:
        yield f"{'POD':<52} {'PART':<9} {'READY':<6} {'RESTARTS':<9} STATE"
        for pod in pods:
            state = pod.trouble or pod.phase.lower()
            yield f"{pod.name:<52} {pod.component:<9} {'yes' if pod.ready else 'no':<6} {pod.restarts:<9} {state}"
        yield ""
    for service in services or []:
        fields = ", ".join(f"{name} {value}" for name, value in sorted(service["fields"].items()) if value != "")
        yield f"{service['service']} {service['id']}: {fields} (said so {service['age_s']:.0f} s ago)"
    if queue is not None:
        yield (
            f"queue: version {queue['version']} (checkpoint {queue['committed']}), leased {queue['leased']}, "
            f"ready {queue['ready']} of B = {queue['groups_per_step']}, "
            f"in batches {queue['in_batches']}, checkpointed {queue['trained']} of {queue['rows']} rows, "
            f"rejected {queue['rejected']}, "
            f"{queue['bytes'] / 2**20:.1f} MiB of {queue['max_bytes'] / 2**20:.0f}"
        )
        behind = ", ".join(f"{count} by {late}" for late, count in sorted(queue["staleness"].items())) or "none"
        yield f"staleness: groups behind now: {behind}; bound eta = {queue['max_staleness']}"
    problems = stuck(pods or (), queue, services, refused)
    yield ""
    yield from (f"stuck: {problem}" for problem in problems)
    if not problems:
        yield "nothing is stuck"
