"""What the operator says of a run: its status. Pure.

Invariants:
- the size of a status is bounded, however many pods are in trouble;
- if the queue does not answer, the last known figures are kept, and `stuck` says that it is silent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from golongrl.kubernetes.look.status import end, stuck
from golongrl.kubernetes.rayjob.site import Manifest, pod_templates
from golongrl.telemetry import watchdog
from golongrl_operator.api import AvoidedNode, EvaluationStatus, Failure, Progress, RunStatus
from golongrl_operator.cases import Case, Seen
from golongrl_operator.conditions import LASTING_S, Aspect, Signs, conditions, seconds_since, stamp
from golongrl_operator.decide import ENDED, LEAVING, RunDecision, RunPhase
from golongrl_operator.pool import PoolPlan

Json = Mapping[str, Any]

# How the learner says that it has no batch (golongrl.learner.observe.status, whose package needs torch).
WAITING: Final = "waiting for step"
# In the other phases no progress is expected.
_LOOKS_AT_PODS: Final = frozenset({RunPhase.PENDING, RunPhase.RUNNING})
# Lines of `stuck` in the status, and characters of one: a pool of a thousand engines may lack its image.
_MOST_LINES: Final = 20
_LONGEST_LINE: Final = 300
# Kubernetes' own grace period, for a pod that says none.
_GRACE_S: Final = 30


def step_of(seen: Seen) -> int | None:
    """The queue's policy version; None if the queue did not answer."""
    return None if seen.picture is None else int(seen.picture["queue"]["version"])


def progress_of(case: Case, seen: Seen) -> Progress | None:
    """Since when the queue's counters have not changed; None while that is not known, and after the last step."""
    running = [job for job in case.jobs if job.deployment == "Running" and not job.deleting]
    if not running or seen.picture is None:
        return None
    queue = seen.picture["queue"]
    if end(queue):
        # The learner exports the model, or ends; neither moves a counter.
        return None
    counters = ("version", "trained", "in_batches", "ready", "rejected")
    mark = " ".join([running[-1].name, *(str(queue[name]) for name in counters)])
    last = case.status.get("progress") or {}
    return Progress(mark=mark, since=last["since"] if last.get("mark") == mark else stamp(seen.now))


@dataclass(frozen=True)
class RunPass:
    """What a pass decided and planned for a run."""

    decision: RunDecision
    made: Sequence[Manifest] = ()
    """Objects of its next RayJob."""
    progress: Progress | None = None
    queue: str = ""
    """The run of its queue."""
    pool: PoolPlan | None = None
    nodes: Sequence[AvoidedNode] = ()
    evaluation: EvaluationStatus | None = None
    admitted: Aspect | None = None
    """What Kueue says of it."""


def status_of(case: Case, seen: Seen, done: RunPass) -> Manifest:
    """The run's next status. Figures that nobody gives now keep their last value."""
    decision, pool, old = done.decision, done.pool, case.status
    generation = case.run["metadata"].get("generation", 0)
    signs = _signs(case, seen, done)
    names = [*(job.name for job in case.jobs), *(item["metadata"]["name"] for item in done.made)]
    job = names[-1] if names else ""
    head, replacements = _head(case, job, seen)
    ended = decision.phase in ENDED
    status = RunStatus(
        observed_generation=generation,
        phase=decision.phase,
        message=decision.message,
        job=job,
        queue=old.get("queue") or (done.queue if job else ""),
        content=case.meaning.content if case.meaning else case.before.content,
        asked=case.meaning.asked if case.meaning else case.before.asked,
        restarts=decision.restarts,
        failure=_failure(case, decision, seen),
        finished=(old.get("finished") or stamp(seen.now)) if ended else None,
        head=head,
        head_replacements=replacements,
        rollout=pool.status if pool else None,
        replaced=list(pool.replaced) if pool else [],
        avoided_nodes=[] if ended else list(done.nodes),
        stuck=list(signs.stuck),
        progress=done.progress,
        conditions=conditions(decision, signs, generation, old.get("conditions") or [], seen.now),
        evaluation=done.evaluation,
    )
    told = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**told, **_kept(case), **_figures(case, seen)}


def _signs(case: Case, seen: Seen, done: RunPass) -> Signs:
    phase, meaning = done.decision.phase, case.meaning
    trouble = [done.pool.trouble] if done.pool and done.pool.trouble else []
    return Signs(
        error=case.error,
        differs=meaning.differs if meaning else (),
        stuck=_stuck(case, phase, seen, done.progress) + trouble,
        silence=seen.silence,
        stalled=_chains(phase, seen),
        evaluates=meaning is not None and meaning.spec.evaluation is not None,
        evaluation=done.evaluation,
        admitted=done.admitted,
    )


# Keys that keep their last known value.
_FIGURES: Final = (
    "step", "policyVersion", "lastCheckpoint", "staleness", "reward", "throughput", "bytes",
)  # fmt: skip


