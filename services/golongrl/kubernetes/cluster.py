"""Calls to one API server, in one namespace, through the official client: every call has a deadline.

A reading call is repeated only where a busy server asks for that (Retry-After), and within its deadline. A call that
writes is not: its caller decides.

The asyncio half of the official client is used (`kubernetes.aio`): cancelling a call ends it. The deadline of the
threaded half bounds each read and not the whole answer, so an answer that arrives byte by byte would never end.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.dynamic import DynamicClient, Resource
from kubernetes.aio.stream import WsApiClient

from golongrl.kubernetes.answers import NO_SERVER, Json, entries, event, failure, output, pause_s, refusal, refused
from golongrl.kubernetes.cluster_errors import (
    ClusterAccessError,
    ClusterError,
    ClusterMissingError,
    ClusterSilentError,
)
from golongrl.kubernetes.forms import fit, fit_object
from golongrl.kubernetes.kinds import POD, ObjectKind
from golongrl.kubernetes.kubeconfig import Access, find_access

# Of one call with its whole answer. A list of a thousand pods takes a second or two.
CALL_S: Final = 10.0
# What an answer may wait for that the API server itself waits for.
_HANGS: Final = ", and that none of its webhooks hangs"
# The server ends a watch after this, so that a connection that died silently lasts no longer.
WATCH_S: Final = 300
# Of one event. An object is stored with 1.5 MiB at most, and is sent in a few MiB.
_LONGEST_EVENT: Final = 16 << 20
# Asks for names and labels alone: whether a Secret exists can be seen without reading it.
_NAMES_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


class Cluster:
    """One namespace of one cluster. Made by `connect`."""

    def __init__(self, access: Access, client: ApiClient, manager: str, call_s: float) -> None:
        """Made by `connect`.

        Args:
            manager: field manager of server-side apply: what others write into the same objects stays.
            call_s: deadline of a call.
        """
        self.access = access
        self.namespace = access.namespace
        self.server = str(access.configuration.host)
        self._dynamic = DynamicClient(client)
        self._manager = manager
        self._call_s = call_s

    async def version(self) -> Json:
        """Of the server; asked once, also of a busy one. Raises ClusterError."""
        what = "version"
        return self._object(what, await self._call(what, lambda: self._dynamic.request("get", "/version", **_JSON)))

    async def list_objects(
        self, kind: ObjectKind, labels: str | None = None, fields: str | None = None, accept: str = "application/json"
    ) -> list[Json]:
        """Objects of a kind, chosen by selectors as kubectl takes them. Raises ClusterError."""
        found = await self._read(
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
        items = entries(f"{self._where}: list of {kind.plural}", found)
        # Items of a list come without their kind.
        return [{**read, "kind": kind.name} for item in items if (read := fit_object(kind.name, item)) is not None]

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
                        yield event(f"{self._where}: {what}", whole)
                    line.clear()
                line += rest
                if len(line) > _LONGEST_EVENT:
                    raise ClusterError(f"{self._where}: {what}: an event has more than {_LONGEST_EVENT} bytes")
            if whole := bytes(line).strip():
                yield event(f"{self._where}: {what}", whole)
        finally:
            opened.close()

    async def get(self, kind: ObjectKind, name: str) -> Json:
        """One object. Raises ClusterError."""
        item = fit_object(kind.name, await self._one(kind, name))
        if item is None:
            raise ClusterError(f"{self._where}: {kind} {name}: {NO_SERVER}")
        return item

    async def exists(self, kind: ObjectKind, name: str) -> bool:
        """Whether there is such an object; its content is not read. Raises ClusterError, if the kind is missing too."""
        try:
            await self._one(kind, name, header_params={"Accept": _METADATA_ONLY})
        except ClusterMissingError:
            return False
        return True

    async def apply(self, kind: ObjectKind, item: Json, force: bool = True) -> None:
        """Server-side apply. Raises ClusterError."""
        await self._write(
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
        await self._write(
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
        await self._write(
            f"{kind} {name}",
            lambda: self._dynamic.replace(
                self._resource(kind), item, namespace=self._place(kind), field_manager=self._manager, **_JSON
            ),
        )

    async def apply_status(self, kind: ObjectKind, item: Json) -> Json:
        """Server-side apply of the status alone; the object as it is then.

        Raises:
            ClusterError: ClusterConflictError if the object is no more that of the item's resourceVersion.
        """
        name = item["metadata"]["name"]
        path = f"{self._resource(kind).path(name=name, namespace=self._place(kind))}/status"
        return await self._write(
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
        await self._write(
            f"{kind} {item['metadata']['name']}",
            lambda: self._dynamic.create(
                self._resource(kind), item, namespace=self._place(kind), field_manager=self._manager, **_JSON
            ),
        )

    async def delete(self, kind: ObjectKind, name: str, uid: str = "") -> None:
        """Ask for the deletion; the object is gone when everything that it owns is.

        Args:
            uid: of the object that is meant; another one of that name stays.

        Raises:
            ClusterError: ClusterConflictError if there is another one.
        """
        options: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
        if uid:
            options["preconditions"] = {"uid": uid}
        await self._write(
            f"deletion of {kind} {name}",
            lambda: self._dynamic.delete(
                self._resource(kind),
                name=name,
                namespace=self._place(kind),
                body=options,
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
                return await output(opened)

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

    async def _read(self, what: str, call: Callable[[], Awaitable[Any]]) -> Json:
        """A call that changes nothing, whose answer is an object."""
        return self._object(what, await self._call(what, call, waits=True))

    async def _one(self, kind: ObjectKind, name: str, **options: Any) -> Json:
        """One object, or its metadata alone; it has the name that was asked for."""
        found = await self._read(
            f"{kind} {name}",
            lambda: self._dynamic.get(self._resource(kind), name=name, namespace=self._place(kind), **options, **_JSON),
        )
        if fit(found, {"metadata!": {"name!": lambda given: given == name}}) is None:
            raise ClusterError(f"{self._where}: {kind} {name}: {NO_SERVER}")
        return found

    async def _write(self, what: str, call: Callable[[], Awaitable[Any]]) -> Json:
        return self._object(what, await self._call(what, call))

    def _object(self, what: str, found: Any) -> Json:
        """An answer, which a proxy may have replaced by a page of its own."""
        if not isinstance(found, dict):
            raise ClusterError(f"{self._where}: {what}: {NO_SERVER}")
        if error := failure(f"{self._where}: {what}", found):
            raise error
        return found

    async def _call(
        self, what: str, call: Callable[[], Awaitable[Any]], limit_s: float | None = None, *, waits: bool = False
    ) -> Any:
        """`waits`: ask a busy server again when it says so, if that is before the deadline."""
        where = f"{self._where}: {what}"
        try:
            async with asyncio.timeout(limit_s or self._call_s) as deadline:
                while True:
                    try:
                        return await call()
                    except (ApiException, aiohttp.WSServerHandshakeError) as error:
                        pause = pause_s(int(error.status or 0), error.headers) if waits else None
                        end = deadline.when()
                        if pause is None or end is None or asyncio.get_running_loop().time() + pause >= end:
                            raise
                        await asyncio.sleep(pause)
        except ApiException as error:
            raise refused(where, error) from error
        except aiohttp.WSServerHandshakeError as error:
            raise refusal(where, error.status, error.message) from error
        except aiohttp.ContentTypeError as error:
            raise ClusterError(f"{where}: {NO_SERVER}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            remedy = "check that it runs and can be reached"
            if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ClientError):
                waited_s = limit_s or self._call_s
                raise ClusterSilentError(f"{where}: no answer in {waited_s:g} s: {remedy}{_HANGS}") from error
            why = " ".join(f"{type(error).__name__} {error}".split())
            if isinstance(error, aiohttp.ClientConnectorCertificateError):
                remedy = "its certificate is not trusted: name its authority in the kubeconfig"
            raise ClusterSilentError(f"{where}: no answer ({why}): {remedy}") from error
        except (ValueError, RecursionError) as error:
            raise ClusterError(f"{where}: {NO_SERVER}") from error


@asynccontextmanager
async def connect(
    namespace: str | None = None, context: str | None = None, manager: str = "golongrl", call_s: float = CALL_S
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
        yield Cluster(access, client, manager, call_s)


def _plain(_: object, answer: Json) -> Json:
    return answer


_JSON: Final[Mapping[str, Any]] = {"serializer": _plain}
_STREAMS: Final = (("stdout", "true"), ("stderr", "true"))
