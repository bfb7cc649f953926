"""An API server in memory, over real HTTP, for the real helm and Kubernetes client.

It has storage, discovery, watches, patches, server-side apply, foreground deletion, exec, and the refusals that an
upgrade can meet: ownership of objects that exist, immutable fields (422), fields that somebody else has set (409). It
has no admission, controllers, validation or defaults (but the StorageClass of a claim): only a real server has those.
"""

import copy
import datetime
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from support.api_discovery import CLUSTER_WIDE, discover
from support.api_patches import Object, apply, conflicts, immutable, merge, owned_by_others, take_over
from support.kube_protobuf import secret_of

Key = tuple[str, str, str, str]
"""apiVersion, plural, namespace, name."""

RESOURCES: dict[str, dict[str, str]] = {
    "v1": {
        "Namespace": "namespaces", "Secret": "secrets", "ConfigMap": "configmaps", "Service": "services",
        "ServiceAccount": "serviceaccounts", "PersistentVolumeClaim": "persistentvolumeclaims", "Pod": "pods",
        "Event": "events",
    },
    "apps/v1": {"Deployment": "deployments", "ReplicaSet": "replicasets", "StatefulSet": "statefulsets"},
    "batch/v1": {"Job": "jobs"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "networking.k8s.io/v1": {"NetworkPolicy": "networkpolicies"},
    "rbac.authorization.k8s.io/v1": {"Role": "roles", "RoleBinding": "rolebindings"},
    "apiextensions.k8s.io/v1": {"CustomResourceDefinition": "customresourcedefinitions"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "storage.k8s.io/v1": {"StorageClass": "storageclasses"},
    "coordination.k8s.io/v1": {"Lease": "leases"},
    "leaderworkerset.x-k8s.io/v1": {"LeaderWorkerSet": "leaderworkersets"},
    "scheduling.k8s.io/v1": {"PriorityClass": "priorityclasses"},
    "node.k8s.io/v1": {"RuntimeClass": "runtimeclasses"},
    "events.k8s.io/v1": {"Event": "events"},
    "kueue.x-k8s.io/v1beta2": {"Workload": "workloads", "LocalQueue": "localqueues"},
    "keda.sh/v1alpha1": {"ScaledObject": "scaledobjects", "TriggerAuthentication": "triggerauthentications"},
}  # fmt: skip
KUBERAY = {"ray.io/v1": {"RayJob": "rayjobs", "RayCluster": "rayclusters"}}
TRAINING_RUNS = {"golongrl.io/v1alpha1": {"TrainingRun": "trainingruns"}}
# Held by a foreground deletion until the last dependent is gone: here, until the test says so.
FINALIZER = "foregroundDeletion"
_PATH = re.compile(
    r"^/(?:api/(v1)|apis/([^/]+/[^/]+))/(?:namespaces/([^/]+)/)?([a-z]+)(?:/([^/]+))?(?:/(status|scale))?$"
)
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass
class Call:
    """One request."""

    verb: str
    plural: str
    name: str
    subresource: str
    body: Object = field(default_factory=dict)


class ApiServer:
    """Objects by key; `log` has every request that wrote, `calls` every request."""

    def __init__(self, kuberay: bool = True, training_runs: bool = False) -> None:
        self.resources = RESOURCES | (KUBERAY if kuberay else {}) | (TRAINING_RUNS if training_runs else {})
        self.objects: dict[Key, Object] = {}
        self.log: list[str] = []
        self.calls: list[Call] = []
        self.rules: set[tuple[str, str, str]] = set()
        """What was called, in the words of a Role: group, resource or resource/subresource, verb."""
        self.refuse: dict[tuple[str, str], int] = {}
        """Plural and verb -> the status to answer."""
        self.commands: Callable[[str, str, list[str]], tuple[int, str, str]] | None = None
        """Pod, container and command -> exit code, stdout and stderr of `exec`."""
        self.credentials: set[str] = set()
        """What came as the Authorization header."""
        self.metadata_only: set[str] = set()
        """Plurals of objects that were read without their content."""
        self.url = ""
        # Tests change objects while requests are answered.
        self._lock = threading.RLock()
        self._applied: dict[Key, dict[str, Object]] = {}
        self._version = 0
        self._history: list[tuple[int, Key, Object]] = []
        self._watchers: list[tuple[tuple[str, str, str], Callable[[Object], None]]] = []

    def of(self, kind: str) -> list[Object]:
        """The objects of a kind, helm's own records left out."""
        return [
            item for item in self.objects.values() if item["kind"] == kind and item.get("type") != "helm.sh/release.v1"
        ]

    def one(self, kind: str) -> Object:
        """The only object of a kind."""
        (found,) = self.of(kind)
        return found

    def put(self, item: Object, manager: str = "") -> None:
        """An object as a controller writes it, or as a field manager applies it."""
        version, metadata = item["apiVersion"], item["metadata"]
        space = "" if item["kind"] in CLUSTER_WIDE else metadata["namespace"]
        key = (version, self.resources[version][item["kind"]], space, metadata["name"])
        with self._lock:
            self._store(key, copy.deepcopy(item))
            if manager:
                self._applied.setdefault(key, {})[manager] = copy.deepcopy(item)

    def remove(self, key: Key) -> None:
        """An object whose last finalizer is gone."""
        with self._lock:
            self._told(key, "DELETED", self.objects.pop(key))

    def create_namespace(self, name: str) -> None:
        """A namespace, before there is a client."""
        self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def kubeconfig(self, path: Path, namespace: str = "", **user: str) -> Path:
        """Writes a kubeconfig that points here."""
        name, place = "fake", {"namespace": namespace} if namespace else {}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": name,
                    "users": [{"name": name, "user": user}],
                    "clusters": [{"name": name, "cluster": {"server": self.url}}],
                    "contexts": [{"name": name, "context": {"cluster": name, "user": name, **place}}],
                }
            )
        )  # fmt: skip
        return path

    def watch(self, target: str, told: Callable[[Object], None]) -> Callable[[], None]:
        """Tell of changes from the resource version that the request names; gives what ends that."""
        key, _, query = self._read(target)
        since = int(query.get("resourceVersion") or 0)
        self._record("watch", key, "", {})
        watcher = (key[:3], lambda event: told(event) if _selected(event["object"], query) else None)
        with self._lock:
            if query.get("sendInitialEvents") == "true":
                for item in [item for at, item in self.objects.items() if at[:3] == key[:3]]:
                    watcher[1]({"type": "ADDED", "object": copy.deepcopy(item)})
                told(self._bookmark(key))
            for version, changed, event in self._history:
                if version > since and changed[:3] == key[:3] and "sendInitialEvents" not in query:
                    watcher[1](event)
            self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def answer(self, method: str, target: str, content_type: str, body: bytes, accept: str = "") -> tuple[int, Object]:
        """Status and JSON of one request."""
        with self._lock:
            code, found = self._answer(method, target, content_type, body, accept)
            return code, copy.deepcopy(found)

    def _answer(self, method: str, target: str, content_type: str, body: bytes, accept: str) -> tuple[int, Object]:
        url = urlsplit(target)
        if url.path == "/version" and (code := self.refuse.get(("version", "get"))):
            return _status(code, "TooManyRequests", "too many requests")
        if method == "GET" and (found := discover(self.resources, url.path)) is not None:
            return 200, found
        if _PATH.match(url.path) is None:
            return _status(404, "NotFound", f"no such path {url.path}")
        key, subresource, query = self._read(target)
        version, plural, _, name = key
        kinds = {resource: kind for kind, resource in self.resources.get(version, {}).items()}
        if plural not in kinds:
            return _status(404, "NotFound", "the server could not find the requested resource")
        verb = _VERBS.get(method) or ("get" if name else "list")
        protobuf = "protobuf" in content_type
        if protobuf and verb == "delete":
            body = b""  # helm's options of a deletion, which ask for nothing
        sent = secret_of(body) if protobuf and body else yaml.safe_load(body)
        self._record(verb, key, subresource, sent or {})
        if code := self.refuse.get((plural, verb)):
            return _status(code, "Forbidden", f"{plural} is forbidden")
        if verb == "list":
            items = [item for at, item in self.objects.items() if at[:3] == key[:3] and _selected(item, query)]
            metadata = {"resourceVersion": str(self._version)}
            if "PartialObjectMetadataList" in accept:
                # As a real server does it: an empty one is null.
                names = [{"metadata": item["metadata"]} for item in items] or None
                return 200, {"kind": "PartialObjectMetadataList", "metadata": metadata, "items": names}
            return 200, {"kind": f"{kinds[plural]}List", "apiVersion": version, "metadata": metadata, "items": items}
        if verb == "get":
            if key not in self.objects:
                return _missing(plural, name)
            item = self.objects[key]
            if "PartialObjectMetadata" in accept:
                self.metadata_only.add(plural)
                return 200, {"metadata": item["metadata"]}
            return 200, item
        self.log.append(f"{method} {plural}/{name or ''}".rstrip("/"))
        if verb == "delete":
            return self._delete(key, sent or query)
        return self._write(method, key, subresource, content_type, sent or {}, query)

    def _bookmark(self, key: Key) -> Object:
        """What ends the initial events of a watch."""
        (kind,) = [kind for kind, plural in self.resources[key[0]].items() if plural == key[1]]
        end = {"resourceVersion": str(self._version), "annotations": {"k8s.io/initial-events-end": "true"}}
        return {"type": "BOOKMARK", "object": {"apiVersion": key[0], "kind": kind, "metadata": end}}

    def _read(self, target: str) -> tuple[Key, str, dict[str, str]]:
        url = urlsplit(target)
        match = _PATH.match(url.path)
        assert match is not None, target
        core, group, namespace, plural, name, subresource = match.groups()
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        return (core or group, plural, namespace or "", name or ""), subresource or "", query

    def _record(self, verb: str, key: Key, subresource: str, body: Object) -> None:
        group, what = key[0].rpartition("/")[0], f"{key[1]}/{subresource}" if subresource else key[1]
        self.calls.append(Call(verb, key[1], key[3], subresource, body))
        self.rules.add((group, what, verb))

    def _delete(self, key: Key, options: Mapping[str, Any]) -> tuple[int, Object]:
        """`options`: of the body; without one, of the query."""
        if key not in self.objects:
            return _missing(key[1], key[3])
        uid = self.objects[key]["metadata"]["uid"]
        if (meant := (options.get("preconditions") or {}).get("uid", uid)) != uid:
            return _status(
                409, "Conflict", f"Precondition failed: UID in precondition: {meant}, UID in object meta: {uid}"
            )
        if options.get("propagationPolicy") == "Foreground" and key[1] == "rayjobs":
            item = copy.deepcopy(self.objects[key])
            item["metadata"].setdefault("deletionTimestamp", _now(self._version))
            item["metadata"]["finalizers"] = [FINALIZER]
            self._store(key, item)
        else:
            self.remove(key)
            self._applied.pop(key, None)
        return 200, {"kind": "Status", "status": "Success"}

    def _write(
        self, method: str, key: Key, subresource: str, content_type: str, sent: Object, query: Mapping[str, str]
    ) -> tuple[int, Object]:
        if method == "POST":
            key = (*key[:3], sent["metadata"]["name"])
        old, applies = self.objects.get(key), "apply" in content_type
        if method == "POST" and old is not None:
            return _status(409, "AlreadyExists", f'{key[1]} "{key[3]}" already exists')
        read = sent.get("metadata", {}).get("resourceVersion")
        if old is not None and read not in (None, old["metadata"]["resourceVersion"]):
            return _status(409, "Conflict", "the object has been modified")
        manager, forced = query.get("fieldManager", ""), query.get("force") == "true"
        if applies:
            if not manager:
                return _status(400, "BadRequest", "fieldManager is required for apply patch")
            if subresource and old is None:
                return _missing(key[1], key[3])
            if old is None:
                self.rules.add((key[0].rpartition("/")[0], key[1], "create"))
            managers = self._applied.setdefault(key, {})
            slot = f"{manager} {subresource}".rstrip()
            before = managers.get(slot, {})
            fields = conflicts(old or {}, before, sent)
            others = {name: item for name, item in managers.items() if name != slot}
            fields += owned_by_others(others, sent)
            if fields and not forced:
                return _status(409, "Conflict", f"Apply failed with {len(fields)} conflict(s): {', '.join(fields)}")
            new = apply(old, before, sent)
            take_over(others, sent)
        elif method == "PATCH":
            if old is None:
                return _missing(key[1], key[3])
            new = merge(old, sent)
        else:
            new = sent
        if method == "PUT" and old is None:
            return _missing(key[1], key[3])
        new = _with_defaults(new)
        if old is not None and (refused := immutable(old, new)):
            return _status(422, "Invalid", f'{key[1]} "{key[3]}" is invalid: {", ".join(refused)}: field is immutable')
        if "dryRun" in query:
            return (200 if old else 201), new
        if applies:
            managers[slot] = sent
        self._store(key, new)
        return (200 if old else 201), new

    def _store(self, key: Key, item: Object) -> None:
        """With what a server adds."""
        old = self.objects.get(key)
        self._version += 1
        metadata = (old or {}).get("metadata", {})
        generation = metadata.get("generation", 0) + (old is None or old.get("spec") != item.get("spec"))
        item["metadata"] = {
            "uid": f"uid-{self._version}", "creationTimestamp": _now(self._version), "namespace": key[2],
            **{name: metadata[name] for name in ("uid", "creationTimestamp") if name in metadata},
            **item["metadata"], "resourceVersion": str(self._version), "generation": generation,
        }  # fmt: skip
        if item["kind"] in CLUSTER_WIDE:
            del item["metadata"]["namespace"]
        if item["kind"] == "CustomResourceDefinition":
            names, group = item["spec"]["names"], item["spec"]["group"]
            for version in item["spec"]["versions"]:
                self.resources = self.resources | {f"{group}/{version['name']}": {names["kind"]: names["plural"]}}
        self.objects[key] = item
        self._told(key, "MODIFIED" if old else "ADDED", item)

    def _told(self, key: Key, kind: str, item: Object) -> None:
        event = {"type": kind, "object": copy.deepcopy(item)}
        self._history.append((self._version, key, event))
        for place, told in self._watchers:
            if place == key[:3]:
                told(event)


