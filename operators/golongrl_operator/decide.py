"""What to do about a run: one pure function from the spec and the existing RayJobs to one decision.

Invariants:
- at most one RayJob of a run trains: the next is created only when the last one and its nodes are gone;
- restarts are bounded by `max_restarts`, and counted on the RayJob itself, so that a repeated pass never counts twice;
- missing information never causes a restart: a stall is counted only while the queue answers;
- the learner that fails twice at one step is not restarted: a third try would meet the same step;
- a run that succeeded stays so until its own spec asks for another training: neither an upgrade of the release nor an
  edit of anything else trains it again, nor both at once;
- a run that failed stays so until its content changes or, if restarts are left, its spec changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class RunPhase(StrEnum):
    """The run in one word."""

    INVALID = "Invalid"
    WAITING = "Waiting"
    PENDING = "Pending"
    RUNNING = "Running"
    REPLACING = "Replacing"
    RESTARTING = "Restarting"
    BACKING_OFF = "BackingOff"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


# While the old RayJob is being deleted, the phase still says why.
LEAVING: Final = frozenset({RunPhase.REPLACING, RunPhase.RESTARTING, RunPhase.SUSPENDING})
ENDED: Final = frozenset({RunPhase.SUCCEEDED, RunPhase.FAILED})
_DONE: Final = "training is complete"
_GONE: Final = "; its RayJob was deleted"
# Between how a run has ended and what is wrong with its spec now.
MEANINGLESS: Final = "; its spec cannot be trained again: "
# The first restart comes at once: most failures are a lost node. The next ones wait, each twice as long, as Kubernetes
# does with containers, but not so long that a person who mends the cause waits with them.
_BACKOFF_S: Final = 30.0
_LONGEST_BACKOFF_S: Final = 600.0
# Reasons of KubeRay that a retry would meet again: a deadline that a person set, a spec that it refuses.
_FINAL_REASONS: Final = frozenset({"DeadlineExceeded", "ValidationFailed"})


@dataclass(frozen=True, slots=True)
class JobState:
    """A RayJob of the run, as the API server has it."""

    name: str
    content: str
    attempt: int
    deployment: str = ""
    """KubeRay's jobDeploymentStatus; empty until KubeRay has seen it."""
    result: str = ""
    """Ray's jobStatus."""
    reason: str = ""
    message: str = ""
    deleting: bool = False
    deleted: str = ""
    """When its deletion was requested."""

    @property
    def succeeded(self) -> bool:
        return self.deployment == "Complete" and self.result == "SUCCEEDED"

    @property
    def failed(self) -> bool:
        """Finally: while KubeRay retries, its status is Retrying."""
        return self.deployment in ("Failed", "ValidationFailed") or (
            self.deployment == "Complete" and self.result != "SUCCEEDED"
        )

    @property
    def final(self) -> bool:
        """A retry would fail the same way, or a person stopped it."""
        return self.deployment != "Failed" or self.reason in _FINAL_REASONS

    @property
    def active(self) -> bool:
        """It may hold nodes of the cluster."""
        return self.deleting or not (self.succeeded or self.failed)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the spec asks for."""

    content: str
    suspend: bool = False
    max_restarts: int = 2
    stall_s: int = 0
    edited: bool = False
    """The spec differs from that of the last pass."""
    delete_ended: bool = False
    """Its objects are deleted when it has ended."""
    preempted: str = ""
    """Why it may not train now, although it could; empty if it may."""
    asked: str = ""
    """Hash of what the spec itself says of the training, whatever its release makes of it."""


@dataclass(frozen=True, slots=True)
class Before:
    """What the status remembers of the last pass."""

    phase: str = ""
    content: str = ""
    restarts: int = 0
    message: str = ""
    failed_step: int | None = None
    """Step of the last failure."""
    repeated: bool = False
    """That step had failed before."""
    backoff_s: float = 0.0
    """Seconds until the next restart may begin."""
    asked: str = ""
    """As in Wanted; empty if an older operator has written the status."""


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The run's phase, and what to do: RayJobs to delete, or the attempt to create one for. Never both."""

    phase: RunPhase
    message: str
    restarts: int = 0
    delete: tuple[str, ...] = ()
    create: int | None = None
    failed: bool = False
    """The learner failed, and this decision is about that."""
    repeated: bool = False
    """It failed twice at the same step."""


