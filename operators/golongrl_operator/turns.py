"""Which runs may train: turns in the release's pool, and GPUs under a budget. Pure.

Invariants:
- one run uses the release's pool at a time; what still trains keeps it, then priority decides, then age;
- RayJobs of deleted runs, and those that a person made and labelled, use the pool as well;
- a run that is to be evaluated keeps its turn for minutes while a silent queue has not told its last checkpoint: the
  next run writes newer ones into the same folder;
- GPUs count until what holds them is gone, whoever it belongs to (held.py).
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from golongrl.kubernetes.rayjob.render import ADOPT_LABEL
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl_operator.api import RUN_LABEL
from golongrl_operator.build import Meaning, most_engines
from golongrl_operator.cases import Case, Seen, owned, read_job
from golongrl_operator.conditions import LASTING_S, seconds_since
from golongrl_operator.decide import RunPhase, holder
from golongrl_operator.evaluation import gpus_of, unfinished
from golongrl_operator.held import engines_of, held_by_others
from golongrl_operator.share import GpuClaim, begin, fair_share


def turn(cases: Sequence[Case], seen: Seen) -> str | None:
    """The run that may use the release's pool."""
    shared = [case for case in cases if case.shared]
    order = sorted(shared, key=lambda case: -case.priority)
    return holder([(case.name, case.active or untold(case, seen), case.wants) for case in order])


def untold(case: Case, seen: Seen) -> bool:
    """Its evaluation has not begun, and the queue has not told which checkpoint is its last."""
    if case.meaning is None or case.meaning.spec.evaluation is None or case.phase != RunPhase.SUCCEEDED:
        return False
    if case.before.phase != RunPhase.SUCCEEDED:
        return seen.picture is None
    waits = (case.status.get("evaluation") or {}).get("phase") in (None, "Waiting", "Pending")
    recent = "finished" in case.status and seconds_since(case.status["finished"], seen.now) < LASTING_S
    return waits and recent and "lastCheckpoint" not in case.status


@dataclass(frozen=True)
class GpuShares:
    """Who may train under a budget."""

    shares: Mapping[str, int]
    """GPUs of each run that may."""
    late: frozenset[str] = frozenset()
    """Of them, those whose GPUs are still held by runs that are being suspended."""
    leaving: tuple[str, ...] = ()
    """These."""
    others: tuple[str, ...] = ()
    """What holds GPUs and belongs to no run."""


def shares_of(site: Site, cases: Sequence[Case], first: str | None, left: str | None, seen: Seen) -> GpuShares | None:
    """Which runs may train, and with how many GPUs; None without a budget."""
    if not site.gpu_budget:
        return None
    others = held_by_others(site, {case.name for case in cases if case.meaning is not None}, seen, left, first)
    taken = sum(others.values())
    ready = [case for case in cases if case.wants and (not case.shared or case.name == first)]
    claims = {case.name: _claim(site, case) for case in ready if case.meaning is not None}
    claims |= {case.name: claim for case in cases if (claim := _evaluations_claim(site, case))}
    listed = [claims[case.name] for case in cases if case.name in claims]
    shares = fair_share(site.gpu_budget, listed, taken)
    leaving = {
        case.name: _held(site, case, case.meaning, seen) for case in cases if case.meaning and case.name not in shares
    }
    begins = begin(site.gpu_budget, listed, shares, sum(leaving.values()) + taken)
    waits = {claim.name for claim in listed if claim.name in shares and not claim.training} - begins
    late = tuple(name for name, gpus in leaving.items() if gpus)
    return GpuShares(shares, frozenset(waits), late, tuple(others))


def _held(site: Site, case: Case, meaning: Meaning, seen: Seen) -> int:
    """GPUs that a run without a share still holds: its learner until its RayJob is gone, engines while they drain."""
    learner = engines = 0
    if case.active:
        learner = meaning.learner_gpus
        engines = int((case.status.get("rollout") or {}).get("replicas", 0))
    if case.active or meaning.dedicated:
        engines = max(engines, engines_of(seen.pods, case.name if meaning.dedicated else ""))
    return learner + engines * site.pool.gpus


