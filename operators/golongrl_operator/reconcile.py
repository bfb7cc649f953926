"""What to do for every run of a release at once. Pure: JSON and a clock's reading in, JSON out.

Invariants:
- one run uses the release's services at a time, a deleted one until its RayJob is gone; the others wait, oldest first;
- a spec that cannot be trained changes nothing, unless it is suspended: a RayJob that trains continues;
- RayJobs that this operator did not create are ignored;
- the size of a status is bounded, however many pods are in trouble.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from golongrl.errors import InputError
from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.look.status import end, stuck
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl_operator.api import ATTEMPT, CONTENT, KIND, RUN_LABEL, Progress, RunStatus
from golongrl_operator.build import Meaning, objects, resolve
from golongrl_operator.conditions import LASTING_S, conditions, seconds_since, short, stamp
from golongrl_operator.decide import LEAVING, Before, JobState, RunDecision, RunPhase, Wanted, decide, holder

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Seen:
    """One look at the cluster and the queue."""

    now: datetime
    runs: Sequence[Manifest]
    jobs: Sequence[Manifest] = ()
    pods: Sequence[Pod] = ()
    picture: Json | None = None
    """`{"queue": ..., "services": [...]}` of the release's run; None if the queue did not answer."""
    silence: str = ""
    """Why the queue did not answer."""


@dataclass(frozen=True)
class ReconcileResult:
    """What to do for one run: write the status first, then delete, then create."""

    run: Manifest
    status: Manifest
    delete: tuple[str, ...] = ()
    apply: tuple[Manifest, ...] = ()


@dataclass(frozen=True)
class _Case:
    """A run with all that concerns it."""

    run: Manifest
    before: Before
    jobs: list[JobState]
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
        return Wanted(self.meaning.content, spec.suspend, spec.max_restarts, spec.stall_seconds, self.edited)

    @property
    def edited(self) -> bool:
        return bool(self.run["metadata"].get("generation") != (self.run.get("status") or {}).get("observedGeneration"))

    @property
    def wants(self) -> bool:
        """It would train if no other run used the release."""
        if self.wanted is None:
            return False
        return decide(self.wanted, self.jobs, self.before).phase not in _WANTS_NOTHING


_WANTS_NOTHING: Final = frozenset({RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.SUSPENDED})
# In the other phases no progress is expected.
_LOOKS_AT_PODS: Final = frozenset({RunPhase.PENDING, RunPhase.RUNNING})
# Lines of `stuck` in the status, and characters of one: a pool of a thousand engines may lack its image.
_MOST_LINES: Final = 20
_LONGEST_LINE: Final = 300


def reconcile(site: Site, seen: Seen) -> list[ReconcileResult]:
    """What to do for each run of the site's release, oldest first."""
    mine = [run for run in seen.runs if run.get("spec", {}).get("release") == site.release]
    mine = [run for run in mine if not run["metadata"].get("deletionTimestamp")]
    mine.sort(key=lambda run: (run["metadata"].get("creationTimestamp", ""), run["metadata"]["name"]))
    cases = [_case(site, run, seen.jobs) for run in mine]
    first = holder([(case.name, case.active, case.wants) for case in cases])
    left = _left_behind(site, {case.name for case in cases}, seen.jobs)
    return [_outcome(site, case, first, left, seen) for case in cases]


def refused(outcome: ReconcileResult, why: str, now: datetime) -> Manifest:
    """The status of a run whose objects the API server refused."""
    old = {entry["type"]: entry for entry in (outcome.run.get("status") or {}).get("conditions") or []}
    last = old.get("Progressing", {})
    since = last["lastTransitionTime"] if last.get("status") == "False" else stamp(now)
    why = short(why)
    said = {"status": "False", "reason": "Refused", "message": why, "lastTransitionTime": since}
    told = [entry | said if entry["type"] == "Progressing" else entry for entry in outcome.status.get("conditions", [])]
    return {**outcome.status, "message": why, "conditions": told}


