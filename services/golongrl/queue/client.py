"""`SampleQueue`: the asynchronous client of the durable sample queue.

Every operation is one Lua script on the server, atomic and idempotent, so a call whose reply was lost is repeated with
the same arguments: the client does so itself, within its patience, and logs what it waits for. The rules are in
`golongrl/queue/README.md`; the scripts in `golongrl/queue/lua/`.
"""

from __future__ import annotations

import asyncio
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from types import TracebackType
from typing import Self

import structlog

from golongrl.arrays import NDArray, np
from golongrl.queue import answers
from golongrl.queue.bodies import ASIDE, LOST, Unfit, fetch, packed
from golongrl.queue.calls import Calls
from golongrl.queue.connection import Connection, Patience
from golongrl.queue.dealing import setup_fields
from golongrl.queue.errors import (
    OutOfOrderError,
    QueueDamagedError,
    QueueError,
    SettingsMismatchError,
    UnreadableGroupError,
)
from golongrl.queue.schema import Group, decode
from golongrl.queue.server import QueueServerReport, ServerState
from golongrl.queue.submission import MOST_REASON, refusal
from golongrl.queue.types import (
    Attachment,
    Batch,
    Behind,
    Lease,
    Peek,
    Presence,
    QueueSettings,
    QueueStats,
    Refusal,
    RejectReason,
    SetAside,
    Stopped,
    StopReason,
    SubmitOutcome,
    Wait,
    WeightsRef,
)
from golongrl.queue.validation import ValidationWork
from golongrl.telemetry.waits import Waits

log = structlog.get_logger(__name__)

# A row's name: numbers that the scripts can take, each written in one way.
UID = re.compile(r"(0|[1-9][0-9]{0,9})-(0|[1-9][0-9]{0,9})\Z")
# Between the upload of a body and the script that puts it in place, which follow each other on one connection.
STAGED_S = 120
# Of a run's random number: with the number of a key it stays a whole number in Lua.
_GENERATION_BITS = 40


