"""The TrainingRun: what a person asks for (`spec`) and what the operator answers (`status`).

Invariants:
- this module is the only source of the CRD, which is generated from it (`crd.py`; a test holds the file);
- a run says only what differs from its release: storage, Redis, Secrets and images are the release's values.
"""

from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from golongrl.kubernetes.values.common import (
    Argument,
    Count,
    Folder,
    LabelKey,
    LabelValue,
    Positive,
    RequiredObjectName,
    Resources,
    ServiceUrl,
    ValuesSection,
)
from golongrl_operator.placement import Placement

GROUP: Final = "golongrl.io"
VERSION: Final = "v1alpha1"
KIND: Final = "TrainingRun"
PLURAL: Final = "trainingruns"
# On every object that the operator makes: whose it is, what it runs, and which try it is.
RUN_LABEL: Final = f"{GROUP}/training-run"
CONTENT: Final = f"{GROUP}/content"
ATTEMPT: Final = f"{GROUP}/attempt"
# Arguments that the chart or the operator gives themselves, by the key that gives more.
RESERVED: Final = MappingProxyType(
    {
        "rollout.engineArgs": ("--config",),
        "evaluation.args": ("--target", "--last", "--step", "--data", "--out", "--summary"),
    }
)


class PatchMetadata(ValuesSection):
    """Labels and annotations of the RayJob: queues of Kueue, Volcano and YuniKorn."""

    labels: dict[LabelKey, LabelValue | None] = Field(
        default_factory=dict, description="Labels to add or change; a null removes one."
    )
    annotations: dict[LabelKey, str | None] = Field(
        default_factory=dict, description="Annotations to add or change; a null removes one."
    )


class LearnerPatch(Placement):
    """Where the learner's pods may be, and a patch of its RayJob."""

    metadata: PatchMetadata = Field(default=PatchMetadata(), description="Labels and annotations of the RayJob.")
    spec: dict[str, Any] = Field(
        default_factory=dict,
        description="What differs in the RayJob's spec (KubeRay's RayJobSpec). The API server checks it when the "
        "RayJob is made; a refusal is the run's message.",
    )


class RolloutSpec(Placement):
    """The engines that generate for this run."""

    replicas: Count | None = Field(
        None,
        description="Engines, as a fixed number; `kubectl scale` writes this key. Absent: as many as the learner needs "
        "between minReplicas and maxReplicas, or, without maxReplicas, the release's rollout.replicas.",
    )
    min_replicas: Positive | None = Field(
        None, description="Fewest engines while the run trains. Absent: 1. A suspended or ended run has none."
    )
    max_replicas: Positive | None = Field(
        None,
        description="Most engines. With this key the operator sizes the pool by what the queue says: it adds engines "
        "while the learner waits for groups, and takes idle engines away. Unknown signals change nothing.",
    )
    dedicated: bool | None = Field(
        None,
        description="Give the run a pool, a queue and a folder of its own, so that it trains at the same time as the "
        "release's other runs. A run with another model, other data or one of the keys below has these anyway. It "
        "cannot be changed, because samples and checkpoints are in that queue and folder.",
    )
    engine_args: list[Annotated[Argument, Field(max_length=1024)]] | None = Field(
        None,
        max_length=64,
        description="More arguments of the engine, after the release's, such as [--chunked-prefill-size, '8192']. The "
        "run then has a pool of its own.",
    )


class RewardSpec(ValuesSection):
    """What scores the run's responses."""

    url: ServiceUrl | None = Field(
        None,
        description="Address of a reward service that is not the release's. The run then has a pool of its own, and "
        "the chart's networkPolicy.extraEgress.rollout must allow the address.",
    )


class ScheduleSpec(ValuesSection):
    """When the run trains if others want the same GPUs."""

    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = Field(
        0,
        description="A run of higher priority is trained first. Under operator.gpuBudget it suspends runs of lower "
        "priority, which keep their checkpoints and resume when GPUs are free. Equal priorities: the older run first.",
    )
    queue: RequiredObjectName | None = Field(
        None,
        description="Kueue's LocalQueue. Learner and engines are admitted together, as one Workload (Kueue 0.15 or "
        "newer): the RayJob is made and the pool filled only then. An eviction suspends the run, and it resumes from "
        "its last checkpoint when it is admitted again.",
    )


