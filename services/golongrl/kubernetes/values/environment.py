"""Environment variables of containers, in the shape that the API server takes."""

from typing import Annotated, Literal, Required

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from golongrl.kubernetes.values.common import (
    LABEL_KEY,
    DataKey,
    EnvName,
    EnvText,
    RequiredObjectName,
    ValuesSection,
)

_STRICT = ConfigDict(extra="forbid", strict=True)


class DataSource(TypedDict, total=False):
    """One key of a Secret or ConfigMap."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    name: Required[RequiredObjectName]
    key: Required[DataKey]
    optional: bool


class FieldSource(TypedDict, total=False):
    """A field of the pod itself."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    apiVersion: Literal["v1"]
    fieldPath: Required[
        Annotated[
            str,
            Field(
                pattern=rf"^(metadata\.(name|namespace|uid|(labels|annotations)\['{LABEL_KEY}'\])"
                r"|spec\.(nodeName|serviceAccountName)|status\.(hostIPs?|podIPs?))$"
            ),
        ]
    ]


class ResourceSource(TypedDict, total=False):
    """A request or limit of a container."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    containerName: str
    resource: Required[
        Annotated[str, Field(pattern=r"^(requests|limits)\.(cpu|memory|ephemeral-storage|hugepages-[0-9]+[KMGT]i)$")]
    ]
    divisor: Annotated[str, Field(pattern=r"^(0|1(m|[kMGTPE]|[KMGTPE]i)?)$")] | Annotated[int, Field(ge=0, le=1)]


class FileSource(TypedDict, total=False):
    """One variable of a file in a volume."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    volumeName: Required[str]
    path: Required[str]
    key: Required[str]
    optional: bool


class EnvSource(TypedDict, total=False):
    """Where the value of a variable comes from."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    secretKeyRef: DataSource
    configMapKeyRef: DataSource
    fieldRef: FieldSource
    resourceFieldRef: ResourceSource
    fileKeyRef: FileSource


class EnvVar(ValuesSection):
    """An environment variable, as Kubernetes defines it."""

    name: EnvName = Field(description="Name.")
    value: EnvText = Field("", description="Value, quoted where it looks like a number or a switch.")
    value_from: EnvSource = Field(
        default_factory=EnvSource, description="Source of the value instead, such as a Secret."
    )
