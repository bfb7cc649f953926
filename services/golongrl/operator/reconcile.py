"""From what is there to what to do, for every run of a release at once. Pure: JSON and a clock's reading in, JSON out.

Invariants:
- one run has the release's services at a time; the others wait, oldest first;
- a spec that cannot be trained touches nothing: what trains goes on;
- a RayJob that this operator does not own is never looked at twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from golongrl.errors import InputError
from golongrl.manifests.learner import Manifest
from golongrl.manifests.status import Pod, stuck
from golongrl.operator.build import Meaning, Site, objects, resolve
from golongrl.operator.decide import Before, Decision, Job, Phase, Wanted, decide, holder
from golongrl.operator.model import ATTEMPT, CONTENT, KIND, Progress, Status
from golongrl.operator.report import conditions, stamp

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """One look at the cluster and the queue."""

    now: datetime
    runs: Sequence[Manifest]
    jobs: Sequence[Manifest] = ()
    pods: Sequence[Pod] = ()
    picture: Json | None = None
    """`{"queue": ..., "services": [...]}` of the release's run; None if nobody answered."""
    silence: str = ""
    """Why nobody answered."""


@dataclass(frozen=True)
class Outcome:
    """What to write and do for one run: the status first, then take away, then make."""

    run: Manifest
    status: Manifest
    delete: tuple[str, ...] = ()
    apply: tuple[Manifest, ...] = ()


@dataclass(frozen=True)
class _Case:
    """A run with all that bears on it."""

    run: Manifest
    before: Before
    jobs: list[Job]
    meaning: Meaning | None
    error: str = ""

    @property
    def name(self) -> str:
        return str(self.run["metadata"]["name"])

    @property
    def active(self) -> bool:
        return any(job.active for job in self.jobs)

    @property
    def wanted(self) -> Wanted | None:
        if self.meaning is None:
            return None
        spec = self.meaning.spec
        return Wanted(self.meaning.content, spec.suspend, spec.max_restarts, spec.stall_seconds)

    @property
    def wants(self) -> bool:
        """It would train if the release were its own."""
        if self.wanted is None:
            return False
        return decide(self.wanted, self.jobs, self.before).phase not in _WANTS_NOTHING


_WANTS_NOTHING: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.SUSPENDED})
# In the other phases nothing of the loop is expected to move.
_LOOKS_AT_PODS: Final = frozenset({Phase.PENDING, Phase.RUNNING})


def reconcile(site: Site, seen: Seen) -> list[Outcome]:
    """What to do for each run of the site's release, oldest first."""
    mine = [run for run in seen.runs if run.get("spec", {}).get("release") == site.release.name]
    mine = [run for run in mine if not run["metadata"].get("deletionTimestamp")]
    mine.sort(key=lambda run: (run["metadata"].get("creationTimestamp", ""), run["metadata"]["name"]))
    cases = [_case(site, run, seen.jobs) for run in mine]
    first = holder([(case.name, case.active, case.wants) for case in cases])
    return [_outcome(site, case, first, seen) for case in cases]


def refused(outcome: Outcome, why: str, now: datetime) -> Manifest:
    """The status of a run whose outcome the API server did not take."""
    old = {entry["type"]: entry for entry in (outcome.run.get("status") or {}).get("conditions") or []}
    last = old.get("Progressing", {})
    since = last["lastTransitionTime"] if last.get("status") == "False" else stamp(now)
    said = {"status": "False", "reason": "Refused", "message": why, "lastTransitionTime": since}
    told = [entry | said if entry["type"] == "Progressing" else entry for entry in outcome.status.get("conditions", [])]
    return {**outcome.status, "message": why, "conditions": told}


def read_job(item: Manifest) -> Job:
    """A RayJob of ours."""
    metadata, status = item["metadata"], item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    attempt = annotations.get(ATTEMPT, "0")
    return Job(
        name=metadata["name"],
        content=annotations.get(CONTENT, ""),
        attempt=int(attempt) if attempt.isdecimal() else 0,
        deployment=status.get("jobDeploymentStatus", ""),
        result=status.get("jobStatus", ""),
        reason=status.get("reason", ""),
        message=" ".join(status.get("message", "").split())[:400],
        deleting="deletionTimestamp" in metadata,
    )


