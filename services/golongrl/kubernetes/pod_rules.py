"""What the API server asks of the parts of a pod, in their shapes and of each other. Pure.

KubeRay, LeaderWorkerSet and Kueue take pod templates without these checks; the pods are then refused one after another,
and their owner waits for ever. So a TrainingRun is checked before anything is made for it. The chart's templates say
the same of its values (common/_checks.tpl), because Helm renders without this code; tests hold both to one table.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from golongrl.kubernetes.names import LABEL, LONGEST_LABEL
from golongrl.kubernetes.values.common import (
    AMOUNT,
    LONGEST_AMOUNT,
    Annotations,
    Count,
    Labels,
    ObjectName,
    Port,
    PullPolicy,
    RequiredObjectName,
    ResourceName,
)
from golongrl.kubernetes.values.environment import EnvSource
from golongrl.kubernetes.values.shapes import PORT_NAME, Affinity, PodToleration, Spread

Json = Mapping[str, Any]

_BINARY: Final = "KMGTPE"
_DECIMAL: Final = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
# Characters of a DNS subdomain, which the prefix of a key is.
_PREFIX: Final = 253
_Name = Annotated[str, Field(pattern=rf"^{LABEL}$", max_length=LONGEST_LABEL)]


def _shown(value: Any) -> str:
    # Python writes no number of more digits than this bound has by far.
    return repr(value)[:80] if not isinstance(value, int) or abs(value) < 10**80 else "a number of many digits"


def _quantity(value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**LONGEST_AMOUNT
    text = isinstance(value, str) and len(value) <= LONGEST_AMOUNT and re.fullmatch(AMOUNT, value)
    if not whole and not text:
        raise ValueError(f"{_shown(value)} is not an amount, such as 2, 500m or 16Gi")
    return value


_Amounts = dict[ResourceName, Annotated[Any, AfterValidator(_quantity)]]


class PodPart(BaseModel):
    """Reads the keys that are checked; what else Kubernetes knows passes."""

    model_config = ConfigDict(frozen=True, strict=True, alias_generator=to_camel, populate_by_name=True)


class _Resources(PodPart):
    requests: _Amounts = {}
    limits: _Amounts = {}


def _inside(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise ValueError(f"{_shown(path)} is not a path inside the volume")
    return path


class _Mount(PodPart):
    name: str
    mount_path: Annotated[str, Field(pattern=r"^[^:]+$")]
    sub_path: Annotated[str, AfterValidator(_inside)] = ""


class _Port(PodPart):
    container_port: Port
    name: Annotated[str, Field(pattern=rf"^({PORT_NAME})?$", max_length=15)] = ""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"


class _Variable(PodPart):
    name: Annotated[str, Field(pattern=r"^[ -<>-~]+$")]
    value: str = ""
    value_from: EnvSource = Field(default_factory=EnvSource)


class _Named(PodPart):
    name: RequiredObjectName


class _Variables(PodPart):
    prefix: str = ""
    secret_ref: _Named | None = None
    config_map_ref: _Named | None = None


class Container(PodPart):
    """A container, as far as it is checked."""

    name: _Name
    image: Annotated[str, Field(pattern=r"^\S+$")]
    image_pull_policy: PullPolicy = "IfNotPresent"
    ports: list[_Port] = []
    resources: _Resources = _Resources()
    env: list[_Variable] = []
    env_from: list[_Variables] = []
    volume_mounts: list[_Mount] = []


class _Claim(PodPart):
    claim_name: RequiredObjectName


class _Volume(PodPart):
    name: _Name
    persistent_volume_claim: _Claim | None = None


class PodSpec(PodPart):
    """A pod's spec, as far as it is checked."""

    containers: Annotated[list[Container], Field(min_length=1)]
    init_containers: list[Container] = []
    volumes: list[_Volume] = []
    node_selector: Labels = {}
    affinity: Affinity = Field(default_factory=Affinity)
    tolerations: list[PodToleration] = []
    topology_spread_constraints: list[Spread] = []
    termination_grace_period_seconds: Count = 30
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    image_pull_secrets: list[_Named] = []
    service_account_name: ObjectName = ""
    priority_class_name: ObjectName = ""
    runtime_class_name: ObjectName = ""


class _PodMetadata(PodPart):
    labels: Labels = {}
    annotations: Annotations = {}


class PodTemplate(PodPart):
    """A pod's template, as far as it is checked."""

    metadata: _PodMetadata = _PodMetadata()
    spec: PodSpec


