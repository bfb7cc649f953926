"""The chart's values: WHERE a run runs (images, replicas, GPUs, storage, policies), never what it trains.

Invariants:
- this module, with its sections in `values_*`, is the only source of the chart's interface: `values.schema.json` is
  generated from it, and the defaults here equal those of `values.yaml` (tests hold both);
- strict: an unknown key or a value of the wrong type is refused with its path;
- what Kubernetes defines (affinity, tolerations, resources, ...) passes through unchanged.
"""

from typing import Any, Self

from pydantic import Field, model_validator

from golongrl.kubernetes.values.cluster import MetricsValues, Network, NetworkPolicy, Rbac, ServiceAccount, Tests
from golongrl.kubernetes.values.common import Labels, Passthrough, PassthroughList, ValuesSection
from golongrl.kubernetes.values.inputs import Auth, Dataset, ModelValues, SecretKey, Storage
from golongrl.kubernetes.values.operator import OperatorValues
from golongrl.kubernetes.values.parts import LearnerValues, Redis, RewardValues, RolloutValues


class Global(ValuesSection):
    """Values shared with a parent chart."""

    image_registry: str = Field("", description="Replaces every image's registry host (a mirror).")
    image_pull_secrets: list[str] = Field(default_factory=list, description="Names of Secrets for private registries.")


class Values(ValuesSection):
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
    model: ModelValues = ModelValues()
    dataset: Dataset = Dataset()
    redis: Redis = Redis()
    reward: RewardValues = RewardValues()
    rollout: RolloutValues = RolloutValues()
    learner: LearnerValues = LearnerValues()
    operator: OperatorValues = OperatorValues()
    network: Network = Network()
    network_policy: NetworkPolicy = NetworkPolicy()
    metrics: MetricsValues = MetricsValues()
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
        if self.learner.gang.scheduler != "none" and self.learner.cluster_selector:
            raise ValueError("learner.gang needs a cluster of its own, not learner.clusterSelector")
        if self.learner.cluster_selector and self.learner.submission_mode == "SidecarMode":
            raise ValueError("learner.submissionMode SidecarMode needs a head of its own, not learner.clusterSelector")
        if str(self.rollout.max_unavailable) in ("0", "0%"):
            raise ValueError("rollout.maxUnavailable is at least 1")
        return self