class EvaluationSpec(Placement):
    """What is measured after the run has succeeded."""

    suite: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=63,
        description="Packaged suite, or one benchmark, as `golongrl eval list` names them.",
    )
    data: Annotated[Folder, Field(max_length=253)] | None = Field(
        None,
        description="Folder of the data on the release's volume, as `golongrl eval fetch` fills it. Absent: the "
        "release's evaluation.data.",
    )
    args: list[Annotated[Argument, Field(max_length=1024)]] | None = Field(
        None,
        max_length=64,
        description="More arguments of `golongrl eval run`, after the release's evaluation.args: `--limit 100` asks "
        "100 problems of each benchmark.",
    )
    resources: Resources | None = Field(
        None,
        description="Requests and limits of the pod instead of the release's evaluation.resources. GPUs named here "
        "count in operator.gpuBudget.",
    )
    active_deadline_seconds: Positive | None = Field(
        None, description="Longest time that the evaluation may take. Absent: the release's."
    )
    ttl_seconds_after_finished: Count | None = Field(
        None,
        description="Seconds after its end when the evaluation's Job and its logs are deleted. Absent: with the run. "
        "The scores stay in status.evaluation, the report on the volume.",
    )


class Spec(ValuesSection):
    """What to train. Only `release` is required: what a run does not say is as its release has it."""

    release: str = Field(
        min_length=1,
        max_length=53,
        description="Helm release (`helm list`) whose Redis, reward service and storage train the run. It cannot be "
        "changed.",
    )
    suspend: bool = Field(
        False,
        description="Stop and free all GPUs: the RayJob is deleted and the rollout pool is drained to zero. false "
        "again resumes from the last checkpoint and repeats the steps after it with the same samples, so that the "
        "result is the same as without the pause.",
    )
    rollout: RolloutSpec = Field(
        default=RolloutSpec(),
        description="The engines that generate for this run: how many, which arguments, and where. A run that says "
        "where, or has arguments of its own, has a pool of its own.",
    )
    reward: RewardSpec = Field(default=RewardSpec(), description="What scores the run's responses.")
    schedule: ScheduleSpec = Field(default=ScheduleSpec(), description="When it trains if others want the same GPUs.")
    evaluation: EvaluationSpec | None = Field(
        None,
        description="Benchmarks for the run's last checkpoint, in a Job that begins when the run has succeeded. "
        "`suspend` stops it, and it continues where it was. An evaluation that fails does not fail the run: the "
        "condition Evaluated says why. Another suite or argument evaluates the run again.",
    )
    max_restarts: Count = Field(
        2,
        description="How often a RayJob that has stalled, or has failed with its own backoffLimit used up, is replaced "
        "by a new one, which resumes from the last checkpoint. The first restart comes at once, the next ones after "
        "30 s, 60 s and so on up to 10 minutes. A run that fails twice at the same step is not restarted.",
    )
    stall_seconds: Count = Field(
        0,
        description="Seconds without progress in the queue after which what the queue waits for is restarted: an "
        "engine if a group waits for it, otherwise the learner; 0: never.",
    )
    max_engine_replacements: Count = Field(
        6,
        description="How many sick engines (quarantined, behind, silent or crashing) are replaced in an hour, one at a "
        "time; 0: none.",
    )
    deletion_policy: Literal["Retain", "Delete"] = Field(
        "Retain",
        description="What becomes of the RayJob, its ConfigMap and a pool of its own when the run has ended. Retain "
        "(the default) keeps the objects with their logs until KubeRay's ttlSecondsAfterFinished; Delete removes them "
        "at once. Nodes and engines are freed in both cases; checkpoints stay in the release's storage.",
    )
    ttl_seconds_after_finished: Count | None = Field(
        None,
        description="Seconds after its end when the TrainingRun itself is deleted, with all objects made for it. "
        "Absent: never. Checkpoints stay in the release's storage.",
    )
    recipe_preset: str | None = Field(
        None,
        description="Packaged recipe (`golongrl recipe list`) that `recipe` changes. Absent: the release's own "
        "recipe. Empty: "
        "`recipe` is a whole one.",
    )
    recipe: dict[str, Any] = Field(
        default_factory=dict,
        description="The recipe, or what differs from the preset, such as {learner: {steps: 500}}. A null removes a "
        "key. It is "
        "merged when the run begins: a change replaces the RayJob, which resumes from the last checkpoint.",
    )
    learner: LearnerPatch = Field(
        default=LearnerPatch(),
        description="Where the learner's pods may be (head, ranks and submitter), and what else differs from the "
        "RayJob that the release's chart renders. `metadata` and `spec` are merged as `kubectl patch` does: "
        "containers, volumes and variables by name, worker groups by groupName; a null removes a key.",
    )


