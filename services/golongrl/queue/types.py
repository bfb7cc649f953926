"""What the queue's operations take and answer: plain values, no client inside.

An operation that cannot do what was asked for a reason of the protocol answers a value (`Refusal`, `Wait`, `Stopped`);
what the caller did wrong, or what the queue could not reach in time, is an error of `golongrl.queue.errors`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from golongrl.queue.schema import Group
from golongrl.recipe import Recipe

Order = Literal["lease", "ready"]
Phase = Literal["leased", "generating", "scoring", "ready"]
RefusalReason = Literal["full", "behind", "ahead", "bytes", "no_rows", "lineage", "superseded"]
WaitReason = Literal["groups", "tasks", "budget"]
StopReason = Literal["exhausted", "all_equal", "complete", "failed"]


class RejectReason(StrEnum):
    """Why a worker ends a row without training on it; counted under these names."""

    ALL_EQUAL = "all_equal"
    OVERLONG = "overlong"
    FEW_SCORED = "few_scored"


class SubmitOutcome(StrEnum):
    """What became of a submitted group."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """The same token was accepted before (a lost reply): nothing changed, all is well."""
    STALE = "stale"
    """The token holds nothing any more (expired, given up, rolled back): the row is somebody else's."""
    RETURNED = "returned"
    """A token of the group is older than its lease (the engine restarted in mid-group): the row will be redone."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The promises of a run's queue. B, eta, the order and the rows cannot change while the run exists."""

    groups_per_step: int
    max_staleness: int = 1
    order: Order = "lease"
    min_prompts_per_task: int = 1
    max_bytes: int = 64 << 30
    lease_s: float = 120.0
    stall_s: float = 900.0
    max_gen_batches: int = 32
    """All-equal groups in a row, in batches, after which the run stops."""
    group_bytes: int = 0
    """Bytes reserved for a leased group until the first groups show their real size."""
    manual_clock: bool = False
    """Tests only: time stands still except for `SampleQueue.advance`."""

    @classmethod
    def from_recipe(cls, recipe: Recipe) -> Self:
        """The queue's part of a recipe; `group_bytes` is the largest group there can be, uncompressed."""
        queue, rollout = recipe.queue, recipe.rollout
        ids, ids_and_logprobs = 4, 8
        return cls(
            groups_per_step=queue.groups_per_step,
            max_staleness=queue.max_staleness,
            order=queue.order,
            min_prompts_per_task=queue.min_prompts_per_task,
            max_bytes=queue.max_bytes,
            lease_s=queue.lease_s,
            stall_s=queue.stall_s,
            max_gen_batches=rollout.max_gen_batches,
            group_bytes=ids * recipe.data.max_prompt_tokens
            + ids_and_logprobs * rollout.n * rollout.max_response_tokens,
        )


@dataclass(frozen=True)
class Behind:
    """What a run has done before its queue is made: begun from a checkpoint, or the queue's data were lost."""

    step: int
    """Steps done, which is the policy version."""
    rows: NDArray[np.int32]
    """(epoch, row) of every group trained in them: [N, 2]."""


