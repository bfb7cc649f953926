"""GPUs that are held, as the objects of the cluster tell. Pure.

A run that is deleted, or whose spec cannot be trained, is not asked any more. Its RayJob, engines and evaluation hold
their GPUs until they are gone, which somebody else's finalizer may delay for hours. A person's RayJob does too.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from typing import Final

from golongrl.kubernetes.look.objects import holds
from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.render import ADOPT_LABEL
from golongrl.kubernetes.rayjob.site import Manifest, RayJobError, Site, worker_gpus
from golongrl_operator.api import RUN_LABEL
from golongrl_operator.cases import Seen, owned, read_job
from golongrl_operator.evaluation import gpus_in

_ENDED: Final = frozenset({"Succeeded", "Failed"})


def engines_of(pods: Sequence[Pod], run: str) -> int:
    """Engines that exist in a run's own pool, or in the release's (an empty name). One that drains exists."""
    mine = (pod for pod in pods if pod.component == "rollout" and pod.run == run and not pod.follower)
    return sum(pod.phase not in _ENDED for pod in mine)


def held_by_others(
    site: Site, runs: Collection[str], seen: Seen, left: str | None, first: str | None
) -> dict[str, int]:
    """What holds GPUs and is of none of these runs, and how many it holds.

    Args:
        runs: those that are asked.
        left: what uses the release's pool and is no run.
        first: the run that may use the release's pool.
    """
    held: dict[str, int] = {}
    found = [*_learners(site, runs, seen), *_engines(site, runs, seen), *_evaluations(site, runs, seen)]
    # Engines that KEDA keeps there wait for the run that begins next.
    if left or not (first in runs or site.pool.autoscaled):
        found.append(("the engines of the release's pool", engines_of(seen.pods, "") * site.pool.gpus))
    for name, gpus in found:
        if gpus:
            held[name] = held.get(name, 0) + gpus
    return held


def _learners(site: Site, runs: Collection[str], seen: Seen) -> Iterator[tuple[str, int]]:
    for job in seen.jobs:
        labels = job["metadata"].get("labels") or {}
        # One of an earlier run with the name of a present one counts as that one's.
        ours = RUN_LABEL in labels and labels.get("app.kubernetes.io/instance") == site.release
        if (ours or labels.get(ADOPT_LABEL) == site.run) and not owned(job, runs) and read_job(job).active:
            # The API server makes no pods of a template that is none.
            with suppress(RayJobError):
                yield _name(job), worker_gpus(job, site.gpu_resource)


def _engines(site: Site, runs: Collection[str], seen: Seen) -> Iterator[tuple[str, int]]:
    for run in sorted({pod.run for pod in seen.pods} - {"", *runs}):
        yield f"the engines of TrainingRun {run}", engines_of(seen.pods, run) * site.pool.gpus


def _evaluations(site: Site, runs: Collection[str], seen: Seen) -> Iterator[tuple[str, int]]:
    for job in seen.evaluations:
        if not (holds(job, "Complete") or holds(job, "Failed")) and not owned(job, runs):
            containers = ((job["spec"].get("template") or {}).get("spec") or {}).get("containers") or []
            gpus = sum(gpus_in(container.get("resources") or {}, site.gpu_resource) for container in containers)
            yield _name(job), gpus


def _name(item: Manifest) -> str:
    run = (item["metadata"].get("labels") or {}).get(RUN_LABEL)
    return f"{item['kind']} {item['metadata']['name']}" + (f" of TrainingRun {run}" if run else "")
