"""Decisions, as a table; then against a cluster that does anything it may, in any order."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from golongrl_operator.decide import Before, JobState, RunPhase, Wanted, decide, holder

WANTED = Wanted("new", max_restarts=2)
NEW = JobState("j", "new", 0)
RUNNING = replace(NEW, deployment="Running", result="RUNNING")
DONE = replace(NEW, deployment="Complete", result="SUCCEEDED")
FAILED = replace(NEW, deployment="Failed", result="FAILED", reason="AppFailed", message="boom")
LATE = replace(FAILED, reason="DeadlineExceeded")
STOPPED = replace(NEW, deployment="Complete", result="STOPPED")
OLD = replace(RUNNING, name="old", content="old")
GOING = replace(RUNNING, deleting=True)
ENDED = Before(RunPhase.SUCCEEDED, "new")
EDITED = replace(WANTED, edited=True)
SUSPENDED = replace(WANTED, suspend=True)
STALL = replace(WANTED, stall_s=60)


@pytest.mark.parametrize(
    ("wanted", "jobs", "before", "stalled", "phase", "delete", "create"),
    [
        (WANTED, [], Before(), None, "Pending", (), 0),
        (WANTED, [NEW], Before("Pending", "new"), None, "Pending", (), None),
        (WANTED, [replace(NEW, deployment="Retrying")], Before("Running", "new"), None, "Pending", (), None),
        (WANTED, [RUNNING], Before("Pending", "new"), None, "Running", (), None),
        (WANTED, [DONE], Before("Running", "new"), None, "Succeeded", (), None),
        # An end lasts, with or without its RayJob, until something else is to be run.
        (WANTED, [], ENDED, None, "Succeeded", (), None),
        (EDITED, [], replace(ENDED, content="old"), None, "Pending", (), 0),
        (EDITED, [replace(DONE, content="old")], Before("Succeeded", "old"), None, "Replacing", ("j",), None),
        # The release was upgraded: that trains nothing again, nor does an edit that changes nothing of what runs.
        (WANTED, [], replace(ENDED, content="old"), None, "Succeeded", (), None),
        (WANTED, [replace(DONE, content="old")], Before("Succeeded", "old"), None, "Succeeded", (), None),
        (EDITED, [replace(DONE, content="old")], ENDED, None, "Succeeded", (), None),
        (WANTED, [], Before("Failed", "old", 2), None, "Pending", (), 0),
        (SUSPENDED, [DONE], Before("Running", "new"), None, "Succeeded", (), None),
        # A final failure is a restart, bounded, unless a retry would fail the same way.
        (WANTED, [FAILED], Before("Running", "new"), None, "Restarting", ("j",), None),
        (WANTED, [replace(FAILED, attempt=2)], Before("Running", "new", 2), None, "Failed", (), None),
        (WANTED, [replace(FAILED, attempt=2)], Before(), None, "Failed", (), None),
        (WANTED, [LATE], Before("Running", "new"), None, "Failed", (), None),
        (WANTED, [STOPPED], Before("Running", "new"), None, "Failed", (), None),
        (WANTED, [replace(NEW, deployment="ValidationFailed")], Before(), None, "Failed", (), None),
        (WANTED, [], Before("Restarting", "new", 1), None, "Pending", (), 1),
        (WANTED, [], Before("Failed", "new", 2), None, "Failed", (), None),
        # KubeRay deleted the failed RayJob, and a retry might fail the same way. But if maxRestarts was raised ...
        (WANTED, [], Before("Failed", "new", 1), None, "Failed", (), None),
        (EDITED, [], Before("Failed", "new", 1), None, "Pending", (), 2),
        (EDITED, [], Before("Failed", "new", 2), None, "Failed", (), None),
        # A RayJob that was deleted by hand is made again, and is no restart.
        (WANTED, [], Before("Running", "new", 1), None, "Pending", (), 1),
        # A stall counts only where it is known, wanted and long enough.
        (STALL, [RUNNING], Before("Running", "new"), 59.0, "Running", (), None),
        (STALL, [RUNNING], Before("Running", "new"), 60.0, "Restarting", ("j",), None),
        (STALL, [RUNNING], Before("Running", "new"), None, "Running", (), None),
        (STALL, [replace(RUNNING, attempt=2)], Before("Running", "new"), 60.0, "Running", (), None),
        (WANTED, [RUNNING], Before("Running", "new"), 1e6, "Running", (), None),
        (STALL, [NEW], Before("Pending", "new"), 1e6, "Pending", (), None),
        # One at a time, and the next only when the last is gone.
        (WANTED, [OLD], Before("Running", "old"), None, "Replacing", ("old",), None),
        (WANTED, [GOING], Before("Restarting", "new", 1), None, "Restarting", (), None),
        (WANTED, [replace(OLD, deleting=True)], Before("Replacing", "new"), None, "Replacing", (), None),
        (WANTED, [RUNNING, replace(RUNNING, name="k", attempt=1)], Before(), None, "Replacing", ("j",), None),
        (SUSPENDED, [RUNNING], Before("Running", "new"), None, "Suspending", ("j",), None),
        (SUSPENDED, [GOING], Before("Suspending", "new"), None, "Suspending", (), None),
        (SUSPENDED, [], Before("Suspending", "new", 1), None, "Suspended", (), None),
        (WANTED, [], Before("Suspended", "new"), None, "Pending", (), 0),
    ],
)
def test_decisions(
    wanted: Wanted,
    jobs: list[JobState],
    before: Before,
    stalled: float | None,
    phase: str,
    delete: tuple[str, ...],
    create: int | None,
) -> None:
    made = decide(wanted, jobs, before, stalled_s=stalled)
    assert (made.phase, made.delete, made.create) == (phase, delete, create)
    assert made.message


def test_a_run_waits_for_the_release_but_never_stops_for_it() -> None:
    waiting = decide(WANTED, [], Before(), busy="TrainingRun other")
    assert (waiting.phase, waiting.message) == (
        RunPhase.WAITING,
        "waiting: the release trains TrainingRun other",
    )
    assert decide(WANTED, [], Before(), busy="other").create is None
    assert decide(WANTED, [RUNNING], Before(), busy="other").phase == RunPhase.RUNNING


def test_messages_name_what_and_why() -> None:
    again = decide(WANTED, [FAILED], Before("Running", "new"))
    assert again.message == "RayJob j failed (AppFailed): boom; restart 1 of 2"
    assert again.restarts == 1
    over = decide(WANTED, [replace(FAILED, attempt=2)], Before("Running", "new", 2))
    assert over.message.endswith("boom; all 2 restarts are used")
    # KubeRay deletes the RayJob minutes later, and then nothing else says why the run failed.
    gone = over
    for _ in range(2):
        gone = decide(WANTED, [], Before("Failed", "new", 2, gone.message))
        assert gone.message == f"{over.message}; its RayJob was deleted"
    assert decide(EDITED, [], Before("Failed", "new", 2, gone.message)).message == gone.message
    left = decide(WANTED, [], Before("Failed", "new", 1, "boom; its spec cannot be trained again: x"))
    assert left.message == "boom; its RayJob was deleted; edit the spec to use restart 2 of 2"
    assert "restarts are used" in decide(STALL, [replace(RUNNING, attempt=2)], Before(), stalled_s=70).message


@pytest.mark.parametrize(
    ("runs", "first"),
    [
        ([], None),
        ([("a", False, False)], None),
        ([("a", False, True), ("b", False, True)], "a"),
        ([("a", False, True), ("b", True, True)], "b"),
        ([("a", True, False), ("b", False, True)], "a"),
    ],
)
def test_who_has_the_release(runs: list[tuple[str, bool, bool]], first: str | None) -> None:
    assert holder(runs) == first


class Anything(RuleBasedStateMachine):
    """A person, KubeRay and the garbage collector against the operator, which may die before or after any write."""

    @initialize()
    def begin(self) -> None:
        self.content, self.suspend, self.most = 0, False, 2
        self.generation = self.observed = 0
        self.jobs: dict[str, JobState] = {}
        self.before = Before()

    def wanted(self) -> Wanted:
        return Wanted(str(self.content), self.suspend, self.most, edited=self.generation != self.observed)

    @rule(told=st.booleans(), done=st.booleans())
    def a_pass(self, told: bool, done: bool) -> None:
        """As the loop does: a removal is told before it is done, and either may be cut short."""
        wanted = self.wanted()
        made = decide(wanted, list(self.jobs.values()), self.before)
        assert not (made.delete and made.create is not None)
        if made.create is not None:
            assert not self.jobs, "another RayJob is still there"
            assert not self.suspend
            assert made.create <= self.most
        if not told:
            return
        if done:
            for name in made.delete:
                self.jobs[name] = replace(self.jobs[name], deleting=True)
            if made.create is not None:
                name = f"{wanted.content}-{made.create}"
                self.jobs[name] = JobState(name, wanted.content, made.create)
        self.before, self.observed = Before(made.phase, wanted.content, made.restarts), self.generation

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def kuberay_moves(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.jobs)))
        state = data.draw(st.sampled_from([RUNNING, DONE, FAILED, LATE, replace(NEW, deployment="Retrying")]))
        if not (self.jobs[name].succeeded or self.jobs[name].failed):
            self.jobs[name] = replace(self.jobs[name], deployment=state.deployment, result=state.result)

    @rule()
    def pods_end(self) -> None:
        self.jobs = {name: job for name, job in self.jobs.items() if not job.deleting}

    @rule()
    def somebody_changes_it(self) -> None:
        self.content += 1
        self.generation += 1

    @rule()
    def somebody_upgrades_the_release(self) -> None:
        self.content += 1

    @rule(suspend=st.booleans())
    def somebody_suspends_it(self, suspend: bool) -> None:
        self.suspend = suspend
        self.generation += 1

    @invariant()
    def it_settles(self) -> None:
        """Without changes from outside, passes soon change nothing: no RayJob is created and deleted in turn."""
        jobs, before, wanted = dict(self.jobs), self.before, self.wanted()
        for _ in range(6):
            made = decide(wanted, list(jobs.values()), before)
            jobs = {name: job for name, job in jobs.items() if not job.deleting and name not in made.delete}
            if made.create is not None:
                jobs["x"] = JobState("x", wanted.content, made.create)
            before, wanted = Before(made.phase, wanted.content, made.restarts), replace(wanted, edited=False)
        made = decide(wanted, list(jobs.values()), before)
        assert not made.delete
        assert made.create is None
        assert len(jobs) <= 1
        assert made.phase in {
            RunPhase.PENDING,
            RunPhase.RUNNING,
            RunPhase.SUSPENDED,
            RunPhase.SUCCEEDED,
            RunPhase.FAILED,
        }


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=60, stateful_step_count=25)