def budget_warning(recipe: Recipe) -> str | None:
    """One line when `queue.max_bytes` may not hold what lies between two checkpoints: (K + eta + 1) * B groups of the
    largest size. The run still ends well, with a checkpoint whenever the budget is full; None when there is room."""
    settings = QueueSettings.from_recipe(recipe)
    batches = recipe.learner.checkpoint_every + settings.max_staleness + 1
    needed = batches * settings.groups_per_step * settings.group_bytes
    if settings.max_bytes >= needed:
        return None
    return (
        f"queue.max_bytes {settings.max_bytes} is below (learner.checkpoint_every + queue.max_staleness + 1) * "
        f"queue.groups_per_step groups of up to {settings.group_bytes} bytes = {needed}: "
        "checkpoints may come earlier than every learner.checkpoint_every steps"
    )


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on one row. `token` proves it; every later call shows it.

    `deadline_s` is in the server's clock, `lease_s` is how long from now unless renewed: renew at a third of it.
    """

    uid: str
    epoch: int
    row: int
    seq: int
    token: str
    worker: str
    engine_version: int
    lineage: str
    deadline_s: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """No lease now. Ask again after a pause, or, for `behind` and `lineage`, after the engine adopted newer weights.

    full: floor(A/B) exceeds eta even for the newest engine. behind: the engine's version is too old. ahead: it is newer
    than any version that can exist. bytes: the budget is full. no_rows: all are dealt (leased ones may come back).
    lineage: at eta = 0 the engine's weights are of another lineage. superseded: a newer process has this worker id.
    """

    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run is over: `exhausted` (no row is left), `complete` or `failed` (the learner said so), `all_equal`
    (too many groups in a row taught nothing). Workers end; the learner prints `detail`."""

    reason: StopReason
    detail: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A learner's fence: `token` goes into each of its calls; the newest attachment is the only one valid.

    The learner starts from its checkpoint `committed`, replays the batches committed+1..version, then goes on.
    """

    token: str
    version: int
    committed: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The groups of one optimizer step, in their final order; the same however often they are taken."""

    step: int
    groups: tuple[Group, ...]
    replayed: bool
    """Taken before (by this learner or one that died)."""
    tasks_given_up: bool = False
    """Sealed without `min_prompts_per_task` of every task in it."""


@dataclass(frozen=True, slots=True)
class Wait:
    """No batch yet. `uid`, `worker` and `phase` name the group that holds it up, where one does.

    `checkpoint_now`: the budget is full of finished, uncommitted steps: write a checkpoint of the current version and
    commit it, or nothing will ever be leased again.
    """

    reason: WaitReason
    detail: str
    checkpoint_now: bool = False
    ready: int = 0
    leased: int = 0
    uid: str | None = None
    worker: str | None = None
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class WeightsRef:
    """Published weights: `path` is a folder of the weight store; `lineage` changes when a replay differed in a bit.

    `source`: URL of the sender they are broadcast from; then `path` has their configuration and tokenizer only.
    """

    version: int
    path: str
    lineage: str
    checksum: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class Presence:
    """A process that said it is there. `age_s`: seconds since it last did."""

    service: str
    id: str
    fields: dict[str, str]
    age_s: float
    ttl_s: float


@dataclass(frozen=True, slots=True)
class LeaseStats:
    """One lease as `stats` sees it; times in seconds."""

    uid: str
    worker: str
    engine_version: int
    phase: Phase
    progress: int
    age_s: float
    progress_age_s: float
    expires_in_s: float


@dataclass(frozen=True, slots=True)
class QueueStats:
    """A consistent picture of the queue, taken by one script."""

    version: int
    committed: int
    taken: int
    rows: int
    unread: int
    returned: int
    leased: int
    ready: int
    in_batches: int
    trained: int
    rejected: int
    bytes: int
    reserved_bytes: int
    max_bytes: int
    groups_per_step: int
    max_staleness: int
    order: Order
    all_equal_streak: int
    stopped: Stopped | None
    leases: tuple[LeaseStats, ...]
    staleness: dict[int, int]
    """Ready and leased groups by how many versions behind v they are now."""
    trained_staleness: dict[int, int]
    """Groups by the staleness their batch was sealed with, since the run began."""
    rejected_by: dict[str, int]
    redone_by: dict[str, int]
    tasks_given_up: int
    oldest_wait_s: float
    """How long the longest-waiting ready group has been ready."""
    blocking: LeaseStats | None
    """The lease that the next batch waits for."""
    weights: WeightsRef | None = None


@dataclass(frozen=True, slots=True)
class Peek:
    """Where a row stands, and its group while the queue holds one."""

    uid: str
    state: Literal["unread", "returned", "leased", "ready", "batch", "trained", "rejected"]
    meta: dict[str, str | int | float] = field(default_factory=dict)
    group: Group | None = None
