"""An API server for the operator: kmock's, with what it lacks and the operator uses.

That is server-side apply, label selectors, uids and generations, foreground deletion that takes as long as the test
says, and a record of every call in RBAC's words. Admission, validation and field ownership are a real server's alone.
"""

import datetime
import itertools
from collections.abc import Iterator
from typing import Any

import aiohttp.web
import attrs
from kmock import KubernetesEmulator, Request, action, resource
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

Manifest = dict[str, Any]
# Until the test lets go: KubeRay's own, and the garbage collector's.
FINALIZER = "foregroundDeletion"
RUNS = resource("golongrl.io/v1alpha1/trainingruns")
JOBS = resource("ray.io/v1/rayjobs")
PODS = resource("v1/pods")
CONFIGS = resource("v1/configmaps")
EVENTS = resource("events.k8s.io/v1/events")
_KINDS = {
    "golongrl.io/v1alpha1/trainingruns": "TrainingRun",
    "ray.io/v1/rayjobs": "RayJob",
    "v1/pods": "Pod",
    "v1/configmaps": "ConfigMap",
    "events.k8s.io/v1/events": "Event",
    # kopf looks for these two in the discovery of any server.
    "v1/namespaces": "Namespace",
    "apiextensions.k8s.io/v1/customresourcedefinitions": "CustomResourceDefinition",
}
_VERBS = {
    action.LIST: "list",
    action.WATCH: "watch",
    action.FETCH: "get",
    action.CREATE: "create",
    action.UPDATE: "patch",
    action.DELETE: "delete",
}


@attrs.define(kw_only=True)
class ApiServer(KubernetesEmulator):
    """One namespace, "rl"."""

    calls: set[tuple[str, str, str]] = attrs.field(factory=set)
    """Group, resource or resource/subresource, verb."""
    refuse: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """Plural and verb -> the status to answer."""
    _numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        for known, kind in _KINDS.items():
            self.resources[resource(known)] = {
                "kind": kind,
                "namespaced": kind not in ("Namespace", "CustomResourceDefinition"),
                "singular": kind.lower(),
                "verbs": list(_VERBS.values()),
                "shortnames": [],
                "categories": [],
                "subresources": ["status"],
            }

    async def _handle(self, request: Request) -> Any:
        if request.resource is None or request.action is None or request.resource.plural is None:
            return await super()._handle(request)
        plural, verb = request.resource.plural, _VERBS[request.action]
        what = f"{plural}/{request.subresource}" if request.subresource else plural
        self.calls.add((request.resource.group or "", what, verb))
        if status := self.refuse.get((plural, verb)):
            told = {"kind": "Status", "status": "Failure", "code": status, "message": f"{plural} is forbidden"}
            return aiohttp.web.json_response(told, status=status)
        if "apply-patch" in request.headers.get("Content-Type", ""):
            await self._apply(request)
        if request.action == action.DELETE and request.name is not None and request.resource == JOBS:
            assert request.params["propagationPolicy"] == "Foreground"
        return await super()._handle(request)

    async def _apply(self, request: Request) -> None:
        """Before kmock merges: what this manager applied before and no longer does is removed; a new object is made."""
        assert request.resource is not None
        assert request.params["fieldManager"] == "golongrl-operator"
        key = (request.resource, request.namespace, request.name or "")
        if key in self.objects and not self.objects[key].deleted:
            self.objects[key].patch({"metadata": {"resourceVersion": str(next(self._numbers))}})
            if request.subresource == "status":
                self.objects[key]["status"] = {}
            return
        assert request.subresource is None, "the status of nothing"
        self.calls.add((request.resource.group or "", request.resource.plural or "", "create"))
        held = {"finalizers": [FINALIZER]} if request.resource == JOBS else {}
        self.put(request.resource, {**request.data, "metadata": self.metadata(request.data["metadata"] | held)})

    def metadata(self, given: Manifest) -> Manifest:
        """What a server adds."""
        number = next(self._numbers)
        now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=number)
        return {
            "namespace": "rl",
            "uid": f"uid-{number}",
            "generation": 1,
            "resourceVersion": str(number),
            "creationTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            **given,
        }

    def put(self, kind: Any, item: Manifest) -> None:
        self.objects[kind, "rl", item["metadata"]["name"]] = item

    async def emit(self, kind: Any, name: str, event: str = "MODIFIED") -> None:
        await self._buses[kind].put({"type": event, "object": self.objects[kind, "rl", name].raw})

    async def submit(self, name: str, spec: Manifest) -> None:
        """`kubectl apply` of a TrainingRun."""
        key = (RUNS, "rl", name)
        if key in self.objects:
            generation = self.objects[key]["metadata"]["generation"] + 1
            version = str(next(self._numbers))
            self.objects[key].patch({"metadata": {"generation": generation, "resourceVersion": version}})
            self.objects[key]["spec"] = spec
            await self.emit(RUNS, name)
            return
        metadata = self.metadata({"name": name})
        body = {"apiVersion": "golongrl.io/v1alpha1", "kind": "TrainingRun", "metadata": metadata, "spec": spec}
        self.put(RUNS, body)
        await self.emit(RUNS, name, "ADDED")

    async def kuberay(self, job: str, **status: str) -> None:
        """KubeRay writes a RayJob's status."""
        self.objects[JOBS, "rl", job]["status"] = status
        await self.emit(JOBS, job)

    async def let_go(self, job: str) -> None:
        """The last pod of a deleted RayJob is gone."""
        assert "deletionTimestamp" in self.objects[JOBS, "rl", job]["metadata"]
        raw = self.objects[JOBS, "rl", job].raw
        self.objects[JOBS, "rl", job].delete()
        await self._buses[JOBS].put({"type": "DELETED", "object": raw})

    def live(self, kind: Any) -> dict[str, Manifest]:
        """Objects of a kind by name."""
        return {
            name: dict(item.raw)
            for (known, _, name), item in self.objects.items()
            if known == kind and not item.deleted
        }

    async def _serve_list(self, request: Request) -> Any:
        found = await super()._serve_list(request)
        kept = [item for item in found["items"] if selected(item, request.params.get("labelSelector", ""))]
        return {**found, "items": kept}


def selected(item: Manifest, selector: str) -> bool:
    labels = item["metadata"].get("labels") or {}
    for term in filter(None, selector.split(",")):
        key, equals, value = term.partition("=")
        if key not in labels or (equals and labels[key] != value.lstrip("=")):
            return False
    return True


def series(text: str) -> dict[str, float]:
    """What /metrics says: samples by name, with their labels' values."""
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def exported(registry: CollectorRegistry) -> dict[str, float]:
    """What a registry would say there."""
    return series(generate_latest(registry).decode())
