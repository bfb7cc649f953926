"""Which kinds an API server says it has, for helm and kubectl."""

from collections.abc import Mapping
from typing import Any

Object = dict[str, Any]
Resources = Mapping[str, Mapping[str, str]]

VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.0", "platform": "linux/amd64"}
CLUSTER_WIDE = (
    "Namespace", "CustomResourceDefinition", "StorageClass", "PriorityClass", "RuntimeClass",
)  # fmt: skip


def discover(resources: Resources, path: str) -> Object | None:
    parts = path.strip("/").split("/")
    if path == "/version":
        return VERSION
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        return {
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": [_group(v) for v in resources if "/" in v],
        }
    version = "/".join(parts[1:])
    if (parts[0] == "api" and len(parts) == 2) or (parts[0] == "apis" and len(parts) == 3):
        kinds = resources.get(version)
        if kinds is None:
            return None
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        found = [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": kind not in CLUSTER_WIDE,
                "kind": kind,
                "verbs": verbs,
            }
            for kind, plural in kinds.items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}
    if path == "/openapi/v3":
        return {"paths": {_prefix(v).lstrip("/"): {"serverRelativeURL": f"/openapi/v3{_prefix(v)}"} for v in resources}}
    if path.startswith("/openapi/v3/"):
        version = path.removeprefix("/openapi/v3/").removeprefix("apis/").removeprefix("api/")
        return _open_api(version, resources[version]) if version in resources else None
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
