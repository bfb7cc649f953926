"""The four components of a release: Redis, the reward service, the rollout pool and the learner."""

from typing import Annotated, Literal

from pydantic import Field

from golongrl.kubernetes.values.common import (
    Argument,
    Cidr,
    Count,
    DeviceName,
    Host,
    Image,
    LabelValue,
    ObjectName,
    Pdb,
    Port,
    Positive,
    Resources,
    ServiceUrl,
    Share,
    Size,
    ValuesSection,
)
from golongrl.kubernetes.values.environment import EnvVar
from golongrl.kubernetes.values.placement import PodPlacement

# As KubeRay takes it: a label of DNS that begins with a letter; empty is none.
RayClusterName = Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=63)]
# A week: longer, and sums with it would leave Kubernetes' 32 bits.
Lasting = Annotated[int, Field(ge=1, le=604_800)]


def _bound(size: str, more: str = "") -> str:
    """The field `scratch`: how much of a node's disk a pod of the component may fill."""
    field: str = Field(
        size, description=f"Size limit of /tmp, on the node's disk. A pod that writes more is evicted.{more}"
    )
    return field


class ExternalRedis(ValuesSection):
    """An existing Redis or Valkey (7.2 or later, with AOF and the policy noeviction)."""

    host: Host = Field(
        "",
        description="Host name. Empty deploys the chart's own Redis. Releases with one database need different values "
        "of `run`, also in different namespaces: those of one name would take each other's groups.",
    )
    port: Port = Field(6379, description="Port.")
    database: Count = Field(0, description="Number of the database.")
    tls: bool = Field(False, description="Use TLS (rediss://).")
    cidrs: list[Cidr] = Field(
        default_factory=list,
        description="Addresses of the server that the NetworkPolicies allow. Empty allows its port at any address.",
    )


class Redis(PodPlacement):
    """The store of the sample queue: one pod with AOF and a password."""

    external: ExternalRedis = ExternalRedis()
    image: Image = Image(registry="docker.io", repository="valkey/valkey", tag="8.1.4-alpine")
    appendfsync: Literal["everysec", "always"] = Field(
        "everysec",
        description="When the AOF is written to disk. `take` and `finish` wait for the disk (WAITAOF) with either.",
    )
    size: Size = Field(
        "4Gi", description="Size of the volume for the AOF: at least twice the recipe's queue.max_bytes."
    )
    storage_class: ObjectName = Field(
        "", description="StorageClass of the volume for the AOF. Empty means the cluster's default."
    )
    resources: Resources = Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "1Gi"})
    pdb: Pdb = Pdb(enabled=False)


class RewardAutoscaling(ValuesSection):
    """HorizontalPodAutoscaler of the reward service."""

    enabled: bool = Field(False, description="Create it. It then sets the number of pods, not `replicas`.")
    min_replicas: Positive = Field(2, description="Minimum number of pods.")
    max_replicas: Positive = Field(16, description="Maximum number of pods.")
    target_cpu: Positive = Field(70, description="Average CPU utilisation to aim at, in percent of the request.")


class RewardValues(PodPlacement):
    """The reward service."""

    replicas: Count = Field(1, description="Number of pods, unless autoscaling is on.")
    image: Image = Image(repository="golongrl/golongrl-reward")
    workers: Positive = Field(
        1, description="Worker processes of each pod: about as many as its CPUs, which the process cannot see itself."
    )
    args: list[Argument] = Field(default_factory=list, description="Additional arguments of `golongrl reward serve`.")
    resources: Resources = Resources(requests={"cpu": "250m", "memory": "512Mi"}, limits={"memory": "1Gi"})
    scratch: Size = _bound("1Gi")
    autoscaling: RewardAutoscaling = RewardAutoscaling()
    pdb: Pdb = Pdb(enabled=True)


class WorkerValues(ValuesSection):
    """The rollout worker. It is the pod's main container, so that it drains before its engine is stopped."""

    image: Image = Image(repository="golongrl/golongrl-rollout")
    args: list[Argument] = Field(default_factory=list, description="Additional arguments of `golongrl rollout`.")
    resources: Resources = Resources(requests={"cpu": "150m", "memory": "384Mi"}, limits={"memory": "1Gi"})