def backoff_s(restarts: int) -> float:
    """How long the restart with this number waits after the failure."""
    return 0.0 if restarts <= 1 else min(_LONGEST_BACKOFF_S, _BACKOFF_S * 2.0 ** min(restarts - 2, 30))


def decide(
    wanted: Wanted,
    jobs: Sequence[JobState],
    before: Before,
    busy: str | None = None,
    stalled_s: float | None = None,
    step: int | None = None,
) -> RunDecision:
    """The next step of a run.

    Args:
        busy: what uses the release's services now, if it is not this run.
        stalled_s: seconds without progress in the queue, if the learner is to blame; None if that is not known.
        step: that the learner is in; None if that is not known.
    """
    decision = _decide(wanted, jobs, before, busy, stalled_s, step)
    if wanted.delete_ended and decision.phase in ENDED:
        return replace(decision, delete=tuple(job.name for job in jobs if not job.deleting))
    return decision


def _decide(
    wanted: Wanted,
    jobs: Sequence[JobState],
    before: Before,
    busy: str | None,
    stalled_s: float | None,
    step: int | None,
) -> RunDecision:
    known = before.content == wanted.content
    asks = wanted.edited and (not before.asked or wanted.asked != before.asked)
    if before.phase == RunPhase.SUCCEEDED and (known or not asks):
        return RunDecision(RunPhase.SUCCEEDED, _DONE, before.restarts)
    restarts = before.restarts if known else 0
    live = [job for job in jobs if not job.deleting]
    ending = [job for job in jobs if job.deleting]
    current = sorted((job for job in live if job.content == wanted.content), key=lambda job: job.attempt)
    stale = [job.name for job in live if job not in current[-1:]]
    if wanted.suspend and not any(job.succeeded for job in current):
        return _suspend(live, ending)
    if wanted.preempted and not any(job.succeeded or job.failed for job in current):
        return _preempt(wanted, live, ending, before, restarts)
    if stale:
        why = f"the recipe or the RayJob's settings changed: deleting RayJob {', '.join(stale)}"
        return RunDecision(RunPhase.REPLACING, why, restarts, tuple(stale))
    if ending:
        phase = RunPhase(before.phase) if before.phase in LEAVING else RunPhase.REPLACING
        names = ", ".join(job.name for job in ending)
        return RunDecision(phase, f"waiting until RayJob {names} and its nodes are gone", restarts)
    if current:
        return _judge(wanted, current[-1], before if known else Before(), stalled_s, step)
    return _start(wanted, before, restarts, known, busy)


def _suspend(live: Sequence[JobState], ending: Sequence[JobState]) -> RunDecision:
    # A person has looked at it: restarts are counted from zero again.
    resume = "spec.suspend is set; set it to false to resume from the last checkpoint"
    return _stop(live, ending) or RunDecision(RunPhase.SUSPENDED, resume)


def _preempt(
    wanted: Wanted, live: Sequence[JobState], ending: Sequence[JobState], before: Before, restarts: int
) -> RunDecision:
    """A run that another one needs the GPUs of is suspended, and one that has not begun waits."""
    if before.phase == RunPhase.FAILED:
        # An edit asks for another try, which waits as well.
        if not wanted.edited or restarts >= wanted.max_restarts:
            return RunDecision(RunPhase.FAILED, before.message, restarts)
        restarts += before.content == wanted.content
    stopping = _stop(live, ending)
    if stopping:
        return replace(stopping, message=f"{wanted.preempted}: {stopping.message}", restarts=restarts)
    return RunDecision(RunPhase.WAITING, f"waiting: {wanted.preempted}", restarts)


def _stop(live: Sequence[JobState], ending: Sequence[JobState]) -> RunDecision | None:
    """Delete its RayJobs, and wait for them; None if there is none left."""
    names = ", ".join(job.name for job in live or ending)
    if live:
        return RunDecision(RunPhase.SUSPENDING, f"deleting RayJob {names}", delete=tuple(job.name for job in live))
    if ending:
        return RunDecision(RunPhase.SUSPENDING, f"waiting until RayJob {names} and its nodes are gone")
    return None


