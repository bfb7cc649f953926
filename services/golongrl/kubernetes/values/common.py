"""What the sections of the values share: strictness, the API server's rules for names and amounts, images, placement.

What Kubernetes itself defines (affinity, tolerations, ...) passes through unchanged. The patterns are those of the API
server, so that a wrong name is refused with its key before anything is installed. They use what both pydantic's and
Helm's regular expressions know: no look-ahead.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from typing_extensions import TypedDict

from golongrl.kubernetes.names import SUBDOMAIN

# The part of a label's key after the slash; a label's value has the same form.
_WORD: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"
LABEL_KEY: Final = rf"^({SUBDOMAIN}/)?{_WORD}$"
# Decimal, with a suffix of either kind or an exponent; unsigned, because nothing here can be negative.
_SUFFIX: Final = r"([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]+)?"
_OCTET: Final = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
# The most that Kubernetes' 32-bit fields hold.
INT32: Final = 2**31 - 1

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0, le=INT32)]
Positive = Annotated[int, Field(ge=1, le=INT32)]
# Name of an object that exists already, or will; empty is none.
ObjectName = Annotated[str, Field(pattern=rf"^({SUBDOMAIN})?$", max_length=253)]
RequiredObjectName = Annotated[str, Field(pattern=rf"^{SUBDOMAIN}$", max_length=253)]
# Key inside a Secret or ConfigMap.
DataKey = Annotated[str, Field(pattern=r"^[-._A-Za-z0-9]+$", max_length=253)]
LabelValue = Annotated[str, Field(pattern=rf"^({_WORD})?$", max_length=63)]
# The part before the slash may have 253 characters.
_QualifiedName = Annotated[str, Field(pattern=LABEL_KEY, max_length=317)]
# Name of a device plugin's resource, which always has a domain.
DeviceName = Annotated[str, Field(pattern=rf"^{SUBDOMAIN}/{_WORD}$", max_length=317)]
Amount = Annotated[str, Field(pattern=rf"^([0-9]+(\.[0-9]*)?|\.[0-9]+){_SUFFIX}$")]
# An amount above zero, of bytes.
Size = Annotated[
    str,
    Field(pattern=r"^([0-9]*[1-9][0-9]*(\.[0-9]*)?|[0-9]*\.[0-9]*[1-9][0-9]*)([KMGTPE]i|[kMGTPE]|[eE][+]?[0-9]+)?$"),
]
Cidr = Annotated[
    str,
    Field(
        pattern=rf"^(({_OCTET}\.){{3}}{_OCTET}/(3[0-2]|[12]?[0-9])"
        r"|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$"
    ),
]
# Pods that may go at a time: a number or a percentage.
Share = Count | Annotated[str, Field(pattern=r"^(100|[1-9]?[0-9])%$")]
# A Kubernetes object or list whose own schema the API server checks.
Passthrough = dict[str, Any]
PassthroughList = list[dict[str, Any]]
Labels = dict[_QualifiedName, LabelValue]
Annotations = dict[_QualifiedName, str]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# A container's argument. Control characters cannot be passed on by every shell on the way to Ray's head.
Argument = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$")]
# Learner and engines share the volume: a claim for one pod would leave all others hanging.
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]


class ValuesSection(BaseModel):
    """A part of the values: strict, described field by field, camelCase keys as in Kubernetes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class EnvSource(TypedDict, total=False):
    """Where the value of a variable comes from."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True)  # type: ignore[misc]
    secretKeyRef: Passthrough
    configMapKeyRef: Passthrough
    fieldRef: Passthrough
    resourceFieldRef: Passthrough
    fileKeyRef: Passthrough


class EnvVar(ValuesSection):
    """An environment variable, as Kubernetes defines it."""

    name: EnvName = Field(description="Name.")
    value: str = Field("", description="Value, quoted where it looks like a number or a switch.")
    value_from: EnvSource = Field(
        default_factory=EnvSource, description="Source of the value instead, such as a Secret."
    )


class Image(ValuesSection):
    """A container image. `digest` takes precedence over `tag`; an empty tag means the chart's appVersion."""

    registry: str = Field(
        "ghcr.io",
        pattern=r"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[0-9]+)?(/[a-z0-9._-]+)*)?$",
        description="Registry host. `global.imageRegistry` replaces it.",
    )
    repository: str = Field(
        pattern=r"^[a-z0-9]+([._/-]+[a-z0-9]+)*$", description="Repository, without the registry host."
    )
    tag: str = Field(
        "", pattern=r"^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$", description="Tag. Empty means the chart's appVersion."
    )
    digest: str = Field(
        "", pattern=r"^(sha256:[0-9a-f]{64})?$", description="Digest `sha256:...`, which takes precedence over the tag."
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When the kubelet pulls the image."
    )


class Resources(ValuesSection):
    """Requests and limits of a container."""

    requests: dict[_QualifiedName, Amount | Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="Reserved amounts by resource name."
    )
    limits: dict[_QualifiedName, Amount | Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="Maximum amounts by resource name."
    )


class Pdb(ValuesSection):
    """PodDisruptionBudget."""

    enabled: bool = Field(description="Create the budget.")
    max_unavailable: Share = Field(1, description="Pods that a drain may evict at a time: a number or a percentage.")