def _kept(case: Case) -> Manifest:
    """Of the last status, what holds until something newer is known."""
    # A spec that cannot be trained changes nothing: neither the evaluation nor, while a RayJob is there, the pool.
    unchanged = () if case.meaning else ("evaluation", "rollout") if case.active else ("evaluation",)
    return {key: case.status[key] for key in (*_FIGURES, *unchanged) if key in case.status}


def _chains(phase: RunPhase, seen: Seen) -> list[str]:
    """Who waits for whom, up to the process from which nothing comes; bounded as `stuck` is."""
    if phase != RunPhase.RUNNING or seen.picture is None or end(seen.picture["queue"]):
        return []
    found = watchdog.stalls(watchdog.read(seen.picture["services"]))
    return [str(stall)[:_LONGEST_LINE] for stall in found[:_MOST_LINES]]


def _failure(case: Case, decision: RunDecision, seen: Seen) -> Failure | None:
    """The last failure; the step counts only within one content, since another may not fail there."""
    old = case.status
    last = Failure.model_validate(old["failure"]) if old.get("failure") else None
    if decision.phase == RunPhase.SUSPENDED or (case.meaning and case.meaning.content != case.before.content):
        last = None
    if last is not None and last.repeated and decision.phase != RunPhase.FAILED:
        # A person has edited the spec: it may fail elsewhere now.
        last = last.model_copy(update={"repeated": False})
    fresh = decision.failed and case.before.phase not in (RunPhase.RESTARTING, RunPhase.FAILED)
    if not fresh:
        return last
    return Failure(step=step_of(seen), time=stamp(seen.now), repeated=decision.repeated)


def _head(case: Case, job: str, seen: Seen) -> tuple[str, int]:
    """The Ray head, and how often KubeRay has replaced a lost one: under one RayJob, another pod is another head."""
    old = case.status
    same_content = case.meaning is None or case.meaning.content == case.before.content
    count = int(old.get("headReplacements", 0)) if same_content else 0
    head = str(old.get("head", "")) if job == old.get("job") else ""
    heads = [pod.ray_head for pod in seen.pods if pod.ray_head and pod.phase == "Running"]
    # While the old one goes there may be two, and none before the new one runs.
    if len(heads) != 1:
        return head, count
    return heads[0], count + (head not in ("", heads[0]))


def _figures(case: Case, seen: Seen) -> Manifest:
    if seen.picture is None or case.meaning is None:
        return {}
    queue, steps = seen.picture["queue"], case.meaning.recipe.learner.steps
    late = [int(versions) for versions, groups in queue["staleness"].items() if groups]
    weights = {"policyVersion": queue["weights"]["version"]} if queue.get("weights") else {}
    learner: Json = next((one["fields"] for one in seen.picture["services"] if one["service"] == "learner"), {})
    reward, tokens = learner.get("reward"), learner.get("tokens_per_s")
    return {
        "step": f"{queue['version']}/{steps}" if steps else str(queue["version"]),
        "lastCheckpoint": queue["committed"],
        "staleness": f"{max(late, default=0)} of {queue['max_staleness']}",
        "bytes": f"{queue['bytes'] / 2**20:.1f} of {queue['max_bytes'] / 2**20:.0f} MiB",
        **weights,
        **({"reward": reward} if reward else {}),
        **({"throughput": f"{tokens} tokens/s"} if tokens else {}),
    }


def _stuck(case: Case, phase: RunPhase, seen: Seen, progress: Progress | None) -> list[str]:
    lines = [line[:_LONGEST_LINE] for line in _held_up(case, phase, seen, progress)]
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"and {more} more: see `golongrl status`"]


def _held_up(case: Case, phase: RunPhase, seen: Seen, progress: Progress | None) -> list[str]:
    if phase in LEAVING:
        return [
            f"RayJob {job.name} has been in deletion since {job.deleted}: check its pods, and that KubeRay runs"
            for job in case.jobs
            if job.deleted and seconds_since(job.deleted, seen.now) >= LASTING_S + _grace_s(case)
        ]
    if phase not in _LOOKS_AT_PODS:
        return []
    if phase == RunPhase.RUNNING and seen.picture is not None:
        return [*_stalled(case, seen, progress), *stuck(seen.pods, seen.picture["queue"], seen.picture["services"])]
    # Before the learner runs, its queue says nothing about it.
    silent = [seen.silence] if phase == RunPhase.RUNNING and seen.silence else []
    return [*(f"pod {pod.name}: {pod.trouble}" for pod in seen.pods if pod.trouble), *silent]


def _grace_s(case: Case) -> float:
    """How long its pods may take to end: the learner finishes its step (learner.drainSeconds)."""
    templates = pod_templates(case.meaning.rayjob) if case.meaning else []
    times = [template["spec"].get("terminationGracePeriodSeconds", _GRACE_S) for template in templates]
    return float(max(times, default=_GRACE_S))


def _stalled(case: Case, seen: Seen, progress: Progress | None) -> list[str]:
    limit = case.wanted.stall_s if case.wanted else 0
    if progress is None or not limit or seconds_since(progress.since, seen.now) < limit:
        return []
    return [f"the queue has made no progress since {progress.since}"]