def without_nulls(node: Any) -> Any:
    """As the API server reads it: null is a missing key."""
    if isinstance(node, Mapping):
        return {key: without_nulls(value) for key, value in node.items() if value is not None}
    return [without_nulls(entry) for entry in node] if isinstance(node, list) else node


def pod_misfits(spec: Json, path: str) -> Iterator[str]:
    """A line for each part of a pod's spec, which has the shapes of `PodSpec`, that does not fit another."""
    spec = without_nulls(spec)
    yield from misfits({key: spec[key] for key in _PLACED if key in spec}, path)
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    yield from _twice(f"{path}.volumes", (volume["name"] for volume in spec.get("volumes", [])))
    for volume in spec.get("volumes", []):
        sources = sorted(volume.keys() - {"name"})
        if len(sources) > 1:
            where = f"{path}.volumes.{volume['name']}"
            yield f"{where}: has more than one source: {', '.join(sources)}; a null in a patch removes one"
    parts = [(key, container) for key in ("initContainers", "containers") for container in spec.get(key, [])]
    yield from _twice(f"{path}.containers", (container["name"] for _, container in parts))
    for key, container in parts:
        where = f"{path}.{key}.{container['name']}"
        yield from _twice(f"{where}.ports", (port["name"] for port in container.get("ports", []) if port.get("name")))
        mounts = container.get("volumeMounts", [])
        yield from _twice(f"{where}.volumeMounts", (mount["mountPath"] for mount in mounts))
        for mount in mounts:
            if mount["name"] not in volumes:
                yield f"{where}.volumeMounts: there is no volume {mount['name']}"
        yield from misfits({"resources": container.get("resources", {})}, where)
        yield from _variables(where, container, volumes, [one["name"] for _, one in parts])


def _variables(path: str, container: Json, volumes: Collection[str], containers: Collection[str]) -> Iterator[str]:
    """Of a container of a pod with these volumes and containers."""
    for number, one in enumerate(container.get("envFrom", [])):
        if len(one.keys() & {"secretRef", "configMapRef"}) != 1:
            yield f"{path}.envFrom.{number}: needs exactly one source"
    for one in container.get("env", []):
        source, where = one.get("valueFrom"), f"{path}.env.{one['name']}"
        if source is None:
            continue
        if len(source) != 1:
            yield f"{where}.valueFrom: needs exactly one source"
        if one.get("value"):
            yield f"{where}: has a value and valueFrom; remove one of them"
        amounts, file = source.get("resourceFieldRef", {}), source.get("fileKeyRef", {})
        # The API server takes the name of any container; the kubelet then never starts this one.
        if (name := amounts.get("containerName")) and name not in containers:
            yield f"{where}.valueFrom.resourceFieldRef: there is no container {name}"
        divisor = str(amounts.get("divisor", 1))
        if divisor not in ("0", "1") and (divisor == "1m") != amounts["resource"].endswith(".cpu"):
            yield f"{where}.valueFrom.resourceFieldRef.divisor: {divisor} does not fit {amounts['resource']}"
        if file and file["volumeName"] not in volumes:
            yield f"{where}.valueFrom.fileKeyRef: there is no volume {file['volumeName']}"


def misfits(part: Any, path: str) -> Iterator[str]:
    """A line for each part, somewhere in placement or resources, that does not fit another."""
    if isinstance(part, Mapping):
        for key, value in part.items():
            where = f"{path}.{key}"
            if key in ("key", "topologyKey"):
                yield from _prefix(where, [value])
            if check := _CHECKS.get(key):
                yield from check(where, value, part)
            yield from misfits(value, where)
    elif isinstance(part, list):
        for number, entry in enumerate(part):
            yield from misfits(entry, f"{path}.{number}")


def _expressions(path: str, entries: Iterable[Json], _: Json) -> Iterator[str]:
    for number, entry in enumerate(entries):
        where, operator, values = f"{path}.{number}", entry["operator"], entry.get("values") or []
        if operator in ("In", "NotIn") and not values:
            yield f"{where}: operator {operator} needs values"
        elif operator in ("Exists", "DoesNotExist") and values:
            yield f"{where}: operator {operator} takes no values"
        elif operator in ("Gt", "Lt") and not (len(values) == 1 and re.fullmatch("[0-9]{1,18}", values[0])):
            yield f"{where}: operator {operator} needs one value, a whole number"


