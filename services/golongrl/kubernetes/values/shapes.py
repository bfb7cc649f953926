"""Parts of Kubernetes' own objects that values hold: which keys they have, and of which type the values are.

They pass through as they are, so they are typed dictionaries: nothing is added to what the user wrote. What lies deeper
(terms of an affinity, peers of a policy) is left to the API server.
"""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from golongrl.kubernetes.values.common import INT32, LABEL_KEY, Labels, LabelValue, ObjectName

_STRICT = ConfigDict(extra="forbid", strict=True)
_Key = Annotated[str, Field(pattern=LABEL_KEY, max_length=317)]
_Seconds = Annotated[int, Field(ge=-(2**53), le=2**53)]
_Count = Annotated[int, Field(ge=1, le=INT32)]


class Requirement(TypedDict, total=False):
    """One expression of a label selector."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    key: _Key
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: list[LabelValue]


class Selector(TypedDict, total=False):
    """A label selector."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    matchLabels: Labels
    matchExpressions: list[Requirement]


class PodToleration(TypedDict, total=False):
    """A taint that pods tolerate."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    key: _Key
    operator: Literal["Exists", "Equal", "Lt", "Gt"]
    value: LabelValue
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    tolerationSeconds: _Seconds


class Affinity(TypedDict, total=False):
    """Node and pod affinity."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    nodeAffinity: dict[str, Any]
    podAffinity: dict[str, Any]
    podAntiAffinity: dict[str, Any]


class Spread(TypedDict, total=False):
    """How pods spread over a topology."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    maxSkew: _Count
    topologyKey: _Key
    whenUnsatisfiable: Literal["DoNotSchedule", "ScheduleAnyway"]
    labelSelector: Selector
    minDomains: _Count
    nodeAffinityPolicy: Literal["Honor", "Ignore"]
    nodeTaintsPolicy: Literal["Honor", "Ignore"]
    matchLabelKeys: list[_Key]


class RbacSubject(TypedDict, total=False):
    """Whom a Role is bound to."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    kind: Literal["User", "Group", "ServiceAccount"]
    name: str
    namespace: ObjectName
    apiGroup: Literal["", "rbac.authorization.k8s.io"]


class EgressRule(TypedDict, total=False):
    """Where pods may connect to: ports and peers."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    ports: list[dict[str, Any]]
    to: list[dict[str, Any]]
