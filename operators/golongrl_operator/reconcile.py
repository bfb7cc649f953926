"""What to do for every run of a release at once. Pure: JSON and a clock's reading in, JSON out.

Invariants:
- one run uses the release's pool at a time, a deleted one until its RayJob is gone; the others wait, those of higher
  priority first, then the older ones. Runs with a pool of their own train at the same time;
- under a GPU budget, runs of higher priority suspend others, and each has at most its share;
- the release's pool has engines only while something trains with it;
- a spec that cannot be trained changes nothing, unless it is suspended: a RayJob that trains continues;
- a RayJob that this operator did not create is never changed; one that is labelled with the release's run has the
  release's pool like a run.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from golongrl.kubernetes.look.objects import conditions
from golongrl.kubernetes.rayjob.site import Manifest, Site, pod_templates
from golongrl.telemetry import watchdog
from golongrl_operator.api import GROUP, AvoidedNode
from golongrl_operator.build import Meaning, objects, pool_name, run_id
from golongrl_operator.cases import Case, Seen, made_for, read_case
from golongrl_operator.conditions import seconds_since, short, stamp
from golongrl_operator.decide import ENDED, MEANINGLESS, RunDecision, RunPhase, Wanted, decide
from golongrl_operator.evaluation import ENDED as EVALUATED
from golongrl_operator.evaluation import EvaluationPlan, plan_evaluation
from golongrl_operator.kueue import AdmissionPlan, plan_admission, pods_ready
from golongrl_operator.nodes import avoid, avoided
from golongrl_operator.pool import TRAINS, PoolPlan, View, plan
from golongrl_operator.report import WAITING, RunPass, progress_of, status_of, step_of
from golongrl_operator.turns import GpuShares, adopted, evaluation_held, left_behind, preempted, shares_of, turn, untold

# Components of which each run with a pool of its own has its own; the others serve the whole release.
_A_RUNS: Final = ("rollout", "learner")
_NO_POOL: Final = PoolPlan()
_NO_EVALUATION: Final = EvaluationPlan()
_NO_ADMISSION: Final = AdmissionPlan()


@dataclass(frozen=True)
class ReconcileResult:
    """What to do for one run: write the status first, then delete, then create."""

    run: Manifest
    status: Manifest
    delete: tuple[str, ...] = ()
    apply: tuple[Manifest, ...] = ()
    pool: PoolPlan = _NO_POOL
    evaluation: EvaluationPlan = _NO_EVALUATION
    admission: AdmissionPlan = _NO_ADMISSION
    drop_pool: str = ""
    """Workload of a pool of its own that is to be deleted, with its ConfigMap."""
    expired: bool = False
    """The TrainingRun itself is to be deleted."""

    @property
    def writes(self) -> Hashable:
        """What identifies these writes: another phase, spec or object is another try."""
        made = (*self.apply, *self.pool.apply, *self.admission.apply, *self.evaluation.apply)
        names = tuple(item["metadata"]["name"] for item in made)
        gone = (*self.delete, *self.admission.delete, *self.evaluation.delete, *self.pool.evict, self.drop_pool)
        sizes = tuple(sorted(self.pool.scale.items()))
        return self.run["metadata"].get("generation"), self.status.get("phase"), names, gone, sizes


@dataclass(frozen=True)
class _Release:
    """What the runs of a release share in one pass."""

    site: Site
    seen: Seen
    first: str | None
    """The run whose turn it is to use the release's pool."""
    untold: bool
    """That one has ended, and the queue has not told its last checkpoint."""
    left: str | None
    """What uses the pool, and is no run any more."""
    budget: GpuShares | None


def reconcile(site: Site, seen: Seen) -> list[ReconcileResult]:
    """What to do for each run of the site's release, oldest first."""
    cases = [read_case(site, run, seen.jobs, seen.now) for run in runs_of(site, seen.runs)]
    first = turn(cases, seen)
    left = left_behind(site, {case.name for case in cases}, seen.jobs)
    silent = any(case.name == first and untold(case, seen) for case in cases)
    release = _Release(site, seen, first, silent, left, shares_of(site, cases, first, left, seen))
    return [_outcome(release, case) for case in cases]


def runs_of(site: Site, runs: Sequence[Manifest]) -> list[Manifest]:
    """The runs of the site's release, oldest first."""
    mine = [run for run in runs if run.get("spec", {}).get("release") == site.release]
    mine = [run for run in mine if not run["metadata"].get("deletionTimestamp")]
    return sorted(mine, key=lambda run: (run["metadata"].get("creationTimestamp", ""), run["metadata"]["name"]))


