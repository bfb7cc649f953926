"""A run with all that concerns it, read from one look at the cluster. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from golongrl.errors import InputError
from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl_operator.api import ATTEMPT, CONTENT, GROUP, KIND, RUN_LABEL
from golongrl_operator.build import Meaning, SpecError, resolve, run_id
from golongrl_operator.conditions import seconds_since
from golongrl_operator.decide import Before, JobState, RunPhase, Wanted, backoff_s, decide

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
    workloads: Sequence[Manifest] = ()
    """Deployments and LeaderWorkerSets of rollout pools."""
    evaluations: Sequence[Manifest] = ()
    """Evaluation Jobs of runs."""
    admissions: Sequence[Manifest] = ()
    """Kueue's Workloads of runs."""
    pictures: Mapping[str, tuple[Json | None, str]] = field(default_factory=dict)
    """Picture and silence of each run with a queue of its own, by the run's name."""
    configs: Collection[str] | None = None
    """Names of the runs' ConfigMaps; None if they are not known."""


@dataclass(frozen=True)
class Case:
    """A run with all that concerns it."""

    run: Manifest
    before: Before
    jobs: list[JobState]
    meaning: Meaning | None
    release_queue: str
    error: str = ""

    @property
    def name(self) -> str:
        return str(self.run["metadata"]["name"])

    @property
    def status(self) -> Json:
        """What the operator said of it last; empty for a new run."""
        return self.run.get("status") or {}

    @property
    def active(self) -> bool:
        return any(job.active for job in self.jobs)

    @property
    def wanted(self) -> Wanted | None:
        if self.meaning is None:
            return None
        spec = self.meaning.spec
        return Wanted(
            self.meaning.content,
            spec.suspend,
            spec.max_restarts,
            spec.stall_seconds,
            self.edited,
            spec.deletion_policy == "Delete",
            asked=self.meaning.asked,
        )

    @property
    def edited(self) -> bool:
        return bool(self.run["metadata"].get("generation") != self.status.get("observedGeneration"))

    @property
    def phase(self) -> RunPhase | None:
        """What it would be if no other run used the release; None of a spec that means nothing."""
        return None if self.wanted is None else decide(self.wanted, self.jobs, self.before).phase

    @property
    def wants(self) -> bool:
        """It would train if no other run used the release."""
        return self.phase not in (None, *WANTS_NOTHING)

    @property
    def priority(self) -> int:
        return self.meaning.spec.schedule.priority if self.meaning else 0

    @property
    def shared(self) -> bool:
        """It uses the release's pool. A spec that means nothing keeps what its RayJob uses."""
        if self.meaning is not None:
            return not self.meaning.dedicated
        return self.status.get("queue", "") in ("", self.release_queue)


# An attempt as the operator writes it.
_ATTEMPT: Final = re.compile(r"[0-9]{1,9}")
WANTS_NOTHING: Final = frozenset({RunPhase.SUCCEEDED, RunPhase.FAILED, RunPhase.SUSPENDED})


def read_job(item: Manifest) -> JobState:
    """A RayJob of ours."""
    metadata, status = item["metadata"], item.get("status") or {}
    annotations = metadata.get("annotations") or {}
    attempt = annotations.get(ATTEMPT, "0")
    return JobState(
        name=metadata["name"],
        content=annotations.get(CONTENT, ""),
        attempt=int(attempt) if _ATTEMPT.fullmatch(attempt) else 0,
        deployment=status.get("jobDeploymentStatus", ""),
        result=status.get("jobStatus", ""),
        reason=status.get("reason", ""),
        message=" ".join(status.get("message", "").split())[:400],
        deleting="deletionTimestamp" in metadata,
        deleted=metadata.get("deletionTimestamp", ""),
    )


def read_case(site: Site, run: Manifest, jobs: Sequence[Manifest], now: datetime) -> Case:
    """What concerns a run; a spec that cannot be trained gives a case without a meaning, and the reason."""
    status = run.get("status") or {}
    failure, restarts = status.get("failure") or {}, status.get("restarts", 0)
    waited = seconds_since(failure["time"], now) if failure else 0.0
    before = Before(
        status.get("phase", ""),
        status.get("content", ""),
        restarts,
        status.get("message", ""),
        failure.get("step"),
        failure.get("repeated", False),
        max(0.0, backoff_s(restarts) - waited) if failure else 0.0,
        status.get("asked", ""),
    )
    own = [_of_run(job, run["metadata"]) for job in jobs if owned(job, {run["metadata"]["name"]})]
    try:
        meaning = resolve(site, run)
        _check_queue(site, run, meaning)
        return Case(run, before, own, meaning, site.run)
    except InputError as error:
        return Case(run, before, own, None, site.run, str(error))


def _check_queue(site: Site, run: Manifest, meaning: Meaning) -> None:
    """A run that has begun stays with its queue and folder: samples and checkpoints are there."""
    queue = (run.get("status") or {}).get("queue", "")
    if queue in ("", run_id(site, run, meaning)):
        return
    if meaning.dedicated:
        why = f"it needs a pool of its own ({meaning.dedicated})"
    else:
        why = "it would train with the release's pool"
    raise SpecError(
        f"spec: {why}, but the run began with the queue {queue}, where its samples and checkpoints are: take the "
        "change back, or make another TrainingRun"
    )


def owned(job: Manifest, runs: Collection[str]) -> bool:
    """By name, not by uid: the RayJob of a deleted run with that name must be gone before its successor starts."""
    owners = job["metadata"].get("ownerReferences") or []
    return any(_is_run(owner) and owner.get("name") in runs for owner in owners)


def made_for(item: Manifest, run: str) -> bool:
    """It was made for the run. A label alone does not say so: people and Kueue copy labels to other objects."""
    return (item["metadata"].get("labels") or {}).get(RUN_LABEL) == run and owned(item, {run})


def _is_run(owner: Json) -> bool:
    return bool(owner.get("kind") == KIND and str(owner.get("apiVersion", GROUP)).partition("/")[0] == GROUP)


def _of_run(item: Manifest, run: Json) -> JobState:
    """A RayJob of the run. That of an earlier run with this name is being deleted, and its result does not count."""
    job = read_job(item)
    own = any(owner.get("uid") == run["uid"] for owner in item["metadata"]["ownerReferences"])
    return job if own else replace(job, deleting=True)