class Condition(ValuesSection):
    """One aspect of the run, in the form of Kubernetes' conditions."""

    type: str = Field(max_length=316, description="What it is about.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False, or Unknown if it cannot be observed.")
    reason: str = Field(max_length=1024, description="Cause of the status, in one word.")
    message: str = Field("", max_length=32768, description="Cause of the status, in a sentence.")
    last_transition_time: str = Field(
        description="When `status` last changed.", json_schema_extra={"format": "date-time"}
    )
    observed_generation: Count = Field(description="Generation of the spec that this is about.")


class Progress(ValuesSection):
    """The queue's counters and when they last changed; a stall is measured by them."""

    mark: str = Field(description="The counters that are compared.")
    since: str = Field(description="When they last changed.", json_schema_extra={"format": "date-time"})


class ScalingStatus(ValuesSection):
    """What the pool's controller remembers between two passes."""

    need: float = Field(description="Engines that the learner would need to wait for nothing.")
    busy: float = Field(description="Engines that generated, smoothed.")
    wait: float = Field(description="Share of its time that the learner waited for groups, smoothed.")
    lost: float = Field(0.0, description="Share of their time that engines lost by taking weights, smoothed.")
    at: str = Field(description="When that was last measured.", json_schema_extra={"format": "date-time"})
    changed: str | None = Field(
        None,
        description="When the number of engines last changed.",
        json_schema_extra={"format": "date-time"},
    )
    low: str | None = Field(
        None, description="Since when fewer engines would do.", json_schema_extra={"format": "date-time"}
    )


class Suspicion(ValuesSection):
    """An engine that seems sick."""

    pod: str = Field(description="Pod of the engine.")
    since: str = Field(description="Since when it seems sick.", json_schema_extra={"format": "date-time"})
    reason: str = Field(max_length=1024, description="Why.")


class RolloutStatus(ValuesSection):
    """The pool that generates for the run."""

    name: str = Field(description="Its Deployment or LeaderWorkerSet.")
    replicas: Count = Field(0, description="Engines that exist; the status of `kubectl scale`.")
    ready_replicas: Count = Field(0, description="Engines that are ready and take requests.")
    desired: Count = Field(0, description="Engines that the operator asks for.")
    selector: str = Field("", description="Label selector of their pods, for an autoscaler.")
    reason: str = Field("", description="Why the operator asks for this number.")
    learner: str = Field("", description="Counters of the learner's time at the last measurement, for the next one.")
    scaling: ScalingStatus | None = Field(None, description="What the pool's controller remembers.")
    sick: list[Suspicion] = Field(default_factory=list[Suspicion], description="Engines that seem sick.")


class EvaluationScore(ValuesSection):
    """One benchmark."""

    benchmark: str = Field(description="Name of the benchmark.")
    score: float | None = Field(None, description="In percent of all expected samples; absent if there is no number.")
    error: float | None = Field(None, description="Standard error of the score, in percent.")
    samples: Count = Field(description="Samples that were asked.")
    expected: Count = Field(description="Samples that the suite asks for: the denominator of the score.")
    note: str = Field("", max_length=1024, description="Why there is no number, or what has no score.")


class EvaluationStatus(ValuesSection):
    """The evaluation of the run."""

    phase: str = Field(description="Waiting, Pending, Running, Suspended, Succeeded or Failed.")
    message: str = Field("", description="What it waits for, how it ended, or why it failed.")
    suite: str = Field(description="Suite that was asked.")
    step: Count | None = Field(None, description="Step of the checkpoint that is evaluated.")
    job: str = Field(description="Job that asks it.")
    question: str = Field("", description="Hash of spec.evaluation and the step: another question is asked anew.")
    started: str | None = Field(None, description="When the Job began.", json_schema_extra={"format": "date-time"})
    finished: str | None = Field(None, description="When the Job ended.", json_schema_extra={"format": "date-time"})
    report: str = Field("", description="Page with the figures, on the release's volume.")
    average: float | None = Field(
        None, description="Mean of the paper's six columns in percent, if the suite has them."
    )
    scores: list[EvaluationScore] = Field(default_factory=list[EvaluationScore], description="Score of each benchmark.")