def idle_pool(site: Site, outcomes: Sequence[ReconcileResult], seen: Seen) -> dict[str, int]:
    """The release's pool, and the engines it should have, while no TrainingRun uses it; empty if it has them.

    A plain RayJob that is labelled with the release's run uses it as well.
    """
    name = site.pool.name
    used = any((outcome.status.get("rollout") or {}).get("name") == name for outcome in outcomes)
    work = next((item for item in seen.workloads if item["metadata"]["name"] == name), None)
    if used or work is None or site.pool.autoscaled:
        return {}
    wanted = site.pool.replicas if adopted(site, seen.jobs) else 0
    return {} if work["spec"].get("replicas", 1) == wanted else {name: wanted}


def own_queues(site: Site, runs: Sequence[Manifest]) -> dict[str, str]:
    """Runs that train with a queue of their own: name -> the queue's run."""
    shared = ("", site.run)
    found = {run["metadata"]["name"]: run.get("status") or {} for run in runs_of(site, runs)}
    return {
        name: status["queue"]
        for name, status in found.items()
        if status.get("queue", "") not in shared and status.get("phase") in TRAINS
    }


def adopted_notes(site: Site, job: Manifest, seen: Seen) -> dict[str, str]:
    """What the operator says of a RayJob that a person made, as annotations; empty if it says so already."""
    if seen.picture is None:
        return {}
    queue = seen.picture["queue"]
    work = next((item for item in seen.workloads if item["metadata"]["name"] == site.pool.name), {})
    notes = {
        f"{GROUP}/step": str(queue["version"]),
        f"{GROUP}/last-checkpoint": str(queue["committed"]),
        f"{GROUP}/engines": str((work.get("status") or {}).get("readyReplicas", 0)),
    }
    return {} if notes.items() <= (job["metadata"].get("annotations") or {}).items() else notes


def unwritten(outcome: ReconcileResult, reason: str, why: str, now: datetime) -> Manifest:
    """The status of a run whose objects the API server refused, or gave no answer for."""
    last = conditions(outcome.run).get("Progressing", {})
    since = last["lastTransitionTime"] if last.get("status") == "False" else stamp(now)
    why = short(why)
    said = {"status": "False", "reason": reason, "message": why, "lastTransitionTime": since}
    told = [entry | said if entry["type"] == "Progressing" else entry for entry in outcome.status.get("conditions", [])]
    return {**outcome.status, "message": why, "conditions": told}


def evaluation_unwritten(status: Manifest, reason: str, why: str) -> Manifest:
    """The status of a run whose evaluation Job the API server refused, or gave no answer for."""
    why, evaluation = short(why), status["evaluation"]
    said = {"status": "False", "reason": reason, "message": why}
    told = [entry | said if entry["type"] == "Evaluated" else entry for entry in status["conditions"]]
    return {**status, "evaluation": {**evaluation, "phase": "Pending", "message": why}, "conditions": told}


def _without_meaning(case: Case) -> RunDecision:
    """For a spec that cannot be trained: it can still be suspended, and a run that has ended stays so."""
    if case.before.phase in ENDED:
        said = case.before.message
        if case.edited:
            said = short(f"{said.partition(MEANINGLESS)[0]}{MEANINGLESS}{case.error}")
        return RunDecision(RunPhase(case.before.phase), said, case.before.restarts)
    if case.jobs and case.run.get("spec", {}).get("suspend") is True:
        return decide(Wanted(case.before.content, suspend=True), case.jobs, case.before)
    return RunDecision(RunPhase.INVALID, short(case.error), case.before.restarts)


