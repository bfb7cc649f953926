"""The optional Jobs that construct training data on a release's volume."""

from typing import Literal

from pydantic import Field

from golongrl.kubernetes.values.common import (
    Count,
    Folder,
    Image,
    ObjectName,
    Positive,
    Resources,
    Size,
    ValuesSection,
)
from golongrl.kubernetes.values.inputs import SecretKey
from golongrl.kubernetes.values.parts import EngineValues, WorkerValues
from golongrl.kubernetes.values.placement import PodPlacement

# The stages of `golongrl data construct`, whose room is above this one; a test compares them.
Stage = Literal["sources", "select", "generate", "convert", "verify", "passrate", "format", "decontaminate", "diagnose"]


class ConstructionRay(ValuesSection):
    """A Ray cluster of KubeRay for the stages that compute without a model; the others stay plain Jobs."""

    enabled: bool = Field(False, description="Make RayJobs of them. Needs KubeRay and a ReadWriteMany volume.")
    replicas: Positive = Field(4, description="Ray worker pods of each cluster, beside its head.")
    resources: Resources = Field(
        Resources(requests={"cpu": "4", "memory": "8Gi"}, limits={"cpu": "4", "memory": "12Gi"}),
        description="Resources of a Ray worker pod. Ray starts as many tasks as it has CPUs.",
    )
    ttl_seconds_after_finished: Count = Field(600, description="How long the Ray cluster is kept after its job's end.")


class PassrateEngines(PodPlacement):
    """The engines of one model, which the pipeline names: a Job without pods until the stage asks that model."""

    replicas: Positive = Field(1, description="Number of engines.")
    engine: EngineValues = EngineValues()


class PassrateValues(ValuesSection):
    """Engines with their rollout workers for the stage `passrate`, where the pipeline has it."""

    enabled: bool = Field(
        False,
        description="Make them, and let the stage start their Jobs: its pod then has an API token for that alone. If "
        "false, the stage waits for workers that somebody else starts.",
    )
    small: PassrateEngines = Field(PassrateEngines(), description="Of `passrate.small`.")
    large: PassrateEngines = Field(
        PassrateEngines(), description="Of `passrate.large`; they start when those of `small` have ended."
    )
    worker: WorkerValues = WorkerValues()
    idle_seconds: Positive = Field(
        3600, description="Without a sign of the stage for this time, the engines end and give their GPUs back."
    )
    drain_seconds: Positive = Field(
        60, description="Grace period of a deleted pod, in which it finishes its groups or returns them to the queue."
    )
    backoff_limit: Count = Field(6, description="How many pods of one model may fail before its Job fails.")
    scratch: Size = Field("20Gi", description="Size limit of /tmp, on the node's disk.")


class ConstructionValues(PodPlacement):
    """Jobs that run `golongrl data construct` on the release's volume (docs/data.md)."""

    enabled: bool = Field(False, description="Create the Jobs. Other values make other Jobs, which keep what is there.")
    preset: Literal["laptop", "paper"] = Field(
        "laptop", description="Packaged pipeline (laptop, paper), which `pipeline` replaces."
    )
    pipeline: str = Field(
        "",
        description="Text of a pipeline's YAML file, as `--set-file construction.pipeline=mine.yaml` gives it. Empty "
        "means the preset.",
    )
    stages: list[Stage] = Field(
        default_factory=list[Stage],
        description="A Job for each of these stages; each waits until the stages before it have ended. Empty means one "
        "Job that runs all stages of the pipeline.",
    )
    wait_seconds: Positive = Field(
        604_800, description="How long the Job of a stage waits for the stages before it. Then it fails."
    )
    out: Folder = Field(
        "constructed", description="Folder on the release's volume for the stages' tables and train.parquet."
    )
    documents_claim: ObjectName = Field(
        "", description="Claim with documents, mounted read-only at /documents: the `path` of the pipeline's sources."
    )
    llm: SecretKey = Field(
        SecretKey(key="api-key"),
        description="Key of the endpoint that writes and verifies questions (GOLONGRL_LLM_API_KEY), from a Secret. The "
        "endpoint's address needs an egress rule.",
    )
    processes: Positive = Field(2, description="Worker processes of a plain Job: about as many as its CPUs.")
    ray: ConstructionRay = ConstructionRay()
    passrate: PassrateValues = PassrateValues()
    image: Image = Image(repository="golongrl/golongrl-learner")
    backoff_limit: Count = Field(3, description="How often a failed Job is started again. It makes what is missing.")
    active_deadline_seconds: Count = Field(
        0, description="Longest time that a Job may take, waiting included. 0 means no limit."
    )
    resources: Resources = Field(
        Resources(requests={"cpu": "2", "memory": "4Gi"}, limits={"memory": "8Gi"}),
        description="Resources of a plain Job's pod and of a Ray head.",
    )
    shared_memory: Size = Field("2Gi", description="Size limit of /dev/shm, which is in memory.")
    scratch: Size = Field("20Gi", description="Size limit of /tmp.")
