"""The chart's values: WHERE a run runs (images, replicas, GPUs, storage, policies), never what it trains.

Invariants:
- this module is the only source of the chart's interface: `values.schema.json` is generated from it, and the defaults
  here equal those of `values.yaml` (tests hold both);
- strict: an unknown key or a value of the wrong type is refused with its path;
- what Kubernetes defines (affinity, tolerations, resources, ...) passes through unchanged.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from golongrl.manifests.values_common import (
    AccessMode,
    Count,
    Image,
    Labels,
    Passthrough,
    PassthroughList,
    Pdb,
    Placement,
    Port,
    Positive,
    Resources,
    Section,
)
from golongrl.manifests.values_operator import OperatorValues


class Global(Section):
    """Values shared with a parent chart."""

    image_registry: str = Field("", description="Replaces every image's registry host (a mirror).")
    image_pull_secrets: list[str] = Field(default_factory=list, description="Names of Secrets for private registries.")


class SecretKey(Section):
    """One key of a Secret made outside the chart."""

    existing_secret: str = Field("", description="Name of the Secret; empty is none.")
    key: str = Field(description="Key inside the Secret.")


class Auth(Section):
    """The release's own Secret: random tokens, kept over upgrades."""

    existing_secret: str = Field(
        "",
        description="Secret to use instead of a generated one; it needs the keys redis-password, reward-token, "
        "engine-api-key and engine-admin-api-key.",
    )


class ServiceAccount(Section):
    """One account for each component, none with a token mounted."""

    create: bool = Field(
        True, description="Create an account for each component; else the namespace's default is used."
    )
    annotations: Labels = Field(default_factory=dict, description="Annotations (cloud identity).")


class Viewer(Section):
    """Read-only Role for people and tools that run `golongrl status`."""

    create: bool = Field(False, description="Create the Role and, with subjects, its RoleBinding.")
    subjects: PassthroughList = Field(default_factory=list, description="RBAC subjects bound to the Role.")


class Rbac(Section):
    """No workload calls the Kubernetes API; the only Role is for people."""

    viewer: Viewer = Viewer()


class Storage(Section):
    """The shared volume: prepared data, published weights, checkpoints and metrics."""

    existing_claim: str = Field("", description="PersistentVolumeClaim to use; empty creates one, kept on uninstall.")
    folder: str = Field(
        "", pattern=r"^([A-Za-z0-9._-]+)?$", description="Folder inside the volume, for releases that share a claim."
    )
    size: str = Field("10Gi", description="Size of the created claim.")
    storage_class: str = Field("", description="StorageClass; empty is the cluster's default.")
    access_modes: list[AccessMode] = Field(
        default_factory=lambda: list[AccessMode](["ReadWriteOnce"]),
        description="ReadWriteMany for more than one node; ReadWriteOnce fits kind and k3d.",
    )
    annotations: Labels = Field(default_factory=dict, description="Annotations of the created claim.")


class ImageVolume(Section):
    """Model weights inside an OCI image, mounted as a volume (Kubernetes 1.33 and later)."""

    reference: str = Field("", description="Image reference; empty is none.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When the kubelet pulls."
    )


class Download(Section):
    """An init step of the learner that fetches a hub repository onto the shared volume, once."""

    repo: str = Field("", description="Hub repository; empty is none.")
    revision: str = Field("main", description="Branch, tag or commit.")


class Model(Section):
    """Where the learner finds the initial weights; engines read what the learner publishes as version 0."""

    existing_claim: str = Field("", description="Claim with model folders, mounted read-only at /models.")
    image_volume: ImageVolume = ImageVolume()
    download: Download = Field(
        Download(), description="Fetch weights to /store/models/NAME, the recipe's model.path then."
    )


class Dataset(Section):
    """Where the learner finds the prompts."""

    download: Download = Field(
        Download(), description="Fetch rows to /store/datasets/NAME, the recipe's data.train then."
    )


class ExternalRedis(Section):
    """A Redis or Valkey that exists already (7.2 or later, AOF on, noeviction)."""

    host: str = Field("", description="Host name; empty deploys the chart's own.")
    port: Port = Field(6379, description="Port.")
    database: Count = Field(0, description="Database number.")
    tls: bool = Field(False, description="Use rediss://.")
    cidrs: list[str] = Field(
        default_factory=list, description="Addresses the NetworkPolicies open; empty opens the port to any address."
    )


class Redis(Placement):
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


class RewardAutoscaling(Section):
    """HorizontalPodAutoscaler of the reward service."""

    enabled: bool = Field(False, description="Create it; replicas is then left to it.")
    min_replicas: Positive = Field(2, description="Least pods.")
    max_replicas: Positive = Field(16, description="Most pods.")
    target_cpu: Positive = Field(70, description="Mean CPU utilisation in percent of the request.")


