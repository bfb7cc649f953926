"""The CustomResourceDefinition of TrainingRun, kept at the chart's version by `golongrl deploy`.

Helm 3 never changes a CRD that exists. Helm 4 applies it at an install, also over a newer one, and stops where kubectl
has applied another version before. Neither brings it at an upgrade, as when the operator is switched on in an existing
release. So helm is told to leave it alone.
"""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from golongrl.kubernetes import kinds
from golongrl.kubernetes.cluster import Cluster, connect
from golongrl.kubernetes.cluster_errors import ClusterError, ClusterForbiddenError, ClusterMissingError
from golongrl.kubernetes.helm import rendered
from golongrl.kubernetes.look.objects import holds

# Helm's own field manager: a later `helm install` without us meets no conflict.
_MANAGER: Final = "helm"
_FILE: Final = Path("charts", "crds", "crds", "trainingruns.golongrl.io.yaml")
# The API server serves a new kind within a second or two: looked at five times a second, for half a minute.
_LOOK_S: Final = 0.2
_LOOKS: Final = 150


def keep_definition(chart: Path, namespace: str, context: str | None) -> str:
    """Apply the chart's definition, whoever applied another one; what a person should know of it, or nothing.

    Raises:
        ClusterError: the API server refused it, or did not answer.
    """
    [definition] = rendered((chart / _FILE).read_text("utf-8"))
    return asyncio.run(_keep(definition, namespace, context))


async def _keep(definition: dict[str, Any], namespace: str, context: str | None) -> str:
    async with connect(namespace, context, _MANAGER) as calls:
        if newer := await _only_there(calls, definition):
            # The API server drops what a definition does not have from runs of other releases.
            return f"the CustomResourceDefinition is newer than this chart's, and was left as it is: it has {newer}"
        try:
            await calls.apply(kinds.DEFINITION, definition, force=True)
        except ClusterForbiddenError as error:
            # A namespace's administrator may not write it; an administrator of the cluster may have.
            return f"the CustomResourceDefinition was not updated: {error}"
        await _served(calls, definition["metadata"]["name"])
    return ""


async def _only_there(calls: Cluster, mine: Mapping[str, Any]) -> str:
    """A key that the cluster's definition has and this one has not, if it lacks none of this one's; else empty."""
    try:
        there = set(_keys(await calls.get(kinds.DEFINITION, mine["metadata"]["name"])))
    except (ClusterMissingError, ClusterForbiddenError):
        return ""
    here = set(_keys(mine))
    return min(there - here) if here < there else ""


def _keys(definition: Mapping[str, Any]) -> Iterator[str]:
    """Keys of a TrainingRun, as paths."""

    def walk(node: Any, path: str) -> Iterator[str]:
        for key, part in (node.get("properties") or {}).items():
            yield f"{path}.{key}"
            yield from walk(part, f"{path}.{key}")
        for inside in ("items", "additionalProperties"):
            if isinstance(node.get(inside), dict):
                yield from walk(node[inside], f"{path}[]")

    for version in definition["spec"]["versions"]:
        yield from walk((version.get("schema") or {}).get("openAPIV3Schema") or {}, version["name"])


async def _served(calls: Cluster, name: str) -> None:
    for _ in range(_LOOKS):
        if _is_established(await calls.get(kinds.DEFINITION, name)):
            return
        await asyncio.sleep(_LOOK_S)
    raise ClusterError(
        f"API server {calls.server}: CustomResourceDefinition {name} is not served after {_LOOKS * _LOOK_S:.0f} s: "
        "see its conditions (kubectl describe crd)"
    )


def _is_established(definition: Mapping[str, Any]) -> bool:
    return holds(definition, "Established")