def read_job(item: Manifest) -> JobState:
    """A RayJob of ours."""
    metadata, status = item["metadata"], item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    attempt = annotations.get(ATTEMPT, "0")
    return JobState(
        name=metadata["name"],
        content=annotations.get(CONTENT, ""),
        attempt=int(attempt) if attempt.isdecimal() else 0,
        deployment=status.get("jobDeploymentStatus", ""),
        result=status.get("jobStatus", ""),
        reason=status.get("reason", ""),
        message=" ".join(status.get("message", "").split())[:400],
        deleting="deletionTimestamp" in metadata,
        deleted=metadata.get("deletionTimestamp", ""),
    )


def _case(site: Site, run: Manifest, jobs: Sequence[Manifest]) -> _Case:
    status = run.get("status") or {}
    before = Before(status.get("phase", ""), status.get("content", ""), status.get("restarts", 0))
    own = [_of_run(job, run["metadata"]) for job in jobs if _owned(job, {run["metadata"]["name"]})]
    try:
        return _Case(run, before, own, resolve(site, run))
    except InputError as error:
        return _Case(run, before, own, None, str(error))


def _owned(job: Manifest, runs: Collection[str]) -> bool:
    """By name, not by uid: the RayJob of a deleted run with that name must be gone before its successor starts."""
    owners = job["metadata"].get("ownerReferences") or []
    return any(owner["kind"] == KIND and owner["name"] in runs for owner in owners)


def _of_run(item: Manifest, run: Json) -> JobState:
    """A RayJob of the run. That of an earlier run with this name is being deleted, and its result does not count."""
    job = read_job(item)
    own = any(owner.get("uid") == run["uid"] for owner in item["metadata"]["ownerReferences"])
    return job if own else replace(job, deleting=True)


def _left_behind(site: Site, runs: Collection[str], jobs: Sequence[Manifest]) -> str | None:
    """What a deleted run still trains with the release's services."""
    for item in jobs:
        labels = item["metadata"].get("labels") or {}
        ours = RUN_LABEL in labels and labels.get("app.kubernetes.io/instance") == site.release
        if ours and not _owned(item, runs) and read_job(item).active:
            return f"RayJob {item['metadata']['name']} of the deleted TrainingRun {labels[RUN_LABEL]}"
    return None


def _without_meaning(case: _Case) -> RunDecision:
    """For a spec that cannot be trained: it can still be suspended, and a run that has ended stays so."""
    if case.before.phase in (RunPhase.SUCCEEDED, RunPhase.FAILED) and not case.edited:
        return RunDecision(RunPhase(case.before.phase), case.run["status"].get("message", ""), case.before.restarts)
    if case.jobs and case.run.get("spec", {}).get("suspend") is True:
        return decide(Wanted(case.before.content, suspend=True), case.jobs, case.before)
    return RunDecision(RunPhase.INVALID, short(case.error), case.before.restarts)


def _outcome(site: Site, case: _Case, first: str | None, left: str | None, seen: Seen) -> ReconcileResult:
    old = case.run.get("status") or {}
    if case.meaning is None or case.wanted is None:
        decision = _without_meaning(case)
        return ReconcileResult(case.run, _status(case, decision, seen, None, [], old), decision.delete)
    concerned = case.name == first or case.before.phase == RunPhase.RUNNING
    seen = seen if concerned else replace(seen, picture=None, silence="", pods=())
    progress = _progress(case, seen, old)
    stalled = None if progress is None else seconds_since(progress.since, seen.now)
    busy = left or (f"TrainingRun {first}" if first not in (None, case.name) else None)
    decision = decide(case.wanted, case.jobs, case.before, busy, stalled)
    made: list[Manifest] = []
    if decision.create is not None:
        made = objects(site, case.run, case.meaning, decision.create)
        decision = replace(decision, message=_making(made[-1]["metadata"]["name"], case.meaning, old))
    return ReconcileResult(case.run, _status(case, decision, seen, progress, made, old), decision.delete, tuple(made))