class Reward(Placement):
    """The reward service."""

    replicas: Count = Field(1, description="Pods, unless autoscaling is on.")
    image: Image = Image(repository="golongrl/golongrl-reward")
    workers: Positive = Field(
        1, description="Worker processes of a pod: about its CPUs, which a process in a pod cannot see by itself."
    )
    args: list[str] = Field(default_factory=list, description="Further arguments of `golongrl reward serve`.")
    resources: Resources = Resources(requests={"cpu": "250m", "memory": "512Mi"}, limits={"memory": "1Gi"})
    autoscaling: RewardAutoscaling = RewardAutoscaling()
    pdb: Pdb = Pdb(enabled=True)


class Worker(Section):
    """The rollout worker: the pod's main container, so that it drains before its engine is stopped."""

    image: Image = Image(repository="golongrl/golongrl-rollout")
    args: list[str] = Field(default_factory=list, description="Further arguments of `golongrl rollout`.")
    resources: Resources = Resources(requests={"cpu": "150m", "memory": "384Mi"}, limits={"memory": "1Gi"})


class Engine(Section):
    """The inference engine: a native sidecar of the worker."""

    kind: Literal["embedded", "sglang"] = Field(
        "embedded", description="`embedded`: Hugging Face on CPU; `sglang`: SGLang on GPUs."
    )
    image: Image = Image(repository="golongrl/golongrl-learner")
    port: Port = Field(30000, description="HTTP port.")
    tensor_parallel: Positive = Field(1, description="Tensor-parallel degree over all nodes of an engine (sglang).")
    args: list[str] = Field(default_factory=list, description="Further arguments of the engine.")
    env: PassthroughList = Field(default_factory=list, description="Further environment variables.")
    resources: Resources = Resources(requests={"cpu": "700m", "memory": "1Gi"}, limits={"memory": "3Gi"})
    shared_memory: str = Field("256Mi", description="Size limit of the memory-backed /dev/shm.")
    startup_seconds: Positive = Field(2700, description="Longest load of the weights before the engine is restarted.")


class Trigger(Section):
    """KEDA's view of the queue, through Prometheus."""

    server_address: str = Field(
        "http://prometheus-operated.monitoring.svc:9090", description="Prometheus that scrapes the release."
    )
    target_busy_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.85,
        description="Share of the time an engine should hold groups: it idles when the queue refuses leases.",
    )
    authentication_ref: str = Field("", description="TriggerAuthentication for Prometheus; empty is none.")


class RolloutAutoscaling(Section):
    """KEDA ScaledObject of the rollout pool."""

    enabled: bool = Field(False, description="Create it; replicas is then left to it.")
    min_replicas: Positive = Field(1, description="Least engines.")
    max_replicas: Positive = Field(8, description="Most engines.")
    cooldown_seconds: Positive = Field(
        900, description="Quiet time before scaling down; an engine takes minutes to load."
    )
    prometheus: Trigger = Trigger()


class Rollout(Placement):
    """The rollout pool: engine and worker in each pod."""

    replicas: Count = Field(1, description="Engines, unless autoscaling is on.")
    nodes: Positive = Field(1, description="Nodes of one engine: 1 is a Deployment, more a LeaderWorkerSet.")
    worker: Worker = Worker()
    engine: Engine = Engine()
    max_unavailable: int | str = Field(
        1, description="Pods that a rolling update replaces at a time (number or percentage)."
    )
    drain_seconds: Positive = Field(
        180, description="Grace period: time to finish or return groups when a pod is deleted."
    )
    autoscaling: RolloutAutoscaling = RolloutAutoscaling()
    pdb: Pdb = Pdb(enabled=True)


class Gang(Section):
    """All learner pods at once, or none."""

    scheduler: Literal["none", "kueue", "volcano", "yunikorn"] = Field("none", description="Who admits the RayJob.")
    queue: str = Field("", description="Kueue LocalQueue, Volcano or YuniKorn queue.")


class RayNode(Section):
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


class LearnerValues(Placement):
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
        "K8sJobMode", description="How KubeRay submits; KAI needs another than K8sJobMode."
    )
    cluster_selector: str = Field("", description="Name of a RayCluster to submit to instead of a cluster of its own.")
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
    shared_memory: str = Field("1Gi", description="Size limit of the memory-backed /dev/shm (Ray's object store).")
    gang: Gang = Gang()


class Rdma(Section):
    """RDMA for engines and ranks: an explicit opt-out of Pod Security `restricted` (IPC_LOCK, as root)."""

    enabled: bool = Field(
        False, description="Request the resource and run engines and ranks as root with IPC_LOCK only."
    )
    resource: str = Field("rdma/hca", description="Extended resource of the RDMA device plugin.")
    count: Positive = Field(1, description="Devices of each pod.")


