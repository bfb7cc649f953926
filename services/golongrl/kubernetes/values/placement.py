"""Where a component's pods run, and what they have in addition."""

from pydantic import Field

from golongrl.kubernetes.values.common import Annotations, Labels, ObjectName, ValuesSection
from golongrl.kubernetes.values.environment import EnvVar
from golongrl.kubernetes.values.shapes import Affinity, PodToleration, Spread


class PodPlacement(ValuesSection):
    """Where a component's pods run, and their labels, annotations and environment."""

    node_selector: Labels = Field(default_factory=dict, description="Labels that a node must have.")
    tolerations: list[PodToleration] = Field(
        default_factory=list[PodToleration], description="Taints that the pods tolerate."
    )
    affinity: Affinity = Field(default_factory=Affinity, description="Node and pod affinity.")
    topology_spread_constraints: list[Spread] = Field(
        default_factory=list[Spread],
        description="How pods spread over nodes and zones. If empty, reward pods and engines prefer different nodes.",
    )
    priority_class_name: ObjectName = Field("", description="PriorityClass, which must exist.")
    runtime_class_name: ObjectName = Field(
        "", description="RuntimeClass, which must exist: pods that name a missing one never start."
    )
    pod_labels: Labels = Field(default_factory=dict, description="Additional labels of the pods.")
    pod_annotations: Annotations = Field(default_factory=dict, description="Additional annotations of the pods.")
    env: list[EnvVar] = Field(
        default_factory=list[EnvVar], description="Additional environment variables (Kubernetes EnvVar objects)."
    )
