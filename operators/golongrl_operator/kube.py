"""All that the operator reads and writes: the API server's objects and the queue.

A call that fails is counted by its code and not repeated here: the next pass does it.

Every call to the API server is listed here, and the chart's Role has these verbs and no others (the tests record them).
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

from golongrl.kubernetes import cluster
from golongrl.kubernetes.cluster import Cluster, ClusterConflictError, ClusterMissingError, ObjectKind
from golongrl.kubernetes.kubeconfig import ClusterError
from golongrl.kubernetes.look.pods import Pod, read_pods
from golongrl.kubernetes.look.queue import look_at_queue
from golongrl.kubernetes.rayjob.site import Manifest
from golongrl.queue.errors import QueueError
from golongrl_operator.api import GROUP, KIND, RUN_LABEL, VERSION
from golongrl_operator.metrics import OperatorMetrics

# Field manager of server-side apply.
MANAGER: Final = "golongrl-operator"

_KINDS: Final[dict[str, ObjectKind]] = {"ConfigMap": cluster.CONFIG_MAP, "RayJob": cluster.RAY_JOB}


@dataclass(frozen=True)
class ClusterLook:
    """The objects of one look at the cluster."""

    runs: list[Manifest]
    jobs: list[Manifest]
    pods: list[Pod]


class Kube:
    """What the operator does in its namespace, with every failed call counted."""

    def __init__(self, calls: Cluster, metrics: OperatorMetrics | None = None) -> None:
        self.calls = calls
        self.metrics = metrics or OperatorMetrics()

    @property
    def namespace(self) -> str:
        """The namespace of the release and its runs."""
        return self.calls.namespace

    async def look(self, release: str) -> ClusterLook:
        """Runs, the RayJobs made for runs, and the release's pods. Raises ClusterError."""
        with self._counted():
            runs = await self.calls.list_objects(cluster.TRAINING_RUN)
            # A cluster without KubeRay does not have the kind; the status of the first run that needs a RayJob says so.
            jobs: list[Manifest] = []
            with suppress(ClusterMissingError):
                jobs = await self.calls.list_objects(cluster.RAY_JOB, labels=RUN_LABEL)
            pods = await self.calls.list_objects(cluster.POD, labels=f"app.kubernetes.io/instance={release}")
        return ClusterLook(runs, jobs, read_pods(pods))

    async def write_status(self, run: Manifest, status: Manifest) -> None:
        """Replace a run's status. Raises ClusterError."""
        name = run["metadata"]["name"]
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "status": status}
        with self._counted():
            await self.calls.apply_status(cluster.TRAINING_RUN, body)

    async def apply(self, item: Manifest) -> None:
        """Create an object, or update it. Raises ClusterError."""
        with self._counted():
            await self.calls.apply(_KINDS[item["kind"]], item)

    async def delete(self, name: str) -> None:
        """Delete a RayJob and its ConfigMap; the RayJob is gone when its nodes are. Raises ClusterError.

        The RayJob goes last, so that a pass which is cut short is repeated as a whole.
        """
        with self._counted():
            for kind in (cluster.CONFIG_MAP, cluster.RAY_JOB):
                with suppress(ClusterMissingError):
                    await self.calls.delete(kind, name)

    async def post(self, event: Manifest) -> None:
        """Post an event, unless it was posted before. Raises ClusterError."""
        with self._counted(), suppress(ClusterConflictError):
            await self.calls.create(cluster.NEW_EVENT, event)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except (ClusterMissingError, ClusterConflictError):
            # Any pass may meet these: an object is deleted or written by others at any time.
            raise
        except ClusterError as error:
            self.metrics.error(error.code)
            raise


async def picture(redis_url: str, run: str) -> tuple[dict[str, Any] | None, str]:
    """What the run's queue reports, or None and the reason why it did not answer."""
    try:
        return await look_at_queue(redis_url, run), ""
    except QueueError as error:
        return None, f"the queue: {error}"
