"""The TrainingRun: what a person asks for (`spec`) and what the operator answers (`status`).

Invariants:
- this module is the only source of the CRD, which is generated from it (`crd.py`; a test holds the file);
- a run says only what differs from its release: storage, Redis, Secrets and images are the release's values.
"""

from typing import Any, Final, Literal

from pydantic import Field

from golongrl.kubernetes.values.common import Count, ValuesSection

GROUP: Final = "golongrl.io"
VERSION: Final = "v1alpha1"
KIND: Final = "TrainingRun"
PLURAL: Final = "trainingruns"
# On every object that the operator makes: whose it is, what it runs, and which try it is.
RUN_LABEL: Final = f"{GROUP}/training-run"
CONTENT: Final = f"{GROUP}/content"
ATTEMPT: Final = f"{GROUP}/attempt"


class PatchMetadata(ValuesSection):
    """Labels and annotations of the RayJob: queues of Kueue, Volcano and YuniKorn."""

    labels: dict[str, str | None] = Field(default_factory=dict, description="Labels; a null removes one.")
    annotations: dict[str, str | None] = Field(default_factory=dict, description="Annotations; a null removes one.")


class LearnerPatch(ValuesSection):
    """A patch of a RayJob."""

    metadata: PatchMetadata = Field(default=PatchMetadata(), description="Labels and annotations of the RayJob.")
    spec: dict[str, Any] = Field(
        default_factory=dict, description="Its spec: KubeRay's RayJobSpec, checked by the API server when it is made."
    )


class Spec(ValuesSection):
    """What to train, and with which release."""

    release: str = Field(
        min_length=1, max_length=53, description="Helm release whose Redis, rollout pool and storage train it."
    )
    suspend: bool = Field(
        False,
        description="Delete the RayJob and free its nodes; false again resumes from the last checkpoint.",
    )
    max_restarts: Count = Field(
        2,
        description="How often a RayJob that has stalled, or has failed with its own backoffLimit used up, is replaced "
        "by a new one, which resumes from the last checkpoint.",
    )
    stall_seconds: Count = Field(
        0,
        description="Seconds without progress in the queue after which a running learner is restarted; 0: never.",
    )
    recipe_preset: str | None = Field(
        None,
        description="Packaged recipe that `recipe` changes. Absent: the release's. Empty: `recipe` is a whole one.",
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict, description="The recipe, or what differs from the preset; a null removes a key."
    )
    learner: LearnerPatch = Field(
        default=LearnerPatch(),
        description="What differs from the RayJob that the release's chart renders. Merged as `kubectl patch` does: "
        "containers, volumes and variables by name, worker groups by groupName; a null removes a key.",
    )


class Condition(ValuesSection):
    """One aspect of the run, in the form of Kubernetes' conditions."""

    type: str = Field(max_length=316, description="Aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: str = Field(max_length=1024, description="Why, in one word.")
    message: str = Field("", max_length=32768, description="Why, for people.")
    last_transition_time: str = Field(
        description="When `status` last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: Count = Field(description="Generation of the spec that this is about.")


class Progress(ValuesSection):
    """The queue's counters and when they last changed; a stall is measured by them."""

    mark: str = Field(description="The counters.")
    since: str = Field(description="When they last changed.", json_schema_extra={"format": "date-time"})


class RunStatus(ValuesSection):
    """The state of the run at the operator's last pass."""

    observed_generation: Count = Field(0, description="Generation of the spec that this status is about.")
    phase: str = Field("Pending", description="State of the run in one word.")
    message: str = Field("", description="What happens, what the run waits for, or what failed.")
    job: str = Field("", description="Name of the RayJob.")
    content: str = Field("", description="Hash of all that the RayJob runs; if it changes, the RayJob is replaced.")
    restarts: Count = Field(0, description="How often the operator has created a new RayJob of this content.")
    head: str = Field("", description="The Ray head: its pod's UID and restarts.")
    head_replacements: Count = Field(
        0, description="How often KubeRay has replaced a lost Ray head; not counted as restarts."
    )
    step: str = Field("", description="Optimizer steps done, of how many.")
    version: Count | None = Field(None, description="Newest policy version announced to the engines.")
    checkpoint: Count | None = Field(None, description="Step of the last checkpoint.")
    staleness: str = Field("", description="Policy versions that the oldest group is behind, and max_staleness.")
    stuck: list[str] = Field(default_factory=list, description="What stops the loop, most telling first.")
    progress: Progress | None = Field(None, description="Since when the queue has made no progress.")
    conditions: list[Condition] = Field(
        default_factory=list[Condition],
        description="Accepted, Progressing, Stuck, Complete, Failed.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