def _outcome(release: _Release, case: Case) -> ReconcileResult:
    site, meaning, wanted, now = release.site, case.meaning, case.wanted, release.seen.now
    # A node is the same for all runs.
    nodes = avoided(release.seen.pods, case.status, now)
    if meaning is None or wanted is None:
        decision = _without_meaning(case)
        status = status_of(case, release.seen, RunPass(decision, nodes=nodes))
        return ReconcileResult(case.run, status, decision.delete)
    seen, busy = _point_of_view(release, case)
    progress = progress_of(case, seen)
    stalled_s = None if progress is None else seconds_since(progress.since, now)
    learner, culprits = _blamed(case, seen, stalled_s)
    over = preempted(site, case, release.budget)
    admission = _admission(release, case, case.wants and not over and (bool(meaning.dedicated) or not busy))
    wanted = replace(wanted, preempted=over or admission.hold)
    decision = decide(wanted, case.jobs, case.before, busy, stalled_s if learner else None, step_of(seen))
    made: list[Manifest] = []
    if decision.create is not None:
        made = objects(site, case.run, meaning, decision.create)
        avoid(pod_templates(made[-1]), nodes)
        decision = replace(decision, message=_making(made[-1]["metadata"]["name"], case))
    if decision.phase == RunPhase.RUNNING and (ready := pods_ready(_admissions(case, seen), now)):
        admission = replace(admission, report=ready)
    pool = _NO_POOL
    # Whatever keeps this run from the release's pool may use it.
    if meaning.dedicated or (case.name == release.first and busy is None):
        pool = _pool(release, case, decision.phase, seen, admission, culprits, nodes)
    if culprits and progress is not None:
        # Their successors have as long as they had.
        progress = progress.model_copy(update={"since": stamp(now)})
    evaluation = _evaluation(release, case, decision.phase)
    queue = run_id(site, case.run, meaning)
    done = RunPass(
        decision=decision,
        made=made,
        progress=progress,
        queue=queue,
        pool=pool,
        nodes=nodes,
        evaluation=evaluation.status,
        admitted=admission.aspect,
    )
    status = status_of(case, seen, done)
    ended = decision.phase in ENDED
    if decision.phase == RunPhase.SUCCEEDED != case.before.phase and seen.picture is None and busy is None:
        # The queue did not tell its last checkpoint. Nobody else has written one: the evaluation takes the newest.
        status.pop("lastCheckpoint", None)
    dropped = _dropped(meaning, pool, seen) if ended and wanted.delete_ended else ""
    return ReconcileResult(
        run=case.run,
        status=status,
        delete=decision.delete,
        apply=tuple(made) or _lost_recipe(site, case, decision.phase, seen),
        pool=replace(pool, scale={}, apply=()) if dropped else pool,
        evaluation=evaluation,
        admission=admission,
        drop_pool=dropped,
        expired=ended and _expired(meaning, status, now),
    )


def _pool(
    release: _Release,
    case: Case,
    phase: RunPhase,
    seen: Seen,
    admission: AdmissionPlan,
    culprits: tuple[str, ...],
    nodes: Sequence[AvoidedNode],
) -> PoolPlan:
    """The plan of the pool that the run uses, as the run sees it."""
    assert case.meaning is not None
    most, limited_by = _most_engines(release, case, admission)
    view = View(
        run=case.run,
        meaning=case.meaning,
        phase=phase,
        now=seen.now,
        workloads=seen.workloads,
        pods=seen.pods,
        picture=seen.picture,
        deployment=next((job.deployment for job in case.jobs if not job.deleting), ""),
        most=most,
        limited_by=limited_by,
        evict=culprits,
        nodes=nodes,
        configs=seen.configs,
    )
    return plan(release.site, view)


def _most_engines(release: _Release, case: Case, admission: AdmissionPlan) -> tuple[int | None, str]:
    """How many engines the run may have, and what says so; None is no limit."""
    assert case.meaning is not None
    budget, engine_gpus = release.budget, release.site.pool.gpus
    most, limited_by = None, "the GPU budget"
    if budget is not None and case.name in budget.shares and engine_gpus:
        most = (budget.shares[case.name] - case.meaning.learner_gpus) // engine_gpus
    if admission.engines is not None and (most is None or admission.engines < most):
        return admission.engines, "the admission by Kueue"
    return most, limited_by


def _dropped(meaning: Meaning, pool: PoolPlan, seen: Seen) -> str:
    """The pool of its own that a run which has ended leaves; empty if it has none."""
    name = pool.status.name if meaning.dedicated and pool.status else ""
    return name if any(item["metadata"]["name"] == name for item in seen.workloads) else ""


def _lost_recipe(site: Site, case: Case, phase: RunPhase, seen: Seen) -> tuple[Manifest, ...]:
    """The ConfigMap of a RayJob, if somebody has deleted it: a retry, or a new head, could not start without it."""
    assert case.meaning is not None
    jobs = [job for job in case.jobs if not job.deleting] if phase in (RunPhase.PENDING, RunPhase.RUNNING) else []
    lacking = [job for job in jobs if seen.configs is not None and job.name not in seen.configs]
    made = (objects(site, case.run, case.meaning, job.attempt)[0] for job in lacking)
    return tuple(item for item in made if item["metadata"]["name"] in {job.name for job in lacking})


def _admission(release: _Release, case: Case, wants: bool) -> AdmissionPlan:
    """What Kueue is asked, and says; `wants`: the run would train if Kueue admitted it."""
    assert case.meaning is not None
    site, seen = release.site, release.seen
    name = pool_name(site, case.run) if case.meaning.dedicated else site.pool.name
    works = [item for item in seen.workloads if item["metadata"]["name"] == name]
    mine = case.meaning.dedicated or case.name == release.first
    drained = not mine or not any((item.get("status") or {}).get("replicas") for item in works)
    stopped = drained and not case.active
    return plan_admission(site, case.run, case.meaning, _admissions(case, seen), wants, stopped, seen.now)


