"""An API server in memory, for the real helm: discovery, storage, patches, and the refusals that an upgrade can meet.

It is no Kubernetes: no admission, no controllers, no defaults but the StorageClass. What it holds to is what `helm
install`, `upgrade` and `uninstall` depend on: `lookup`, `.Capabilities`, ownership of objects that exist, immutable
fields (422) and fields that somebody else has changed since helm applied them (409).
"""

import copy
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from support.kube_protobuf import secret_of

Object = dict[str, Any]
VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
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
}  # fmt: skip
_CLUSTER_WIDE = ("Namespace", "CustomResourceDefinition")
KUBERAY = {"ray.io/v1": {"RayJob": "rayjobs", "RayCluster": "rayclusters"}}
# Parts of a StatefulSet's spec that may change; every other is refused.
_STATEFUL_SET = {
    "replicas", "ordinals", "template", "updateStrategy", "revisionHistoryLimit", "minReadySeconds",
    "persistentVolumeClaimRetentionPolicy",
}  # fmt: skip
_OBJECT = re.compile(r"^/(?:api/(v1)|apis/([^/]+/[^/]+))/(?:namespaces/([^/]+)/)?([a-z]+)(?:/([^/]+))?$")


def immutable(old: Object, new: Object) -> list[str]:
    """What the API server would refuse of a change from `old` to `new`, by path."""
    before, after = old.get("spec", {}), new.get("spec", {})

    def changed(*paths: str) -> list[str]:
        return [f"spec.{path}" for path in paths if before.get(path) != after.get(path)]

    match new["kind"]:
        case "StatefulSet":
            return changed(*sorted((before.keys() | after.keys()) - _STATEFUL_SET))
        case "Deployment":
            return changed("selector")
        case "Job":
            return changed("template", "selector", "completionMode", "podFailurePolicy")
        case "Service":
            return changed("clusterIP")
        case "PersistentVolumeClaim":
            return changed(*sorted((before.keys() | after.keys()) - {"resources"}))
        case "RoleBinding":
            return ["roleRef"] if old["roleRef"] != new["roleRef"] else []
    return []


def merge(current: Any, patch: Any) -> Any:
    """A strategic merge patch, or a JSON merge patch, which has no directives. Lists of named items merge by name."""
    if isinstance(patch, dict):
        base = current if isinstance(current, dict) else {}
        result = dict(base)
        for key, value in patch.items():
            if key.startswith("$"):
                continue
            if value is None:
                result.pop(key, None)
            elif f"$setElementOrder/{key}" in patch and isinstance(value, list):
                result[key] = _by_name(base.get(key, []), value)
            else:
                result[key] = merge(base.get(key), value)
        return result
    return copy.deepcopy(patch)


def _by_name(current: list[Object], patch: list[Object]) -> list[Object]:
    items = {item["name"]: item for item in current}
    for item in patch:
        if item.get("$patch") == "delete":
            items.pop(item["name"], None)
        else:
            items[item["name"]] = merge(items.get(item["name"]), item)
    return list(items.values())


def apply(current: Object | None, before: Object, after: Object) -> Object:
    """Server-side apply by one manager: what it no longer says goes, what it says is set, everything else stays."""
    result = copy.deepcopy(current or {})
    _forget(result, before, after)
    return dict(merge(result, after))


def _forget(node: Object, before: Object, after: Mapping[str, Any]) -> None:
    for key, value in before.items():
        if key not in after:
            node.pop(key, None)
        elif isinstance(value, dict) and isinstance(after[key], dict) and isinstance(node.get(key), dict):
            _forget(node[key], value, after[key])


def conflicts(current: Object, before: Object, after: Object, path: str = "") -> list[str]:
    """Fields that helm applied, somebody else has changed since, and helm now wants otherwise. A list is one field, as
    in a custom resource whose schema does not say more."""
    found: list[str] = []
    for key in before.keys() & after.keys() & current.keys():
        old, new, live = before[key], after[key], current[key]
        if isinstance(old, dict) and isinstance(new, dict) and isinstance(live, dict):
            found += conflicts(live, old, new, f"{path}.{key}")
        elif live not in (old, new):
            found.append(f"{path}.{key}")
    return sorted(found)