def _now(number: int) -> str:
    """Later for each later object, even within one second of a test."""
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=number)
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")


def _with_defaults(item: Object) -> Object:
    item = copy.deepcopy(item)
    if item["kind"] == "PersistentVolumeClaim":
        item["spec"].setdefault("storageClassName", "standard")
    if item["kind"] == "CustomResourceDefinition":
        kinds = ("NamesAccepted", "Established")
        item["status"] = {"conditions": [{"type": kind, "status": "True"} for kind in kinds]}
    return item


def _selected(item: Object, query: Mapping[str, str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    for key, equals, value in _terms(query.get("labelSelector", "")):
        if key not in labels or (equals and labels[key] != value):
            return False
    return all(_at(item, key) == value for key, _, value in _terms(query.get("fieldSelector", "")))


def _at(item: Object, path: str) -> Any:
    for key in path.split("."):
        item = item.get(key, {})
    return item


def _terms(selector: str) -> Iterator[tuple[str, str, str]]:
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        yield key, equals, value.lstrip("=")


def _status(code: int, reason: str, message: str) -> tuple[int, Object]:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return code, {**status, "code": code, "metadata": {}}


def _missing(plural: str, name: str) -> tuple[int, Object]:
    return _status(404, "NotFound", f'{plural} "{name}" not found')
