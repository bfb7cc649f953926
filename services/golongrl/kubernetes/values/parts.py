"""The four parts of a release: Redis, the reward service, the rollout pool and the learner."""

from typing import Annotated, Literal

from pydantic import Field

from golongrl.kubernetes.values.common import (
    Count,
    Image,
    Labels,
    PassthroughList,
    Pdb,
    PodPlacement,
    Port,
    Positive,
    Resources,
    ValuesSection,
)


def _bound(size: str, more: str = "") -> str:
    """The field `scratch`: how much of a node's disk a pod of the component may fill."""
    field: str = Field(
        size, description=f"Size limit of /tmp, on the node's disk; a pod that writes more is evicted.{more}"
    )
    return field


class ExternalRedis(ValuesSection):
    """A Redis or Valkey that exists already (7.2 or later, AOF on, noeviction)."""

    host: str = Field("", description="Host name; empty deploys the chart's own.")
    port: Port = Field(6379, description="Port.")
    database: Count = Field(0, description="Database number.")
    tls: bool = Field(False, description="Use rediss://.")
    cidrs: list[str] = Field(
        default_factory=list, description="Addresses the NetworkPolicies open; empty opens the port to any address."
    )


class Redis(PodPlacement):
    """The sample queue's store: one pod, AOF, AUTH."""

    external: ExternalRedis = ExternalRedis()
    image: Image = Image(registry="docker.io", repository="valkey/valkey", tag="8.1.4-alpine")
    appendfsync: Literal["everysec", "always"] = Field(
        "everysec", description="AOF flush; take and finish wait for the disk (WAITAOF) either way."
    )
    size: str = Field("4Gi", description="Size of the AOF volume; at least twice the recipe's queue.max_bytes.")
    storage_class: str = Field("", description="StorageClass of the AOF volume; empty is the cluster's default.")
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    pdb: Pdb = Pdb(enabled=False)


class RewardAutoscaling(ValuesSection):
    """HorizontalPodAutoscaler of the reward service."""

    enabled: bool = Field(False, description="Create it; replicas is then left to it.")
    min_replicas: Positive = Field(2, description="Least pods.")
    max_replicas: Positive = Field(16, description="Most pods.")
    target_cpu: Positive = Field(70, description="Mean CPU utilisation in percent of the request.")


class RewardValues(PodPlacement):
    """The reward service."""

    replicas: Count = Field(1, description="Pods, unless autoscaling is on.")
    image: Image = Image(repository="golongrl/golongrl-reward")
    workers: Positive = Field(
        1, description="Worker processes of a pod: about its CPUs, which a process in a pod cannot see by itself."
    )
    args: list[str] = Field(default_factory=list, description="Further arguments of `golongrl reward serve`.")
    resources: Resources = Resources(requests={"cpu": "250m", "memory": "512Mi"}, limits={"memory": "1Gi"})
    scratch: str = _bound("1Gi")
    autoscaling: RewardAutoscaling = RewardAutoscaling()
    pdb: Pdb = Pdb(enabled=True)


class WorkerValues(ValuesSection):
    """The rollout worker: the pod's main container, so that it drains before its engine is stopped."""

    image: Image = Image(repository="golongrl/golongrl-rollout")
    args: list[str] = Field(default_factory=list, description="Further arguments of `golongrl rollout`.")
    resources: Resources = Resources(requests={"cpu": "150m", "memory": "384Mi"}, limits={"memory": "1Gi"})


class EngineValues(ValuesSection):
    """The inference engine: a native sidecar of the worker."""

    kind: Literal["embedded", "sglang"] = Field(
        "embedded", description="`embedded`: Hugging Face on CPU; `sglang`: SGLang on GPUs."
    )
    image: Image = Image(repository="golongrl/golongrl-learner")
    port: Port = Field(30000, description="HTTP port.")
    tensor_parallel: Positive = Field(1, description="Tensor-parallel degree over all nodes of an engine (sglang).")
    gpu_resource: str = Field("nvidia.com/gpu", description="Resource name of a GPU.")
    args: list[str] = Field(
        default_factory=list,
        description="Further arguments of the engine; of sglang not --config, by which it is given its keys.",
    )
    env: PassthroughList = Field(default_factory=list, description="Further environment variables.")
    resources: Resources = Resources(requests={"cpu": "700m", "memory": "1Gi"}, limits={"memory": "3Gi"})
    shared_memory: str = Field("256Mi", description="Size limit of the memory-backed /dev/shm.")
    startup_seconds: Positive = Field(2700, description="Longest load of the weights before the engine is restarted.")


class Trigger(ValuesSection):
    """KEDA's view of the queue, through Prometheus."""

    server_address: str = Field(
        "http://prometheus-operated.monitoring.svc:9090", description="Prometheus that scrapes the release."
    )
    target_busy_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.85,
        description="Share of the time an engine should hold groups: it idles when the queue refuses leases.",
    )
    authentication_ref: str = Field("", description="TriggerAuthentication for Prometheus; empty is none.")


