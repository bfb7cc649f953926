"""From the scripts' answers to typed values, with sentences a person can act on. Pure.

In an answer times are milliseconds; an empty Lua table arrives as an empty list, whatever it was to hold.
"""

from collections.abc import Mapping
from typing import Any

from golongrl.queue.types import (
    Lease,
    LeaseStats,
    Presence,
    QueueStats,
    Refusal,
    Stopped,
    Wait,
    WeightsRef,
)

Answer = Mapping[str, Any]


def leased(answer: Answer, engine_version: int) -> Lease | Refusal | Stopped:
    """What `lease` was answered."""
    if answer["s"] == "stopped":
        return stopped(answer)
    if answer["s"] == "refused":
        return Refusal(answer["reason"], _refusal(answer, engine_version))
    group = answer["group"]
    return Lease(
        uid=answer["uid"],
        epoch=group["epoch"],
        row=group["row"],
        seq=group["seq"],
        token=group["token"],
        worker=group["worker"],
        engine_version=group["e"],
        lineage=group["lineage"],
        deadline_s=answer["deadline"] / 1000,
        lease_s=answer["lease_ms"] / 1000,
    )


def stopped(answer: Answer) -> Stopped:
    """Why the run is over."""
    match answer["reason"]:
        case "exhausted":
            detail = "every row is trained or rejected"
        case "all_equal":
            detail = (
                f"{answer['detail']} groups in a row had equal rewards (rollout.max_gen_batches reached): "
                "the policy or the rewards are broken, or every row is solved"
            )
        case _:
            detail = str(answer["detail"])
    return Stopped(answer["reason"], detail)


def _refusal(answer: Answer, engine_version: int) -> str:
    held = f"{answer['leased']} leased, {answer['ready']} ready, {answer['sealed']} in unfinished batches"
    match answer["reason"]:
        case "full":
            return f"enough groups wait for B = {answer['B']} at eta = {answer['eta']}: {held}"
        case "behind":
            return f"engine at version {engine_version}, policy at {answer['v']}, eta = {answer['eta']}: {held}"
        case "ahead":
            return f"engine at version {engine_version}, but the policy is only at {answer['v']}: quarantine the engine"
        case "bytes":
            return (
                f"queue.max_bytes {answer['max_bytes']} is full: {answer['bytes']} stored, "
                f"{answer['reserve']} reserved for each of {answer['leased']} leases"
            )
        case "no_rows":
            return f"every row is dealt; {held}"
        case "lineage":
            return f"eta = 0 needs weights of lineage {answer['weights']['lineage']}: adopt them again"
        case _:
            return "a newer process works under this worker id"


def not_taken(answer: Answer, step: int) -> Wait | Stopped:
    """What `take` was answered when it is no batch."""
    if answer["s"] == "stopped":
        return stopped(answer)
    blocking = answer.get("blocking")
    reason = answer["reason"]
    if reason == "budget":
        detail = (
            f"queue.max_bytes {answer['max_bytes']} is full ({answer['bytes']} stored) and steps "
            f"{answer['committed'] + 1} to {answer['v']} are uncommitted: checkpoint step {answer['v']} now"
        )
    elif reason == "tasks":
        detail = f"step {step} waits for queue.min_prompts_per_task: {answer['ready']} ready, {answer['leased']} leased"
    else:
        detail = f"step {step} has {answer['ready']} ready of {answer['B']}, {answer['leased']} leased"
    if blocking:
        idle = (answer["time"] - blocking["progress_at"]) / 1000
        detail += (
            f"; waits for {blocking['uid']} on worker {blocking['worker']}, {blocking['phase']}, "
            f"{blocking['progress']} tokens, {idle:.0f} s since it moved"
        )
    return Wait(
        reason,
        detail,
        checkpoint_now=bool(answer["checkpoint_now"]),
        ready=answer["ready"],
        leased=answer["leased"],
        **{name: blocking[name] for name in ("uid", "worker", "phase") if blocking},
    )


def presences(answer: Answer) -> list[Presence]:
    """The processes of `services`."""
    found = [
        Presence(service, id, _table(item["fields"]), item["age"] / 1000, item["ttl"] / 1000)
        for item in answer["found"]
        for service, _, id in [item["name"].partition("/")]
    ]
    return sorted(found, key=lambda presence: (presence.service, presence.id))


def stats(answer: Answer) -> QueueStats:
    """The picture of `stats`."""
    state = answer["state"]
    counts = _table(answer["counts"])
    rejected = _table(answer["rejected"])
    leases = tuple(map(_lease_stats, answer["leases"]))
    weights = answer.get("weights")
    return QueueStats(
        version=state["v"],
        committed=state["committed"],
        taken=state["taken"],
        rows=state["row_count"],
        unread=state["row_count"] - state["cursor"],
        returned=answer["returned"],
        leased=len(leases),
        ready=answer["ready"],
        in_batches=answer["batched"],
        trained=counts.get("trained", 0),
        rejected=sum(rejected.values()),
        bytes=state["bytes"],
        reserved_bytes=answer["reserved"],
        max_bytes=state["max_bytes"],
        groups_per_step=state["B"],
        max_staleness=state["eta"],
        order=state["order"],
        all_equal_streak=state["streak"],
        stopped=stopped(answer["stop"]) if answer.get("stop") else None,
        leases=leases,
        staleness=_histogram(answer["staleness"]),
        trained_staleness=_histogram(answer["trained_staleness"]),
        rejected_by=rejected,
        redone_by=_table(answer["redone"]),
        tasks_given_up=counts.get("tasks_given_up", 0),
        oldest_wait_s=answer["oldest_wait"] / 1000,
        blocking=_blocking(answer),
        weights=WeightsRef(**weights) if weights else None,
    )


def _table(found: Any) -> dict[str, Any]:
    return dict(found or {})


def _histogram(found: Any) -> dict[int, int]:
    return dict(sorted((int(key), value) for key, value in _table(found).items()))


def _lease_stats(lease: Answer) -> LeaseStats:
    return LeaseStats(
        uid=lease["uid"],
        worker=lease["worker"],
        engine_version=lease["e"],
        phase=lease["phase"],
        progress=lease["progress"],
        age_s=lease["age"] / 1000,
        progress_age_s=lease["progress_age"] / 1000,
        expires_in_s=lease["expires_in"] / 1000,
    )


def _blocking(answer: Answer) -> LeaseStats | None:
    """The lease the next batch waits for: in lease order the first one, if it is among the next B places; by readiness
    the oldest one, while too few groups are ready."""
    leases, state = answer["leases"], answer["state"]
    if not leases:
        return None
    if state["order"] == "lease":
        first = min(leases, key=lambda lease: lease["seq"])
        before = sum(seq < first["seq"] for seq in answer["places"])
        return _lease_stats(first) if before < state["B"] else None
    if answer["ready"] >= state["B"]:
        return None
    return _lease_stats(min(leases, key=lambda lease: (lease["e"], lease["seq"])))
