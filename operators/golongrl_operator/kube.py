"""All that the operator reads and writes: the API server's objects and the queue.

A call that fails is counted by its code and not repeated here: the next pass does it.

Every call to the API server is listed here, and the chart's Role has these verbs and no others (the tests record them).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from golongrl.errors import InputError
from golongrl.kubernetes import kinds
from golongrl.kubernetes.cluster import Cluster
from golongrl.kubernetes.cluster_errors import ClusterConflictError, ClusterError, ClusterMissingError
from golongrl.kubernetes.forms import fit, text
from golongrl.kubernetes.kinds import ObjectKind
from golongrl.kubernetes.look.gather import ReleaseLook, ask
from golongrl.kubernetes.look.pods import Pod, read_pods
from golongrl.kubernetes.look.queue import look_at_queue
from golongrl.kubernetes.rayjob.site import Manifest
from golongrl.queue.errors import QueueError
from golongrl_operator.api import GROUP, KIND, RUN_LABEL, VERSION
from golongrl_operator.lease import LeaseLostError
from golongrl_operator.metrics import OperatorMetrics
from golongrl_operator.remembered import remembered

# Field manager of server-side apply.
MANAGER: Final = "golongrl-operator"

_KINDS: Final[dict[str, ObjectKind]] = {
    "ConfigMap": kinds.CONFIG_MAP,
    "RayJob": kinds.RAY_JOB,
    "Deployment": kinds.DEPLOYMENT,
    "LeaderWorkerSet": kinds.LEADER_WORKER_SET,
    "Job": kinds.JOB,
    "Workload": kinds.WORKLOAD,
}
# What the cluster lacks if it does not have a kind.
_NEEDS: Final = {
    "RayJob": "install KubeRay 1.7",
    "Workload": "install Kueue 0.15 or newer, or remove spec.schedule.queue",
    "LeaderWorkerSet": "install LeaderWorkerSet",
}
_VERSION: Final = {"metadata": {"resourceVersion": text}}
# Of a pod: Kubernetes removes the cheapest first when a Deployment is scaled down.
_COST: Final = "controller.kubernetes.io/pod-deletion-cost"


@dataclass(frozen=True)
class ClusterLook:
    """The objects of one look at the cluster."""

    runs: list[Manifest]
    jobs: list[Manifest]
    pods: list[Pod]
    workloads: list[Manifest]
    """Deployments or LeaderWorkerSets of rollout pools."""
    evaluations: list[Manifest]
    """Evaluation Jobs of runs."""
    admissions: list[Manifest]
    """Kueue's Workloads of runs."""
    configs: set[str]
    """Names of the runs' ConfigMaps."""
    written: dict[str, Manifest]
    """The status of each run as the API server has it: what differs from the one of this pass is written."""