class SampleQueue:
    """One run's queue on one Redis or Valkey server (7.0 or newer; 7.2 or newer for WAITAOF).

    Every operation may raise QueueUnavailableError (the server could not be reached or take writes within the
    patience), NotSetUpError (the run's learner has not called `setup` yet; workers wait and ask again) and
    QueueDamagedError (the server lost a key of the run).
    """

    def __init__(self, connection: Connection, run: str, incarnation: str | None = None) -> None:
        self.run = run
        self.incarnation = incarnation or secrets.token_hex(8)
        self._connection = connection
        self._calls = Calls(connection)
        self.validation = ValidationWork(connection, self._calls)

    @classmethod
    def from_url(
        cls,
        url: str,
        run: str,
        *,
        patience: Patience | None = None,
        incarnation: str | None = None,
        waits: Waits | None = None,
    ) -> Self:
        """A queue client; connects at the first call. `incarnation` names this process (random by default): a lease
        asked for by a new incarnation of a worker releases what the old one held. `waits` learns of waits for Redis."""
        return cls(Connection.from_url(url, run, patience or Patience(), waits), run, incarnation)

    @property
    def server(self) -> str:
        """The server, for messages."""
        return self._connection.name

    async def aclose(self) -> None:
        """Close the connections. Also: `async with SampleQueue.from_url(...) as queue`."""
        await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def setup(
        self,
        settings: QueueSettings,
        order: Sequence[NDArray[np.int32]],
        tasks: Sequence[str],
        behind: Behind | None = None,
    ) -> None:
        """Create the run: `order[epoch]` are that epoch's row indices in the order to deal them (each at most once),
        `tasks[row]` is the row's task key. Created with steps `behind` it, it begins at their version and deals none of
        their rows; a run that exists has its own. Idempotent. Raises SettingsMismatchError if the run exists with
        another groups_per_step, max_staleness, order, rows or data, ValueError on rows that are not there; the other
        settings are updated."""
        rows, table, outcome, fields = setup_fields(settings, order, tasks, behind)
        await self._connection.check_rights()
        fields["generation"] = secrets.randbits(_GENERATION_BITS)
        answer = await self._calls.run("setup", {"settings": fields}, rows, table, outcome, durable=True)
        if answer["s"] == "sweep":
            # There is no such run. What a lost one of this name left must not be mixed with the new one's.
            if removed := await self._sweep():
                log.warning("removed the keys of a run that lost its settings", run=self.run, keys=removed)
            args = {"settings": fields, "swept": True}
            answer = await self._calls.run("setup", args, rows, table, outcome, durable=True)
        if answer["s"] == "mismatch":
            raise SettingsMismatchError(
                f"run {self.run} exists with {answer['name']} {answer['was']}, not {answer['is']}: "
                "use another --run, or the settings it began with"
            )

    async def inspect_server(self) -> QueueServerReport:
        """Whether the server can hold a queue, and what it may lose."""
        return await self._connection.inspect()

    async def server_state(self) -> ServerState:
        """How the Redis server is at this moment; it may hold other runs too."""
        return await self._connection.state()

    async def forget(self) -> int:
        """Delete all keys of the run, damaged or not; how many there were. The next `setup` creates it again. Until
        then whoever works on it gets NotSetUpError, so what it held is dealt again and no token of it counts."""
        await self._connection.run("forget", {}, durable=True)
        return await self._sweep()

    async def _sweep(self) -> int:
        """Delete the keys of a run that has no settings, except for the presence of processes."""
        removed, cursor = 0, 0
        while True:
            cursor, found = await self._connection.scan(cursor)
            keys = [name for name in found if name != self._connection.key("services")]
            if keys:
                removed += (await self._connection.run("sweep", {"keys": keys}))["removed"]
            if cursor == 0:
                break
        return removed

    # -- rollout workers --

    async def lease(
        self, worker: str, engine_version: int, *, request_id: str | None = None, lineage: str = "", data: str = ""
    ) -> Lease | Refusal | Stopped:
        """The next row, admitted iff floor(A / B) + (v - e) <= max_staleness. The same `request_id` gives the same
        lease. `data`: of the rows that the worker reads; raises SettingsMismatchError if they are not the run's."""
        answer = await self._calls.run(
            "lease",
            {
                "worker": worker,
                "engine_version": engine_version,
                "request": request_id or secrets.token_hex(16),
                "random": secrets.token_hex(16),
                "incarnation": self.incarnation,
                "lineage": lineage,
                "data": data,
            },
        )
        with self._calls.reading():
            return answers.leased(answer, engine_version)

    async def renew(
        self, worker: str, progress: Mapping[str, int], phases: Mapping[str, str] | None = None
    ) -> dict[str, bool]:
        """Prolong leases: `progress` maps token to tokens generated so far (any growth is progress), `phases` token to
        "generating" or "scoring". False: the lease is lost, stop that work; so is one without progress for stall_s."""
        items = [
            [_uid_of(token), token, tokens, (phases or {}).get(token, "leased")] for token, tokens in progress.items()
        ]
        answer = await self._calls.run("renew", {"worker": worker, "items": items})
        with self._calls.reading():
            return {token: bool(kept) for token, kept in zip(progress, answer["kept"], strict=True)}

    async def release(self, lease: Lease, reason: str, *, failed: bool = False, detail: str = "") -> bool:
        """Give the row back (shutdown, abort). `failed`: this try on the row failed, so that the row is rejected after
        `max_tries` of them, with `reason` (a short name, counted) and `detail` (a sentence, shown by `peek`).
        False if the lease was no longer held."""
        args = {"uid": lease.uid, "token": lease.token, "reason": reason, "failed": failed, "detail": detail}
        return bool((await self._calls.run("release", args))["held"])

    async def submit(self, lease: Lease, group: Group) -> SubmitOutcome:
        """Hand in a finished group. Never refused for bytes; a group that nobody could train on, or that is not the
        lease's (`submission.refusal`), is `INVALID`, which is a failed try. Raises ValueError if it has another uid."""
        if group.uid != lease.uid:
            raise ValueError(f"group {group.uid} does not belong to the lease of {lease.uid}")
        if wrong := refusal(group, lease):
            log.warning("a group is refused", uid=lease.uid, worker=lease.worker, reason=wrong)
            held = await self.release(lease, "invalid", failed=True, detail=wrong)
            return SubmitOutcome.INVALID if held else SubmitOutcome.STALE
        body = await packed(replace(group, lease=lease.token))
        staged = self._connection.key(f"staged:{lease.token}")
        args = {
            "uid": lease.uid,
            "token": lease.token,
            "lowest_version": group.lowest_version,
            "highest_version": group.highest_version,
            "routes_bytes": group.routes.bytes if group.routes else 0,
        }
        # Again where the body vanished between upload and script: the server's clock was set ahead, or it evicts keys.
        for _ in range(3):
            answer = await self._calls.run("submit", args, before=(("SET", staged, body, "EX", STAGED_S),))
            if answer["s"] != "no_body":
                with self._calls.reading():
                    return SubmitOutcome(answer["s"])
        raise QueueError(f"submit of {lease.uid}: its body vanished three times between upload and script")

    async def reject(self, lease: Lease, reason: RejectReason) -> bool:
        """End the row without training on it, counted by reason. False if the lease was no longer held and the row is
        not rejected already."""
        args = {"uid": lease.uid, "token": lease.token, "reason": str(reason), "epoch": lease.epoch, "row": lease.row}
        return bool((await self._calls.run("reject", args))["held"])

    # -- the learner --

    async def attach(self, checkpoint: int) -> Attachment:
        """Become the run's only learner, resuming from checkpoint step `checkpoint` (0: none); runs commit(checkpoint).
        Raises OutOfOrderError if it is below the last commit, or above the queue's version."""
        fence = f"fence-{secrets.token_hex(16)}"
        answer = await self._calls.run("attach", {"step": checkpoint, "fence": fence}, durable=True)
        if answer["s"] == "out_of_order":
            raise OutOfOrderError.at_attach(self.run, checkpoint, answer["v"], answer["committed"])
        return Attachment(fence, answer["v"], answer["committed"])

    async def ensure_attached(self, fence: str) -> None:
        """Ask whether this learner was replaced, before it overwrites what its successor may have written outside of
        the queue. Raises FencedError."""
        self._calls.check(await self._calls.run("attached", {"fence": fence}, durable=True), "ensure_attached")

    async def take(self, fence: str, step: int) -> Batch | Wait | Stopped:
        """The batch of `step`, the same however often asked. Steps are taken in sequence (prefetching is fine). Groups
        that cannot be read or trained are set aside, and others take their places. Raises FencedError, OutOfOrderError,
        UnreadableGroupError (a group of a step that was trained before), QueueDamagedError (the server lost a group).
        """
        while True:
            answer = await self._take(fence, step)
            if answer is not None:
                return answer

    async def _take(self, fence: str, step: int) -> Batch | Wait | Stopped | None:
        """As `take`; None where groups were set aside, so that the batch has open places."""
        args = {"fence": fence, "step": step}
        found = await self._calls.run("take", args)
        self._calls.check(found, f"take({step})")
        if found["s"] != "batch":
            with self._calls.reading():
                return answers.not_taken(found, step)
        # Waiting costs no disk flush; a batch counts once its repeat is on disk: a restart may have lost the first.
        # Its bodies never change, so they travel meanwhile.
        confirmed, bodies = await asyncio.gather(
            self._calls.run("take", args, durable=True),
            fetch(self._connection, found),
        )
        self._calls.check(confirmed, f"take({step})")
        if confirmed["s"] != "batch":
            with self._calls.reading():
                return answers.not_taken(confirmed, step)
        if confirmed["uids"] != found["uids"]:
            bodies = await fetch(self._connection, confirmed)
        unfit = [body for body in bodies if isinstance(body, Unfit)]
        for uid, reason in unfit:
            if reason == LOST:
                # Committed meanwhile by this learner's successor, or lost by the server?
                self._calls.check(await self._calls.run("take", args), f"take({step})")
                raise QueueDamagedError.lost(self.run, self._connection.key(f"body:{uid}"))
            if step <= confirmed["v"]:
                raise UnreadableGroupError(f"group {uid} of step {step}, which was trained before: {reason}")
            log.warning("a group is set aside", uid=uid, step=step, reason=reason)
            await self.set_aside(fence, step, uid, reason)
        if unfit:
            return None
        groups = tuple(body for body in bodies if isinstance(body, Group))
        aside = tuple(uid.removeprefix(ASIDE) for uid in confirmed["uids"] if uid.startswith(ASIDE))
        return Batch(step, groups, bool(found["replayed"]), bool(confirmed["without_tasks"]), aside)

    async def set_aside(self, fence: str, step: int, uid: str, reason: str) -> None:
        """A group of the taken, unfinished batch of `step` cannot be trained: it leaves the batch for good and is kept
        for a person with its worker and `reason`; the next `take` of the step replaces it. A repeat does nothing.
        Raises FencedError, OutOfOrderError (the step is finished, or not taken), ValueError (not in that batch)."""
        args = {"fence": fence, "step": step, "uid": uid, "reason": reason[:MOST_REASON]}
        answer = await self._calls.run("set_aside", args, durable=True)
        self._calls.check(answer, f"set_aside({step}, {uid})")
        if answer["s"] == "unknown":
            raise ValueError(f"set_aside({step}, {uid}): the batch of step {step} has no group {uid}")

    async def finish(self, fence: str, step: int) -> None:
        """The optimizer step is done and its weights are durable: v = step. A repeat does nothing.
        Raises FencedError, OutOfOrderError (step > v + 1, or its batch was never taken)."""
        answer = await self._calls.run("finish", {"fence": fence, "step": step}, durable=True)
        self._calls.check(answer, f"finish({step})")

    async def commit(self, fence: str, step: int) -> None:
        """A durable checkpoint of `step` exists: its batches are deleted. A repeat does nothing.
        Raises FencedError, OutOfOrderError (step > v)."""
        answer = await self._calls.run("commit", {"fence": fence, "step": step}, durable=True)
        self._calls.check(answer, f"commit({step})")

    async def live_routes(self) -> set[str]:
        """Names of the routes of all groups that the queue holds, leased ones too. Whatever else has such a name is
        wanted by nobody, now or later."""
        return set((await self._calls.run("routes", {}, durable=True))["names"])

    async def announce(self, fence: str, weights: WeightsRef) -> WeightsRef:
        """Publish where weights are; the version is v or v + 1. Answers the reference in force: a lower version than
        the announced one changes nothing. A changed lineage at max_staleness = 0 redoes the groups of the other one."""
        answer = await self._calls.run("announce", {"fence": fence, "weights": asdict(weights)}, durable=True)
        self._calls.check(answer, f"announce({weights.version})")
        return WeightsRef(**answer["weights"])

    async def stop(self, fence: str, reason: StopReason, detail: str) -> None:
        """End the run for everybody: "complete" or "failed". A later `attach` lifts it."""
        answer = await self._calls.run("stop", {"fence": fence, "reason": reason, "detail": detail})
        self._calls.check(answer, "stop")

    # -- everybody --

    async def weights(self) -> WeightsRef | None:
        """The weights in force."""
        found = await self._calls.run("weights", {})
        with self._calls.reading():
            return WeightsRef(**found["weights"]) if found.get("weights") else None

    async def beat(self, service: str, id: str, fields: Mapping[str, str], ttl_s: float) -> None:
        """Report that this process is alive; forgotten after `ttl_s` seconds. Works before `setup`. Raises ValueError
        on a `ttl_s` that is not a finite number."""
        if not math.isfinite(ttl_s):
            raise ValueError(f"ttl_s must be a finite number of seconds, not {ttl_s}")
        args = {"service": service, "id": id, "fields": dict(fields), "ttl": int(ttl_s * 1000)}
        await self._calls.run("beat", args)

    async def services(self) -> list[Presence]:
        """The processes that reported lately, sorted by service and id."""
        found = await self._calls.run("services", {})
        with self._calls.reading():
            return answers.presences(found)

    async def stats(self) -> QueueStats:
        """A consistent picture of the queue; changes nothing."""
        found = await self._calls.run("stats", {})
        with self._calls.reading():
            return answers.stats(found)

    async def set_aside_groups(self) -> list[SetAside]:
        """The groups that were set aside and wait for a person, oldest first; `peek` shows one."""
        found = await self._calls.run("set_aside_list", {})
        with self._calls.reading():
            return answers.set_aside(found)

    async def retry_set_aside(self, uid: str) -> bool:
        """Deal the row of a group that was set aside once more. False if no such group was set aside."""
        return bool((await self._calls.run("set_aside_end", {"uid": uid, "retry": True}, durable=True))["held"])

    async def drop_set_aside(self, uid: str) -> bool:
        """Reject the row of a group that was set aside. False if no such group was set aside."""
        return bool((await self._calls.run("set_aside_end", {"uid": uid, "retry": False}, durable=True))["held"])

    async def peek(self, uid: str) -> Peek:
        """Where a row stands, and its group while the queue holds one. Raises QueueError on an unknown uid."""
        epoch, _, row = uid.partition("-")
        if not UID.match(uid):
            raise QueueError(f"uid {uid!r} is not of the form EPOCH-ROW")
        answer = await self._calls.run("peek", {"uid": uid, "epoch": int(epoch), "row": int(row)})
        if answer["s"] == "unknown":
            raise QueueError(f"run {self.run} has no row {uid}")
        (body,) = await self._connection.get_many([f"body:{uid}"])
        group = decode(body) if body is not None else None
        return Peek(uid, answer["state"], dict(answer.get("meta") or {}), group)

    async def advance(self, seconds: float, *, jump: bool = False) -> None:
        """Tests only, with `manual_clock`: let time pass, or (`jump`) set the server's clock ahead or back."""
        await self._calls.run("advance", {"ms": round(seconds * 1000), "jump": jump})


def _uid_of(token: str) -> str:
    return token.partition(":")[0]
