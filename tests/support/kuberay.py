"""What KubeRay 1.7's operator refuses of a RayJob beyond its CRD.

The API server stores such a job, the operator only writes an event and the job waits for ever. The rules are those of
the operator's validation of RayJob and RayCluster as far as the chart and its values can reach them.
"""

import re
from collections.abc import Iterator
from typing import Any

from support.helm import Manifest

# RayJob names grow by suffixes of the clusters, pods and services made from them.
LONGEST_NAME = 47
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
# Set in the head's container they switch on Ray's own fault tolerance, or contradict it.
_REDIS_ENV = {"RAY_REDIS_ADDRESS", "REDIS_USERNAME"}
_RESOURCE_PARAMETERS = {"num-cpus", "num-gpus", "memory", "resources"}


def refusals(job: Manifest) -> list[str]:
    """What the operator would write in its event, in our words; empty where it takes the job."""
    name, spec = job["metadata"]["name"], job["spec"]
    found = []
    if len(name) > LONGEST_NAME or not _DNS_1035.fullmatch(name):
        found.append(f"metadata.name {name}: no DNS-1035 label of at most {LONGEST_NAME}")
    found += [f"spec: {rule}" for rule in _job(spec)]
    if "rayClusterSpec" in spec:
        found += [f"spec.rayClusterSpec: {rule}" for rule in _cluster(spec["rayClusterSpec"])]
    return found


def _job(spec: Manifest) -> Iterator[str]:
    mode, own = spec.get("submissionMode", "K8sJobMode"), not spec.get("clusterSelector")
    shutdown, strategy = spec.get("shutdownAfterJobFinishes", False), spec.get("deletionStrategy")
    if spec.get("suspend") and not (shutdown and own):
        yield "suspend needs shutdownAfterJobFinishes and a cluster of its own"
    if spec.get("ttlSecondsAfterFinished", 0) and not shutdown:
        yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if strategy and strategy.get("deletionRules") and shutdown:
        yield "deletionRules exclude shutdownAfterJobFinishes"
    if own and "rayClusterSpec" not in spec:
        yield "neither rayClusterSpec nor clusterSelector"
    if not own:
        if not spec["clusterSelector"].get("ray.io/cluster"):
            yield "clusterSelector names no ray.io/cluster"
        if mode == "SidecarMode":
            yield "clusterSelector excludes SidecarMode"
        if spec.get("backoffLimit"):
            yield "clusterSelector excludes backoffLimit"
    if mode == "InteractiveMode" and spec.get("backoffLimit"):
        yield "InteractiveMode excludes backoffLimit"
    if mode == "SidecarMode":
        for key in ("submitterPodTemplate", "submitterConfig"):
            if key in spec:
                yield f"SidecarMode excludes {key}"
        if _restarts(spec.get("rayClusterSpec", {}).get("headGroupSpec")):
            yield "SidecarMode needs a head that is never restarted"
    for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if key in spec and spec[key] <= 0:
            yield f"{key} must be positive"
    if spec.get("backoffLimit", 0) < 0:
        yield "backoffLimit must not be negative"


def _restarts(group: Any) -> bool:
    return bool(group) and group["template"]["spec"].get("restartPolicy", "Never") != "Never"


def _cluster(spec: Manifest) -> Iterator[str]:
    head, workers = spec["headGroupSpec"], spec.get("workerGroupSpecs", [])
    scaled = spec.get("enableInTreeAutoscaling", False)
    for group in (head, *workers):
        name = group.get("groupName", "head")
        if not group["template"]["spec"]["containers"]:
            yield f"{name} has no container"
        if group.get("resources") and _RESOURCE_PARAMETERS & group.get("rayStartParams", {}).keys():
            yield f"{name} gives resources twice"
        if "labels" in group.get("rayStartParams", {}):
            yield f"{name} gives labels to ray start"
    for group in workers:
        least, most = group.get("minReplicas"), group.get("maxReplicas")
        if not scaled and (least is None or most is None):
            yield f"{group['groupName']} needs minReplicas and maxReplicas"
        elif (least or 0) > (most or 0):
            yield f"{group['groupName']} has minReplicas above maxReplicas"
        if scaled and group.get("suspend"):
            yield f"{group['groupName']} is suspended beside the autoscaler"
    names = {entry["name"]: entry.get("value") for entry in head["template"]["spec"]["containers"][0].get("env", [])}
    if "gcsFaultToleranceOptions" not in spec and _REDIS_ENV & names.keys():
        yield f"the head sets {', '.join(sorted(_REDIS_ENV & names.keys()))} without gcsFaultToleranceOptions"
    if not scaled and names.get("RAY_enable_autoscaler_v2") in ("1", "true"):
        yield "the head switches on an autoscaler that the cluster does not have"
    for key in ("upgradeStrategy", "networkPolicy", "tlsOptions", "historyServerOptions"):
        # The first belongs to clusters that people make, the others to feature gates that are off.
        if key in spec:
            yield f"{key} is not for a RayJob's cluster"
