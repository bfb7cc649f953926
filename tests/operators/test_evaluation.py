"""The evaluation of a run that has succeeded: which Job, when, and what the run's status says of it."""

import copy
import json
import re
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jsonschema
import pytest

from golongrl.evaluation.report import summary
from golongrl.kubernetes.look.pods import Pod, read_pods
from golongrl_operator.build import resolve
from golongrl_operator.cases import Seen
from golongrl_operator.conditions import LASTING_S
from golongrl_operator.crd import schema
from golongrl_operator.evaluation import gpus_of, job_of
from golongrl_operator.events import transitions
from golongrl_operator.reconcile import evaluation_unwritten, reconcile
from support.crd import close
from support.training_runs import NOW, PICTURE, QUEUE, SITE, a_job, a_run

STATUS = jsonschema.Draft7Validator(close(schema()["properties"]["status"]))
SUITE = {"suite": "general"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
SCORES = summary.Summary(
    suite="general",
    model="step-10",
    report="/store/evals/r/general/report.html",
    scores=(
        summary.Score(benchmark="mmlu-pro", score=53.1, stderr=1.2, samples=96, expected=100, note="4 failed"),
        summary.Score(benchmark="arena", score=None, samples=0, expected=50, note="needs a judge (--judge URL)"),
    ),
)


class World:
    """A run that trains, succeeds and is evaluated."""

    def __init__(self, site: Any = SITE, **spec: Any) -> None:
        self.site, self.now = site, NOW
        self.run = a_run(**{"evaluation": SUITE, **spec})
        self.others: list[dict[str, Any]] = []
        self.jobs = [a_job(self.run)]
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.pods: list[Pod] = []
        self.events: list[str] = []
        self.expired = False

    def once(self, picture: Any = None) -> dict[str, Any]:
        seen = Seen(
            self.now, [self.run, *self.others], self.jobs, self.pods, picture,
            evaluations=list(self.evaluations.values()),
        )  # fmt: skip
        outcome, *rest = reconcile(self.site, seen)
        for other, found in zip(self.others, rest, strict=True):
            other["status"] = found.status
        STATUS.validate(outcome.status)
        self.events += [event.reason for event in transitions(self.run.get("status") or {}, outcome.status)]
        self.run["status"], self.expired = outcome.status, outcome.expired
        self.jobs = [job for job in self.jobs if job["metadata"]["name"] not in outcome.delete]
        for name in outcome.evaluation.delete:
            del self.evaluations[name]
        self.evaluations |= {item["metadata"]["name"]: item for item in outcome.evaluation.apply}
        return outcome.status

    def trained(self) -> dict[str, Any]:
        """It trains, succeeds, and the next pass makes its evaluation."""
        self.once(PICTURE)
        self.jobs[0]["status"] = dict(DONE)
        self.once(PICTURE)
        return self.once()

    @property
    def job(self) -> dict[str, Any]:
        (job,) = self.evaluations.values()
        return job

    def ends(self, kind: str, phase: str, words: str, **more: str) -> None:
        """Kubernetes says how the Job and its pod ended."""
        condition = {"type": kind, "status": "True", **more}
        self.job["status"] = {"startTime": "2026-01-02T03:05:00Z", "conditions": [condition]}
        name = self.job["metadata"]["name"]
        self.pods = [Pod(f"{name}-abcde", "evaluation", phase, False, 0, "", last_words=words, run="r")]

    def evaluated(self) -> tuple[str, str]:
        """Status and reason of the condition."""
        (found,) = [one for one in self.run["status"]["conditions"] if one["type"] == "Evaluated"]
        return found["status"], found["reason"]


def test_it_begins_when_the_run_has_succeeded_and_asks_about_its_last_checkpoint() -> None:
    world = World()
    assert "evaluation" not in world.once(PICTURE)
    assert world.evaluated() == ("False", "RunNotComplete")
    status = world.trained()
    assert status["phase"] == "Succeeded"
    assert (status["evaluation"]["phase"], status["evaluation"]["step"]) == ("Pending", 10)
    (container,) = world.job["spec"]["template"]["spec"]["containers"]
    out = container["command"][container["command"].index("--out") + 1]
    assert re.fullmatch("/store/evals/r/general-[0-9a-f]{8}", out)
    assert container["command"] == [
        "golongrl", "eval", "run", "general", "--target", "/store/run", "--step", "10", "--data", "/store/eval-data",
        "--out", out, "--summary", "/dev/termination-log", "--judge", "http://judge/v1",
    ]  # fmt: skip
    metadata = world.job["metadata"]
    assert metadata["name"].startswith("demo-golongrl-evaluation-")
    assert metadata["ownerReferences"][0]["uid"] == "uid-r"
    assert world.job["spec"]["template"]["metadata"]["labels"]["golongrl.io/training-run"] == "r"
    world.job["status"] = {"startTime": "2026-01-02T03:05:00Z", "ready": 1}
    assert world.once()["evaluation"]["phase"] == "Running"
    assert world.once() == world.run["status"]
    assert world.events[-3:] == ["Succeeded", "EvaluationPending", "EvaluationRunning"]


def test_its_scores_come_with_their_denominators_and_it_is_not_repeated() -> None:
    world = World()
    world.trained()
    world.ends("Complete", "Succeeded", summary.fitted(SCORES))
    found = world.once()["evaluation"]
    assert found["phase"] == "Succeeded"
    assert found["report"] == "/store/evals/r/general/report.html"
    assert found["scores"][0] == {
        "benchmark": "mmlu-pro", "score": 53.1, "error": 1.2, "samples": 96, "expected": 100, "note": "4 failed",
    }  # fmt: skip
    assert "score" not in found["scores"][1]
    assert found["message"] == "step-10: mmlu-pro 53.1, arena -"
    assert world.evaluated() == ("True", "Succeeded")
    # Kubernetes deletes the Job when its time is over: the scores stay, and no other Job is made.
    world.evaluations, world.pods = {}, []
    assert world.once()["evaluation"] == found
    assert world.evaluations == {}
    assert world.events[-1] == "EvaluationSucceeded"


def test_a_failed_evaluation_does_not_fail_the_run() -> None:
    world = World()
    world.trained()
    world.ends(
        "Failed", "Failed", "starting\nerror: --data /store/eval-data: no such folder\n",
        reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit",
    )  # fmt: skip
    status = world.once()
    assert status["phase"] == "Succeeded"
    assert world.evaluated() == ("False", "Failed")
    assert "BackoffLimitExceeded" in status["evaluation"]["message"]
    assert status["evaluation"]["message"].endswith("error: --data /store/eval-data: no such folder")
    assert world.events[-1] == "EvaluationFailed"
    # Another question is another Job.
    world.run["spec"]["evaluation"] = {"suite": "general", "data": "here"}
    world.run["metadata"]["generation"] += 1
    failed = world.job["metadata"]["name"]
    world.once()
    assert list(world.evaluations) != [failed]
    assert world.run["status"]["phase"] == "Succeeded"


def test_a_job_whose_pod_is_gone_says_where_its_scores_are() -> None:
    world = World()
    world.trained()
    world.ends("Complete", "Succeeded", "")
    assert "results.json" in world.once()["evaluation"]["message"]


def test_suspend_stops_it_and_it_continues() -> None:
    world = World()
    world.trained()
    world.job["status"] = {"startTime": "2026-01-02T03:05:00Z", "ready": 1}
    world.once()
    world.run["spec"]["suspend"] = True
    world.run["metadata"]["generation"] += 1
    assert world.once()["evaluation"]["phase"] == "Suspended"
    assert world.evaluations == {}
    assert world.run["status"]["phase"] == "Succeeded"
    world.run["spec"]["suspend"] = False
    world.once()
    assert world.job["metadata"]["name"] == world.run["status"]["evaluation"]["job"]


def test_a_new_job_waits_until_the_old_one_s_pods_are_gone() -> None:
    world = World()
    world.trained()
    world.job["metadata"]["deletionTimestamp"] = "2026-01-02T03:05:00Z"
    before = dict(world.evaluations)
    assert "is gone" in world.once()["evaluation"]["message"]
    assert world.evaluations == before
    world.evaluations.clear()
    world.once()
    assert "deletionTimestamp" not in world.job["metadata"]


def test_a_run_that_failed_is_not_evaluated() -> None:
    world = World(maxRestarts=0)
    world.once(PICTURE)
    world.jobs[0]["status"] = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}
    world.once()
    assert world.once()["phase"] == "Failed"
    assert world.evaluations == {}
    assert world.evaluated() == ("False", "RunFailed")