def _tolerations(path: str, entries: Iterable[Json] | None, _: Json) -> Iterator[str]:
    for number, entry in enumerate(entries or ()):
        where, operator, value = f"{path}.{number}", entry.get("operator") or "Equal", entry.get("value") or ""
        if not entry.get("key") and operator != "Exists":
            yield f"{where}: operator {operator} needs a key; without a key the operator must be Exists"
        if value and operator == "Exists":
            yield f"{where}: operator Exists takes no value; remove value, or use Equal"
        if operator in ("Lt", "Gt") and not re.fullmatch("0|[1-9][0-9]{0,18}", value):
            yield f"{where}.value: operator {operator} needs a whole number"
        if entry.get("tolerationSeconds") is not None and entry.get("effect") != "NoExecute":
            yield f"{where}: tolerationSeconds needs the effect NoExecute"


def _spreads(path: str, entries: Iterable[Json] | None, _: Json) -> Iterator[str]:
    entries = list(entries or ())
    for number, entry in enumerate(entries):
        if entry.get("minDomains") and entry["whenUnsatisfiable"] != "DoNotSchedule":
            yield f"{path}.{number}: minDomains needs whenUnsatisfiable DoNotSchedule"
    yield from _twice(path, (f"{entry['topologyKey']}, {entry['whenUnsatisfiable']}" for entry in entries))


def _label_keys(path: str, keys: Iterable[str], part: Json) -> Iterator[str]:
    selector = part.get("labelSelector")
    if not selector:
        yield f"{path}: needs a labelSelector"
        return
    known = [*(selector.get("matchLabels") or {}), *(one["key"] for one in selector.get("matchExpressions") or [])]
    if path.endswith(".matchLabelKeys"):
        known += part.get("mismatchLabelKeys") or []
    yield from _prefix(path, keys)
    for key, count in Counter(keys).items():
        if count > 1 or key in known:
            yield f"{path}: {key} stands there twice, or in the labelSelector or mismatchLabelKeys too"


def _labels(path: str, labels: Iterable[str] | None, _: Json) -> Iterator[str]:
    yield from _prefix(path, labels or ())


def _resources(path: str, given: Json | None, _: Json) -> Iterator[str]:
    requests, limits = ((given or {}).get(part) or {} for part in ("requests", "limits"))
    for name, request in requests.items():
        extended, limit = "/" in name or name.startswith("hugepages-"), limits.get(name)
        if limit is None:
            if extended:
                yield f"{path}: requests.{name} needs a limit of the same amount"
        elif amount(request) > amount(limit):
            yield f"{path}: requests.{name} {request} is more than limits.{name} {limit}"
        elif extended and amount(request) != amount(limit):
            yield f"{path}: requests.{name} {request} and limits.{name} {limit} must be equal"
    for part, amounts in (("requests", requests), ("limits", limits)):
        yield from _prefix(f"{path}.{part}", amounts)
        for name, value in amounts.items():
            if name.startswith(("kubernetes.io/", "requests.")):
                yield f"{path}.{part}: {name} is not a resource of a container"
            if name.startswith("hugepages-") and not {"cpu", "memory"} & {*requests, *limits}:
                yield f"{path}.{part}.{name}: needs an amount of cpu or memory too"
            if name.startswith("hugepages-") and amount(value) % amount(name.removeprefix("hugepages-")):
                yield f"{path}.{part}.{name}: {value} is no multiple of the page"
            if "/" in name and amount(value) != amount(value).to_integral_value():
                yield f"{path}.{part}.{name}: {value} is not a whole number"


def amount(value: str | int) -> Decimal:
    """A quantity of Kubernetes as a number."""
    number, suffix = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)([A-Za-z]*)", str(value)).groups()  # type: ignore[union-attr]
    if suffix.endswith("i"):
        return Decimal(number) * Decimal(1024) ** (_BINARY.index(suffix[0].upper()) + 1)
    return Decimal(number).scaleb(_DECIMAL[suffix])


def _prefix(path: str, names: Iterable[str]) -> Iterator[str]:
    """The part of a qualified name before the slash, which a pattern cannot bound together with its labels."""
    for name in names:
        if len(name.rpartition("/")[0]) > _PREFIX:
            yield f"{path}: {name[:40]}... has more than {_PREFIX} characters before the slash"


def _twice(path: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{path}: {name} stands there twice"


_PLACED: Final = ("nodeSelector", "affinity", "tolerations", "topologySpreadConstraints")
_CHECKS: Final[Mapping[str, Callable[[str, Any, Json], Iterator[str]]]] = MappingProxyType(
    {
        "matchExpressions": _expressions,
        "tolerations": _tolerations,
        "topologySpreadConstraints": _spreads,
        "matchLabelKeys": _label_keys,
        "mismatchLabelKeys": _label_keys,
        "nodeSelector": _labels,
        "matchLabels": _labels,
        "resources": _resources,
    }
)