def _evaluations_claim(site: Site, case: Case) -> GpuClaim | None:
    """Of a run whose evaluation is still to be done; None if that needs no GPU."""
    if case.meaning is None or case.phase != RunPhase.SUCCEEDED or not unfinished(site, case.run, case.meaning):
        return None
    gpus = gpus_of(site, case.meaning)
    phase = (case.status.get("evaluation") or {}).get("phase")
    return GpuClaim(case.name, gpus, gpus, gpus, case.priority, phase in ("Pending", "Running")) if gpus else None


def _claim(site: Site, case: Case) -> GpuClaim:
    assert case.meaning is not None
    spec, engine = case.meaning.spec.rollout, site.pool.gpus
    learner = case.meaning.learner_gpus
    most = most_engines(site, case.meaning.spec)
    least = min(most, spec.min_replicas or 1)
    return GpuClaim(
        case.name, learner + least * engine, learner + most * engine, max(1, engine), case.priority, case.active
    )


def adopted(site: Site, jobs: Sequence[Manifest]) -> list[Manifest]:
    """RayJobs that a person made and labelled with the release's run, and that still need it."""
    return [
        item
        for item in jobs
        if (item["metadata"].get("labels") or {}).get(ADOPT_LABEL) == site.run
        and RUN_LABEL not in item["metadata"]["labels"]
        and read_job(item).active
    ]


def left_behind(site: Site, runs: Collection[str], jobs: Sequence[Manifest]) -> str | None:
    """What trains with the release's pool and is no TrainingRun: RayJobs of deleted runs, and those of a person."""
    for item in jobs:
        labels = item["metadata"].get("labels") or {}
        ours = RUN_LABEL in labels and labels.get("app.kubernetes.io/instance") == site.release
        if ours and not owned(item, runs) and not _dedicated(item) and read_job(item).active:
            return f"RayJob {item['metadata']['name']} of the deleted TrainingRun {labels[RUN_LABEL]}"
    return next((f"RayJob {item['metadata']['name']}" for item in adopted(site, jobs)), None)


def _dedicated(job: Manifest) -> bool:
    """The pods of a RayJob have the label of its run if they have a pool and a queue of their own."""
    cluster = (job.get("spec") or {}).get("rayClusterSpec") or {}
    groups = [cluster.get("headGroupSpec") or {}, *(cluster.get("workerGroupSpecs") or [])]
    metadata = ((group.get("template") or {}).get("metadata") or {} for group in groups)
    return any(RUN_LABEL in (one.get("labels") or {}) for one in metadata)


def preempted(site: Site, case: Case, budget: GpuShares | None) -> str:
    """Why the run may not train now; empty if it may."""
    if budget is None or not case.wants:
        return ""
    if case.name in budget.late and not case.active:
        return f"{', '.join([*budget.leaving, *budget.others])} must free its GPUs first"
    return "" if case.name in budget.shares else _over(site, _claim(site, case).least, budget)


def evaluation_held(site: Site, case: Case, budget: GpuShares | None) -> str:
    """Why the run's evaluation may not have its GPUs now; empty if it may, or needs none."""
    claim = None if budget is None or case.name in budget.shares else _evaluations_claim(site, case)
    return _over(site, claim.least, budget) if claim and budget is not None else ""


def _over(site: Site, least: int, budget: GpuShares) -> str:
    if least > site.gpu_budget:
        return f"it needs at least {least} GPUs, and operator.gpuBudget is {site.gpu_budget}"
    users = ", ".join([*sorted(budget.shares), *budget.others]) or "nobody"
    return f"the GPU budget of {site.gpu_budget} is used by {users}"
