"""A release as the cluster shows it: the calls under `golongrl status`."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

from golongrl.kubernetes import cluster
from golongrl.kubernetes.cluster import Cluster, ClusterMissingError, ObjectKind
from golongrl.kubernetes.kubeconfig import ClusterError
from golongrl.kubernetes.look.pods import Pod, read_pods
from golongrl.kubernetes.look.refusals import read_refusals, read_runs

# Containers that know the queue, in the order they are asked.
_ASKED: Final = (("rollout", "worker"), ("learner", "ray-head"), ("learner", "learner"))
_COMMAND: Final = ("golongrl", "status", "--json")
# What makes pods of the release, or makes what makes them. Not every cluster has the last kinds.
_OWNERS: Final[tuple[ObjectKind, ...]] = (cluster.REPLICA_SET, cluster.STATEFUL_SET, cluster.JOB)
_OTHER_OWNERS: Final[tuple[ObjectKind, ...]] = (cluster.RAY_JOB, cluster.RAY_CLUSTER)


@dataclass(frozen=True)
class ReleaseLook:
    """The release's pods, and what prevents others."""

    pods: list[Pod]
    refused: list[str] = field(default_factory=list)


async def look(calls: Cluster, release: str) -> ReleaseLook:
    """One look at a release.

    Raises:
        ClusterError: the API server refused or did not answer, or there is nothing of that release.
    """
    chosen = f"app.kubernetes.io/instance={release}"
    lists = await asyncio.gather(
        calls.list_objects(cluster.POD, chosen),
        *(calls.list_objects(kind, chosen) for kind in _OWNERS),
        *(_list_if_known(calls, kind, chosen) for kind in _OTHER_OWNERS),
    )
    pods, owners = read_pods(lists[0]), [item for found in lists[1:] for item in found]
    if not pods and not owners:
        raise ClusterError(
            f"release {release}: nothing of it in namespace {calls.namespace}; `helm list -A` shows all releases"
        )
    events = await calls.list_objects(cluster.EVENT, fields="type=Warning")
    runs = await _list_if_known(calls, cluster.TRAINING_RUN)
    return ReleaseLook(pods, read_refusals(owners, events) + read_runs(runs, release))


async def ask(calls: Cluster, pods: Sequence[Pod]) -> dict[str, Any] | None:
    """Queue and processes, as a worker or the learner sees them; None if none of them answers."""
    for component, container in _ASKED:
        for pod in pods:
            if pod.component != component or pod.phase != "Running":
                continue
            with suppress(ClusterError):
                picture: dict[str, Any] = json.loads(await calls.execute(pod.name, container, _COMMAND))
                return picture
    return None


async def _list_if_known(calls: Cluster, kind: ObjectKind, labels: str | None = None) -> list[dict[str, Any]]:
    with suppress(ClusterMissingError):
        return await calls.list_objects(kind, labels)
    return []
