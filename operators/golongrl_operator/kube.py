"""The API server and the queue, with deadlines: all that the operator reads and writes.

A call that fails is counted by its code, and never repeated here: the next pass does.

Every call is listed here, and the chart's Role has these verbs and no others (tests/operator records them).
"""

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, TypeVar

import httpx2
from lightkube import ApiError, AsyncClient, KubeConfig
from lightkube.core.exceptions import ConfigError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.resources.core_v1 import ConfigMap, Pod
from lightkube.types import CascadeType

from golongrl.errors import GolongrlError
from golongrl.kubernetes.look.kubectl import look_at_queue
from golongrl.kubernetes.look.status import Pod as Told
from golongrl.kubernetes.look.status import read_pods
from golongrl.kubernetes.rayjob.site import Manifest
from golongrl.queue.errors import QueueError
from golongrl_operator.api import GROUP, KIND, PLURAL, RUN_LABEL, VERSION
from golongrl_operator.metrics import OperatorMetrics

# Field manager of server-side apply: what others write into the same objects stays theirs.
MANAGER: Final = "golongrl-operator"
# Of one call, all pages of a list together; a pass makes about ten.
CALL_S: Final = 10.0

T = TypeVar("T")

TrainingRun = create_namespaced_resource(GROUP, VERSION, KIND, PLURAL)
RayJob = create_namespaced_resource("ray.io", "v1", "RayJob", "rayjobs")
Event = create_namespaced_resource("events.k8s.io", "v1", "Event", "events")
_KINDS: Final[dict[str, Any]] = {"ConfigMap": ConfigMap, "RayJob": RayJob}


class KubeError(GolongrlError):
    """The API server refused, does not know the kind, or did not answer in CALL_S; the message is one line."""


class KubeGoneError(KubeError):
    """No such object, or no such kind."""


class KubeSilentError(KubeError):
    """No answer in CALL_S: other calls would not be answered either."""


class _ConflictError(KubeError):
    """An object of that name is there, or was written meanwhile."""


@dataclass(frozen=True)
class Cluster:
    """The objects of one look."""

    runs: list[Manifest]
    jobs: list[Manifest]
    pods: list[Told]


class Kube:
    """One namespace of one cluster: the pod's own, or that of the kubeconfig."""

    def __init__(self, namespace: str | None = None, metrics: OperatorMetrics | None = None) -> None:
        """Raises KubeError where there is neither a service account nor a kubeconfig."""
        try:
            self._client = AsyncClient(
                config=KubeConfig.from_env(),
                namespace=namespace,
                field_manager=MANAGER,
                timeout=httpx2.Timeout(CALL_S),
                trust_env=False,
            )
        except ConfigError as error:
            raise KubeError(f"no service account and no kubeconfig: {error}") from error
        self.namespace: str = self._client.namespace
        self.metrics = metrics or OperatorMetrics()

    async def look(self, release: str) -> Cluster:
        """Runs, the RayJobs made for runs, and the release's pods. Raises KubeError."""
        runs = await self._list(TrainingRun)
        # A cluster without KubeRay has no such kind; the first RayJob to be made says so in its run's status.
        jobs: list[Manifest] = []
        with suppress(KubeGoneError):
            jobs = await self._list(RayJob, {RUN_LABEL: None})
        pods = await self._list(Pod, {"app.kubernetes.io/instance": release})
        return Cluster(runs, jobs, read_pods({"items": pods}))

    async def tell(self, run: Manifest, status: Manifest) -> None:
        """Write a run's status. Raises KubeError."""
        name = run["metadata"]["name"]
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "status": status}
        told = TrainingRun.Status.from_dict(body)
        await self._call(f"status of TrainingRun {name}", self._client.apply(told, name, force=True))

    async def apply(self, item: Manifest) -> None:
        """Make an object. Raises KubeError."""
        what = f"{item['kind']} {item['metadata']['name']}"
        await self._call(what, self._client.apply(_KINDS[item["kind"]].from_dict(item), force=True))

    async def delete(self, name: str) -> None:
        """Take a RayJob away with its ConfigMap; it is gone when its nodes are. Raises KubeError.

        The RayJob goes last, so that a pass which is cut short is repeated as a whole.
        """
        for kind in (ConfigMap, RayJob):
            with suppress(KubeGoneError):
                await self._call(f"RayJob {name}", self._client.delete(kind, name, cascade=CascadeType.FOREGROUND))

    async def note(self, event: Manifest) -> None:
        """Post an event; one that is there already is not posted again. Raises KubeError."""
        with suppress(_ConflictError):
            await self._call(f"event {event['reason']}", self._client.create(Event.from_dict(event)))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _list(self, kind: Any, labels: Mapping[str, str | None] | None = None) -> list[Manifest]:
        async def listed() -> list[Manifest]:
            return [item.to_dict() async for item in self._client.list(kind, labels=dict(labels) if labels else None)]

        return await self._call(f"list of {kind.__name__}s", listed())

    async def _call(self, what: str, call: Coroutine[Any, Any, T]) -> T:
        try:
            async with asyncio.timeout(CALL_S):
                return await call
        except httpx2.HTTPStatusError as error:
            code = error.response.status_code
            refused = _ANSWERS.get(code, KubeError)
            if refused is KubeError:
                self.metrics.error(str(code))
            said = str(error) if isinstance(error, ApiError) else f"{code} {error.response.text[:200]}"
            raise refused(f"{what}: {' '.join(said.split())}") from error
        except (httpx2.HTTPError, TimeoutError) as error:
            self.metrics.error("none")
            raise KubeSilentError(f"{what}: no answer ({type(error).__name__} {error})".replace(" )", ")")) from error


# What a call may meet in any pass; the others are errors.
_ANSWERS: Final[dict[int, type[KubeError]]] = {HTTPStatus.NOT_FOUND: KubeGoneError, HTTPStatus.CONFLICT: _ConflictError}


async def picture(redis_url: str, run: str) -> tuple[dict[str, Any] | None, str]:
    """What the run's queue says, or None and why not."""
    try:
        return await look_at_queue(redis_url, run), ""
    except QueueError as error:
        return None, f"the queue: {error}"
