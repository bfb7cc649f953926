"""Nodes that ran short of memory or disk, and how new pods avoid them. Pure.

The operator may not read nodes. What it sees are pods that the kubelet has evicted because their node ran short. The
kubelet keeps other pods away while that lasts (5 minutes after the last sign of it), and then the node fills up again.

Invariants (tests/operators/test_nodes.py):
- a pod that used more than its own limit says nothing about its node;
- a node is avoided for `AVOIDED_S` after its last eviction, and at most `MOST` are;
- nodes are avoided by preference: pods that fit nowhere else still run there.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.site import Manifest
from golongrl_operator.api import AvoidedNode
from golongrl_operator.conditions import seconds_since, short

# The kubelet itself reports a shortage for minutes only; what caused it comes back within the hour.
AVOIDED_S: Final = 3600.0
# They are in the status and in every pod's affinity, which are bounded.
MOST: Final = 16
# The largest weight that the scheduler takes.
_WEIGHT: Final = 100


def avoided(pods: Iterable[Pod], status: Mapping[str, Any], now: datetime) -> list[AvoidedNode]:
    """The nodes to avoid now, the latest eviction first.

    Args:
        status: of the run at the last pass; a pod that was evicted may be gone by now.
    """
    known = [AvoidedNode.model_validate(one) for one in status.get("avoidedNodes") or []]
    seen = [
        AvoidedNode(node=pod.node, time=pod.pressure_at, reason=short(f"pod {pod.name}: {pod.pressure}"))
        for pod in pods
        if pod.node and pod.pressure and pod.pressure_at
    ]
    found: dict[str, AvoidedNode] = {}
    # What is known already comes first, so that a pass over the same pods writes the same status.
    for one in sorted([*known, *seen], key=lambda one: datetime.fromisoformat(one.time), reverse=True):
        if 0 <= seconds_since(one.time, now) < AVOIDED_S:
            found.setdefault(one.node, one)
    return list(found.values())[:MOST]


def avoid(templates: Iterable[Manifest], nodes: Sequence[AvoidedNode]) -> None:
    """Let the pods of these templates prefer other nodes."""
    if not nodes:
        return
    # By name, because the label with the host's name may have another value. A field takes one value for each entry.
    fields = [
        {"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in sorted(one.node for one in nodes)
    ]
    term = {"weight": _WEIGHT, "preference": {"matchFields": fields}}
    for template in templates:
        affinity = dict(template["spec"].get("affinity") or {})
        node = dict(affinity.get("nodeAffinity") or {})
        preferred = [*(node.get("preferredDuringSchedulingIgnoredDuringExecution") or []), term]
        node["preferredDuringSchedulingIgnoredDuringExecution"] = preferred
        template["spec"]["affinity"] = affinity | {"nodeAffinity": node}
