"""Learner and engines of a run as one admission of Kueue: a Workload with a pod set for each kind of pod. Pure.

Kueue's own integrations admit a RayJob and a Deployment separately: each may hold GPUs that the other waits for. So the
operator does what such an integration does (Kueue 0.15 or newer, v1beta2): it makes the Workload, starts RayJob and
pool when it is admitted, and stops both and gives the quota back when it is evicted.

Invariants:
- neither RayJob nor pool has a label of Kueue, and neither runs without an admitted Workload;
- quota is given back only after the RayJob and the engines are gone;
- what is admitted is what runs: other pods need another admission, and the pool stays within the admitted number.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from golongrl.kubernetes.look.objects import conditions, holds
from golongrl.kubernetes.rayjob import site as rayjobs
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl_operator.api import CONTENT
from golongrl_operator.build import Meaning, most_engines, owned_by, pool
from golongrl_operator.conditions import Aspect, short, stamp

Json = Mapping[str, Any]

_API: Final = "kueue.x-k8s.io/v1beta2"
_ENGINES: Final = "engines"
_FOLLOWERS: Final = "engine-followers"
# Characters of the digest in a Workload's name, and of the name: it is a label too.
_SUFFIX: Final = 8
_LONGEST_NAME: Final = 63
# Reasons of an eviction after which Kueue puts a Workload into its queue at once; after others it decides when.
_AT_ONCE: Final = frozenset({"Preempted", "NodeFailures"})


@dataclass(frozen=True)
class AdmissionPlan:
    """What to do about the admission of one run."""

    hold: str = ""
    """Why the run may not train; empty if it may."""
    engines: int | None = None
    """Engines that are admitted; None is no limit."""
    apply: tuple[Manifest, ...] = ()
    delete: tuple[str, ...] = ()
    """Workloads to delete."""
    report: Mapping[str, Manifest] | None = None
    """Workload -> change of its status."""
    aspect: Aspect | None = None
    """Status, reason and message of the condition Admitted; None of a run without a queue."""


def workload(site: Site, run: Manifest, meaning: Meaning) -> Manifest:
    """The Workload of a run."""
    spec = meaning.spec
    sets = _pod_sets(site, run, meaning)
    metadata = run["metadata"]
    # Before the dash no name may end in a dot, where a long one may be cut.
    start = metadata["name"][: _LONGEST_NAME - _SUFFIX - 1].rstrip(".-")
    name = f"{start}-{rayjobs.digest(metadata['uid'])[:_SUFFIX]}"
    made: Manifest = {
        "apiVersion": _API,
        "kind": "Workload",
        "metadata": {
            "name": name,
            "labels": {},
            "annotations": {CONTENT: _content(sets, meaning.queue)},
            **({"namespace": site.namespace} if site.namespace else {}),
        },
        "spec": {"queueName": meaning.queue, "priority": spec.schedule.priority, "podSets": sets},
    }
    return owned_by(site, run, made)


def _pod_sets(site: Site, run: Manifest, meaning: Meaning) -> list[Manifest]:
    job = meaning.rayjob["spec"]
    sets = []
    if cluster := job.get("rayClusterSpec"):
        sets.append(_pod_set("head", cluster["headGroupSpec"]["template"], 1))
        for group in cluster.get("workerGroupSpecs", []):
            count = int(group.get("replicas", 1)) * int(group.get("numOfHosts", 1))
            sets.append(_pod_set(str(group["groupName"]).lower(), group["template"], count))
    if job.get("submitterPodTemplate"):
        sets.append(_pod_set("submitter", job["submitterPodTemplate"], 1))
    most, least = most_engines(site, meaning.spec), meaning.spec.rollout.min_replicas or 1
    work = pool(site, run, meaning, most)[1] if meaning.dedicated else site.pool.workload
    if group := work["spec"].get("leaderWorkerTemplate"):
        sets.append(_pod_set(_ENGINES, group["leaderTemplate"], most))
        sets.append(_pod_set(_FOLLOWERS, group["workerTemplate"], most * (int(group["size"]) - 1)))
        return sets
    engines = _pod_set(_ENGINES, work["spec"]["template"], most)
    # Kueue may admit fewer engines (its gate PartialAdmission); without that it ignores the key.
    return [*sets, engines | ({"minCount": least} if meaning.spec.rollout.max_replicas and least < most else {})]


def _pod_set(name: str, template: Json, count: int) -> Manifest:
    metadata = {key: template.get("metadata", {})[key] for key in _METADATA if key in template.get("metadata", {})}
    return {"name": name, "count": count, "template": {"metadata": metadata, "spec": template["spec"]}}


# A pod set has no other metadata.
_METADATA: Final = ("labels", "annotations")


def _content(sets: Sequence[Manifest], queue: str) -> str:
    """Hash of what an admission is for, except how many engines: they stay within what is admitted."""
    kept = [
        {key: value for key, value in one.items() if key != "minCount"}
        | ({"count": 0} if one["name"] in (_ENGINES, _FOLLOWERS) else {})
        for one in sets
    ]
    return rayjobs.digest(json.dumps([kept, queue], sort_keys=True))[:16]


def plan_admission(
    site: Site,
    run: Manifest,
    meaning: Meaning,
    found: Sequence[Manifest],
    wants: bool,
    stopped: bool,
    now: datetime,
) -> AdmissionPlan:
    """What to do.

    Args:
        found: Workloads of the run.
        wants: the run would train if it were admitted.
        stopped: it has no RayJob that may hold nodes, and no engines.
    """
    live = {item["metadata"]["name"]: item for item in found if "deletionTimestamp" not in item["metadata"]}
    queue = meaning.queue
    if not queue:
        return AdmissionPlan(delete=tuple(live))
    if not wants:
        return AdmissionPlan(delete=tuple(live) if stopped else (), aspect=("False", "NotQueued", ""))
    made = workload(site, run, meaning)
    name = made["metadata"]["name"]
    others = tuple(other for other in live if other != name)
    if name not in live:
        leaving = any(item["metadata"]["name"] == name for item in found)
        told = f"Kueue: Workload {name} is being deleted" if leaving else f"Kueue: queueing Workload {name} in {queue}"
        return AdmissionPlan(told, apply=() if leaving else (made,), delete=others, aspect=("False", "Pending", told))
    return replace(_judge(made, live[name], queue, stopped, now), delete=others or _outdated(made, live[name], stopped))


def _outdated(made: Manifest, live: Manifest, stopped: bool) -> tuple[str, ...]:
    """A Workload cannot be changed while it has quota, so that another one takes its place."""
    if not stopped or (_content_of(made) == _content_of(live) and (_holds(live) or made["spec"] == _asked(made, live))):
        return ()
    return (str(live["metadata"]["name"]),)


def _asked(made: Manifest, live: Manifest) -> Manifest:
    """The keys of `made` as the Workload has them, but for the pods, which Kubernetes fills with defaults."""
    counts = {one["name"]: one.get("count") for one in live["spec"].get("podSets", [])}
    sets = [one | {"count": counts.get(one["name"])} for one in made["spec"]["podSets"]]
    return {"queueName": live["spec"].get("queueName"), "priority": live["spec"].get("priority"), "podSets": sets}


def _judge(made: Manifest, live: Manifest, queue: str, stopped: bool, now: datetime) -> AdmissionPlan:
    name = live["metadata"]["name"]
    evicted, admitted, reserved = (conditions(live).get(kind, {}) for kind in ("Evicted", "Admitted", "QuotaReserved"))
    if evicted.get("status") == "True":
        told = short(f"Kueue evicted Workload {name} ({evicted.get('reason')}): {evicted.get('message', '')}")
        report = {name: _given_back(live, evicted, now)} if stopped and _holds(live) else None
        return AdmissionPlan(told, report=report, aspect=("False", str(evicted.get("reason", "Evicted")), told))
    if _content_of(made) != _content_of(live):
        told = f"Kueue: what the run needs has changed: Workload {name} is made again"
        return AdmissionPlan(told, aspect=("False", "Changed", told))
    if admitted.get("status") != "True":
        why = reserved.get("message") or admitted.get("message") or "it is in the queue"
        told = short(f"Kueue's queue {queue} has not admitted Workload {name}: {why}")
        return AdmissionPlan(told, aspect=("False", str(reserved.get("reason", "Pending")), told))
    found = (live.get("status") or {}).get("admission") or {}
    counts = {one["name"]: one.get("count") for one in found.get("podSetAssignments", [])}
    asked = {one["name"]: one.get("count", 1) for one in live["spec"].get("podSets", [])}
    engines = int(counts.get(_ENGINES) or asked.get(_ENGINES, 0))
    told = f"Workload {name} is admitted by {found.get('clusterQueue', queue)} with {engines} engines"
    return AdmissionPlan(engines=engines, aspect=("True", "Admitted", told))


def pods_ready(live: Sequence[Manifest], now: datetime) -> dict[str, Manifest]:
    """What Kueue is told once the run trains: without it, `waitForPodsReady` of Kueue would evict the Workload."""
    return {
        item["metadata"]["name"]: _with(item, now, ("PodsReady", "True", "Started", "the run trains"))
        for item in live
        if holds(item, "Admitted") and not holds(item, "Evicted") and not holds(item, "PodsReady")
    }


def _given_back(live: Manifest, evicted: Json, now: datetime) -> Manifest:
    """The status of an evicted Workload whose pods are gone: no quota, and in the queue again if Kueue would do so."""
    reason, message = str(evicted.get("reason", "Pending")), str(evicted.get("message", ""))
    requeued = "True" if reason in _AT_ONCE else "False"
    changed = _with(
        live,
        now,
        ("QuotaReserved", "False", "Pending", message),
        ("Admitted", "False", "NoReservation", "The workload has no reservation"),
        ("Requeued", requeued, reason, message),
        ("PodsReady", "False", "Stopped", "the run was stopped"),
    )
    return {**changed, "status": {**changed["status"], "admission": None}}


def _with(live: Manifest, now: datetime, *said: tuple[str, str, str, str]) -> Manifest:
    """A merge patch of the status that sets conditions; refused if the Workload was written meanwhile."""
    old = conditions(live)
    for kind, status, reason, message in said:
        was = old.get(kind, {})
        since = was["lastTransitionTime"] if was.get("status") == status else stamp(now)
        old[kind] = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": short(message),
            "lastTransitionTime": since,
            "observedGeneration": live["metadata"].get("generation", 0),
        }
    version = {key: live["metadata"][key] for key in ("resourceVersion",) if key in live["metadata"]}
    return {"metadata": version, "status": {"conditions": list(old.values())}}


def _holds(live: Manifest) -> bool:
    return holds(live, "QuotaReserved")


def _content_of(item: Manifest) -> str:
    return str((item["metadata"].get("annotations") or {}).get(CONTENT, ""))
