"""What to do about a run: one pure function from the spec and the existing RayJobs to one decision.

Invariants:
- at most one RayJob of a run trains: the next is created only when the last one and its nodes are gone;
- restarts are bounded by `max_restarts`, and counted on the RayJob itself, so that a repeated pass never counts twice;
- missing information never causes a restart: a stall is counted only while the queue answers;
- a run that succeeded stays so until its own spec changes: an upgrade of the release does not train it again;
- a run that failed stays so until its content changes or, if restarts are left, its spec changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


# While the old RayJob is being deleted, the phase still says why.
LEAVING: Final = frozenset({RunPhase.REPLACING, RunPhase.RESTARTING, RunPhase.SUSPENDING})
_DONE: Final = "training is complete"
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


@dataclass(frozen=True, slots=True)
class Before:
    """What the status remembers of the last pass."""

    phase: str = ""
    content: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class RunDecision:
    """The run's phase, and what to do: RayJobs to delete, or the attempt to create one for. Never both."""

    phase: RunPhase
    message: str
    restarts: int = 0
    delete: tuple[str, ...] = ()
    create: int | None = None


def decide(
    wanted: Wanted, jobs: Sequence[JobState], before: Before, busy: str | None = None, stalled_s: float | None = None
) -> RunDecision:
    """The next step of a run.

    Args:
        busy: what uses the release's services now, if it is not this run.
        stalled_s: seconds without progress in the queue; None if that is not known.
    """
    known = before.content == wanted.content
    if before.phase == RunPhase.SUCCEEDED and (known or not wanted.edited):
        return RunDecision(RunPhase.SUCCEEDED, _DONE, before.restarts)
    restarts = before.restarts if known else 0
    live = [job for job in jobs if not job.deleting]
    ending = [job for job in jobs if job.deleting]
    current = sorted((job for job in live if job.content == wanted.content), key=lambda job: job.attempt)
    stale = [job.name for job in live if job not in current[-1:]]
    if wanted.suspend and not any(job.succeeded for job in current):
        return _suspend(live, ending, restarts)
    if stale:
        why = f"the recipe or the RayJob's settings changed: deleting RayJob {', '.join(stale)}"
        return RunDecision(RunPhase.REPLACING, why, restarts, tuple(stale))
    if ending:
        phase = RunPhase(before.phase) if before.phase in LEAVING else RunPhase.REPLACING
        names = ", ".join(job.name for job in ending)
        return RunDecision(phase, f"waiting until RayJob {names} and its nodes are gone", restarts)
    if current:
        return _judge(wanted, current[-1], stalled_s)
    return _start(wanted, before, restarts, known, busy)


def _suspend(live: Sequence[JobState], ending: Sequence[JobState], restarts: int) -> RunDecision:
    if live:
        names = tuple(job.name for job in live)
        return RunDecision(RunPhase.SUSPENDING, f"deleting RayJob {', '.join(names)}", restarts, names)
    if ending:
        names = tuple(job.name for job in ending)
        return RunDecision(
            RunPhase.SUSPENDING, f"waiting until RayJob {', '.join(names)} and its nodes are gone", restarts
        )
    # A person has looked at it: restarts are counted from zero again.
    return RunDecision(RunPhase.SUSPENDED, "spec.suspend is set; set it to false to resume from the last checkpoint")


def _start(wanted: Wanted, before: Before, restarts: int, known: bool, busy: str | None) -> RunDecision:
    if known and before.phase == RunPhase.FAILED:
        if restarts >= wanted.max_restarts:
            return RunDecision(
                RunPhase.FAILED, f"all {restarts} restarts are used, and its RayJob was deleted", restarts
            )
        # KubeRay may delete a RayJob that has ended, and a retry might fail the same way.
        if not wanted.edited:
            why = f"the failed RayJob was deleted; edit the spec to use restart {restarts + 1} of {wanted.max_restarts}"
            return RunDecision(RunPhase.FAILED, why, restarts)
        restarts += 1
    if busy is not None:
        return RunDecision(RunPhase.WAITING, f"waiting: the release trains {busy}", restarts)
    return RunDecision(RunPhase.PENDING, "creating its RayJob", restarts, create=restarts)


def _judge(wanted: Wanted, job: JobState, stalled_s: float | None) -> RunDecision:
    if job.succeeded:
        return RunDecision(RunPhase.SUCCEEDED, _DONE, job.attempt)
    left = job.attempt < wanted.max_restarts
    if job.failed:
        why = f"RayJob {job.name} failed ({job.reason or job.result or job.deployment}): {job.message or 'no message'}"
        if left and not job.final:
            return _again(wanted, job, why)
        end = "retrying would fail the same way" if job.final else f"all {job.attempt} restarts are used"
        return RunDecision(RunPhase.FAILED, f"{why}; {end}", job.attempt)
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


def _again(wanted: Wanted, job: JobState, why: str) -> RunDecision:
    attempt = job.attempt + 1
    message = f"{why}; restart {attempt} of {wanted.max_restarts}"
    return RunDecision(RunPhase.RESTARTING, message, attempt, delete=(job.name,))


def holder(runs: Sequence[tuple[str, bool, bool]]) -> str | None:
    """The run that may use the release's services, of runs (name, has an active RayJob, wants one), oldest first."""
    active = [name for name, has, _ in runs if has]
    wanting = [name for name, _, wants in runs if wants]
    return next(iter([*active, *wanting]), None)
