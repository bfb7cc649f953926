"""The form in which the project reads objects of the API server and the queue's picture. Pure.

Controllers of other versions, webhooks, proxies and people write these objects too. What does not have its form is read
as absent, before anything else looks at it, so that one odd object never stops a look at the others.

Invariants (tests/kubernetes/test_forms.py):
- what has its form stays as it is, with the keys that nobody here reads;
- a part of another type is left out, and so is an entry without what identifies it (a required key);
- nothing is made up: what is left out is absent, and absent is never fine by itself.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

Form = Any
"""A check of one value, a mapping (key -> form; `!` after a key that must be there; `*` for all other keys), a list
with the form of its entries, or a tuple with the form of what may be null."""

_ABSENT: Final = object()
# The most that a 64-bit field holds.
_LARGEST: Final = 2**63 - 1


def fit(value: Any, form: Form) -> Any:
    """`value` without the parts of another form; None if nothing of it is left."""
    found = _fit(value, form)
    return None if found is _ABSENT else found


def _fit(value: Any, form: Form) -> Any:
    if isinstance(form, Mapping):
        return _fit_mapping(value, form) if isinstance(value, dict) else _ABSENT
    if isinstance(form, tuple):
        return None if value is None else _fit(value, form[0])
    if isinstance(form, list):
        if not isinstance(value, list):
            return _ABSENT
        return [found for entry in value if (found := _fit(entry, form[0])) is not _ABSENT]
    return value if form(value) else _ABSENT


def _fit_mapping(value: Mapping[Any, Any], form: Mapping[str, Form]) -> Any:
    forms = {key.rstrip("!"): (key.endswith("!"), part) for key, part in form.items()}
    rest = forms.pop("*", None)
    found = {}
    for key, part in value.items():
        _, expected = forms.get(key, rest or (False, None))
        fitting = part if expected is None else _fit(part, expected)
        if fitting is not _ABSENT:
            found[key] = fitting
    return _ABSENT if any(needed and key not in found for key, (needed, _) in forms.items()) else found


def text(value: Any) -> bool:
    """A string that can be written as UTF-8."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeEncodeError:
        return False


def name(value: Any) -> bool:
    """A text that is not empty."""
    return bool(value) and text(value)


def count(value: Any) -> bool:
    """A whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST


def number(value: Any) -> bool:
    """A finite number that is no absurd one; an age is below 0 for a moment after a clock was set back."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def levels(value: Any) -> bool:
    """Groups by how many versions they are behind; JSON has only strings as keys."""
    return isinstance(value, dict) and all(re.fullmatch(r"[0-9]{1,9}", str(key)) and count(value[key]) for key in value)


