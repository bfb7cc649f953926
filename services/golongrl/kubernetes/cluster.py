"""Calls to one API server, in one namespace, through the official client: every call has a deadline and no repeats.

The asyncio half of the official client is used (`kubernetes.aio`): cancelling a call ends it. The deadline of the
threaded half bounds each read and not the whole answer, so an answer that arrives byte by byte would never end.
Kinds are named here instead of discovered: discovery has no deadline, and keeps a cache file in the shared /tmp.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient, Resource
from kubernetes.aio.stream import WsApiClient
from kubernetes.aio.stream.ws_client import ERROR_CHANNEL, STDERR_CHANNEL, STDOUT_CHANNEL

from golongrl.kubernetes.forms import count, fit, fit_object, text
from golongrl.kubernetes.kubeconfig import Access, ClusterAccessError, ClusterError, find_access

Json = dict[str, Any]

# Of one call with its whole answer. A list of a thousand pods takes a second or two.
CALL_S: Final = 10.0
# The server ends a watch after this, so that a connection that died silently lasts no longer.
WATCH_S: Final = 300
# Of one event. An object is stored with 1.5 MiB at most, and is sent in a few MiB.
_LONGEST_EVENT: Final = 16 << 20
# Characters of a refusal's words; webhooks may send many.
_LONGEST_REFUSAL: Final = 2000
# An answer that is not the API server's own JSON is quoted up to here.
_QUOTED: Final = 200
_NO_SERVER: Final = "the answer is not JSON of the Kubernetes API: is this an API server?"
# Asks for names and labels alone: whether a Secret exists can be seen without reading it.
_NAMES_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class ClusterMissingError(ClusterError):
    """No such object, or the cluster does not have the kind."""


class ClusterSilentError(ClusterError):
    """No answer in CALL_S: other calls would not be answered either."""


class ClusterConflictError(ClusterError):
    """An object of that name exists, was written meanwhile, or another field manager owns the field."""


class ClusterForbiddenError(ClusterError):
    """The credentials lack the permission."""


@dataclass(frozen=True, slots=True)
class ObjectKind:
    """One kind of the Kubernetes API."""

    name: str
    plural: str
    version: str = "v1"
    group: str = ""
    namespaced: bool = True

    def __str__(self) -> str:
        return self.name


POD: Final = ObjectKind("Pod", "pods")
EVENT: Final = ObjectKind("Event", "events")
CONFIG_MAP: Final = ObjectKind("ConfigMap", "configmaps")
SECRET: Final = ObjectKind("Secret", "secrets")
SERVICE_ACCOUNT: Final = ObjectKind("ServiceAccount", "serviceaccounts")
CLAIM: Final = ObjectKind("PersistentVolumeClaim", "persistentvolumeclaims")
NEW_EVENT: Final = ObjectKind("Event", "events", group="events.k8s.io")
DEPLOYMENT: Final = ObjectKind("Deployment", "deployments", group="apps")
REPLICA_SET: Final = ObjectKind("ReplicaSet", "replicasets", group="apps")
STATEFUL_SET: Final = ObjectKind("StatefulSet", "statefulsets", group="apps")
JOB: Final = ObjectKind("Job", "jobs", group="batch")
LEADER_WORKER_SET: Final = ObjectKind("LeaderWorkerSet", "leaderworkersets", group="leaderworkerset.x-k8s.io")
RAY_JOB: Final = ObjectKind("RayJob", "rayjobs", group="ray.io")
RAY_CLUSTER: Final = ObjectKind("RayCluster", "rayclusters", group="ray.io")
TRAINING_RUN: Final = ObjectKind("TrainingRun", "trainingruns", "v1alpha1", "golongrl.io")
STORAGE_CLASS: Final = ObjectKind("StorageClass", "storageclasses", group="storage.k8s.io", namespaced=False)
WORKLOAD: Final = ObjectKind("Workload", "workloads", "v1beta2", "kueue.x-k8s.io")
SCALED_OBJECT: Final = ObjectKind("ScaledObject", "scaledobjects", "v1alpha1", "keda.sh")
TRIGGER_AUTHENTICATION: Final = ObjectKind("TriggerAuthentication", "triggerauthentications", "v1alpha1", "keda.sh")
LEASE: Final = ObjectKind("Lease", "leases", group="coordination.k8s.io")
PRIORITY_CLASS: Final = ObjectKind("PriorityClass", "priorityclasses", group="scheduling.k8s.io", namespaced=False)
RUNTIME_CLASS: Final = ObjectKind("RuntimeClass", "runtimeclasses", group="node.k8s.io", namespaced=False)
DEFINITION: Final = ObjectKind(
    "CustomResourceDefinition", "customresourcedefinitions", group="apiextensions.k8s.io", namespaced=False
)


class Cluster:
    """One namespace of one cluster. Made by `connect`."""

    def __init__(self, access: Access, client: ApiClient, manager: str) -> None:
        """`manager` is the field manager of server-side apply: what others write into the same objects stays."""
        self.access = access
        self.namespace = access.namespace
        self.server = str(access.configuration.host)
        self._dynamic = DynamicClient(client)
        self._manager = manager

    async def list_objects(
        self, kind: ObjectKind, labels: str | None = None, fields: str | None = None, accept: str = "application/json"
    ) -> list[Json]:
        """Objects of a kind, chosen by selectors as kubectl takes them. Raises ClusterError."""
        found = await self._ask(
            f"list of {kind.plural}",
            lambda: self._dynamic.get(
                self._resource(kind),
                namespace=self._place(kind),
                label_selector=labels,
                field_selector=fields,
                header_params={"Accept": accept},
                **_JSON,
            ),
        )
        items = found.get("items")
        if not isinstance(items, list):
            raise ClusterError(f"{self._where}: list of {kind.plural}: {_NO_SERVER}")
        # Items of a list come without their kind.
        return [{"kind": kind.name, **read} for item in items if (read := fit_object(kind.name, item)) is not None]

    async def names(self, kind: ObjectKind, labels: str) -> set[str]:
        """Names of the objects of a kind; their content is not sent. Raises ClusterError."""
        return {item["metadata"]["name"] for item in await self.list_objects(kind, labels, accept=_NAMES_ONLY)}

    async def watch(self, kind: ObjectKind, labels: str | None = None) -> AsyncGenerator[Json]:
        """Events of a kind, first those of what is there, until the server ends the watch. Raises ClusterError."""
        what = f"watch of {kind.plural}"
        path = self._resource(kind).path(namespace=self._place(kind))
        given = {"watch": "true", "timeout_seconds": WATCH_S, "label_selector": labels}
        limit_s = WATCH_S + CALL_S
        opened = await self._call(
            what, lambda: self._dynamic.request("get", path, serialize=False, _request_timeout=limit_s, **given)
        )
        try:
            line = bytearray()
            while chunk := await self._call(what, opened.content.readany, limit_s):
                *ends, rest = chunk.split(b"\n")
                for end in ends:
                    if whole := bytes(line + end).strip():
                        yield self._event(what, whole)
                    line.clear()
                line += rest
                if len(line) > _LONGEST_EVENT:
                    raise ClusterError(f"{self._where}: {what}: an event has more than {_LONGEST_EVENT} bytes")
            if whole := bytes(line).strip():
                yield self._event(what, whole)
        finally:
            opened.close()

    async def get(self, kind: ObjectKind, name: str) -> Json:
        """One object. Raises ClusterError."""
        found = await self._ask(
            f"{kind} {name}",
            lambda: self._dynamic.get(self._resource(kind), name=name, namespace=self._place(kind), **_JSON),
        )
        item = fit_object(kind.name, found)
        if item is None:
            raise ClusterError(f"{self._where}: {kind} {name}: {_NO_SERVER}")
        return item

    async def exists(self, kind: ObjectKind, name: str) -> bool:
        """Whether there is such an object; its content is not read. Raises ClusterError, if the kind is missing too."""
        try:
            await self._ask(
                f"{kind} {name}",
                lambda: self._dynamic.get(
                    self._resource(kind),
                    name=name,
                    namespace=self._place(kind),
                    header_params={"Accept": _METADATA_ONLY},
                    **_JSON,
                ),
            )
        except ClusterMissingError:
            return False
        return True

    async def apply(self, kind: ObjectKind, item: Json, force: bool = True) -> None:
        """Server-side apply. Raises ClusterError."""
        await self._ask(
            f"{kind} {item['metadata']['name']}",
            lambda: self._dynamic.server_side_apply(
                self._resource(kind),
                item,
                namespace=self._place(kind),
                field_manager=self._manager,
                force_conflicts=force,
                **_JSON,
            ),
        )

    async def merge(self, kind: ObjectKind, name: str, change: Json, subresource: str = "") -> None:
        """A merge patch of an object that exists, or of its subresource. Raises ClusterError."""
        path = self._resource(kind).path(name=name, namespace=self._place(kind))
        await self._ask(
            f"{kind} {name}",
            lambda: self._dynamic.request(
                "patch",
                f"{path}/{subresource}" if subresource else path,
                body=change,
                content_type="application/merge-patch+json",
                field_manager=self._manager,
                **_JSON,
            ),
        )

    async def replace(self, kind: ObjectKind, item: Json) -> None:
        """An object in place of the one with its resourceVersion; ClusterConflictError if that was changed."""
        name = item["metadata"]["name"]
        await self._ask(
            f"{kind} {name}",
            lambda: self._dynamic.replace(
                self._resource(kind), item, namespace=self._place(kind), field_manager=self._manager, **_JSON
            ),
        )

    async def apply_status(self, kind: ObjectKind, item: Json) -> None:
        """Server-side apply of the status alone. Raises ClusterError."""
        name = item["metadata"]["name"]
        path = f"{self._resource(kind).path(name=name, namespace=self._place(kind))}/status"
        await self._ask(
            f"status of {kind} {name}",
            lambda: self._dynamic.request(
                "patch",
                path,
                body=item,
                content_type="application/apply-patch+yaml",
                field_manager=self._manager,
                force_conflicts=True,
                **_JSON,
            ),
        )

    async def create(self, kind: ObjectKind, item: Json) -> None:
        """A new object. Raises ClusterError."""
        await self._ask(
            f"{kind} {item['metadata']['name']}",
            lambda: self._dynamic.create(
                self._resource(kind), item, namespace=self._place(kind), field_manager=self._manager, **_JSON
            ),
        )

    async def delete(self, kind: ObjectKind, name: str) -> None:
        """Ask for the deletion; the object is gone when everything that it owns is. Raises ClusterError."""
        await self._ask(
            f"deletion of {kind} {name}",
            lambda: self._dynamic.delete(
                self._resource(kind),
                name=name,
                namespace=self._place(kind),
                propagation_policy="Foreground",
                **_JSON,
            ),
        )

    async def execute(self, pod: str, container: str, command: Sequence[str]) -> str:
        """What a command inside a container prints.

        Raises:
            ClusterError: it failed (with its last line), or the API server refused.
        """

        async def run() -> tuple[str, str]:
            async with WsApiClient(self.access.configuration) as client:
                request = await client.param_serialize(
                    "GET",
                    f"{self._resource(POD).path(name=pod, namespace=self.namespace)}/exec",
                    query_params=[("container", container), *(("command", word) for word in command), *_STREAMS],
                    auth_settings=["BearerToken"],
                )
                opened = (await client.call_api(*request, _preload_content=False)).response
                return await _output(opened)

        what = f"command in pod {pod}, container {container}"
        printed, failure = await self._call(what, run)
        if failure:
            raise ClusterError(f"{what}: failed: {failure}")
        return str(printed)

    @property
    def _where(self) -> str:
        return f"API server {self.server}, namespace {self.namespace}"

    def _resource(self, kind: ObjectKind) -> Any:
        return Resource(
            prefix="apis" if kind.group else "api",
            group=kind.group,
            api_version=kind.version,
            kind=kind.name,
            name=kind.plural,
            namespaced=kind.namespaced,
            client=self._dynamic,
        )

    def _place(self, kind: ObjectKind) -> str | None:
        return self.namespace if kind.namespaced else None

    def _event(self, what: str, line: bytes) -> Json:
        """One event of a watch; an event that is an error is raised."""
        try:
            found: Json | None = fit(json.loads(line), _EVENT)
        except (ValueError, RecursionError):
            found = None
        if found is None:
            shown = line[:_QUOTED].decode(errors="replace")
            raise ClusterError(f"{self._where}: {what}: no event of the Kubernetes API: {shown!r}")
        if found["type"] == "ERROR":
            told = found["object"]
            raise _refusal(f"{self._where}: {what}", told.get("code", 0), told.get("message", ""))
        return found

    async def _ask(self, what: str, call: Callable[[], Awaitable[Any]]) -> Json:
        """A call whose answer is an object. A proxy may send a failure, or a page of its own, with the code 200."""
        found = await self._call(what, call)
        if not isinstance(found, dict):
            raise ClusterError(f"{self._where}: {what}: {_NO_SERVER}")
        refusal = fit(found, {"kind": text, "status": text, "message": text, "code": count}) or {}
        if refusal.get("kind") == "Status" and refusal.get("status") == "Failure":
            raise _refusal(f"{self._where}: {what}", refusal.get("code", 0), refusal.get("message", ""))
        return found

    async def _call(self, what: str, call: Callable[[], Awaitable[Any]], limit_s: float = CALL_S) -> Any:
        where = f"{self._where}: {what}"
        try:
            async with asyncio.timeout(limit_s):
                return await call()
        except ApiException as error:
            raise _refusal(where, int(error.status or 0), _message(error)) from error
        except aiohttp.WSServerHandshakeError as error:
            raise _refusal(where, error.status, error.message) from error
        except aiohttp.ContentTypeError as error:
            raise ClusterError(f"{where}: {_NO_SERVER}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = " ".join(f"{type(error).__name__} {error}".split())
            remedy = "check that it runs and can be reached"
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                remedy = "its certificate is not trusted: name its authority in the kubeconfig"
            raise ClusterSilentError(f"{where}: no answer ({why}): {remedy}") from error
        except (ValueError, RecursionError) as error:
            raise ClusterError(f"{where}: {_NO_SERVER}") from error


@asynccontextmanager
async def connect(
    namespace: str | None = None, context: str | None = None, manager: str = "golongrl"
) -> AsyncIterator[Cluster]:
    """The cluster of the pod's service account, or of a kubeconfig; nothing is called yet.

    Raises:
        ClusterAccessError: there is neither, or it cannot be used.
    """
    access = await find_access(namespace, context)
    try:
        client = ApiClient(access.configuration)
    except (OSError, ValueError) as error:
        raise ClusterAccessError(f"the certificates for {access.configuration.host} cannot be used: {error}") from error
    async with client:
        yield Cluster(access, client, manager)


def _plain(_: object, answer: Json) -> Json:
    return answer


_JSON: Final[Mapping[str, Any]] = {"serializer": _plain}
_EVENT: Final = {"type!": text, "object!": {"code": count, "message": text}}
_STREAMS: Final = (("stdout", "true"), ("stderr", "true"))

_REFUSALS: Final[dict[int, tuple[type[ClusterError], str]]] = {
    HTTPStatus.UNAUTHORIZED: (ClusterForbiddenError, "log in again: the credentials were not accepted"),
    HTTPStatus.FORBIDDEN: (ClusterForbiddenError, ""),
    HTTPStatus.NOT_FOUND: (ClusterMissingError, ""),
    HTTPStatus.CONFLICT: (ClusterConflictError, ""),
}


def _refusal(where: str, code: int, message: str) -> ClusterError:
    kind, remedy = _REFUSALS.get(code, (ClusterError, ""))
    said = f"{where}: {code} {' '.join(message[:_LONGEST_REFUSAL].split())}".rstrip()
    error = kind("; ".join(filter(None, [said, remedy])))
    error.code = str(code)
    return error


def _message(error: ApiException) -> str:
    """The message of the API server's Status object, or what else answered."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        message = json.loads(body).get("message", "")
    except (ValueError, AttributeError, RecursionError):
        message = body[:_QUOTED]
    return str(message or error.reason or "")


async def _output(opened: Any) -> tuple[str, str]:
    """Standard output of a command and why it failed, from the websocket's channels."""
    streams = {STDOUT_CHANNEL: b"", STDERR_CHANNEL: b"", ERROR_CHANNEL: b""}
    async with opened as socket:
        async for message in socket:
            data = message.data if isinstance(message.data, bytes) else str(message.data).encode()
            if data and data[0] in streams:
                streams[data[0]] += data[1:]
    printed, complained = (streams[channel].decode(errors="replace") for channel in (STDOUT_CHANNEL, STDERR_CHANNEL))
    ended = fit(json.loads(streams[ERROR_CHANNEL] or b"{}"), {"status": text, "message": text}) or {}
    if ended.get("status") == "Success":
        return printed, ""
    last = (complained.strip().splitlines() or [""])[-1]
    return printed, last or ended.get("message") or "the connection ended early"
