"""kubectl and the queue, asked with deadlines: the thin shell under `golongrl status`."""

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from golongrl.errors import GolongrlError
from golongrl.kubernetes.look.status import Pod, read_pods, read_refusals, read_runs

# A person waits for the answer.
KUBECTL_S = 30
QUEUE_S = 5.0
# Containers that speak to the queue, in the order they are asked.
_ASKED = (("rollout", "worker"), ("learner", "ray-head"), ("learner", "learner"))


class ClusterError(GolongrlError):
    """kubectl is missing, refused or did not answer; the message is its last line."""


@dataclass(frozen=True)
class Cluster:
    """Where a release lives, and the kubectl that reaches it."""

    namespace: str | None = None
    context: str | None = None
    binary: str = "kubectl"

    def run(self, *arguments: str) -> str:
        """kubectl's output.

        Raises:
            ClusterError: it is missing, failed or took longer than KUBECTL_S.
        """
        if shutil.which(self.binary) is None:
            raise ClusterError(f"{self.binary} is not on PATH: install it to look into a cluster")
        where = [
            *(("-n", self.namespace) if self.namespace else ()),
            *(("--context", self.context) if self.context else ()),
        ]
        try:
            done = subprocess.run(
                [self.binary, *where, *arguments], capture_output=True, text=True, timeout=KUBECTL_S, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"kubectl {arguments[0]}: no answer in {KUBECTL_S} s") from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise ClusterError(f"kubectl {arguments[0]}: {last}")
        return done.stdout

    def look(self, release: str) -> tuple[list[Pod], list[str]]:
        """The release's pods, and what could not be made at all (`status.read_refusals`).

        Raises:
            ClusterError: kubectl failed, or there is nothing of that release.
        """
        chosen = ["-l", f"app.kubernetes.io/instance={release}", "-o", "json"]
        pods = read_pods(json.loads(self.run("get", "pods", *chosen)))
        owners = json.loads(self.run("get", "replicasets,statefulsets,jobs", *chosen))
        # A cluster without KubeRay does not know its kinds.
        with contextlib.suppress(ClusterError):
            owners["items"] += json.loads(self.run("get", "rayjobs,rayclusters", *chosen))["items"]
        if not pods and not owners["items"]:
            place = f"namespace {self.namespace}" if self.namespace else "this namespace"
            raise ClusterError(f"release {release}: no pods in {place}; see `helm list -A`")
        events = json.loads(self.run("get", "events", "--field-selector", "type=Warning", "-o", "json"))
        return pods, read_refusals(owners, events) + self._runs(release)

    def _runs(self, release: str) -> list[str]:
        # Nor does one without the operator know TrainingRuns.
        with contextlib.suppress(ClusterError):
            return read_runs(json.loads(self.run("get", "trainingruns", "-o", "json")), release)
        return []

    def ask(self, pods: Sequence[Pod]) -> dict[str, Any] | None:
        """Queue and processes, as a worker or the learner sees them; None if none of them answers."""
        for component, container in _ASKED:
            for pod in pods:
                if pod.component != component or pod.phase != "Running":
                    continue
                try:
                    answer = self.run("exec", pod.name, "-c", container, "--", "golongrl", "status", "--json")
                except ClusterError:
                    continue
                picture: dict[str, Any] = json.loads(answer)
                return picture
        return None


def ask_queue(redis_url: str, run: str) -> dict[str, Any]:
    """`{"queue": ..., "services": [...]}` of a run.

    Raises:
        QueueError: Redis does not answer in QUEUE_S, or the run is not there.
    """
    return asyncio.run(look_at_queue(redis_url, run))


async def look_at_queue(redis_url: str, run: str) -> dict[str, Any]:
    """`ask_queue`, for who has a loop already."""
    from golongrl.queue import SampleQueue
    from golongrl.queue.connection import Patience

    async with SampleQueue.from_url(redis_url, run, patience=Patience(total_s=QUEUE_S)) as queue:
        stats, services = await queue.stats(), await queue.services()
    return {"queue": asdict(stats), "services": [asdict(service) for service in services]}