def test_time_to_live_and_deletion_policy_wait_for_it() -> None:
    world = World(ttlSecondsAfterFinished=60, deletionPolicy="Delete")
    world.trained()
    world.now += timedelta(hours=3)
    world.once()
    assert not world.expired
    assert world.job
    world.ends("Complete", "Succeeded", summary.fitted(SCORES))
    world.once()
    world.once()
    assert world.evaluations == {}
    assert not world.expired
    world.now += timedelta(seconds=61)
    world.once()
    assert world.expired


GPUS = {"resources": {"limits": {"nvidia.com/gpu": 4}}, **SUITE}


@pytest.mark.parametrize(("resources", "gpus"), [(None, 0), ({"limits": {"nvidia.com/gpu": 4}}, 4)])
def test_its_gpus(resources: Any, gpus: int) -> None:
    spec = SUITE | ({"resources": resources} if resources else {})
    run = a_run(evaluation=spec)
    meaning = resolve(SITE, run)
    assert gpus_of(SITE, meaning) == gpus
    (container,) = job_of(SITE, run, meaning, None)["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == (resources or {"requests": {"cpu": "1"}})


def test_its_gpus_count_in_the_budget() -> None:
    """A run of higher priority takes them; the evaluation waits, and continues afterwards."""
    site = replace(SITE, pool=SITE.pool.model_copy(update={"gpus": 2}), gpu_budget=4)
    world = World(site, evaluation=GPUS)
    world.trained()
    world.job["status"] = {"startTime": "2026-01-02T03:05:00Z", "ready": 1}
    assert world.once()["evaluation"]["phase"] == "Running"
    world.others = [a_run("urgent", 1, schedule={"priority": 5})]
    status = world.once()["evaluation"]
    assert (status["phase"], world.evaluations) == ("Suspended", {})
    assert "GPU budget of 4 is used by urgent" in status["message"]
    assert world.evaluated() == ("False", "Suspended")
    world.others = []
    world.once()
    assert world.job
    # One that asks for more than there is waits, and says so.
    world.run["spec"]["evaluation"] = {**SUITE, "resources": {"limits": {"nvidia.com/gpu": 8}}}
    assert "needs at least 8 GPUs" in world.once()["evaluation"]["message"]


def test_a_queue_of_kueue_admits_it_too() -> None:
    run = a_run(evaluation=SUITE, schedule={"queue": "research"})
    labels = job_of(SITE, run, resolve(SITE, run), None)["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "research"
    world = World()
    world.trained()
    world.job["spec"]["suspend"] = True
    assert "has not admitted it" in world.once()["evaluation"]["message"]
    assert world.evaluated() == ("False", "Waiting")


def test_a_run_with_a_folder_of_its_own_is_evaluated_there() -> None:
    run = a_run(evaluation=SUITE | {"data": "other/data", "args": ["--limit", "$(X)"]}, rollout={"dedicated": True})
    (container,) = job_of(SITE, run, resolve(SITE, run), None)["spec"]["template"]["spec"]["containers"]
    words = container["command"]
    assert words[words.index("--target") + 1] == "/store/runs/r/run"
    assert words[words.index("--data") + 1] == "/store/other/data"
    assert "--last" in words
    assert words[-2:] == ["--limit", "$$(X)"]


def test_times_are_the_job_s() -> None:
    run = a_run(evaluation=SUITE | {"activeDeadlineSeconds": 7200, "ttlSecondsAfterFinished": 600})
    job = job_of(SITE, run, resolve(SITE, run), 3)
    assert job["spec"]["activeDeadlineSeconds"] == 7200
    assert job["spec"]["ttlSecondsAfterFinished"] == 600
    run["spec"]["evaluation"]["ttlSecondsAfterFinished"] = 60
    assert job_of(SITE, run, resolve(SITE, run), 3)["metadata"]["name"] == job["metadata"]["name"]


def test_a_refusal_of_its_job_is_the_evaluation_s_alone() -> None:
    world = World()
    status = world.trained()
    refused = evaluation_unwritten(status, "Refused", "Job x: 403 exceeded quota")
    STATUS.validate(refused)
    conditions = {one["type"]: one for one in refused["conditions"]}
    assert (conditions["Evaluated"]["reason"], conditions["Evaluated"]["message"]) == (
        "Refused", "Job x: 403 exceeded quota",
    )  # fmt: skip
    assert conditions["Complete"]["status"] == "True"
    assert [event.reason for event in transitions(status, refused)] == ["EvaluationRefused"]


def test_a_spec_that_cannot_be_trained_keeps_the_scores() -> None:
    world = World()
    world.trained()
    world.ends("Complete", "Succeeded", summary.fitted(SCORES))
    found = world.once()["evaluation"]
    world.run["spec"]["recipe"] = {"learner": {"lrr": 1}}
    assert world.once()["evaluation"] == found


def test_an_evaluation_that_is_taken_back_is_deleted() -> None:
    world = World()
    world.trained()
    assert world.job
    del world.run["spec"]["evaluation"]
    status = world.once()
    assert world.evaluations == {}
    assert "evaluation" not in status


def test_a_pod_s_last_words_are_read() -> None:
    ended = {"name": "evaluation", "state": {"terminated": {"exitCode": 0, "message": "told"}}}
    item = {
        "metadata": {"name": "e-1", "labels": {"app.kubernetes.io/component": "evaluation"}},
        "status": {"phase": "Succeeded", "containerStatuses": [ended]},
    }
    (pod,) = read_pods([item], NOW)
    assert pod.last_words == "told"


@pytest.mark.parametrize("benchmarks", [1, 16, 80, 400])
def test_a_summary_has_room_in_a_termination_message(benchmarks: int) -> None:
    one = summary.Score(benchmark="b" * 20, score=12.34, stderr=1.2, samples=500, expected=500, note="ü" * 100)
    whole = summary.Summary(
        suite="paper", model="step-1000", report="/store/evals/r/paper/report.html", scores=(one,) * benchmarks
    )
    text = summary.fitted(whole)
    assert len(text.encode()) <= 4096
    found = summary.read(text)
    assert found is not None
    assert len(found.scores) + found.more == benchmarks
    assert found.scores[0].score == 12.34
    if benchmarks <= 16:
        assert found.more == 0


@pytest.mark.parametrize("text", ["", "error: no such suite", "{}", "[]", json.dumps({"suite": "x"})])
def test_other_words_are_no_summary(text: str) -> None:
    assert summary.read(text) is None


def test_an_upgrade_of_the_release_does_not_ask_again_what_has_scores() -> None:
    """The checkpoint may be gone by then; the failed Job would take the place of the scores."""
    world = World()
    world.trained()
    world.ends("Complete", "Succeeded", summary.fitted(SCORES))
    scored = world.once()["evaluation"]
    assert scored["phase"] == "Succeeded"
    upgraded = copy.deepcopy(SITE.evaluation)
    upgraded["spec"]["template"]["spec"]["containers"][0]["image"] = "learner:2"
    world.site = replace(SITE, evaluation=upgraded)
    before = dict(world.evaluations)
    assert world.once()["evaluation"] == scored
    assert world.evaluations == before, "its logs stay too"
    del world.run["status"]["evaluation"]["question"]
    assert world.once()["evaluation"] == scored, "as an older operator wrote it"
    world.run["metadata"]["generation"] += 1
    world.run["spec"]["evaluation"] = {**SUITE, "args": ["--limit", "5"]}
    asked = world.once()["evaluation"]
    assert (asked["phase"], asked["job"] != scored["job"]) == ("Pending", True)


def test_a_failed_evaluation_is_asked_again_by_an_upgrade() -> None:
    world = World()
    world.trained()
    world.ends("Failed", "Failed", "boom", reason="BackoffLimitExceeded")
    failed = world.once()["evaluation"]
    assert failed["phase"] == "Failed"
    assert world.once()["evaluation"] == failed
    upgraded = copy.deepcopy(SITE.evaluation)
    upgraded["spec"]["template"]["spec"]["containers"][0]["image"] = "learner:2"
    world.site = replace(SITE, evaluation=upgraded)
    assert world.once()["evaluation"]["phase"] == "Pending"


def test_other_questions_and_other_runs_of_the_name_have_other_folders() -> None:
    """`golongrl eval run` refuses a folder with samples of other settings or weights."""

    def out(step: int, uid: str = "u", **asked: Any) -> str:
        run = a_run(evaluation={**SUITE, **asked})
        run["metadata"]["uid"] = uid
        (container,) = job_of(SITE, run, resolve(SITE, run), step)["spec"]["template"]["spec"]["containers"]
        return str(container["command"][container["command"].index("--out") + 1])

    assert out(10) == out(20), "a later step goes into the same report"
    others = [out(10), out(10, uid="v"), out(10, args=["--limit", "5"]), out(10, data="mine"), out(10, suite="paper")]
    assert len(set(others)) == len(others)


def test_a_checkpoint_that_the_queue_could_not_tell_at_the_end_is_the_newest() -> None:
    """The last one that it told is older: the scores would be those of other weights."""
    world = World()
    world.once(PICTURE)
    assert world.run["status"]["lastCheckpoint"] == 10
    world.jobs[0]["status"] = dict(DONE)
    assert "lastCheckpoint" not in world.once(None)
    assert "step" not in world.once(None)["evaluation"]
    (container,) = world.job["spec"]["template"]["spec"]["containers"]
    assert "--last" in container["command"]
    assert "--step" not in container["command"]


def test_the_next_run_waits_until_a_silent_queue_tells_the_last_checkpoint_and_not_for_ever() -> None:
    """It would write newer ones into the same folder, and the one that was told last is older."""
    world = World()
    world.once(PICTURE)
    world.others = [a_run("next", 1)]
    world.jobs[0]["status"] = dict(DONE)

    def next_one(picture: Any = None) -> dict[str, Any]:
        seen = Seen(world.now, [world.run, *world.others], world.jobs, picture=picture)
        return reconcile(SITE, seen)[1].status

    assert next_one(PICTURE)["phase"] == "Pending", "the queue tells it"
    assert next_one()["phase"] == "Waiting"
    assert "lastCheckpoint" not in world.once(None)
    waits = next_one()
    assert waits["phase"] == "Waiting"
    assert waits["message"].endswith("TrainingRun r, whose last checkpoint the queue has not told yet")
    late = world.now + timedelta(seconds=LASTING_S)
    assert reconcile(SITE, Seen(late, [world.run, *world.others], world.jobs))[1].status["phase"] == "Pending"
    told = {**PICTURE, "queue": QUEUE | {"committed": 12}}
    assert world.once(told)["lastCheckpoint"] == 12
    world.once(told)
    (container,) = world.job["spec"]["template"]["spec"]["containers"]
    assert container["command"][container["command"].index("--step") + 1] == "12"
    assert next_one(told)["phase"] == "Pending"