def _case(site: Site, run: Manifest, jobs: Sequence[Manifest]) -> _Case:
    status = run.get("status") or {}
    before = Before(status.get("phase", ""), status.get("content", ""), status.get("restarts", 0))
    own = [read_job(job) for job in jobs if _owned(job, run["metadata"]["name"])]
    try:
        return _Case(run, before, own, resolve(site, run))
    except InputError as error:
        return _Case(run, before, own, None, str(error))


def _owned(job: Manifest, run: str) -> bool:
    """By name, not by uid: what a deleted run of that name leaves behind must go before its successor starts."""
    owners = job["metadata"].get("ownerReferences") or []
    return any(owner["kind"] == KIND and owner["name"] == run for owner in owners)


def _outcome(site: Site, case: _Case, first: str | None, seen: Seen) -> Outcome:
    old = case.run.get("status") or {}
    if case.meaning is None or case.wanted is None:
        decision = Decision(Phase.INVALID, case.error, case.before.restarts)
        return Outcome(case.run, _status(case, decision, seen, None, [], old))
    concerned = case.name == first or case.before.phase == Phase.RUNNING
    seen = seen if concerned else replace(seen, picture=None, silence="", pods=())
    progress = _progress(case, seen, old)
    stalled = None if progress is None else (seen.now - datetime.fromisoformat(progress.since)).total_seconds()
    busy = first if first != case.name else None
    decision = decide(case.wanted, case.jobs, case.before, busy, stalled)
    made = [] if decision.create is None else objects(site, case.run, case.meaning, decision.create)
    return Outcome(case.run, _status(case, decision, seen, progress, made, old), decision.delete, tuple(made))


def _progress(case: _Case, seen: Seen, old: Json) -> Progress | None:
    """Since when the queue's counters stand still; None while that is not known."""
    running = [job for job in case.jobs if job.deployment == "Running" and not job.deleting]
    if not running or seen.picture is None:
        return None
    queue = seen.picture["queue"]
    counters = ("version", "trained", "in_batches", "ready", "rejected")
    mark = " ".join([running[-1].name, *(str(queue[name]) for name in counters)])
    last = old.get("progress") or {}
    return Progress(mark=mark, since=last["since"] if last.get("mark") == mark else stamp(seen.now))


def _status(
    case: _Case, decision: Decision, seen: Seen, progress: Progress | None, made: Sequence[Manifest], old: Json
) -> Manifest:
    generation = case.run["metadata"].get("generation", 0)
    lines = _stuck(decision.phase, seen)
    # Of a queue that does not answer the last known figures stand; the phase and `stuck` say that it is silent.
    kept = {key: old.get(key) for key in ("step", "version", "checkpoint", "staleness") if key in old}
    since, differs = old.get("conditions") or [], case.meaning.differs if case.meaning else ()
    names = [*(job.name for job in case.jobs), *(item["metadata"]["name"] for item in made)]
    status = Status(
        observed_generation=generation,
        phase=decision.phase,
        message=decision.message,
        job=names[-1] if names else "",
        content=case.meaning.content if case.meaning else case.before.content,
        restarts=decision.restarts,
        stuck=lines,
        progress=progress,
        conditions=conditions(decision, generation, lines, seen.silence, since, seen.now, differs),
    )
    told = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**told, **kept, **_figures(case, seen)}


def _figures(case: _Case, seen: Seen) -> Manifest:
    if seen.picture is None or case.meaning is None:
        return {}
    queue, steps = seen.picture["queue"], case.meaning.recipe.learner.steps
    late = [int(versions) for versions, groups in queue["staleness"].items() if groups]
    weights = {"version": queue["weights"]["version"]} if queue.get("weights") else {}
    return {
        "step": f"{queue['version']}/{steps}" if steps else str(queue["version"]),
        "checkpoint": queue["committed"],
        "staleness": f"{max(late, default=0)} of {queue['max_staleness']}",
        **weights,
    }


def _stuck(phase: Phase, seen: Seen) -> list[str]:
    if phase not in _LOOKS_AT_PODS:
        return []
    if phase == Phase.RUNNING and seen.picture is not None:
        return stuck(seen.pods, seen.picture["queue"], seen.picture["services"])
    # Before the learner runs its queue says nothing of it.
    silent = [seen.silence] if phase == Phase.RUNNING and seen.silence else []
    return [*(f"pod {pod.name}: {pod.trouble}" for pod in seen.pods if pod.trouble), *silent]