def _making(job: str, meaning: Meaning, old: Json) -> str:
    step = old.get("checkpoint") if meaning.recipe.learner.resume == "auto" else None
    return f"creating RayJob {job}" + (f", which resumes from the checkpoint of step {step}" if step else "")


def _progress(case: _Case, seen: Seen, old: Json) -> Progress | None:
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
    last = old.get("progress") or {}
    return Progress(mark=mark, since=last["since"] if last.get("mark") == mark else stamp(seen.now))


def _status(
    case: _Case, decision: RunDecision, seen: Seen, progress: Progress | None, made: Sequence[Manifest], old: Json
) -> Manifest:
    generation = case.run["metadata"].get("generation", 0)
    lines = _stuck(case, decision.phase, seen, progress)
    # If the queue does not answer, the last known figures are kept; `stuck` says that it is silent.
    kept = {key: old.get(key) for key in ("step", "version", "checkpoint", "staleness") if key in old}
    since, differs = old.get("conditions") or [], case.meaning.differs if case.meaning else ()
    names = [*(job.name for job in case.jobs), *(item["metadata"]["name"] for item in made)]
    job = names[-1] if names else ""
    head, replacements = _head(case, job, seen, old)
    status = RunStatus(
        observed_generation=generation,
        phase=decision.phase,
        message=decision.message,
        job=job,
        content=case.meaning.content if case.meaning else case.before.content,
        restarts=decision.restarts,
        head=head,
        head_replacements=replacements,
        stuck=lines,
        progress=progress,
        conditions=conditions(decision, generation, lines, seen.silence, since, seen.now, differs, case.error),
    )
    told = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**told, **kept, **_figures(case, seen)}


def _head(case: _Case, job: str, seen: Seen, old: Json) -> tuple[str, int]:
    """The Ray head, and how often KubeRay has replaced a lost one: under one RayJob, another pod is another head."""
    same_content = case.meaning is None or case.meaning.content == case.before.content
    count = int(old.get("headReplacements", 0)) if same_content else 0
    head = str(old.get("head", "")) if job == old.get("job") else ""
    heads = [pod.ray_head for pod in seen.pods if pod.ray_head and pod.phase == "Running"]
    # While the old one goes there may be two, and none before the new one runs.
    if len(heads) != 1:
        return head, count
    return heads[0], count + (head not in ("", heads[0]))


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


def _stuck(case: _Case, phase: RunPhase, seen: Seen, progress: Progress | None) -> list[str]:
    lines = [line[:_LONGEST_LINE] for line in _held_up(case, phase, seen, progress)]
    more = len(lines) - _MOST_LINES
    return lines if more <= 0 else [*lines[:_MOST_LINES], f"and {more} more: see `golongrl status`"]


def _held_up(case: _Case, phase: RunPhase, seen: Seen, progress: Progress | None) -> list[str]:
    if phase in LEAVING:
        return [
            f"RayJob {job.name} has been in deletion since {job.deleted}: check its pods, and that KubeRay runs"
            for job in case.jobs
            if job.deleted and seconds_since(job.deleted, seen.now) >= LASTING_S
        ]
    if phase not in _LOOKS_AT_PODS:
        return []
    if phase == RunPhase.RUNNING and seen.picture is not None:
        return [*_stalled(case, seen, progress), *stuck(seen.pods, seen.picture["queue"], seen.picture["services"])]
    # Before the learner runs, its queue says nothing about it.
    silent = [seen.silence] if phase == RunPhase.RUNNING and seen.silence else []
    return [*(f"pod {pod.name}: {pod.trouble}" for pod in seen.pods if pod.trouble), *silent]


def _stalled(case: _Case, seen: Seen, progress: Progress | None) -> list[str]:
    limit = case.wanted.stall_s if case.wanted else 0
    if progress is None or not limit or seconds_since(progress.since, seen.now) < limit:
        return []
    return [f"the queue has made no progress since {progress.since}"]