class EngineValues(ValuesSection):
    """The inference engine, a sidecar of the worker."""

    kind: Literal["embedded", "sglang"] = Field(
        "embedded", description="`embedded` is Hugging Face Transformers on CPU, `sglang` is SGLang on GPUs."
    )
    image: Image = Image(repository="golongrl/golongrl-learner")
    port: Port = Field(30000, description="HTTP port.")
    tensor_parallel: Positive = Field(1, description="Tensor-parallel size over all nodes of an engine (sglang).")
    gpu_resource: DeviceName = Field("nvidia.com/gpu", description="Resource name of a GPU.")
    args: list[Argument] = Field(
        default_factory=list,
        description="Additional arguments of the engine. For sglang not --config, which the chart uses for the keys.",
    )
    env: list[EnvVar] = Field(default_factory=list[EnvVar], description="Additional environment variables.")
    resources: Resources = Resources(requests={"cpu": "700m", "memory": "1Gi"}, limits={"memory": "3Gi"})
    shared_memory: Size = Field("256Mi", description="Size limit of /dev/shm, which is in memory.")
    startup_seconds: Lasting = Field(
        2700, description="Longest time that loading the weights may take. Then the engine is restarted."
    )


class Trigger(ValuesSection):
    """How KEDA asks Prometheus for the load of the engines."""

    server_address: ServiceUrl = Field(
        "http://prometheus-operated.monitoring.svc:9090", description="URL of the Prometheus that scrapes the release."
    )
    target_busy_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.97,
        description="Share of the time that an engine should be busy. It is idle when the queue refuses it a lease.",
    )
    window: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}[smh]$")] = Field(
        "15m", description="Over how long the load is averaged: three steps of the learner, or more."
    )
    authentication_ref: ObjectName = Field("", description="TriggerAuthentication for Prometheus. Empty means none.")


class RolloutAutoscaling(ValuesSection):
    """KEDA ScaledObject of the rollout pool."""

    enabled: bool = Field(False, description="Create it. It then sets the number of engines, not `replicas`.")
    min_replicas: Positive = Field(1, description="Minimum number of engines.")
    max_replicas: Positive = Field(8, description="Maximum number of engines.")
    # A HorizontalPodAutoscaler, which KEDA makes, looks back no longer than an hour.
    cooldown_seconds: Annotated[int, Field(ge=1, le=3600)] = Field(
        900, description="How long the load must be low before scaling down. An engine takes minutes to load."
    )
    prometheus: Trigger = Trigger()


class RolloutValues(PodPlacement):
    """The rollout pool: each pod is an engine and a worker."""

    replicas: Count = Field(1, description="Number of engines, unless autoscaling is on.")
    nodes: Positive = Field(1, description="Nodes of one engine: 1 is a Deployment, more are a LeaderWorkerSet.")
    worker: WorkerValues = WorkerValues()
    engine: EngineValues = EngineValues()
    max_unavailable: Share = Field(
        1, description="How many pods a rolling update replaces at a time: a number or a percentage, at least 1."
    )
    # SGLang's compiled kernels and caches.
    scratch: Size = _bound("20Gi")
    weights_copy: Size = Field(
        "1Gi",
        description="Size limit of the worker's copy of the weights, on the node's disk: twice the model's size, and a "
        "tenth more. Unused with `recipe.learner.weight_base_every: 1`.",
    )
    drain_seconds: Lasting = Field(
        180, description="Grace period of a deleted pod, in which it finishes its groups or returns them to the queue."
    )
    autoscaling: RolloutAutoscaling = RolloutAutoscaling()
    pdb: Pdb = Pdb(enabled=True)


class Gang(ValuesSection):
    """Gang scheduling: all pods of the learner start together, or none."""

    scheduler: Literal["none", "kueue", "volcano", "yunikorn"] = Field(
        "none", description="Scheduler that admits the RayJob."
    )
    queue: LabelValue = Field("", description="Its queue: Kueue's LocalQueue, or the queue of Volcano or YuniKorn.")


class RayNode(ValuesSection):
    """Ray pods of one kind."""

    resources: Resources
    ray_start_params: dict[Annotated[str, Field(pattern=r"^[a-z0-9][-_a-z0-9]*$")], Argument] = Field(
        default_factory=dict, description="Additional parameters of `ray start`."
    )


