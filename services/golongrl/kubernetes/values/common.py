"""What the sections of the values share: strictness, images, resources, placement.

What Kubernetes itself defines (affinity, tolerations, resources, ...) passes through unchanged.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
# A Kubernetes object or list whose own schema the API server checks.
Passthrough = dict[str, Any]
PassthroughList = list[dict[str, Any]]
Labels = dict[str, str]
# Learner and engines share the volume: a claim for one pod would leave all others hanging.
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]


class ValuesSection(BaseModel):
    """A part of the values: strict, described field by field, camelCase keys as in Kubernetes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class Image(ValuesSection):
    """A container image; `digest` wins over `tag`, an empty tag is the chart's appVersion."""

    registry: str = Field("ghcr.io", description="Registry host; `global.imageRegistry` replaces it.")
    repository: str = Field(description="Repository without the registry host.")
    tag: str = Field("", description="Tag; empty is the chart's appVersion.")
    digest: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$", description="Digest `sha256:...`; wins over the tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When the kubelet pulls."
    )


class Resources(ValuesSection):
    """Container resources, passed through to Kubernetes."""

    requests: dict[str, str | int] = Field(default_factory=dict, description="Reserved amounts by resource name.")
    limits: dict[str, str | int] = Field(default_factory=dict, description="Upper bounds by resource name.")


class PodPlacement(ValuesSection):
    """Where a component's pods may run, and what else they carry."""

    node_selector: Labels = Field(default_factory=dict, description="Labels a node must have.")
    tolerations: PassthroughList = Field(default_factory=list, description="Taints the pods tolerate.")
    affinity: Passthrough = Field(default_factory=dict, description="Node and pod affinity.")
    topology_spread_constraints: PassthroughList = Field(
        default_factory=list,
        description="How pods spread over nodes and zones; reward service and engines, where empty, softly over nodes.",
    )
    priority_class_name: str = Field("", description="PriorityClass, which must exist.")
    runtime_class_name: str = Field("", description="RuntimeClass, which must exist (a missing one hangs the pods).")
    pod_labels: Labels = Field(default_factory=dict, description="Further labels of the pods.")
    pod_annotations: Labels = Field(default_factory=dict, description="Further annotations of the pods.")
    env: PassthroughList = Field(
        default_factory=list, description="Further environment variables (Kubernetes EnvVar objects)."
    )


class Pdb(ValuesSection):
    """PodDisruptionBudget."""

    enabled: bool = Field(description="Create the budget.")
    max_unavailable: int | str = Field(1, description="Pods a drain may take at a time (number or percentage).")
