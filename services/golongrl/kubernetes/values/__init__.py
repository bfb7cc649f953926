"""The chart's values: WHERE a run runs (images, replicas, GPUs, storage, policies), never what it trains.

Invariants:
- this package is the only source of the chart's interface: `values.yaml` and `values.schema.json` are generated from it
  (tests hold both);
- strict: an unknown key (but in `global`, which a parent chart shares), a value of the wrong type, or one that the API
  server would refuse is refused with its path;
- what Kubernetes defines (affinity, tolerations, ...) passes through unchanged, in the API server's shapes;
- whether two values fit each other is the chart's to say, in its templates: one place, whoever renders it.
"""

from typing import Any

from pydantic import ConfigDict, Field

from golongrl.kubernetes.values.cluster import MetricsValues, Network, NetworkPolicy, Rbac, ServiceAccount, Tests
from golongrl.kubernetes.values.common import (
    Labels,
    LabelValue,
    ObjectName,
    Passthrough,
    Registry,
    RequiredObjectName,
    ValuesSection,
)
from golongrl.kubernetes.values.construction import ConstructionValues
from golongrl.kubernetes.values.evaluation import EvaluationValues
from golongrl.kubernetes.values.inputs import Auth, Dataset, ModelValues, SecretKey, Storage
from golongrl.kubernetes.values.operator import OperatorValues
from golongrl.kubernetes.values.parts import LearnerValues, Redis, RewardValues, RolloutValues
from golongrl.kubernetes.values.shapes import ExtraObject


class Global(ValuesSection):
    """Values shared with a parent chart. The chart refuses other keys, unless it has a parent with other charts."""

    model_config = ConfigDict(extra="allow")

    image_registry: Registry = Field("", description="Registry (a mirror) that replaces the registry of every image.")
    image_pull_secrets: list[RequiredObjectName] = Field(
        default_factory=list, description="Names of Secrets for private registries."
    )


class Values(ValuesSection):
    """Everything `helm install -f` takes. The defaults are a complete small loop on CPU."""

    enabled: bool = Field(
        True, description="For the `condition` of a parent chart. A release of this chart itself cannot switch it off."
    )
    global_: Global = Field(Global(), alias="global", description="Values shared with a parent chart.")
    name_override: ObjectName = Field("", description="Replaces the chart's name in object names.")
    fullname_override: ObjectName = Field("", description="Replaces the whole prefix of object names.")
    common_labels: Labels = Field(default_factory=dict, description="Labels of every object.")
    run: LabelValue = Field(
        "", description="Name of the run, which is the prefix of its Redis keys. Empty means the release's name."
    )
    recipe_preset: str = Field(
        "quickstart", description="Packaged recipe that `recipe` changes. Empty means that `recipe` is complete."
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict, description="The recipe, or what differs from the preset. A null removes a key."
    )
    service_account: ServiceAccount = ServiceAccount()
    rbac: Rbac = Rbac()
    auth: Auth = Auth()
    huggingface: SecretKey = Field(
        SecretKey(key="token"), description="Token of the Hugging Face Hub (HF_TOKEN of the learner), from a Secret."
    )
    wandb: SecretKey = Field(
        SecretKey(key="api-key"),
        description="API key of Weights & Biases (WANDB_API_KEY of the learner), from a Secret.",
    )
    storage: Storage = Storage()
    model: ModelValues = ModelValues()
    dataset: Dataset = Dataset()
    redis: Redis = Redis()
    reward: RewardValues = RewardValues()
    rollout: RolloutValues = RolloutValues()
    learner: LearnerValues = LearnerValues()
    evaluation: EvaluationValues = EvaluationValues()
    construction: ConstructionValues = ConstructionValues()
    operator: OperatorValues = OperatorValues()
    network: Network = Network()
    network_policy: NetworkPolicy = NetworkPolicy()
    metrics: MetricsValues = MetricsValues()
    tests: Tests = Tests()
    crds: Passthrough = Field(
        default_factory=dict, description="Reserved by Helm for the subchart that holds the CRD. Leave it empty."
    )
    extra_objects: list[ExtraObject] = Field(
        default_factory=list[ExtraObject], description="Additional objects, rendered with Helm's `tpl`."
    )
