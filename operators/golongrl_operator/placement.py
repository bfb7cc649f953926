"""Where the pods of a run may be: what it says replaces what its release's values say of the same key."""

from typing import Any, Final, Literal

from pydantic import Field

from golongrl.kubernetes.rayjob.site import Manifest
from golongrl.kubernetes.values.common import (
    Count,
    LabelKey,
    Labels,
    LabelValue,
    ObjectName,
    Positive,
    ValuesSection,
)
from golongrl.kubernetes.values.shapes import Affinity, OptionalKey, Selector

# A rule of the CRD looks at every entry, so that the API server asks how many there may be.
_MOST: Final = 32


class Toleration(ValuesSection):
    """A taint that the pods tolerate."""

    key: OptionalKey | None = Field(
        None,
        description="Key of the taint. Only with operator Exists it may be absent, and then means every taint.",
    )
    operator: Literal["Exists", "Equal"] = Field(
        "Equal",
        description="Equal (the default): the taint has this key and value. Exists: it has this key, whatever its "
        "value.",
    )
    value: LabelValue | None = Field(None, description="Value of the taint, with operator Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="Effect of the taint. Absent: every effect."
    )
    toleration_seconds: Count | None = Field(
        None,
        description="With effect NoExecute: seconds that the pod stays on a node with the taint. Absent: no limit.",
    )


class TopologySpread(ValuesSection):
    """How evenly pods are spread."""

    max_skew: Positive = Field(description="By how many pods a domain may exceed the one with the fewest.")
    topology_key: LabelKey = Field(
        description="Label of nodes whose values are the domains, such as topology.kubernetes.io/zone.",
    )
    when_unsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"] = Field(
        description="DoNotSchedule: a pod that would break it waits. ScheduleAnyway: it is a preference."
    )
    label_selector: Selector | None = Field(
        None, description="Selects the pods that are counted (matchLabels, matchExpressions)."
    )
    min_domains: Positive | None = Field(None, description="Fewest domains that there must be, with DoNotSchedule.")


class Placement(ValuesSection):
    """Where pods may be; each key replaces the release's value."""

    node_selector: Labels | None = Field(
        None, description="Labels that a node must have, such as {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}."
    )
    tolerations: list[Toleration] | None = Field(
        None, max_length=_MOST, description="Taints that the pods tolerate, such as that of GPU nodes."
    )
    affinity: Affinity | None = Field(None, description="Affinity to nodes and pods, as Kubernetes defines it.")
    topology_spread_constraints: list[TopologySpread] | None = Field(
        None, max_length=_MOST, description="How pods are spread over nodes, racks or zones."
    )
    priority_class_name: ObjectName | None = Field(
        None, description="PriorityClass of the pods, which must exist: the API server refuses pods that name another."
    )
    runtime_class_name: ObjectName | None = Field(
        None, description="RuntimeClass of the pods, which must exist: pods that name another never start."
    )


KEYS: Final = frozenset(Placement.model_fields)


def given(placement: Placement) -> dict[str, Any]:
    """What it says, by the keys of a pod's spec."""
    return placement.model_dump(include=set(KEYS), exclude_none=True, exclude_unset=True, by_alias=True)


def place(template: Manifest, placement: Placement) -> None:
    """Write it into a pod template."""
    template["spec"].update(given(placement))
