"""Parts of Kubernetes' own objects that values hold, in the shapes that the API server takes.

They pass through as they are, so they are typed dictionaries: nothing is added to what the user wrote. Which of their
keys fit each other is said by the chart's templates (`common/_checks.tpl`), as for all other values.
"""

from typing import Annotated, Literal, Required

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from golongrl.kubernetes.names import LABEL, LONGEST_LABEL
from golongrl.kubernetes.values.common import INT32, LABEL_KEY, Cidr, LabelKey, Labels, LabelValue, ObjectName, Port

_STRICT = ConfigDict(extra="forbid", strict=True)
_Seconds = Annotated[int, Field(ge=-(2**53), le=2**53)]
_Count = Annotated[int, Field(ge=1, le=INT32)]
_Weight = Annotated[int, Field(ge=1, le=100)]
_Namespace = Annotated[str, Field(pattern=rf"^{LABEL}$", max_length=LONGEST_LABEL)]
OptionalKey = Annotated[str, Field(pattern=rf"^({LABEL_KEY})?$", max_length=317)]
_Text = Annotated[str, Field(min_length=1)]
# Name of a port: a letter, and no two dashes together.
PORT_NAME = r"([0-9]+-)*[0-9]*[a-z](-?[a-z0-9])*"


class Requirement(TypedDict, total=False):
    """One expression of a label selector."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    key: Required[LabelKey]
    operator: Required[Literal["In", "NotIn", "Exists", "DoesNotExist"]]
    values: list[LabelValue]


class Selector(TypedDict, total=False):
    """A label selector."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    matchLabels: Labels
    matchExpressions: list[Requirement]


class PodToleration(TypedDict, total=False):
    """A taint that pods tolerate."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    key: OptionalKey
    operator: Literal["", "Exists", "Equal", "Lt", "Gt"]
    value: LabelValue
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"]
    tolerationSeconds: _Seconds


class NodeRequirement(TypedDict, total=False):
    """One expression about a node's labels."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    key: Required[LabelKey]
    operator: Required[Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]]
    values: list[LabelValue]


class NodeField(TypedDict, total=False):
    """One expression about a node's name."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    key: Required[Literal["metadata.name"]]
    operator: Required[Literal["In", "NotIn"]]
    values: Required[Annotated[list[ObjectName], Field(min_length=1, max_length=1)]]


class NodeTerm(TypedDict, total=False):
    """Nodes that all of the expressions match."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    matchExpressions: list[NodeRequirement]
    matchFields: list[NodeField]


class NodeTerms(TypedDict, total=False):
    """Nodes that one of the terms matches."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    nodeSelectorTerms: Required[Annotated[list[NodeTerm], Field(min_length=1)]]


class WeightedNodeTerm(TypedDict, total=False):
    """Preferred nodes."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    weight: Required[_Weight]
    preference: Required[NodeTerm]


class NodeAffinity(TypedDict, total=False):
    """Nodes that pods need or prefer."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    requiredDuringSchedulingIgnoredDuringExecution: NodeTerms
    preferredDuringSchedulingIgnoredDuringExecution: list[WeightedNodeTerm]


class PodTerm(TypedDict, total=False):
    """Pods of a topology that a pod wants near, or far."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    topologyKey: Required[LabelKey]
    labelSelector: Selector
    namespaces: list[_Namespace]
    namespaceSelector: Selector
    matchLabelKeys: list[LabelKey]
    mismatchLabelKeys: list[LabelKey]


class WeightedPodTerm(TypedDict, total=False):
    """A preference for or against pods."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    weight: Required[_Weight]
    podAffinityTerm: Required[PodTerm]


class PodsAffinity(TypedDict, total=False):
    """Pods that pods need or prefer near, or far."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    requiredDuringSchedulingIgnoredDuringExecution: list[PodTerm]
    preferredDuringSchedulingIgnoredDuringExecution: list[WeightedPodTerm]


class Affinity(TypedDict, total=False):
    """Node and pod affinity."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    nodeAffinity: NodeAffinity
    podAffinity: PodsAffinity
    podAntiAffinity: PodsAffinity


class Spread(TypedDict, total=False):
    """How pods spread over a topology."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    maxSkew: Required[_Count]
    topologyKey: Required[LabelKey]
    whenUnsatisfiable: Required[Literal["DoNotSchedule", "ScheduleAnyway"]]
    labelSelector: Selector
    minDomains: _Count
    nodeAffinityPolicy: Literal["Honor", "Ignore"]
    nodeTaintsPolicy: Literal["Honor", "Ignore"]
    matchLabelKeys: list[LabelKey]


class RbacSubject(TypedDict, total=False):
    """Whom a Role is bound to."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    kind: Required[Literal["User", "Group", "ServiceAccount"]]
    name: Required[_Text]
    namespace: ObjectName
    apiGroup: Literal["", "rbac.authorization.k8s.io"]


# `except` is a word of Python.
IpBlock = TypedDict("IpBlock", {"cidr": Required[Cidr], "except": list[Cidr]}, total=False)
IpBlock.__doc__ = "A range of addresses, without some of them."
IpBlock.__pydantic_config__ = _STRICT  # type: ignore[attr-defined]


class EgressPeer(TypedDict, total=False):
    """Pods or addresses that may be connected to."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    podSelector: Selector
    namespaceSelector: Selector
    ipBlock: IpBlock


class EgressPort(TypedDict, total=False):
    """A port, by number or by the name that a pod gives it, or a range of ports."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    protocol: Literal["TCP", "UDP", "SCTP"]
    port: Port | Annotated[str, Field(pattern=rf"^{PORT_NAME}$", max_length=15)]
    endPort: Port


class EgressRule(TypedDict, total=False):
    """Where pods may connect to: ports and peers."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    ports: list[EgressPort]
    to: list[EgressPeer]


class ObjectMetadata(TypedDict, total=False):
    """What every object has; its texts are templates."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    name: Required[_Text]
    namespace: str
    labels: dict[str, str]
    annotations: dict[str, str]


class ExtraObject(TypedDict, total=False):
    """Any object of Kubernetes; its texts are templates."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    apiVersion: Required[_Text]
    kind: Required[_Text]
    metadata: Required[ObjectMetadata]
