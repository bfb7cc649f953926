"""What a release is doing, in lines: pods, runs, processes, queue, and what is stuck. Pure: JSON in, text out.

Invariants: everything that stops the loop is named with its pod, object or group; what could not be asked or checked is
said; a run that has ended is not stuck.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.look.waits import long_waits
from golongrl.telemetry import waits

Json = Mapping[str, Any]

_TEST: Final = "test"


def stuck(
    pods: Sequence[Pod],
    queue: Json | None,
    services: Sequence[Json] | None,
    refused: Sequence[str] = (),
    *,
    chains: bool = True,
) -> list[str]:
    """What stops the loop, most telling first; empty when nothing does, or when the run is complete."""
    reason = _ended(queue)
    if reason == "complete":
        return []
    # Of a run that has failed nobody waits for anything more.
    waits = [] if queue is None or reason == "failed" else long_waits(queue, services or [], chains=chains)
    return [*_broken(pods, refused), *waits]


def _broken(pods: Sequence[Pod], refused: Sequence[str]) -> list[str]:
    # A failed `helm test` keeps its pod for the log, and nothing waits for it.
    needed = (pod for pod in pods if pod.trouble and pod.component != _TEST)
    return [*refused, *(f"pod {pod.name}: {pod.trouble}" for pod in needed)]


def end(queue: Json | None) -> str:
    """How the run ended, in a line; empty if it has not."""
    stopped = (queue or {}).get("stopped")
    if not stopped:
        return ""
    word = {"complete": "done", "failed": "failed"}.get(_ended(queue), "ending")
    return f"{word}: {stopped['detail']}"


def _ended(queue: Json | None) -> str:
    """complete or failed; exhausted while the learner trains the last groups; empty while the run continues."""
    stopped = (queue or {}).get("stopped")
    if not stopped:
        return ""
    return "failed" if stopped["reason"] == "all_equal" else str(stopped["reason"])


def lines(
    pods: Sequence[Pod] | None,
    queue: Json | None,
    services: Sequence[Json] | None,
    refused: Sequence[str] = (),
    *,
    runs: Sequence[str] = (),
    held: Sequence[str] = (),
    unknown: Sequence[str] = (),
    done: str = "",
    away: Sequence[str] = (),
    chains: bool = True,
) -> Iterator[str]:
    """The whole picture; `pods` is None outside a cluster.

    Args:
        refused: what does not exist or may not run, and why.
        runs: a line for each TrainingRun.
        held: what is suspended on purpose.
        unknown: what could not be checked.
        chains: see `long_waits`.
        away: who is not at work now, and why, although nobody calls it stuck: it starts again, or has not reported.
        done: that the learner's job is complete, where the queue does not say how the run ended.
    """
    picture = [*runs, *_process_lines(services or []), *(_queue_lines(queue) if queue else ())]
    ended = end(queue) or done
    if queue is None and done:
        problems = []
    elif held:  # The others wait for what is suspended.
        problems = _broken(pods or (), refused)
    else:
        problems = stuck(pods or (), queue, services, refused, chains=chains)
    verdict = [*held, *filter(None, [ended]), *(f"stuck: {problem}" for problem in problems)]
    verdict += [f"away: {line}" for line in away if not ended]
    verdict += [f"not checked: {line}" for line in unknown]
    if queue is None and not done:
        verdict.append("queue state unknown: no running worker or learner answered")
    elif not (problems or ended or held or away):
        verdict.append("nothing is stuck, as far as it was checked" if unknown else "nothing is stuck")
    for section in (_pod_lines(pods) if pods else (), picture):
        if section := list(section):
            yield from [*section, ""]
    yield from verdict


def _pod_lines(pods: Sequence[Pod]) -> Iterator[str]:
    width = max([len(pod.name) for pod in pods] + [3])
    yield f"{'POD':<{width}} {'PART':<9} {'READY':<6} {'RESTARTS':<9} STATE"
    for pod in pods:
        state = f"{pod.ended}; replaced" if pod.ended else pod.trouble or pod.starting or pod.phase.lower()
        yield f"{pod.name:<{width}} {pod.component:<9} {'yes' if pod.ready else 'no':<6} {pod.restarts:<9} {state}"


def _process_lines(services: Sequence[Json]) -> Iterator[str]:
    for service in services:
        shown = ((name, _in_words(name, value)) for name, value in sorted(service["fields"].items()))
        fields = ", ".join(f"{name} {value}" for name, value in shown if value != "")
        yield f"{service['service']} {service['id']}: {fields} (reported {service['age_s']:.0f} s ago)"


def _in_words(name: str, value: str) -> str:
    """A field of a heartbeat; waits are published as data."""
    if name != "waits" and not name.endswith("_waits"):
        return value
    return "; ".join(wait.words(wait.on) for wait in waits.loads(value))


def _queue_lines(queue: Json) -> Iterator[str]:
    yield (
        f"queue: version {queue['version']} (checkpoint {queue['committed']}), leased {queue['leased']}, "
        f"ready {queue['ready']} of {queue.get('groups_per_step', '?')} a step, "
        f"in batches {queue['in_batches']}, checkpointed {queue['trained']} of {queue.get('rows', '?')} rows, "
        f"rejected {queue['rejected']}, "
        f"{queue['bytes'] / 2**20:.1f} MiB of {queue['max_bytes'] / 2**20:.0f}"
    )
    behind = ", ".join(f"{count} by {late}" for late, count in sorted(queue["staleness"].items())) or "none"
    yield f"staleness: groups behind now: {behind}; queue.max_staleness {queue['max_staleness']}"
