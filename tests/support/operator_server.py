"""The API server in memory as a person, KubeRay and the garbage collector use it around the operator; its metrics."""

from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from support.api_server import ApiServer

Manifest = dict[str, Any]


class OperatorApi(ApiServer):
    """One namespace, "rl".

    What is changed is read and written in one go: what the operator writes meanwhile must not be lost.
    """

    def __init__(self) -> None:
        super().__init__(training_runs=True)

    def submit(self, name: str, spec: Manifest) -> None:
        """`kubectl apply` of a TrainingRun."""
        with self._lock:
            body = {
                "apiVersion": "golongrl.io/v1alpha1",
                "kind": "TrainingRun",
                "metadata": {"name": name, "namespace": "rl"},
                "spec": spec,
            }
            old = self.live("TrainingRun").get(name, {})
            self.put({**body, **({"status": old["status"]} if "status" in old else {})})

    def pool(self, replicas: int = 1, name: str = "demo-golongrl-rollout") -> None:
        """The release's pool as Helm makes it, with pods as a Deployment's controller makes them."""
        labels = {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "rollout"}
        metadata = {"name": name, "namespace": "rl", "labels": labels}
        self.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}})

    def engine(self, name: str, trouble: bool = False) -> None:
        """One of its pods; `trouble` is one that crashes again and again."""
        labels = {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "rollout"}
        died = {"terminated": {"exitCode": 1, "reason": "Error"}}
        state = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": died} if trouble else {}
        entry = {"name": "engine", "restartCount": 7 if trouble else 0, **state}
        ready = {"type": "Ready", "status": "False" if trouble else "True"}
        status = {"phase": "Running", "conditions": [ready], "containerStatuses": [entry]}
        metadata = {"name": name, "namespace": "rl", "labels": labels}
        self.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})

    def evict(self, name: str, node: str) -> None:
        """The kubelet of a node that runs short of memory evicts one of its pods."""
        with self._lock:
            item = self.live("Pod")[name]
            at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet"}
            status = {"phase": "Failed", "reason": "Evicted", "conditions": [{**target, "lastTransitionTime": at}]}
            words = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi."
            self.put({**item, "spec": {"nodeName": node}, "status": {**status, "message": words}})

    def kueue(self, name: str, **said: str) -> None:
        """Kueue writes conditions of a Workload: type -> status."""
        with self._lock:
            item = self.live("Workload")[name]
            old = {one["type"]: one for one in (item.get("status") or {}).get("conditions") or []}
            for kind, status in said.items():
                time = {"lastTransitionTime": "2026-01-02T03:04:05Z"}
                old[kind] = {"type": kind, "status": status, "reason": "Preempted", "message": kind, **time}
            self.put({**item, "status": {**item.get("status", {}), "conditions": list(old.values())}})

    def kueue_was_told(self, name: str, kind: str) -> str:
        """Status of a condition of a Workload; empty without one."""
        found = (self.live("Workload")[name].get("status") or {}).get("conditions") or []
        return next((str(one["status"]) for one in found if one["type"] == kind), "")

    def evaluated(self, job: str, words: str) -> None:
        """An evaluation's Job and its pod have ended well; `words` is the container's termination message."""
        with self._lock:
            item = self.live("Job")[job]
            self.put({**item, "status": {"conditions": [{"type": "Complete", "status": "True"}]}})
            ended = {"name": "evaluation", "state": {"terminated": {"exitCode": 0, "message": words}}}
            labels = item["spec"]["template"]["metadata"]["labels"]
            metadata = {"name": f"{job}-abcde", "namespace": "rl", "labels": labels}
            status = {"phase": "Succeeded", "containerStatuses": [ended]}
            self.put({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status})

    def replicas(self, name: str = "demo-golongrl-rollout") -> int:
        """What the pool is asked to have."""
        return int(self.live("Deployment")[name]["spec"]["replicas"])

    def kuberay(self, job: str, **status: Any) -> None:
        """KubeRay writes a RayJob's status."""
        with self._lock:
            self.put({**self.live("RayJob")[job], "status": status})

    def let_go(self, job: str) -> None:
        """The last pod of a deleted RayJob is gone."""
        assert "deletionTimestamp" in self.live("RayJob")[job]["metadata"]
        self.remove(("ray.io/v1", "rayjobs", "rl", job))

    def live(self, kind: str) -> dict[str, Manifest]:
        """Objects of a kind by name."""
        return {item["metadata"]["name"]: item for item in list(self.objects.values()) if item["kind"] == kind}

    def count(self, verb: str, subresource: str = "", plural: str = "") -> int:
        """Requests of a kind."""
        calls = [call for call in list(self.calls) if plural in ("", call.plural)]
        return sum((call.verb, call.subresource) == (verb, subresource) for call in calls)


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
