"""The kinds of objects that are called, by name: discovery has no deadline, and keeps a cache file in /tmp."""

from dataclasses import dataclass
from typing import Final


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
# The label by which an object names its LocalQueue.
KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"
LOCAL_QUEUE: Final = ObjectKind("LocalQueue", "localqueues", "v1beta2", "kueue.x-k8s.io")
SCALED_OBJECT: Final = ObjectKind("ScaledObject", "scaledobjects", "v1alpha1", "keda.sh")
TRIGGER_AUTHENTICATION: Final = ObjectKind("TriggerAuthentication", "triggerauthentications", "v1alpha1", "keda.sh")
LEASE: Final = ObjectKind("Lease", "leases", group="coordination.k8s.io")
PRIORITY_CLASS: Final = ObjectKind("PriorityClass", "priorityclasses", group="scheduling.k8s.io", namespaced=False)
RUNTIME_CLASS: Final = ObjectKind("RuntimeClass", "runtimeclasses", group="node.k8s.io", namespaced=False)
DEFINITION: Final = ObjectKind(
    "CustomResourceDefinition", "customresourcedefinitions", group="apiextensions.k8s.io", namespaced=False
)