def flag(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def moment(value: Any) -> bool:
    """A time with its zone, as Kubernetes writes it."""
    try:
        return text(value) and datetime.fromisoformat(value).utcoffset() is not None
    except ValueError:
        return False


_TEXTS: Final[Form] = {"*": text}
_METADATA: Final[Form] = {
    "name!": name, "namespace": text, "uid": text, "resourceVersion": text, "generation": count,
    "creationTimestamp": moment, "deletionTimestamp": moment, "labels": _TEXTS, "annotations": _TEXTS,
    "finalizers": [text],
    "ownerReferences": [{"kind": text, "name": text, "uid": text, "apiVersion": text, "controller": flag}],
}  # fmt: skip
_CONDITIONS: Final[Form] = [
    {"type!": text, "status!": text, "reason": text, "message": text, "lastTransitionTime": moment}
]
_NAMED: Final[Form] = {"name": name, "secretName": name, "claimName!": name, "optional": flag}
_REFERENCE: Final[Form] = {"name": name, "secretName": name, "optional": flag}
_SOURCES: Final[Form] = dict.fromkeys(
    ("secretKeyRef", "configMapKeyRef", "secretRef", "configMapRef", "secret", "configMap"), _REFERENCE
)
_CONTAINERS: Final[Form] = [{"env": [{"valueFrom": _SOURCES}], "envFrom": [_SOURCES]}]
_POD_SPEC: Final[Form] = {
    "nodeName": text, "priorityClassName": text, "runtimeClassName": text, "serviceAccountName": text,
    "imagePullSecrets": [{"name!": name}], "initContainers": _CONTAINERS, "containers": _CONTAINERS,
    "volumes": [
        {
            **_SOURCES, "persistentVolumeClaim": _NAMED, "projected": {"sources": [_SOURCES]},
            "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": text}}},
            "csi": {"nodePublishSecretRef": {"name": name}},
        }
    ],
    "affinity": {},
}  # fmt: skip
_TEMPLATE: Final[Form] = {"metadata": {"labels": _TEXTS, "annotations": _TEXTS}, "spec!": _POD_SPEC}
_MAYBE: Final[Form] = {"metadata": {"labels": _TEXTS}, "spec": _POD_SPEC}
_ENDED: Final[Form] = {"exitCode!": number, "reason": text, "message": text, "finishedAt": moment}
_STATES: Final[Form] = {
    "waiting": {"reason": text, "message": text}, "running": {"startedAt": moment}, "terminated": _ENDED,
}  # fmt: skip
_CONTAINER_STATUSES: Final[Form] = [
    {"name!": name, "restartCount": count, "ready": flag, "state": _STATES, "lastState": _STATES}
]
_RAY_CLUSTER: Final[Form] = {
    "headGroupSpec": {"template": _MAYBE}, "workerGroupSpecs": [{"template": _MAYBE}],
}  # fmt: skip
_POD: Final[Form] = {
    "spec": _POD_SPEC,
    "status": {
        "phase": text, "reason": text, "message": text, "startTime": moment, "conditions": _CONDITIONS,
        "initContainerStatuses": _CONTAINER_STATUSES, "containerStatuses": _CONTAINER_STATUSES,
    },
}  # fmt: skip
_WORKLOAD: Final[Form] = {
    "spec!": {
        "replicas": count, "template": _TEMPLATE, "suspend": flag,
        "leaderWorkerTemplate": {"leaderTemplate": _TEMPLATE, "workerTemplate!": _TEMPLATE},
        "volumeClaimTemplates": [{"spec!": {"storageClassName": text}}],
    },
    "status": {
        "replicas": count, "readyReplicas": count, "active": count, "succeeded": count, "ready": count,
        "startTime": moment, "completionTime": moment, "conditions": _CONDITIONS,
    },
}  # fmt: skip
_RAY_JOB: Final[Form] = {
    "spec": {"rayClusterSpec": _RAY_CLUSTER, "submitterPodTemplate": _MAYBE},
    "status": {**dict.fromkeys(("jobDeploymentStatus", "jobStatus", "reason", "message"), text), "startTime": moment},
}
_ADMISSION: Final[Form] = {
    "spec!": {"podSets": [{"name!": name, "count": count}], "queueName": text},
    "status": {
        "conditions": _CONDITIONS,
        "admission": {"clusterQueue": text, "podSetAssignments": [{"name!": name, "count": count}]},
    },
}
_BY_KIND: Final[Mapping[str, Form]] = MappingProxyType(
    {
        "Pod": _POD,
        "TrainingRun": {
            "metadata!": {**_METADATA, "uid!": name}, "spec!": {"release!": text},
            # The operator reads the rest by its own form (golongrl_operator.remembered).
            "status": {"phase": text, "step": text, "message": text, "conditions": _CONDITIONS},
        },
        "RayJob": _RAY_JOB,
        "RayCluster": {
            "spec": _RAY_CLUSTER,
            "status": {
                "state": text, "desiredWorkerReplicas": count, "readyWorkerReplicas": count, "conditions": _CONDITIONS,
            },
        },
        "Workload": _ADMISSION,
        "ScaledObject": {
            "spec": {"triggers": [{"authenticationRef": {"name!": name, "kind": text}}]},
            "status": {"conditions": _CONDITIONS},
        },
        "PersistentVolumeClaim": {"spec!": {"storageClassName": text}, "status": {"phase": text}},
        "Event": {
            "involvedObject": {"kind": text, "name": text}, "reason": text, "message": text,
            "lastTimestamp": moment, "eventTime": moment, "series": {"lastObservedTime": moment},
        },
        "ConfigMap": {"data": _TEXTS},
        "Lease": {
            "spec": {
                "holderIdentity": text, "renewTime": text, "acquireTime": text,
                "leaseDurationSeconds": number, "leaseTransitions": count,
            }
        },
        **dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet", "Job", "LeaderWorkerSet"), _WORKLOAD),
    }
)  # fmt: skip


def fit_object(kind: str, item: Any) -> dict[str, Any] | None:
    """An object of the API server; None if it has no name, or lacks what its kind always has."""
    form = {"metadata!": _METADATA, **_BY_KIND.get(kind, {})}
    found: dict[str, Any] | None = fit(item, form)
    return found


_STOPPED: Final[Form] = {"reason!": text, "detail!": text}
_COUNTERS: Final = ("version", "committed", "trained", "in_batches", "ready", "rejected", "leased", "max_staleness")
_BYTES: Final = ("bytes", "reserved_bytes", "max_bytes")
_PICTURE: Final[Form] = {
    "queue!": {
        **{f"{key}!": count for key in (*_COUNTERS, *_BYTES)},
        "groups_per_step": count, "rows": count,
        "staleness!": levels,
        "weights": ({"version!": count},),
        "stopped": (_STOPPED,),
        "blocking": ({"uid!": text, "worker!": text, "progress_age_s!": number},),
        "leases": [{"worker": text, "progress": count}],
    },
    "services!": [{"service!": text, "id!": text, "age_s!": number, "fields!": _TEXTS}],
}  # fmt: skip


def fit_picture(found: Any) -> dict[str, Any] | None:
    """What a queue says of its run, as `golongrl status --json` prints it; None if it is something else."""
    fitting: dict[str, Any] | None = fit(found, _PICTURE)
    return fitting