class RolloutAutoscaling(ValuesSection):
    """KEDA ScaledObject of the rollout pool."""

    enabled: bool = Field(False, description="Create it; replicas is then left to it.")
    min_replicas: Positive = Field(1, description="Least engines.")
    max_replicas: Positive = Field(8, description="Most engines.")
    cooldown_seconds: Positive = Field(
        900, description="Quiet time before scaling down; an engine takes minutes to load."
    )
    prometheus: Trigger = Trigger()


class RolloutValues(PodPlacement):
    """The rollout pool: engine and worker in each pod."""

    replicas: Count = Field(1, description="Engines, unless autoscaling is on.")
    nodes: Positive = Field(1, description="Nodes of one engine: 1 is a Deployment, more a LeaderWorkerSet.")
    worker: WorkerValues = WorkerValues()
    engine: EngineValues = EngineValues()
    max_unavailable: int | str = Field(
        1, description="Pods that a rolling update replaces at a time (number or percentage)."
    )
    # SGLang's compiled kernels and caches.
    scratch: str = _bound("20Gi")
    drain_seconds: Positive = Field(
        180, description="Grace period: time to finish or return groups when a pod is deleted."
    )
    autoscaling: RolloutAutoscaling = RolloutAutoscaling()
    pdb: Pdb = Pdb(enabled=True)


class Gang(ValuesSection):
    """All learner pods at once, or none."""

    scheduler: Literal["none", "kueue", "volcano", "yunikorn"] = Field("none", description="Who admits the RayJob.")
    queue: str = Field("", description="Kueue LocalQueue, Volcano or YuniKorn queue.")


class RayNode(ValuesSection):
    """Resources of one kind of Ray pod."""

    resources: Resources
    ray_start_params: Labels = Field(default_factory=dict, description="Further `ray start` parameters.")


class RayWorkers(RayNode):
    """GPU nodes of the learner."""

    replicas: Count = Field(0, description="Ray worker pods; 0 runs the ranks in the head pod.")
    gpus: Count = Field(
        0, description="GPUs of each worker pod: replicas x gpus must equal the recipe's learner.ranks."
    )
    gpu_resource: str = Field("nvidia.com/gpu", description="Resource name of a GPU.")


class LearnerPdb(ValuesSection):
    """PodDisruptionBudget of the learner's own Ray cluster or Job."""

    enabled: bool = Field(
        False,
        description="Create it: a drain then waits for the run's end, however long; without it, costs one retry from "
        "the last checkpoint.",
    )


class LearnerValues(PodPlacement):
    """The learner: a KubeRay RayJob, or a plain Job with a local Ray."""

    enabled: bool = Field(
        True, description="Deploy it; switch off to submit RayJobs yourself (`golongrl render rayjob`)."
    )
    mode: Literal["auto", "rayjob", "job"] = Field(
        "auto", description="`auto`: a RayJob where the cluster has KubeRay, else a Job."
    )
    image: Image = Image(repository="golongrl/golongrl-learner")
    args: list[str] = Field(default_factory=list, description="Further arguments of `golongrl learner`.")
    submission_mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode"] = Field(
        "K8sJobMode",
        description="How KubeRay submits; KAI needs another than K8sJobMode. Pod Security `restricted` refuses "
        "SidecarMode: KubeRay gives its container no security context.",
    )
    cluster_selector: str = Field(
        "",
        description="Name of a RayCluster to submit to instead of a cluster of its own. Its pods need the image, "
        "environment, volumes and labels of those in `golongrl render rayjob`.",
    )
    backoff_limit: Count = Field(3, description="Fresh starts after a failure, each resuming from the last checkpoint.")
    active_deadline_seconds: Count = Field(0, description="Longest the job may take; 0 is no limit.")
    pre_running_deadline_seconds: Count = Field(
        0, description="Longest the cluster may take to come up; 0 is no limit."
    )
    ttl_seconds_after_finished: Count = Field(600, description="Seconds the Ray cluster outlives the job.")
    head: RayNode = RayNode(
        resources=Resources(requests={"cpu": "1", "memory": "3Gi"}, limits={"memory": "5Gi"}),
        ray_start_params={"num-cpus": "16"},
    )
    workers: RayWorkers = RayWorkers(resources=Resources())
    submitter: Resources = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "512Mi"})
    # Ray's object store takes 30% of the memory limit; what /dev/shm cannot hold goes to disk.
    shared_memory: str = Field(
        "2Gi",
        description="Size limit of the memory-backed /dev/shm. Ray's object store is put on disk where this is below "
        "30% of a Ray pod's memory limit; 10Gi is always enough.",
    )
    # Ray's logs and spilled objects; with weights to broadcast, two versions of them.
    scratch: str = _bound("20Gi", " Weights to broadcast lie there: `golongrl recipe check` says how much.")
    gang: Gang = Gang()
    pdb: LearnerPdb = LearnerPdb()