class Network(Section):
    """Interfaces of the collective libraries."""

    socket_interface: str = Field(
        "", description="NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME; empty leaves the choice to them."
    )
    nccl_env: Labels = Field(default_factory=dict, description="Further NCCL_* variables of engines and ranks.")
    rdma: Rdma = Rdma()


class Peer(Section):
    """Pods of another namespace that reach in."""

    namespace_selector: Passthrough = Field(default_factory=dict, description="Namespaces; empty is any.")
    pod_selector: Passthrough = Field(default_factory=dict, description="Pods.")


class ExtraEgress(Section):
    """Further ways out of a component (a hub, an object store, Weights & Biases): NetworkPolicy egress rules."""

    redis: PassthroughList = Field(default_factory=list, description="Of Redis.")
    reward: PassthroughList = Field(default_factory=list, description="Of the reward service.")
    rollout: PassthroughList = Field(default_factory=list, description="Of the rollout pool.")
    learner: PassthroughList = Field(default_factory=list, description="Of the learner.")


class NetworkPolicy(Section):
    """Exactly the design's arrows; everything else is refused."""

    enabled: bool = Field(True, description="Create the policies.")
    prometheus: Peer = Peer(pod_selector={"matchLabels": {"app.kubernetes.io/name": "prometheus"}})
    kuberay_operator: Peer = Peer(pod_selector={"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}})
    extra_egress: ExtraEgress = ExtraEgress()


class Monitors(Section):
    """ServiceMonitor and PodMonitors of the Prometheus operator."""

    enabled: bool = Field(False, description="Create them; the cluster needs the operator's CRDs.")
    interval: str = Field("15s", description="Scrape interval.")
    labels: Labels = Field(default_factory=dict, description="Labels that your Prometheus selects by.")


class Rules(Section):
    """PrometheusRule with the loop's alerts."""

    enabled: bool = Field(False, description="Create it; the cluster needs the operator's CRDs.")
    labels: Labels = Field(default_factory=dict, description="Labels that your Prometheus selects by.")


class Dashboards(Section):
    """Grafana dashboards as ConfigMaps."""

    enabled: bool = Field(True, description="Create them.")
    labels: Labels = Field(
        default_factory=lambda: {"grafana_dashboard": "1"}, description="Labels that Grafana's sidecar selects by."
    )
    annotations: Labels = Field(default_factory=dict, description="Annotations (the folder, for some sidecars).")


class Metrics(Section):
    """Observability."""

    monitors: Monitors = Monitors()
    rules: Rules = Rules()
    dashboards: Dashboards = Dashboards()


class Tests(Section):
    """What `helm test` runs."""

    enabled: bool = Field(True, description="Create the smoke test of Redis and the reward service.")


class Values(Section):
    """Everything `helm install -f` takes. Unset keys keep these defaults: a complete small loop on CPU."""

    global_: Global = Field(Global(), alias="global", description="Values shared with a parent chart.")
    name_override: str = Field("", description="Replaces the chart's name in object names.")
    fullname_override: str = Field("", description="Replaces the whole prefix of object names.")
    common_labels: Labels = Field(default_factory=dict, description="Labels of every object.")
    run: str = Field(
        "",
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*)?$",
        description="Run name (Redis key prefix); empty is the release's name.",
    )
    recipe_preset: str = Field(
        "quickstart", description="Packaged recipe that `recipe` changes; empty if `recipe` is whole."
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict, description="The recipe, or what differs from the preset; a null removes a key."
    )
    service_account: ServiceAccount = ServiceAccount()
    rbac: Rbac = Rbac()
    auth: Auth = Auth()
    huggingface: SecretKey = SecretKey(key="token")
    wandb: SecretKey = SecretKey(key="api-key")
    storage: Storage = Storage()
    model: Model = Model()
    dataset: Dataset = Dataset()
    redis: Redis = Redis()
    reward: Reward = Reward()
    rollout: Rollout = Rollout()
    learner: LearnerValues = LearnerValues()
    operator: OperatorValues = OperatorValues()
    network: Network = Network()
    network_policy: NetworkPolicy = NetworkPolicy()
    metrics: Metrics = Metrics()
    tests: Tests = Tests()
    crds: Passthrough = Field(default_factory=dict, description="Helm's own key for the subchart with the CRD: empty.")
    extra_objects: PassthroughList = Field(default_factory=list, description="Further objects, rendered with `tpl`.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.rollout.nodes > 1 and self.rollout.engine.kind != "sglang":
            raise ValueError("rollout.nodes > 1 needs rollout.engine.kind sglang")
        if self.rollout.engine.tensor_parallel % self.rollout.nodes:
            raise ValueError("rollout.nodes does not divide rollout.engine.tensorParallel")
        if self.learner.gang.scheduler != "none" and not self.learner.gang.queue:
            raise ValueError("learner.gang.queue names no queue")
        return self
