"""What becomes an event, as a table; that a repeated pass tells nothing twice; that the API server would take it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.kubernetes.look.pods import Pod
from golongrl_operator.cases import Seen
from golongrl_operator.decide import RunPhase
from golongrl_operator.events import Event, manifest, transitions
from golongrl_operator.reconcile import reconcile, unwritten
from support.training_runs import NOW, PICTURE, SITE, a_job, a_run

BLOCKED = Pod("w-0", "rollout", "Pending", False, 0, "not scheduled: no GPU")


def status(phase: str = "Running", message: str = "m", **reasons: str) -> dict[str, Any]:
    """A status with conditions by reason; "Stuck" is True, Unknown or False as its reason says."""
    truth = {"Moving": "False", "QueueSilent": "Unknown", "StaysSilent": "Unknown"}
    conditions = [
        {
            "type": kind,
            "status": truth.get(reason, "True"),
            "reason": reason,
            "message": f"{kind} {reason}",
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
        for kind, reason in reasons.items()
    ]
    return {"phase": phase, "message": message, "conditions": conditions}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({}, status("Pending", "makes it"), [Event("Pending", "makes it")]),
        (status("Pending"), status("Pending", "KubeRay has not seen it"), []),
        (status("Pending"), status("Running", "trains"), [Event("Running", "trains")]),
        (status("Running"), status("Restarting", "boom"), [Event("Restarting", "boom", "Warning")]),
        (status("Restarting"), status("Failed", "boom; used up"), [Event("Failed", "boom; used up", "Warning")]),
        (status("Failed"), status("Failed", "its RayJob is gone"), []),
        (status("Running"), status("Succeeded", "done"), [Event("Succeeded", "done")]),
        (status("Suspending"), status("Suspended", "off"), [Event("Suspended", "off")]),
        # Two typing errors are two, one that stands is one.
        (status("Running"), status("Invalid", "lrr"), [Event("Invalid", "lrr", "Warning")]),
        (status("Invalid", "lrr"), status("Invalid", "lrr"), []),
        (status("Invalid", "lrr"), status("Invalid", "stepps"), [Event("Invalid", "stepps", "Warning")]),
        # Refused whatever its phase, once; and what comes of it.
        ({}, status("Pending", "403", Progressing="Refused"), [Event("Refused", "403", "Warning")]),
        (status("Pending", "403", Progressing="Refused"), status("Pending", "429", Progressing="Refused"), []),
        (status("Pending", "403", Progressing="Refused"), status("Pending", "new"), [Event("Pending", "new")]),
        # What blocks is told when it lasts, and when a lasting one is over.
        (status(Stuck="Moving"), status(Stuck="Blocked"), []),
        (status(Stuck="Blocked"), status(Stuck="Moving"), []),
        (
            status(Stuck="Blocked"),
            status(Stuck="StaysBlocked"),
            [Event("Stuck", "since 2026-01-02T03:04:05Z: Stuck StaysBlocked", "Warning")],
        ),
        (status(Stuck="StaysBlocked"), status(Stuck="StaysBlocked"), []),
        (status(Stuck="StaysBlocked"), status(Stuck="Moving"), [Event("Moving", "the run makes progress again")]),
        (status(Stuck="StaysBlocked"), status("Succeeded", "done", Stuck="Moving"), [Event("Succeeded", "done")]),
        (
            status(Stuck="QueueSilent"),
            status(Stuck="StaysSilent"),
            [Event("QueueSilent", "since 2026-01-02T03:04:05Z: Stuck StaysSilent", "Warning")],
        ),
        (
            status(Accepted="Valid"),
            status(Accepted="PoolDiffers"),
            [Event("PoolDiffers", "Accepted PoolDiffers", "Warning")],
        ),
        (status(Accepted="PoolDiffers"), status(Accepted="PoolDiffers"), []),
    ],
)  # fmt: skip
def test_transitions(old: dict[str, Any], new: dict[str, Any], told: list[Event]) -> None:
    assert transitions(old, new) == told


@given(
    st.sampled_from(list(RunPhase)), st.text(), st.sampled_from(["Moving", "Blocked", "StaysBlocked", "StaysSilent"])
)
def test_a_status_that_stays_tells_nothing(phase: RunPhase, message: str, stuck: str) -> None:
    same = status(phase, message, Stuck=stuck, Accepted="PoolDiffers")
    assert transitions(same, same) == []


class Cluster:
    """Runs, written statuses and posted events, of an operator that may die between the two."""

    def __init__(self, **spec: Any) -> None:
        self.run = a_run(**spec)
        self.run["metadata"] |= {"namespace": "rl", "resourceVersion": "1"}
        self.events: dict[str, dict[str, Any]] = {}
        self.posts = 0

    def look(self, at: int = 0, *jobs: dict[str, Any], dies: bool = False, refuses: str = "", **seen: Any) -> None:
        now = NOW + timedelta(seconds=at)
        (outcome,) = reconcile(SITE, Seen(now, [self.run], jobs, **seen))
        old = self.run.get("status", {})
        new = unwritten(outcome, "Refused", refuses, now) if refuses else outcome.status
        for event in transitions(old, new):
            made = manifest(self.run, event, now, "operator-0")
            self.events.setdefault(made["metadata"]["name"], made)
            self.posts += 1
        if new != old and not dies:
            self.run["status"] = new
            self.run["metadata"]["resourceVersion"] += "1"

    @property
    def reasons(self) -> list[str]:
        return [event["reason"] for event in self.events.values()]


def test_a_pass_that_died_before_it_wrote_the_status_tells_nothing_twice() -> None:
    cluster = Cluster()
    job = a_job(cluster.run)
    for at in range(5):
        cluster.look(at, dies=True)
    cluster.look(5)
    for at in range(6, 12):
        cluster.look(at, job, picture=PICTURE, dies=at < 10)
    assert cluster.reasons == ["Pending", "Running"]
    assert cluster.posts > len(cluster.reasons), "they were posted again, under the same names"


def test_the_same_transition_at_another_time_is_another_event() -> None:
    """KubeRay's own retries, between which nothing of the run changes."""
    cluster = Cluster()
    running = a_job(cluster.run)
    retrying = a_job(cluster.run, jobDeploymentStatus="Retrying", jobStatus="")
    for at, job in enumerate([running, retrying, running, retrying, running]):
        cluster.look(at, job, picture=PICTURE)
    assert cluster.reasons == ["Running", "Pending"] * 2 + ["Running"]