def _admissions(case: Case, seen: Seen) -> list[Manifest]:
    return [item for item in seen.admissions if made_for(item, case.name)]


def _evaluation(release: _Release, case: Case, phase: RunPhase) -> EvaluationPlan:
    assert case.meaning is not None
    seen = release.seen
    jobs = [job for job in seen.evaluations if made_for(job, case.name)]
    # The pass that sees the end writes the step of the last checkpoint; the evaluation begins at the next one.
    done = phase if case.before.phase == phase else RunPhase.RUNNING
    step, held = case.status.get("lastCheckpoint"), evaluation_held(release.site, case, release.budget)
    return plan_evaluation(release.site, case.run, case.meaning, done, step, jobs, seen.pods, seen.now, held)


def _point_of_view(release: _Release, case: Case) -> tuple[Seen, str | None]:
    """What a run sees of its pool and queue, and what keeps it from the release's."""
    seen, first = release.seen, release.first
    if not case.shared:
        picture, silence = seen.pictures.get(case.name, (None, ""))
        pods = [pod for pod in seen.pods if pod.run == case.name or (not pod.run and pod.component not in _A_RUNS)]
        return replace(seen, picture=picture, silence=silence, pods=pods), None
    busy = release.left or (_holding(release) if first not in (None, case.name) else None)
    concerned = case.name == first or case.before.phase == RunPhase.RUNNING
    if not concerned:
        return replace(seen, picture=None, silence="", pods=()), busy
    # Engines and nodes of runs with a pool of their own are none of its business.
    return replace(seen, pods=[pod for pod in seen.pods if pod.run in ("", case.name)]), busy


def _holding(release: _Release) -> str:
    """The run that has the release's pool, in words."""
    return f"TrainingRun {release.first}" + (
        ", whose last checkpoint the queue has not told yet" if release.untold else ""
    )


def _blamed(case: Case, seen: Seen, stalled_s: float | None) -> tuple[bool, tuple[str, ...]]:
    """Where the chain of waits of a stalled queue ends: whether at the learner, or else at which pods."""
    limit = case.wanted.stall_s if case.wanted else 0
    if not limit or stalled_s is None or stalled_s < limit or seen.picture is None:
        return True, ()
    chains = watchdog.stalls(watchdog.read(seen.picture["services"]))
    if chains:
        kind, _, name = chains[0].culprit.partition("/")
        if kind == "reward":
            return False, tuple(pod.name for pod in seen.pods if pod.component == "reward")
        # Of Redis and of storage, nothing that the operator restarts is the cause.
        return kind in ("learner", "ranks"), _engines(seen, name)
    # No process says that it is in trouble: an engine that generates without end, or the learner in its step.
    blocking = seen.picture["queue"].get("blocking") or {}
    learners = [one["fields"] for one in seen.picture["services"] if one["service"] == "learner"]
    if not any(str(fields.get("doing", "")).startswith(WAITING) for fields in learners):
        return True, ()
    if not any(one["service"] == "rollout" for one in seen.picture["services"]):
        # It waits for engines that are not there; a new learner would wait for them too.
        return False, ()
    pods = _engines(seen, blocking.get("worker"))
    return not pods, pods


def _engines(seen: Seen, worker: str | None) -> tuple[str, ...]:
    """The pod of a worker. Its name comes from the queue, and no pod but an engine is deleted because of it."""
    return tuple(pod.name for pod in seen.pods if pod.component == "rollout" and pod.name == worker)


def _expired(meaning: Meaning, status: Manifest, now: datetime) -> bool:
    """Its time is over, counted from the end of its evaluation if it has one."""
    ttl_s, last = meaning.spec.ttl_seconds_after_finished, status
    if meaning.spec.evaluation is not None and status["phase"] == RunPhase.SUCCEEDED:
        last = status.get("evaluation") or {}
        if last.get("phase") not in EVALUATED:
            return False
    finished = last.get("finished")
    return ttl_s is not None and finished is not None and seconds_since(finished, now) >= ttl_s


def _making(job: str, case: Case) -> str:
    assert case.meaning is not None
    step = case.status.get("lastCheckpoint") if case.meaning.recipe.learner.resume == "auto" else None
    return f"creating RayJob {job}" + (f", which resumes from the checkpoint of step {step}" if step else "")
