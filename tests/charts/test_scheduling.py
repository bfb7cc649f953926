"""The paper's layouts on 16 nodes of 8 GPUs, placed as Kubernetes' scheduler does: pod after pod, spread."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from support.chart_values import PRESETS, SGLANG
from support.helm import Helm, Manifest, Rendered, containers

NODES, GPUS = 16, 8


@dataclass
class Pod:
    """What counts for its place: labels, GPUs, and whether it must share a domain with others."""

    labels: dict[str, str]
    gpus: int
    near: dict[str, str] | None


@dataclass
class Node:
    pods: list[Pod] = field(default_factory=list)

    @property
    def free(self) -> int:
        return GPUS - sum(pod.gpus for pod in self.pods)


def pods(objects: Rendered) -> Iterator[Pod]:
    """The GPU pods in the order in which helm creates their owners: a Deployment before any custom resource."""
    engines = objects.one("Deployment", "-rollout")["spec"]
    (ranks,) = objects.one("RayJob")["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    # KubeRay labels what it makes by its group.
    for owner, own in ((engines, {}), (ranks, {"ray.io/group": ranks["groupName"]})):
        metadata, spec = owner["template"]["metadata"], owner["template"]["spec"]
        gpus = sum(int(item["resources"]["limits"].get("nvidia.com/gpu", 0)) for item in containers(spec))
        for _ in range(owner["replicas"]):
            yield Pod({**metadata["labels"], **own}, gpus, _near(spec))


def _near(spec: Manifest) -> dict[str, str] | None:
    terms = spec.get("affinity", {}).get("podAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution", [])
    assert all(term["topologyKey"] == "kubernetes.io/os" for term in terms)  # one domain: the cluster
    return terms[0]["labelSelector"]["matchLabels"] if terms else None


def place(waiting: list[Pod], nodes: list[Node]) -> list[Pod]:
    """Places what fits, again and again as the scheduler does; returns what stays pending."""
    while True:
        left = []
        for pod in waiting:
            placed = [other for node in nodes for other in node.pods]
            allowed = pod.near is None or any(pod.near.items() <= other.labels.items() for other in placed)
            fitting = [node for node in nodes if node.free >= pod.gpus]
            if allowed and fitting:
                max(fitting, key=lambda node: node.free).pods.append(pod)
            else:
                left.append(pod)
        if len(left) == len(waiting):
            return left
        waiting = left


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fits_its_nodes_and_the_ranks_get_whole_ones(helm4: Helm, preset: str) -> None:
    """Engines are created first. Spread over all nodes they would leave no whole one for a rank's pod, and wait for
    weights that the learner could never publish."""
    waiting = list(pods(helm4.template(files=(preset,))))
    assert sum(pod.gpus for pod in waiting) == NODES * GPUS
    nodes = [Node() for _ in range(NODES)]
    assert place(waiting, nodes) == []
    without = [Pod(pod.labels, pod.gpus, None) for pod in waiting]
    stuck = place(without, [Node() for _ in range(NODES)])
    assert {pod.labels["app.kubernetes.io/component"] for pod in stuck} == {"learner"}


def test_engines_wait_for_ranks_only_where_there_are_ranks_of_their_own(helm4: Helm) -> None:
    storage = {"storage": {"accessModes": ["ReadWriteMany"]}}
    learner = {"workers": {"replicas": 2, "gpus": 8}}
    ranks = {"recipe": {"learner": {"ranks": 16}}}
    for values, waits in (
        ({"learner": learner, **ranks}, True),
        ({"learner": {**learner, "enabled": False}, **ranks}, True),  # a RayJob submitted later has the same labels
        ({"learner": {**learner, "clusterSelector": "team-ray"}, **ranks}, False),
        ({}, False),
        ({"rollout": {"affinity": {"nodeAffinity": {}}}, "learner": learner, **ranks}, False),
    ):
        rollout = {**SGLANG["rollout"], **values.get("rollout", {})}  # type: ignore[attr-defined]
        objects = helm4.template({**values, **storage, "rollout": rollout})
        spec = objects.one("Deployment", "-rollout")["spec"]["template"]["spec"]
        assert (_near(spec) is not None) is waits, values