def test_what_flickers_is_not_told_and_what_lasts_is_told_once() -> None:
    cluster = Cluster()
    job = a_job(cluster.run)
    for at in range(0, 1200, 60):
        cluster.look(at, job, picture=PICTURE, pods=[BLOCKED] if at % 120 else [])
    assert cluster.reasons == ["Running"]
    for at in range(1200, 2400, 60):
        cluster.look(at, job, picture=PICTURE, pods=[BLOCKED])
    assert cluster.reasons == ["Running", "Stuck"]
    assert list(cluster.events.values())[-1]["note"] == "since 2026-01-02T03:23:05Z: pod w-0: not scheduled: no GPU"
    for at in range(2400, 2600, 60):
        cluster.look(at, job, picture=PICTURE)
    assert cluster.reasons == ["Running", "Stuck", "Moving"]


def head(uid: str, phase: str = "Running", ready: bool = True) -> Pod:
    return Pod(f"head-{uid}", "learner", phase, ready, 0, "", ray_head=f"{uid}/0")


def test_a_lost_ray_head_is_counted_once_and_told() -> None:
    """KubeRay replaces it by itself, and the RayJob's status stays Running."""
    cluster = Cluster()
    job = a_job(cluster.run)
    looks: list[list[Pod]] = [
        [head("a")],
        [head("a")],
        [],  # gone
        [head("b", "Pending", ready=False)],
        [head("a"), head("b")],  # the old one's deletion is late
        [head("b")],
        [head("b")],
    ]
    counted = []
    for at, pods in enumerate(looks):
        cluster.look(at * 15, job, picture=PICTURE, pods=pods)
        counted.append(cluster.run["status"]["headReplacements"])
    assert counted == [0, 0, 0, 0, 0, 1, 1]
    assert cluster.reasons == ["Running", "HeadReplaced"]
    (event,) = [event for event in cluster.events.values() if event["reason"] == "HeadReplaced"]
    assert event["type"] == "Warning"
    assert event["note"] == (
        f"the Ray head of RayJob {job['metadata']['name']} was lost and replaced (replacement 1); "
        "the learner resumes from its last checkpoint of step 10"
    )
    assert cluster.run["status"]["restarts"] == 0


def test_the_head_of_a_new_rayjob_is_no_replacement() -> None:
    cluster = Cluster(maxRestarts=1)
    failed = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
    cluster.look(0, a_job(cluster.run), picture=PICTURE, pods=[head("a")])
    cluster.look(15, a_job(cluster.run, **failed), picture=PICTURE, pods=[head("a")])
    cluster.look(30, pods=[])
    cluster.look(45, a_job(cluster.run, attempt=1), picture=PICTURE, pods=[head("b")])
    assert (cluster.run["status"]["restarts"], cluster.run["status"]["headReplacements"]) == (1, 0)
    cluster.look(60, a_job(cluster.run, attempt=1), picture=PICTURE, pods=[head("c")])
    assert cluster.run["status"]["headReplacements"] == 1
    assert "HeadReplaced" in cluster.reasons


def test_a_silent_queue_is_told_when_it_lasts() -> None:
    cluster = Cluster()
    job = a_job(cluster.run)
    for at in range(0, 900, 60):
        cluster.look(at, job, silence="the queue: no answer")
    assert cluster.reasons == ["Running", "QueueSilent"]


def test_a_refusal_whose_words_change_is_told_once() -> None:
    cluster = Cluster()
    for at in range(10):
        cluster.look(at, refuses=f"RayJob x: try {at} refused")
    cluster.look(11)
    assert cluster.reasons == ["Refused", "Pending"]


@pytest.mark.parametrize("micro", [0, 7, 999_999])
def test_the_api_server_takes_it(micro: int) -> None:
    """Strictly, and what its schema does not say: an exact time format, a bound in bytes, names that are required."""
    run = a_run()
    run["metadata"] |= {"namespace": "rl", "resourceVersion": "17"}
    made = manifest(run, Event("Failed", "长" * 1000, "Warning"), datetime(2026, 1, 2, 3, 4, 5, micro, UTC), "pod-0")
    kubernetes_validate.validate(made, "1.36", strict=True)
    assert made["eventTime"] == f"2026-01-02T03:04:05.{micro:06}Z"
    assert 1000 < len(made["note"].encode()) <= 1024
    assert made["note"].strip("长") == ""
    assert made["regarding"] == {
        "apiVersion": "golongrl.io/v1alpha1", "kind": "TrainingRun", "namespace": "rl",
        "name": "r", "uid": "uid-r", "resourceVersion": "17",
    }  # fmt: skip
    for key in ("action", "reason", "reportingController", "reportingInstance"):
        assert 0 < len(made[key]) <= 128
    assert made["metadata"]["namespace"] == made["regarding"]["namespace"]
