"""What the sections of the values share: strictness, the API server's rules for names and amounts, images, placement.

What Kubernetes itself defines (affinity, tolerations, ...) passes through unchanged. The patterns are those of the API
server, so that a wrong name is refused with its key before anything is installed. They use what both pydantic's and
Helm's regular expressions know: no look-ahead.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from golongrl.kubernetes.names import SUBDOMAIN
from golongrl.recipe.fields import COLLECTOR

# The part of a label's key after the slash; a label's value has the same form.
_WORD: Final = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
LABEL_KEY: Final = rf"({SUBDOMAIN}/)?{_WORD}"
# Decimal, with a suffix of either kind or an exponent; unsigned, because nothing here can be negative.
_SUFFIX: Final = r"([KMGTPE]i|[numkMGTPE]|[eE][-+]?[0-9]{1,2})?"
_OCTET: Final = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_V4: Final = rf"({_OCTET}\.){{3}}{_OCTET}"
_HEX: Final = r"[0-9A-Fa-f]{1,4}"
# Eight groups, of which `::` stands for one or more; the last two may be an IPv4 address.
_V6: Final = "|".join(
    [
        rf"({_HEX}:){{7}}{_HEX}",
        *(rf"({_HEX}:){{1,{7 - after}}}(:{_HEX}){{1,{after}}}" for after in range(1, 7)),
        rf"({_HEX}:){{1,7}}:",
        rf":((:{_HEX}){{1,7}}|:)",
        rf"({_HEX}:){{6}}{_V4}",
        rf"({_HEX}:){{1,5}}:{_V4}",
        rf"::({_HEX}:){{0,5}}{_V4}",
    ]
)
# The most that Kubernetes' 32-bit fields hold.
INT32: Final = 2**31 - 1

Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0, le=INT32)]
Positive = Annotated[int, Field(ge=1, le=INT32)]
# Name of an object that exists already, or will; empty is none.
ObjectName = Annotated[str, Field(pattern=rf"^({SUBDOMAIN})?$", max_length=253)]
RequiredObjectName = Annotated[str, Field(pattern=rf"^{SUBDOMAIN}$", max_length=253)]
# Key inside a Secret or ConfigMap, which is a file's name too: none of `.`, `..` and `..x`.
DataKey = Annotated[str, Field(pattern=r"^\.?[-_A-Za-z0-9][-._A-Za-z0-9]*$", max_length=253)]
LabelValue = Annotated[str, Field(pattern=rf"^({_WORD})?$", max_length=63)]
# The part before the slash may have 253 characters.
LabelKey = Annotated[str, Field(pattern=rf"^{LABEL_KEY}$", max_length=317)]
# What a container may request: what every node has, or a device plugin's resource.
ResourceName = Annotated[
    str,
    Field(
        pattern=rf"^(cpu|memory|ephemeral-storage|hugepages-[1-9][0-9]*([KMGT]i|[kMGT])?|{SUBDOMAIN}/{_WORD})$",
        max_length=317,
    ),
]
# Name of a device plugin's resource, which always has a domain.
DeviceName = Annotated[str, Field(pattern=rf"^{SUBDOMAIN}/{_WORD}$", max_length=317)]
AMOUNT: Final = rf"([0-9]+(\.[0-9]*)?|\.[0-9]+){_SUFFIX}"
# Characters; no amount that Kubernetes can hold needs more.
LONGEST_AMOUNT: Final = 32
Amount = Annotated[str, Field(pattern=rf"^{AMOUNT}$", max_length=LONGEST_AMOUNT)]
# An amount above zero, of bytes.
Size = Annotated[
    str,
    Field(
        pattern=r"^([0-9]*[1-9][0-9]*(\.[0-9]*)?|[0-9]*\.[0-9]*[1-9][0-9]*)([KMGTPE]i|[kMGTPE]|[eE][+]?[0-9]{1,2})?$"
    ),
]
Cidr = Annotated[
    str,
    Field(pattern=rf"^({_V4}/(3[0-2]|[12]?[0-9])|({_V6})/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))$"),
]
# Pods that may go at a time: a number or a percentage.
Share = Count | Annotated[str, Field(pattern=r"^(100|[1-9]?[0-9])%$")]
# The parts of an image's reference.
_PATH: Final = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
_DOMAIN: Final = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_HOST: Final = rf"{_DOMAIN}(\.{_DOMAIN})*"
_REGISTRY: Final = rf"{_HOST}(:[0-9]+)?(/{_PATH})*"
_REPOSITORY: Final = rf"{_PATH}(/{_PATH})*"
_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}"
_DIGEST: Final = r"sha256:[0-9a-f]{64}"
# Name or IPv4 address of a server; empty is none.
Host = Annotated[str, Field(pattern=rf"^({_HOST})?$", max_length=253)]
# Without a password, which everybody would read who may read the objects; a path may follow.
ServiceUrl = Annotated[str, Field(pattern=COLLECTOR, max_length=2048)]
Registry = Annotated[str, Field(pattern=rf"^({_REGISTRY})?$")]
# Registry and path have 255 characters at most, a tag 128, a digest 71.
ImageReference = Annotated[
    str, Field(pattern=rf"^(({_REGISTRY}/)?{_REPOSITORY}(:{_TAG})?(@{_DIGEST})?)?$", max_length=456)
]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
# A Kubernetes object whose own schema the API server checks.
Passthrough = dict[str, Any]
Labels = dict[LabelKey, LabelValue]
# YAML 1.1 takes it for a line break, and Helm writes it without quotes: it would arrive as a space.
_NEXT_LINE: Final = r"\x85"
Annotations = dict[LabelKey, Annotated[str, Field(pattern=rf"^[^{_NEXT_LINE}]*$")]]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
# Of an environment variable: no process can be given a NUL.
EnvText = Annotated[str, Field(pattern=rf"^[^\x00{_NEXT_LINE}]*$")]
# A container's argument. Control characters cannot be passed on by every shell on the way to Ray's head.
Argument = Annotated[str, Field(pattern=rf"^[^\x00-\x1f\x7f{_NEXT_LINE}]*$")]
# Folder on the release's volume. No name starts with a dot: `..` would be above the volume.
Folder = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$")]
# Learner and engines share the volume: a claim for one pod would leave all others hanging.
AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]


class ValuesSection(BaseModel):
    """A part of the values: strict, described field by field, camelCase keys as in Kubernetes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class Image(ValuesSection):
    """A container image. `digest` takes precedence over `tag`; an empty tag means the chart's appVersion."""

    registry: Registry = Field("ghcr.io", description="Registry host. `global.imageRegistry` replaces it.")
    repository: Annotated[str, Field(pattern=rf"^{_REPOSITORY}$")] = Field(
        description="Repository, without the registry host."
    )
    tag: Annotated[str, Field(pattern=rf"^({_TAG})?$")] = Field(
        "", description="Tag. Empty means the chart's appVersion."
    )
    digest: Annotated[str, Field(pattern=rf"^({_DIGEST})?$")] = Field(
        "", description="Digest `sha256:...`, which takes precedence over the tag."
    )
    pull_policy: PullPolicy = Field("IfNotPresent", description="When the kubelet pulls the image.")


class Resources(ValuesSection):
    """Requests and limits of a container."""

    requests: dict[ResourceName, Amount | Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="Reserved amounts by resource name."
    )
    limits: dict[ResourceName, Amount | Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="Maximum amounts by resource name."
    )


class Pdb(ValuesSection):
    """PodDisruptionBudget."""

    enabled: bool = Field(description="Create the budget.")
    max_unavailable: Share = Field(1, description="Pods that a drain may evict at a time: a number or a percentage.")