class Kube:
    """What the operator does in its namespace, with every failed call counted.

    A pass that stands still (a frozen process, a slow server) may outlast the lease. So each call first asks whether
    this operator still acts, and raises LeaseLostError if not.
    """

    def __init__(self, calls: Cluster) -> None:
        self.calls = calls
        self.metrics = OperatorMetrics()
        self.acts: Callable[[], bool] = lambda: True

    @property
    def namespace(self) -> str:
        """The namespace of the release and its runs."""
        return self.calls.namespace

    async def look(self, release: str, pool: str) -> ClusterLook:
        """Runs, and the release's RayJobs, pods and pools. Raises ClusterError.

        Args:
            pool: kind of the release's pool, which the runs' own have too.
        """
        ours = f"app.kubernetes.io/instance={release}"
        with self._counted():
            listed = await self.calls.list_objects(kinds.TRAINING_RUN)
            now = datetime.now(UTC)
            runs = [{**run, "status": remembered(run.get("status"), now)} for run in listed]
            written = {run["metadata"]["name"]: run.get("status") or {} for run in listed}
            # A cluster without KubeRay does not have the kind; the status of the first run that needs a RayJob says so.
            jobs: list[Manifest] = []
            with suppress(ClusterMissingError):
                jobs = await self.calls.list_objects(kinds.RAY_JOB, labels=ours)
            pods = await self.calls.list_objects(kinds.POD, labels=ours)
            pools = f"{ours},app.kubernetes.io/component=rollout"
            workloads: list[Manifest] = []
            with suppress(ClusterMissingError):
                workloads = await self.calls.list_objects(_KINDS[pool], labels=pools)
            evaluations: list[Manifest] = []
            if any(_evaluated(run) for run in runs):
                mine = f"{ours},app.kubernetes.io/component=evaluation,{RUN_LABEL}"
                evaluations = await self.calls.list_objects(kinds.JOB, labels=mine)
            admissions: list[Manifest] = []
            if any(_queued(run) for run in runs):
                # A cluster without Kueue does not have the kind; the status of a run that needs it says so.
                with suppress(ClusterMissingError):
                    admissions = await self.calls.list_objects(kinds.WORKLOAD, labels=f"{ours},{RUN_LABEL}")
            configs = await self.calls.names(kinds.CONFIG_MAP, f"{ours},{RUN_LABEL}")
        return ClusterLook(
            runs=runs,
            jobs=jobs,
            pods=read_pods(pods),
            workloads=workloads,
            evaluations=evaluations,
            admissions=admissions,
            configs=configs,
            written=written,
        )

    async def write_status(self, run: Manifest, status: Manifest) -> Manifest:
        """Replace a run's status; the run as it is then.

        What a pass has seen may have gone: another run of that name would have this one's end and restarts.

        Raises:
            ClusterError: ClusterConflictError if the run was written meanwhile.
        """
        metadata = run["metadata"]
        seen = {key: metadata[key] for key in ("name", "resourceVersion") if metadata.get(key)}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": seen, "status": status}
        with self._counted():
            answer = await self.calls.apply_status(kinds.TRAINING_RUN, body)
        written = (fit(answer, _VERSION) or {}).get("metadata", {})
        return {**run, "metadata": {**run["metadata"], "resourceVersion": "", **written}}

    async def apply(self, item: Manifest) -> None:
        """Create an object, or update it. Raises ClusterError."""
        try:
            with self._counted():
                await self.calls.apply(_KINDS[item["kind"]], item)
        except ClusterMissingError as error:
            if needs := _NEEDS.get(item["kind"]):
                raise ClusterMissingError(f"{error}; {needs}") from error
            raise

    async def delete(self, name: str) -> None:
        """Delete a RayJob and its ConfigMap; the RayJob is gone when its nodes are. Raises ClusterError.

        The RayJob goes last, so that a pass which is cut short is repeated as a whole.
        """
        with self._counted():
            for kind in (kinds.CONFIG_MAP, kinds.RAY_JOB):
                with suppress(ClusterMissingError):
                    await self.calls.delete(kind, name)

    async def delete_evaluation(self, name: str) -> None:
        """Delete a Job with its pods. Raises ClusterError."""
        with self._counted(), suppress(ClusterMissingError):
            await self.calls.delete(kinds.JOB, name)

    async def delete_admission(self, name: str) -> None:
        """Delete a Workload of Kueue. Raises ClusterError."""
        with self._counted(), suppress(ClusterMissingError):
            await self.calls.delete(kinds.WORKLOAD, name)

    async def tell_kueue(self, name: str, change: Manifest) -> None:
        """Change the status of a Workload, unless it was written meanwhile. Raises ClusterError."""
        with self._counted(), suppress(ClusterMissingError, ClusterConflictError):
            await self.calls.merge(kinds.WORKLOAD, name, change, "status")

    async def delete_pool(self, kind: str, name: str) -> None:
        """Delete a workload and its ConfigMap. Raises ClusterError."""
        with self._counted():
            for item in (kinds.CONFIG_MAP, _KINDS[kind]):
                with suppress(ClusterMissingError):
                    await self.calls.delete(item, name)

    async def delete_run(self, run: Manifest) -> None:
        """Delete a TrainingRun, and with it what was made for it. Raises ClusterError.

        ClusterConflictError if there is another one of that name by now.
        """
        metadata = run["metadata"]
        with self._counted(), suppress(ClusterMissingError):
            await self.calls.delete(kinds.TRAINING_RUN, metadata["name"], metadata["uid"])

    async def evict(self, pod: str, uid: str) -> None:
        """Delete a pod, but none that has taken its name since; its workload makes another. Raises ClusterError."""
        with self._counted(), suppress(ClusterMissingError, ClusterConflictError):
            await self.calls.delete(kinds.POD, pod, uid)

    async def scale(self, kind: str, name: str, replicas: int) -> None:
        """Set how many engines a workload has. Raises ClusterError."""
        with self._counted():
            await self.calls.merge(_KINDS[kind], name, {"spec": {"replicas": replicas}}, "scale")

    async def price(self, pod: str, cost: int) -> None:
        """Say what the deletion of a pod would lose. Raises ClusterError."""
        change = {"metadata": {"annotations": {_COST: str(cost)}}}
        with self._counted(), suppress(ClusterMissingError):
            await self.calls.merge(kinds.POD, pod, change)

    async def note(self, job: str, annotations: dict[str, str]) -> None:
        """Write annotations of a RayJob that a person made. Raises ClusterError."""
        with self._counted(), suppress(ClusterMissingError):
            await self.calls.merge(kinds.RAY_JOB, job, {"metadata": {"annotations": annotations}})

    async def post(self, event: Manifest) -> None:
        """Post an event, unless it was posted before. Raises ClusterError."""
        with self._counted(), suppress(ClusterConflictError):
            await self.calls.create(kinds.NEW_EVENT, event)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if not self.acts():
            raise LeaseLostError("the lease was lost in the middle of a pass: another operator may act")
        try:
            yield
        except (ClusterMissingError, ClusterConflictError):
            # Any pass may meet these: an object is deleted or written by others at any time.
            raise
        except ClusterError as error:
            self.metrics.error(error.code)
            raise


