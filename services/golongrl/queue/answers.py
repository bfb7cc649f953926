"""From the scripts' answers to typed values, with sentences a person can act on. Pure.

The scripts answer under the names of the types' fields, so most of it is `Type(**answer)`. An empty Lua table arrives
as an empty list, whatever it was to hold.
"""

from collections.abc import Mapping
from typing import Any

from golongrl.queue.types import (
    Lease,
    LeaseStats,
    Presence,
    QueueStats,
    Refusal,
    SetAside,
    Stopped,
    Wait,
    WeightsRef,
)

Answer = Mapping[str, Any]


def leased(answer: Answer, engine_version: int) -> Lease | Refusal | Stopped:
    """The answer to `lease`."""
    if answer["s"] == "stopped":
        return stopped(answer)
    if answer["s"] == "refused":
        return Refusal(answer["reason"], _refusal(answer, engine_version))
    return Lease(**answer["lease"])


def stopped(answer: Answer) -> Stopped:
    """Why the run is over."""
    match answer["reason"]:
        case "exhausted":
            detail = "every row is trained, rejected or set aside"
        case "all_equal":
            detail = (
                f"{answer['detail']} groups in a row had equal rewards (rollout.max_gen_batches reached): "
                "the policy or the rewards are broken, or every row is solved"
            )
        case "failing":
            return Stopped(
                "failed",
                f"{answer['detail']} rows in a row failed at every try (rollout.max_gen_batches reached): the engines "
                "or the data are broken; `golongrl queue peek UID` shows why a row failed",
            )
        case "untrainable":
            return Stopped(
                "failed",
                f"{answer['detail']} groups in a row could not be trained (rollout.max_gen_batches reached): the "
                "engines or the learner's limits are wrong; `golongrl queue set-aside list` shows why",
            )
        case _:
            detail = str(answer["detail"])
    return Stopped(answer["reason"], detail)


def _refusal(answer: Answer, engine_version: int) -> str:
    held = f"{answer['leased']} leased, {answer['ready']} ready, {answer['sealed']} in unfinished batches"
    bound = f"queue.max_staleness = {answer['max_staleness']}"
    match answer["reason"]:
        case "full":
            return f"enough groups wait for batches of {answer['groups_per_step']} at {bound}: {held}"
        case "behind":
            return f"the engine is at version {engine_version}, the policy at {answer['v']}, {bound}: {held}"
        case "ahead":
            return (
                f"the engine is at version {engine_version}, but the policy is only at {answer['v']}: "
                "quarantine the engine"
            )
        case "bytes":
            key, stored, reserve = _full_budget(answer)
            return f"{key} is full: {stored} stored, {reserve} reserved for each of {answer['leased']} leases"
        case "no_rows":
            return f"every row is leased or done; {held}"
        case "lineage":
            return (
                f"queue.max_staleness = 0 needs the weights of lineage {answer['weights']['lineage']}: adopt them first"
            )
        case _:
            return "another process with this worker id has taken over"


def _full_budget(answer: Answer) -> tuple[str, int, int]:
    """The key of the budget that is full with its value, bytes stored, and bytes reserved for a lease."""
    prefix = "routes_" if answer["full"] == "routes" else ""
    found = answer["budgets"]
    return f"queue.max_{prefix}bytes {found[f'max_{prefix}bytes']}", found[f"{prefix}bytes"], found[f"{prefix}reserve"]


def not_taken(answer: Answer, step: int) -> Wait | Stopped:
    """The answer to `take` when it is not a batch."""
    if answer["s"] == "stopped":
        return stopped(answer)
    blocking = answer.get("blocking")
    reason = answer["reason"]
    if reason == "budget":
        key, stored, _ = _full_budget(answer)
        detail = (
            f"{key} is full ({stored} stored) and steps {answer['committed'] + 1} to {answer['v']} are uncommitted: "
            f"checkpoint step {answer['v']} now"
        )
    elif reason == "tasks":
        detail = f"step {step} waits for queue.min_prompts_per_task: {answer['ready']} ready, {answer['leased']} leased"
    elif replaced := answer["replaced"]:
        detail = (
            f"step {step} waits for {replaced} more, because as many of its groups were set aside: "
            f"{answer['ready']} ready, {answer['leased']} leased"
        )
    else:
        detail = f"step {step} has {answer['ready']} of {answer['wanted']} ready, {answer['leased']} leased"
    if blocking:
        idle = (answer["time"] - blocking["progress_at"]) / 1000
        detail += (
            f"; waits for {blocking['uid']} on worker {blocking['worker']}, {blocking['phase']}, "
            f"{blocking['progress']} tokens, last progress {idle:.0f} s ago"
        )
        if blocking["tries"]:
            detail += f", {blocking['tries']} earlier tries failed"
    return Wait(
        reason,
        detail,
        checkpoint_now=bool(answer["checkpoint_now"]),
        wanted=answer["wanted"],
        ready=answer["ready"],
        leased=answer["leased"],
        **{name: blocking[name] for name in ("uid", "worker", "phase") if blocking},
    )


def presences(answer: Answer) -> list[Presence]:
    """The processes of `services`."""
    found = [Presence(**{**item, "fields": _table(item["fields"])}) for item in answer["found"]]
    return sorted(found, key=lambda presence: (presence.service, presence.id))


def set_aside(answer: Answer) -> list[SetAside]:
    """The groups of `set_aside_list`, oldest first."""
    return [SetAside(**{name: item[name] for name in SetAside.__slots__}) for item in answer["found"]]


def stats(answer: Answer) -> QueueStats:
    """The picture of `stats`."""
    found = dict(answer["stats"])
    blocking, weights = found.pop("blocking", None), found.pop("weights", None)
    for name in ("staleness", "trained_staleness"):
        found[name] = dict(sorted((int(key), value) for key, value in _table(found[name]).items()))
    for name in ("rejected_by", "redone_by"):
        found[name] = _table(found[name])
    return QueueStats(
        **{**found, "leases": tuple(LeaseStats(**lease) for lease in found["leases"])},
        stopped=stopped(answer["stop"]) if answer.get("stop") else None,
        blocking=LeaseStats(**blocking) if blocking else None,
        weights=WeightsRef(**weights) if weights else None,
    )


def _table(found: Any) -> dict[str, Any]:
    return dict(found or {})
