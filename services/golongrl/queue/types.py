"""What the queue's operations take and answer: plain values, no client inside.

An operation that cannot do what was asked for a reason of the protocol answers a value (`Refusal`, `Wait`, `Stopped`);
what the caller did wrong, or a server that did not answer in time, is an error of `golongrl.queue.errors`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from golongrl.arrays import NDArray, np
from golongrl.queue.schema import Group

Order = Literal["lease", "ready"]
Phase = Literal["leased", "generating", "scoring", "ready"]
RefusalReason = Literal["full", "behind", "ahead", "bytes", "no_rows", "lineage", "superseded"]
WaitReason = Literal["groups", "tasks", "budget"]
StopReason = Literal["exhausted", "all_equal", "complete", "failed"]


class RejectReason(StrEnum):
    """Why a worker ends a row without training on it; counted under these names. The queue itself ends a row as
    `failed:REASON`, when its last try failed, and as `set_aside`, when a person dropped its group."""

    ALL_EQUAL = "all_equal"
    OVERLONG = "overlong"
    FEW_SCORED = "few_scored"


class SubmitOutcome(StrEnum):
    """What became of a submitted group."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    """The same token was accepted before (a lost reply): nothing changed."""
    STALE = "stale"
    """The lease was lost (expired, given up, rolled back): another worker gets the row."""
    INVALID = "invalid"
    """The group cannot be trained, or is not its lease's (`submission.refusal` says why): the row is dealt again, or
    rejected after its last try."""
    RETURNED = "returned"
    """A token of the group is older than its lease (the engine restarted in mid-group): the row will be redone."""


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The promises of a run's queue; most are the recipe's `queue` keys, and have their defaults there.
    groups_per_step, max_staleness, the order, the rows and the data cannot change while the run exists."""

    groups_per_step: int
    max_staleness: int
    order: Order
    min_prompts_per_task: int
    max_bytes: int
    lease_s: float
    stall_s: float
    max_tries: int
    """Failed tries after which a row is rejected: worker or engine died, stalled, or made what cannot be trained."""
    max_gen_batches: int
    """Groups in a row, in batches, that are all-equal (or fail at every try), after which the run stops."""
    group_bytes: int
    """Bytes reserved for a leased group until the first groups show their real size."""
    max_routes_bytes: int = 0
    group_routes_bytes: int = 0
    """Like `group_bytes`, of routes in the weight store; 0: none are kept, and `max_routes_bytes` has no meaning."""
    vocabulary: int = 0
    """Token ids are below this; 0 is not known."""
    data: str = ""
    """What tells the run's rows from others (`Prepared.digest`); "" is not known."""
    held_out: str = ""
    """The same of the rows to validate on; it may change."""
    manual_clock: bool = False
    """Tests only: time stands still except for `SampleQueue.advance`."""


@dataclass(frozen=True)
class Behind:
    """What a run has done before its queue is made: it began from a checkpoint, or the queue's data were lost."""

    step: int
    """Steps done, which is the policy version."""
    rows: NDArray[np.int32]
    """(epoch, row) of every group trained in them: [N, 2]."""


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
    tries: int = 0
    """Earlier tries of this row that failed; after `QueueSettings.max_tries` it is rejected."""
    vocabulary: int = 0
    """Token ids of the group must be below this; 0 is not known."""
    task_key: str = ""
    """Of the row; empty where the run does not say what data it has."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """No lease now. Ask again after a pause, or, for `behind` and `lineage`, after the engine adopted newer weights.

    full: floor(A/B) exceeds max_staleness even for the newest engine. behind: the engine's version is too old. ahead:
    it is newer than any version that can exist. bytes: the budget is full. no_rows: all are dealt (leased ones may come
    back). lineage: at max_staleness = 0 the engine's weights are of another lineage. superseded: a newer process has
    this worker id.
    """

    reason: RefusalReason
    detail: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run is over: `exhausted` (no row is left), `complete` or `failed` (the learner said so, or too many rows in a
    row failed), `all_equal` (too many groups in a row taught nothing). Workers end; the learner prints `detail`."""

    reason: StopReason
    detail: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """A learner's fence: `token` goes into each of its calls; the newest attachment is the only one valid.

    The learner starts from its checkpoint `committed`, replays the batches committed+1..version, then continues.
    """

    token: str
    version: int
    committed: int


@dataclass(frozen=True, slots=True)
class Batch:
    """The groups of one optimizer step to train, in their final order; the same however often they are taken.

    A group that was set aside is not among `groups` any more, another ready one took its place.
    """

    step: int
    groups: tuple[Group, ...]
    replayed: bool
    """Taken before (by this learner or one that died)."""
    tasks_given_up: bool = False
    """Sealed without `min_prompts_per_task` of every task in it."""
    set_aside: tuple[str, ...] = ()
    """uids of the groups that were in it and cannot be trained. `groups` may be empty in a run's last batches."""


@dataclass(frozen=True, slots=True)
class Wait:
    """No batch yet: `wanted` ready groups would make one. `uid`, `worker` and `phase` name the group that holds it up,
    where one does.

    `checkpoint_now`: the budget is full of finished, uncommitted steps: write a checkpoint of the current version and
    commit it, or nothing will ever be leased again.
    """

    reason: WaitReason
    detail: str
    checkpoint_now: bool = False
    wanted: int = 0
    ready: int = 0
    leased: int = 0
    uid: str | None = None
    worker: str | None = None
    phase: Phase | None = None


@dataclass(frozen=True, slots=True)
class SetAside:
    """A group that was taken and could not be trained. `bytes` is 0 where its body was dropped for lack of room; `at`
    is in seconds since 1970."""

    uid: str
    step: int
    worker: str
    reason: str
    bytes: int
    at: int


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
    """A process that reported. `age_s`: seconds since it last did."""

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
    tries: int = 0


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
    set_aside: int
    """Groups that were taken and could not be trained, and wait for a person."""
    bytes: int
    reserved_bytes: int
    max_bytes: int
    groups_per_step: int
    max_staleness: int
    order: Order
    max_tries: int
    all_equal_streak: int
    failed_streak: int
    """Rows in a row that were rejected because their last try failed."""
    stopped: Stopped | None
    leases: tuple[LeaseStats, ...]
    staleness: dict[int, int]
    """Ready and leased groups by how many versions behind v they are now."""
    trained_staleness: dict[int, int]
    """Groups by the staleness their batch was sealed with, since the run began."""
    rejected_by: dict[str, int]
    redone_by: dict[str, int]
    tasks_given_up: int
    clock_set_back: int
    """How often the server's clock went back; leases follow the run's own clock."""
    clock_gaps: int
    """How often no call came for half a lease, or the server's clock was set ahead."""
    oldest_wait_s: float
    """How long the longest-waiting ready group has been ready."""
    blocking: LeaseStats | None
    """The lease that the next batch waits for."""
    weights: WeightsRef | None = None
    routes_bytes: int = 0
    """Of the files of routes that stored groups refer to, in the weight store."""
    reserved_routes_bytes: int = 0
    max_routes_bytes: int = 0
    """0 where no routes are kept."""


@dataclass(frozen=True, slots=True)
class Peek:
    """Where a row stands, and its group while the queue holds one."""

    uid: str
    state: Literal["unread", "returned", "leased", "ready", "batch", "trained", "rejected", "set_aside"]
    meta: dict[str, str | int | float] = field(default_factory=dict)
    group: Group | None = None