def _evaluated(run: Manifest) -> bool:
    """Whether there may be a Job of its evaluation: the spec asks for one, or did at the last pass."""
    return bool(run["spec"].get("evaluation") or run["status"].get("evaluation"))


def _queued(run: Manifest) -> bool:
    """Whether there may be a Workload of it: the spec names a queue, or did at the last pass."""
    asked = (fit(run["spec"].get("schedule"), {}) or {}).get("queue")
    return bool(asked) or any(entry["type"] == "Admitted" for entry in run["status"].get("conditions", []))


async def find_site(calls: Cluster, release: str) -> str:
    """The release's document, from its ConfigMap. Raises ClusterError, or InputError if there is none."""
    labels = f"app.kubernetes.io/instance={release},app.kubernetes.io/component=operator"
    for item in await calls.list_objects(kinds.CONFIG_MAP, labels=labels):
        if text := (item.get("data") or {}).get("release.json"):
            return str(text)
    raise InputError(
        f"release {release}: namespace {calls.namespace} has no ConfigMap of it with release.json: install it with "
        "operator.enabled=true or operator.external=true"
    )


async def ask_inside(calls: Cluster, pods: Sequence[Pod]) -> tuple[dict[str, Any] | None, str]:
    """The same from outside the cluster: what the run's own pods say of their queue."""
    seen = ReleaseLook(list(pods))
    found = await ask(calls, seen)
    return (
        found or None,
        "" if found else f"the queue: {'; '.join(seen.unknown) or 'no running worker or learner to ask'}",
    )


async def picture(redis_url: str, run: str) -> tuple[dict[str, Any] | None, str]:
    """What the run's queue reports, or None and the reason why it did not answer."""
    try:
        return await look_at_queue(redis_url, run), ""
    except QueueError as error:
        return None, f"the queue: {error}"