class Replacement(ValuesSection):
    """An engine that was replaced."""

    pod: str = Field(description="Pod of the engine that was deleted.")
    time: str = Field(description="When it was replaced.", json_schema_extra={"format": "date-time"})
    reason: str = Field(description="Why.")


class AvoidedNode(ValuesSection):
    """A node that ran short of memory, disk or process ids, so that its kubelet evicted a pod of the release."""

    node: str = Field(description="Its name.")
    time: str = Field(description="When that was last.", json_schema_extra={"format": "date-time"})
    reason: str = Field(max_length=1024, description="What the kubelet said.")


class Failure(ValuesSection):
    """The learner's last failure."""

    step: Count | None = Field(None, description="Optimizer step that it was in; absent if the queue did not answer.")
    time: str = Field(description="When it failed.", json_schema_extra={"format": "date-time"})
    repeated: bool = Field(False, description="The same step had failed before: the run is not restarted.")


class RunStatus(ValuesSection):
    """The state of the run at the operator's last pass."""

    observed_generation: Count = Field(0, description="Generation of the spec that this status is about.")
    phase: str = Field(
        "Pending",
        description="State in one word: Pending, Running, Restarting, BackingOff, Replacing, Waiting, Suspending, "
        "Suspended, "
        "Invalid, Succeeded or Failed.",
    )
    message: str = Field("", description="What happens, what the run waits for, or what failed.")
    job: str = Field("", description="RayJob of the current try.")
    queue: str = Field("", description="Name of its queue in Redis: the release's run, or one of its own.")
    content: str = Field("", description="Hash of all that the RayJob runs; if it changes, the RayJob is replaced.")
    asked: str = Field(
        "", description="Hash of what the spec says of the training; another trains a succeeded run again."
    )
    restarts: Count = Field(0, description="How often the operator has created a new RayJob of this content.")
    failure: Failure | None = Field(None, description="The learner's last failure.")
    finished: str | None = Field(
        None, description="When the run succeeded or failed.", json_schema_extra={"format": "date-time"}
    )
    head: str = Field("", description="The Ray head: its pod's UID and restarts.")
    head_replacements: Count = Field(
        0, description="How often KubeRay has replaced a lost Ray head; not counted as restarts."
    )
    step: str = Field("", description="Optimizer steps done, and of how many: 120/1000.")
    policy_version: Count | None = Field(None, description="Newest policy version announced to the engines.")
    last_checkpoint: Count | None = Field(None, description="Step of the last checkpoint.")
    staleness: str = Field(
        "", description="How many policy versions the oldest group in the queue is behind, and max_staleness: 1 of 2."
    )
    reward: str = Field("", description="Mean reward of the last optimizer step.")
    throughput: str = Field("", description="Tokens a second that the last optimizer step trained.")
    bytes: str = Field("", description="Size of the samples in Redis, and queue.max_bytes: 3.0 of 64 MiB.")
    rollout: RolloutStatus | None = Field(None, description="The pool that generates for the run.")
    replaced: list[Replacement] = Field(
        default_factory=list[Replacement], description="Engines that were replaced in the last hour."
    )
    evaluation: EvaluationStatus | None = Field(None, description="The evaluation of spec.evaluation.")
    avoided_nodes: list[AvoidedNode] = Field(
        default_factory=list[AvoidedNode],
        description="Nodes that ran short of memory or disk in the last hour. The next RayJob, and a pool of the run's "
        "own when it starts, prefer other nodes.",
    )
    stuck: list[str] = Field(
        default_factory=list, description="What stops the run now, the likely cause first; empty if it makes progress."
    )
    progress: Progress | None = Field(None, description="Since when the queue has made no progress.")
    conditions: list[Condition] = Field(
        default_factory=list[Condition],
        description="Accepted, Progressing, Stuck, Stalled, Complete, Failed; with schedule.queue also Admitted, with "
        "spec.evaluation also Evaluated.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