def _start(wanted: Wanted, before: Before, restarts: int, known: bool, busy: str | None) -> RunDecision:
    if known and before.phase == RunPhase.FAILED:
        # KubeRay may delete a RayJob that has ended, and a retry might fail the same way.
        used = restarts >= wanted.max_restarts
        if used or not wanted.edited:
            if wanted.delete_ended and not wanted.edited:
                return RunDecision(RunPhase.FAILED, before.message, restarts)
            # Nothing but this status says any more why it failed.
            more = "" if used else f"; edit the spec to use restart {restarts + 1} of {wanted.max_restarts}"
            said = before.message.partition(MEANINGLESS)[0].partition(_GONE)[0]
            return RunDecision(RunPhase.FAILED, f"{said}{_GONE}{more}", restarts)
        restarts += 1
    if busy is not None:
        return RunDecision(RunPhase.WAITING, f"waiting: the release trains {busy}", restarts)
    if known and before.phase in (RunPhase.RESTARTING, RunPhase.BACKING_OFF) and before.backoff_s > 0:
        why = f"restart {restarts} of {wanted.max_restarts} begins after a pause of {backoff_s(restarts):.0f} s"
        return RunDecision(RunPhase.BACKING_OFF, why, restarts)
    return RunDecision(RunPhase.PENDING, "creating its RayJob", restarts, create=restarts)


def _judge(wanted: Wanted, job: JobState, before: Before, stalled_s: float | None, step: int | None) -> RunDecision:
    if job.succeeded:
        return RunDecision(RunPhase.SUCCEEDED, _DONE, job.attempt)
    left = job.attempt < wanted.max_restarts
    if job.failed:
        return _failed(wanted, job, before, step)
    if job.deployment == "Running":
        if wanted.stall_s and stalled_s is not None and stalled_s >= wanted.stall_s:
            why = f"the queue made no progress for {stalled_s:.0f} s"
            if left:
                return _again(wanted, job, why)
            # The exact number of seconds would make another status at every pass.
            why = f"the queue made no progress for more than {wanted.stall_s} s; all {job.attempt} restarts are used"
            return RunDecision(RunPhase.RUNNING, why, job.attempt)
        return RunDecision(RunPhase.RUNNING, f"RayJob {job.name} is training", job.attempt)
    state = job.deployment or "new; KubeRay has not seen it yet"
    detail = f": {job.message}" if job.message else ""
    return RunDecision(RunPhase.PENDING, f"RayJob {job.name} is {state}{detail}", job.attempt)


def _failed(wanted: Wanted, job: JobState, before: Before, step: int | None) -> RunDecision:
    why = f"RayJob {job.name} failed ({job.reason or job.result or job.deployment}): {job.message or 'no message'}"
    if before.repeated and not wanted.edited:
        return RunDecision(RunPhase.FAILED, before.message, job.attempt, failed=True, repeated=True)
    # A failure that is recorded already, of a RayJob whose deletion was cut short, is not the second one.
    fresh = before.phase not in (RunPhase.RESTARTING, RunPhase.FAILED)
    if fresh and job.attempt and step is not None and step == before.failed_step:
        why = (
            f"{why}; it failed twice at step {step + 1}, and a restart would meet the same step: edit the spec to retry"
        )
        return RunDecision(RunPhase.FAILED, why, job.attempt, failed=True, repeated=True)
    if job.attempt < wanted.max_restarts and not job.final:
        return replace(_again(wanted, job, why), failed=True)
    end = "retrying would fail the same way" if job.final else f"all {job.attempt} restarts are used"
    return RunDecision(RunPhase.FAILED, f"{why}; {end}", job.attempt, failed=True)


def _again(wanted: Wanted, job: JobState, why: str) -> RunDecision:
    attempt = job.attempt + 1
    message = f"{why}; restart {attempt} of {wanted.max_restarts}"
    return RunDecision(RunPhase.RESTARTING, message, attempt, delete=(job.name,))


def holder(runs: Sequence[tuple[str, bool, bool]]) -> str | None:
    """The run that may use the release's services, of runs (name, has an active RayJob, wants one), oldest first."""
    active = [name for name, has, _ in runs if has]
    wanting = [name for name, _, wants in runs if wants]
    return next(iter([*active, *wanting]), None)
