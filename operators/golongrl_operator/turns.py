"""Which runs may train: turns in the release's pool, and GPUs under a budget. Pure.

Invariants:
- one run uses the release's pool at a time; what still trains keeps it, then priority decides, then age;
- RayJobs of deleted runs, and those that a person made and labelled, use the pool as well.
"""

from collections.abc import Collection, Mapping, Sequence

from golongrl.kubernetes.rayjob.render import ADOPT_LABEL
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl_operator.api import RUN_LABEL
from golongrl_operator.cases import Case, owned, read_job
from golongrl_operator.decide import RunPhase, holder
from golongrl_operator.evaluation import gpus_of, unfinished
from golongrl_operator.share import GpuClaim, fair_share


def turn(cases: Sequence[Case]) -> str | None:
    """The run that may use the release's pool."""
    shared = [case for case in cases if case.shared]
    order = sorted(shared, key=lambda case: -case.priority)
    return holder([(case.name, case.active, case.wants) for case in order])


def shares_of(site: Site, cases: Sequence[Case], first: str | None) -> dict[str, int] | None:
    """GPUs for each run that may train; None without a budget."""
    if not site.gpu_budget:
        return None
    ready = [case for case in cases if case.wants and (not case.shared or case.name == first)]
    claims = {case.name: _claim(site, case) for case in ready if case.meaning is not None}
    claims |= {case.name: claim for case in cases if (claim := _evaluations_claim(site, case))}
    return fair_share(site.gpu_budget, [claims[case.name] for case in cases if case.name in claims])


def _evaluations_claim(site: Site, case: Case) -> GpuClaim | None:
    """Of a run whose evaluation is still to be done; None if that needs no GPU."""
    if case.meaning is None or case.phase != RunPhase.SUCCEEDED or not unfinished(site, case.run, case.meaning):
        return None
    gpus = gpus_of(site, case.meaning)
    phase = ((case.run.get("status") or {}).get("evaluation") or {}).get("phase")
    return GpuClaim(case.name, gpus, gpus, gpus, case.priority, phase in ("Pending", "Running")) if gpus else None


def _claim(site: Site, case: Case) -> GpuClaim:
    assert case.meaning is not None
    spec, engine = case.meaning.spec.rollout, site.pool.gpus
    learner = case.meaning.learner_gpus
    most = spec.replicas or spec.max_replicas or max(spec.min_replicas or 0, site.pool.replicas)
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
        if ours and not owned(item, runs) and read_job(item).active:
            return f"RayJob {item['metadata']['name']} of the deleted TrainingRun {labels[RUN_LABEL]}"
    return next((f"RayJob {item['metadata']['name']}" for item in adopted(site, jobs)), None)


def preempted(site: Site, case: Case, shares: Mapping[str, int] | None) -> str:
    """Why the run may not train now; empty if it may."""
    if shares is None or case.name in shares or not case.wants:
        return ""
    return _over(site, _claim(site, case).least, shares)


def evaluation_held(site: Site, case: Case, shares: Mapping[str, int] | None) -> str:
    """Why the run's evaluation may not have its GPUs now; empty if it may, or needs none."""
    claim = None if shares is None or case.name in shares else _evaluations_claim(site, case)
    return _over(site, claim.least, shares) if claim and shares is not None else ""


def _over(site: Site, least: int, shares: Mapping[str, int]) -> str:
    if least > site.gpu_budget:
        return f"it needs at least {least} GPUs, and operator.gpuBudget is {site.gpu_budget}"
    others = ", ".join(sorted(shares)) or "nobody"
    return f"the GPU budget of {site.gpu_budget} is used by {others}"
