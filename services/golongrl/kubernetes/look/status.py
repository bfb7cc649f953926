"""What a release is doing, in lines: pods, processes, queue, and what is stuck. Pure: JSON in, text out.

Invariant: everything that holds the loop up is named with its pod or group; where nobody answered, that is said.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from golongrl.kubernetes.look.pods import Pod

Json = Mapping[str, Any]

# Seconds without progress after which a lease, or a process that should have reported, is worth a line.
SLOW_S = 120.0


def stuck(
    pods: Sequence[Pod], queue: Json | None, services: Sequence[Json] | None, refused: Sequence[str] = ()
) -> list[str]:
    """What holds the loop up, most telling first; empty when nothing does."""
    found: list[str] = []
    if queue is not None and queue.get("stopped"):
        found.append(f"the run is over ({queue['stopped']['reason']}): {queue['stopped']['detail']}")
    found += refused
    found += [f"pod {pod.name}: {pod.trouble}" for pod in pods if pod.trouble]
    # As many groups as eta allows lie ready: workers wait, and nothing is stuck while the learner works on them.
    doing = [service["fields"].get("doing", "") for service in services or [] if service["service"] == "learner"]
    learning = any(not words.startswith("waiting") for words in doing)
    for service in services or []:
        where = f"{service['service']} {service['id']}"
        waits = service["fields"].get("waiting_for")
        if waits and not (learning and waits.startswith("full:")):
            found.append(f"{where} waits for {waits}")
        if service["fields"].get("phase") == "quarantined":
            found.append(f"{where}: its engine is quarantined")
    if queue is None:
        return [*found, "the queue: nobody could be asked (no running worker or learner answered)"]
    blocking = queue.get("blocking")
    if blocking and blocking["progress_age_s"] > SLOW_S:
        found.append(
            f"the next batch waits for group {blocking['uid']} on {blocking['worker']}, "
            f"without progress for {blocking['progress_age_s']:.0f} s"
        )
    if queue["bytes"] + queue["reserved_bytes"] >= queue["max_bytes"]:
        found.append("the queue is full: no lease until the learner's next checkpoint frees its batches")
    return found


def lines(
    pods: Sequence[Pod] | None, queue: Json | None, services: Sequence[Json] | None, refused: Sequence[str] = ()
) -> Iterator[str]:
    """The whole picture; `pods` is None outside a cluster."""
    if pods is not None:
        yield f"{'POD':<52} {'PART':<9} {'READY':<6} {'RESTARTS':<9} STATE"
        for pod in pods:
            state = pod.trouble or pod.phase.lower()
            yield f"{pod.name:<52} {pod.component:<9} {'yes' if pod.ready else 'no':<6} {pod.restarts:<9} {state}"
        yield ""
    for service in services or []:
        fields = ", ".join(f"{name} {value}" for name, value in sorted(service["fields"].items()) if value != "")
        yield f"{service['service']} {service['id']}: {fields} (said so {service['age_s']:.0f} s ago)"
    if queue is not None:
        yield (
            f"queue: version {queue['version']} (checkpoint {queue['committed']}), leased {queue['leased']}, "
            f"ready {queue['ready']} of B = {queue['groups_per_step']}, "
            f"in batches {queue['in_batches']}, checkpointed {queue['trained']} of {queue['rows']} rows, "
            f"rejected {queue['rejected']}, "
            f"{queue['bytes'] / 2**20:.1f} MiB of {queue['max_bytes'] / 2**20:.0f}"
        )
        behind = ", ".join(f"{count} by {late}" for late, count in sorted(queue["staleness"].items())) or "none"
        yield f"staleness: groups behind now: {behind}; queue.max_staleness {queue['max_staleness']}"
    problems = stuck(pods or (), queue, services, refused)
    yield ""
    yield from (f"stuck: {problem}" for problem in problems)
    if not problems:
        yield "nothing is stuck"
