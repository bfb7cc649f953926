"""What to do about a run: one pure function from what is wanted and what is there to one decision.

Invariants:
- at most one RayJob of a run trains: another is made only when the last one is gone, nodes and all;
- restarts are bounded by `max_restarts`, and counted on the RayJob itself, so that a forgotten or repeated pass never
  counts twice;
- what is not known never restarts anything: a stall is counted only while the queue answers;
- a run that succeeded stays so until its own spec asks for something else: no upgrade of the release trains it anew;
- a run that failed stays so until its content changes, or, with restarts left, its spec.
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


# While the old RayJob goes, the run still says why.
LEAVING: Final = frozenset({RunPhase.REPLACING, RunPhase.RESTARTING, RunPhase.SUSPENDING})
_DONE: Final = "trained to the end"
# KubeRay's reasons that another try would meet again: a deadline that a person set, a spec it refuses.
_FINAL_REASONS: Final = frozenset({"DeadlineExceeded", "ValidationFailed"})


@dataclass(frozen=True, slots=True)
class JobState:
    """A RayJob of the run, as the API server tells it."""

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
    """When its deletion was asked for."""

    @property
    def succeeded(self) -> bool:
        return self.deployment == "Complete" and self.result == "SUCCEEDED"

    @property
    def failed(self) -> bool:
        """For good: while KubeRay retries, it says Retrying."""
        return self.deployment in ("Failed", "ValidationFailed") or (
            self.deployment == "Complete" and self.result != "SUCCEEDED"
        )

    @property
    def final(self) -> bool:
        """Another try would meet the same, or a person stopped it."""
        return self.deployment != "Failed" or self.reason in _FINAL_REASONS

    @property
    def active(self) -> bool:
        """It holds nodes of the cluster, or may."""
        return self.deleting or not (self.succeeded or self.failed)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the spec asks for."""

    content: str
    suspend: bool = False
    max_restarts: int = 2
    stall_s: int = 0
    edited: bool = False
    """The spec is another one than at the last pass."""


@dataclass(frozen=True, slots=True)
class Before:
    """What the status remembers of the last pass."""

    phase: str = ""
    content: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class RunDecision:
    """What the run is now, and what to do: RayJobs to delete, or the attempt to make one for. Never both."""

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
        busy: what has the release's services now, if that is something else.
        stalled_s: seconds since anything moved in the queue; None where that is not known.
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
        why = "what it runs has changed"
        return RunDecision(RunPhase.REPLACING, f"{why}: takes RayJob {', '.join(stale)} away", restarts, tuple(stale))
    if ending:
        phase = RunPhase(before.phase) if before.phase in LEAVING else RunPhase.REPLACING
        names = ", ".join(job.name for job in ending)
        return RunDecision(phase, f"waits until RayJob {names} and its nodes are gone", restarts)
    if current:
        return _judge(wanted, current[-1], stalled_s)
    return _start(wanted, before, restarts, known, busy)


def _suspend(live: Sequence[JobState], ending: Sequence[JobState], restarts: int) -> RunDecision:
    if live:
        names = tuple(job.name for job in live)
        return RunDecision(RunPhase.SUSPENDING, f"takes RayJob {', '.join(names)} away", restarts, names)
    if ending:
        names = tuple(job.name for job in ending)
        return RunDecision(
            RunPhase.SUSPENDING, f"waits until RayJob {', '.join(names)} and its nodes are gone", restarts
        )
    # A person has looked at it: the restarts count from nothing.
    return RunDecision(RunPhase.SUSPENDED, "spec.suspend is set; it resumes from the last checkpoint")


def _start(wanted: Wanted, before: Before, restarts: int, known: bool, busy: str | None) -> RunDecision:
    if known and before.phase == RunPhase.FAILED:
        if restarts >= wanted.max_restarts:
            return RunDecision(RunPhase.FAILED, f"{restarts} restarts used up, and its RayJob is gone", restarts)
        # KubeRay may delete what is over, and the failure may have been one that another try meets again.
        if not wanted.edited:
            why = f"its RayJob failed and is gone: change the spec for restart {restarts + 1} of {wanted.max_restarts}"
            return RunDecision(RunPhase.FAILED, why, restarts)
        restarts += 1
    if busy is not None:
        return RunDecision(RunPhase.WAITING, f"the release trains {busy}: starts after it", restarts)
    return RunDecision(RunPhase.PENDING, "makes its RayJob", restarts, create=restarts)


def _judge(wanted: Wanted, job: JobState, stalled_s: float | None) -> RunDecision:
    if job.succeeded:
        return RunDecision(RunPhase.SUCCEEDED, _DONE, job.attempt)
    left = job.attempt < wanted.max_restarts
    if job.failed:
        why = f"RayJob {job.name} failed ({job.reason or job.result or job.deployment}): {job.message or 'no message'}"
        if left and not job.final:
            return _again(wanted, job, why)
        end = "another try would meet it again" if job.final else f"{job.attempt} restarts used up"
        return RunDecision(RunPhase.FAILED, f"{why}; {end}", job.attempt)
    if job.deployment == "Running":
        if wanted.stall_s and stalled_s is not None and stalled_s >= wanted.stall_s:
            why = f"nothing moved in the queue for {stalled_s:.0f} s"
            if left:
                return _again(wanted, job, why)
            # Without the seconds, which would be another status at every pass.
            said = f"nothing moved in the queue for {wanted.stall_s} s and longer"
            return RunDecision(RunPhase.RUNNING, f"{said}; {job.attempt} restarts used up", job.attempt)
        return RunDecision(RunPhase.RUNNING, f"RayJob {job.name} trains", job.attempt)
    state = job.deployment or "new: KubeRay has not seen it yet"
    detail = f": {job.message}" if job.message else ""
    return RunDecision(RunPhase.PENDING, f"RayJob {job.name} is {state}{detail}", job.attempt)


def _again(wanted: Wanted, job: JobState, why: str) -> RunDecision:
    attempt = job.attempt + 1
    message = f"{why}; restart {attempt} of {wanted.max_restarts}"
    return RunDecision(RunPhase.RESTARTING, message, attempt, delete=(job.name,))


def holder(runs: Sequence[tuple[str, bool, bool]]) -> str | None:
    """The run that has the release's services, of runs (name, has an active RayJob, wants one), oldest first."""
    active = [name for name, has, _ in runs if has]
    wanting = [name for name, _, wants in runs if wants]
    return next(iter([*active, *wanting]), None)