class RayWorkers(RayNode):
    """GPU pods of the learner."""

    replicas: Count = Field(0, description="Number of Ray worker pods. With 0 the ranks run in the head pod.")
    gpus: Count = Field(
        0, description="GPUs of each worker pod. replicas x gpus must be equal to the recipe's learner.ranks."
    )
    gpu_resource: DeviceName = Field("nvidia.com/gpu", description="Resource name of a GPU.")


class LearnerPdb(ValuesSection):
    """PodDisruptionBudget of the learner's own Ray cluster or Job."""

    enabled: bool = Field(
        False,
        description="Create it. A drain of a node then waits until the run has ended, however long that takes. Without "
        "it, a drain costs one retry from the last checkpoint.",
    )


class LearnerValues(PodPlacement):
    """The learner: a KubeRay RayJob, or a plain Job that starts its own Ray."""

    enabled: bool = Field(
        True, description="Deploy it. Switch it off to submit RayJobs yourself (`golongrl render rayjob`)."
    )
    mode: Literal["auto", "rayjob", "job"] = Field(
        "auto", description="`auto` means a RayJob if the cluster has KubeRay, and a Job if not."
    )
    image: Image = Image(repository="golongrl/golongrl-learner")
    args: list[Argument] = Field(default_factory=list, description="Additional arguments of `golongrl learner`.")
    submission_mode: Literal["K8sJobMode", "HTTPMode", "SidecarMode"] = Field(
        "K8sJobMode",
        description="How KubeRay submits the job. The KAI scheduler needs HTTPMode or SidecarMode. Pod Security "
        "`restricted` refuses SidecarMode, because KubeRay sets no security context for its container.",
    )
    cluster_selector: RayClusterName = Field(
        "",
        description="Name of an existing RayCluster to submit to, instead of a cluster for this job alone. Its pods "
        "need the image, environment, volumes and labels of those that `golongrl render rayjob` prints.",
    )
    backoff_limit: Count = Field(
        3, description="How often a failed job is started again. Each retry resumes from the last checkpoint."
    )
    active_deadline_seconds: Count = Field(0, description="Longest time that the job may take. 0 means no limit.")
    pre_running_deadline_seconds: Count = Field(
        0, description="Longest time that the Ray cluster may take to start. 0 means no limit."
    )
    token_authentication: bool = Field(
        True,
        description="Ray accepts only requests with a token, which KubeRay makes for each cluster. Otherwise whoever "
        "reaches the dashboard's port runs code beside the learner's tokens. Needs KubeRay 1.5.1; older ones refuse "
        "the key.",
    )
    ttl_seconds_after_finished: Count = Field(600, description="How long the Ray cluster is kept after the job's end.")
    drain_seconds: Positive = Field(
        120,
        description="Grace period of a deleted pod, in which the learner finishes its step and writes a checkpoint. If "
        "it takes longer, the steps since the last checkpoint are done again.",
    )
    head: RayNode = Field(
        RayNode(
            resources=Resources(requests={"cpu": "1", "memory": "3Gi"}, limits={"memory": "5Gi"}),
            ray_start_params={"num-cpus": "16"},
        ),
        description="The head pod, which runs the driver.",
    )
    workers: RayWorkers = RayWorkers(resources=Resources())
    submitter: Resources = Field(
        Resources(requests={"cpu": "100m", "memory": "256Mi"}, limits={"memory": "512Mi"}),
        description="Resources of the pod with which KubeRay submits the job in K8sJobMode.",
    )
    # Ray's object store takes 30% of the memory limit; what /dev/shm cannot hold goes to disk.
    shared_memory: Size = Field(
        "2Gi",
        description="Size limit of /dev/shm, which is in memory. Ray puts its object store on disk if this is below "
        "30% of a Ray pod's memory limit. 10Gi is always enough.",
    )
    # Ray's logs and spilled objects; with weights to broadcast, two versions of them.
    scratch: Size = _bound("20Gi", " Weights to broadcast are stored there; `golongrl recipe check` prints their size.")
    gang: Gang = Gang()
    pdb: LearnerPdb = LearnerPdb()
