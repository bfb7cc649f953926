"""`SampleQueue`: the asynchronous client of the durable sample queue.

Every operation is one Lua script on the server, atomic and idempotent, so a call whose reply was lost is made again with
the same arguments: the client does so itself, within its patience, and says what it waits for. The rules are in
`golongrl/queue/README.md`; the scripts in `golongrl/queue/lua/`.
"""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from golongrl.queue.connection import Connection, Patience
from golongrl.queue.schema import Group
from golongrl.queue.types import (
    Attachment,
    Batch,
    Lease,
    Peek,
    Presence,
    QueueSettings,
    QueueStats,
    Refusal,
    RejectReason,
    Stopped,
    SubmitOutcome,
    Wait,
    WeightsRef,
)


class SampleQueue:
    """One run's queue on one Redis or Valkey server (7.0 or newer; 7.2 or newer for WAITAOF).

    Every operation may raise Unavailable (the server could not be reached or take writes within the patience) and
    NotSetUp (the run's learner has not called `setup` yet; workers wait and ask again).
    """

    @classmethod
    def from_url(
        cls, url: str, run: str, *, patience: Patience | None = None, incarnation: str | None = None
    ) -> Self:
        """A queue client; connects at the first call. `incarnation` names this process (random by default): a lease
        asked for by a new incarnation of a worker releases what the old one held."""

    async def aclose(self) -> None:
        """Close the connections. Also: `async with SampleQueue.from_url(...) as queue`."""

    async def setup(
        self, settings: QueueSettings, order: Sequence[NDArray[np.int32]], tasks: Sequence[str]
    ) -> None:
        """Create the run: `order[epoch]` are that epoch's row indices in the order to deal them (each at most once),
        `tasks[row]` is the row's task key. Idempotent. Raises SettingsMismatch if the run exists with another B, eta,
        order or rows; the other settings are updated."""

    # -- rollout workers ------------------------------------------------------------------------------------------

    async def lease(
        self, worker: str, engine_version: int, *, request_id: str | None = None, lineage: str = ""
    ) -> Lease | Refusal | Stopped:
        """The next row, admitted iff floor(A / B) + (v - e) <= eta. The same `request_id` gives the same lease."""

    async def renew(
        self, worker: str, progress: Mapping[str, int], phases: Mapping[str, str] | None = None
    ) -> dict[str, bool]:
        """Prolong leases: `progress` maps token to tokens generated so far (any growth is progress), `phases` token to
        "generating" or "scoring". False: the lease is lost; stop that work. One without progress for stall_s is lost."""

    async def release(self, lease: Lease, reason: str) -> bool:
        """Give the row back undone (shutdown, abort). False if the lease was no longer held."""

    async def submit(self, lease: Lease, group: Group) -> SubmitOutcome:
        """Hand in a finished group. Never refused for bytes. Raises ValueError if the group is not the lease's row."""

    async def reject(self, lease: Lease, reason: RejectReason) -> bool:
        """End the row without training on it, counted by reason. False if the lease was no longer held."""

    # -- the learner ----------------------------------------------------------------------------------------------

    async def attach(self, checkpoint: int) -> Attachment:
        """Become the run's only learner, resuming from checkpoint step `checkpoint` (0: none); runs commit(checkpoint).
        Raises OutOfOrder if it is below the last commit, or above the queue's version."""

    async def take(self, fence: str, step: int) -> Batch | Wait | Stopped:
        """The batch of `step`, the same however often asked. Steps are taken in sequence (prefetching is fine).
        Raises Fenced, OutOfOrder."""

    async def finish(self, fence: str, step: int) -> None:
        """The optimizer step is done and its weights are durable: v = step. A repeat does nothing.
        Raises Fenced, OutOfOrder (step > v + 1, or its batch was never taken)."""

    async def commit(self, fence: str, step: int) -> None:
        """A durable checkpoint of `step` exists: its batches are deleted. A repeat does nothing.
        Raises Fenced, OutOfOrder (step > v)."""

    async def announce(self, fence: str, weights: WeightsRef) -> WeightsRef:
        """Publish where weights are; the version is v or v + 1. Answers the reference in force: a lower version than
        the announced one changes nothing. A changed lineage at eta = 0 redoes the groups of the other one."""

    async def stop(self, fence: str, reason: str, detail: str) -> None:
        """End the run for everybody: "complete" or "failed". A later `attach` lifts it."""

    # -- everybody ------------------------------------------------------------------------------------------------

    async def weights(self) -> WeightsRef | None:
        """The weights in force."""

    async def beat(self, service: str, id: str, fields: Mapping[str, str], ttl_s: float) -> None:
        """Say that this process is there; forgotten after `ttl_s` seconds. Works before `setup`."""

    async def services(self) -> list[Presence]:
        """The processes that said so lately, sorted by service and id."""

    async def stats(self) -> QueueStats:
        """A consistent picture of the queue; changes nothing."""

    async def peek(self, uid: str) -> Peek:
        """Where a row stands, and its group while the queue holds one. Raises QueueError on an unknown uid."""