class ApiServer:
    """Objects by (apiVersion, plural, namespace, name); `log` has every request that wrote."""

    def __init__(self, kuberay: bool = True) -> None:
        self.resources = RESOURCES | (KUBERAY if kuberay else {})
        self.objects: dict[tuple[str, str, str, str], Object] = {}
        self.log: list[str] = []
        self.url = ""
        self._applied: dict[tuple[str, str, str, str], Object] = {}
        self._version = 0

    def of(self, kind: str) -> list[Object]:
        """The objects of a kind, helm's own records left out."""
        return [
            item for item in self.objects.values() if item["kind"] == kind and item.get("type") != "helm.sh/release.v1"
        ]

    def one(self, kind: str) -> Object:
        """The only object of a kind."""
        (found,) = self.of(kind)
        return found

    def put(self, item: Object) -> None:
        """An object as a controller writes it."""
        version, metadata = item["apiVersion"], item["metadata"]
        self.objects[version, self.resources[version][item["kind"]], metadata["namespace"], metadata["name"]] = item

    def create_namespace(self, name: str) -> None:
        """A namespace, before there is a client."""
        self.objects["v1", "namespaces", "", name] = {
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
        }  # fmt: skip

    def kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig that points here."""
        name = "fake"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": name, "users": [],
                    "clusters": [{"name": name, "cluster": {"server": self.url}}],
                    "contexts": [{"name": name, "context": {"cluster": name, "user": ""}}],
                }
            )
        )  # fmt: skip
        return path

    def answer(self, method: str, target: str, content_type: str, body: bytes) -> tuple[int, Object]:
        """Status and JSON of one request."""
        url = urlsplit(target)
        if method == "GET" and (found := self._discovery(url.path)) is not None:
            return 200, found
        match = _OBJECT.match(url.path)
        if match is None:
            return _status(404, "NotFound", f"no such path {url.path}")
        core, group, namespace, plural, name = match.groups()
        version = core or group
        kinds = {resource: kind for kind, resource in self.resources.get(version, {}).items()}
        if plural not in kinds:
            return _status(404, "NotFound", f"no resource {plural} in {version}")
        key = (version, plural, namespace or "", name or "")
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if method == "GET" and not name:
            items = [item for at, item in self.objects.items() if at[:3] == key[:3] and _selected(item, query)]
            return 200, {"kind": f"{kinds[plural]}List", "apiVersion": version, "metadata": {}, "items": items}
        if method == "GET":
            return (200, self.objects[key]) if key in self.objects else _missing(plural, name)
        self.log.append(f"{method} {plural}/{name or ''}".rstrip("/"))
        if method == "DELETE":
            return (
                (200, {"kind": "Status", "status": "Success"})
                if self.objects.pop(key, None)
                else _missing(plural, name)
            )
        sent = secret_of(body) if "protobuf" in content_type else yaml.safe_load(body)
        return self._write(method, key, content_type, sent or {}, "dryRun" in query)

    def _write(
        self, method: str, key: tuple[str, str, str, str], content_type: str, sent: Object, dry_run: bool
    ) -> tuple[int, Object]:
        if method == "POST":
            key = (*key[:3], sent["metadata"]["name"])
        old = self.objects.get(key)
        if method == "POST" and old is not None:
            return _status(409, "AlreadyExists", f'{key[1]} "{key[3]}" already exists')
        if method == "PATCH" and "apply" in content_type:
            before = self._applied.get(key, {})
            if old is not None and (fields := conflicts(old, before, sent)):
                return _status(409, "Conflict", f"Apply failed with {len(fields)} conflict(s): {', '.join(fields)}")
            new = apply(old, before, sent)
        elif method == "PATCH":
            if old is None:
                return _missing(key[1], key[3])
            new = merge(old, sent)
        else:
            new = sent
        new = self._with_defaults(new)
        if old is not None and (refused := immutable(old, new)):
            return _status(422, "Invalid", f'{key[1]} "{key[3]}" is invalid: {", ".join(refused)}: field is immutable')
        self._version += 1
        new["metadata"] = {
            **new["metadata"], "resourceVersion": str(self._version), "namespace": key[2],
            "uid": (old or {}).get("metadata", {}).get("uid", f"uid-{self._version}"),
        }  # fmt: skip
        if new["kind"] in _CLUSTER_WIDE:
            del new["metadata"]["namespace"]
        if new["kind"] == "CustomResourceDefinition" and not dry_run:
            names, group = new["spec"]["names"], new["spec"]["group"]
            for version in new["spec"]["versions"]:
                self.resources = self.resources | {f"{group}/{version['name']}": {names["kind"]: names["plural"]}}
        if not dry_run:
            self.objects[key] = new
            if "apply" in content_type:
                self._applied[key] = sent
        return (200 if old else 201), new

    def _with_defaults(self, item: Object) -> Object:
        item = copy.deepcopy(item)
        if item["kind"] == "PersistentVolumeClaim":
            item["spec"].setdefault("storageClassName", "standard")
        if item["kind"] == "CustomResourceDefinition":
            kinds = ("NamesAccepted", "Established")
            item["status"] = {"conditions": [{"type": kind, "status": "True"} for kind in kinds]}
        return item

    def _discovery(self, path: str) -> Object | None:
        parts = path.strip("/").split("/")
        if path == "/version":
            return VERSION
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            return {
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [_group(v) for v in self.resources if "/" in v],
            }
        version = "/".join(parts[1:])
        if (parts[0] == "api" and len(parts) == 2) or (parts[0] == "apis" and len(parts) == 3):
            kinds = self.resources.get(version)
            if kinds is None:
                return None
            verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
            resources = [
                {
                    "name": plural,
                    "singularName": kind.lower(),
                    "namespaced": kind not in _CLUSTER_WIDE,
                    "kind": kind,
                    "verbs": verbs,
                }
                for kind, plural in kinds.items()
            ]
            return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources}
        if path == "/openapi/v3":
            return {
                "paths": {
                    _prefix(v).lstrip("/"): {"serverRelativeURL": f"/openapi/v3{_prefix(v)}"} for v in self.resources
                }
            }
        if path.startswith("/openapi/v3/"):
            version = path.removeprefix("/openapi/v3/").removeprefix("apis/").removeprefix("api/")
            return _open_api(version, self.resources[version]) if version in self.resources else None
        return None


def _prefix(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _open_api(version: str, kinds: Mapping[str, str]) -> Object:
    """No schemas: only the word that the server validates fields itself, which is what helm asks for first."""
    group, _, bare = version.rpartition("/")
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    paths = {
        f"{_prefix(version)}/namespaces/{{namespace}}/{plural}/{{name}}": {
            "patch": {
                "parameters": [parameter],
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-group-version-kind": {"group": group, "kind": kind, "version": bare},
            }
        }
        for kind, plural in kinds.items()
    }
    return {"openapi": "3.0.0", "info": {"title": "fake", "version": "1"}, "paths": paths}


def _group(version: str) -> Object:
    entry = {"groupVersion": version, "version": version.partition("/")[2]}
    return {"name": version.partition("/")[0], "versions": [entry], "preferredVersion": entry}


def _selected(item: Object, query: Mapping[str, str]) -> bool:
    labels = item["metadata"].get("labels", {})
    wanted = dict(pair.split("=", 1) for pair in query.get("labelSelector", "").split(",") if pair)
    fields = dict(pair.split("=", 1) for pair in query.get("fieldSelector", "").split(",") if pair)
    return wanted.items() <= labels.items() and all(item.get(key) == value for key, value in fields.items())


def _status(code: int, reason: str, message: str) -> tuple[int, Object]:
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return code, {**status, "code": code, "metadata": {}}


def _missing(plural: str, name: str) -> tuple[int, Object]:
    return _status(404, "NotFound", f'{plural} "{name}" not found')


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
    """The server on a port of this machine, for the time of the block."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body in one packet: in two, each answer waits 40 ms for an acknowledgement.
        wbufsize = 65536

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with lock:
                code, found = server.answer(self.command, self.path, self.headers.get("Content-Type") or "", body)
                text = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - http.server's names

        def log_message(self, format: str, *args: Any) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        try:
            yield server
        finally:
            http.shutdown()
            thread.join(120)
