"""Learner and engines as one admission of Kueue: what is asked for, when the run starts, stops and gives quota back."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest

from golongrl.kubernetes.names import SUBDOMAIN
from golongrl.kubernetes.rayjob.site import Site
from golongrl_operator.build import objects, resolve
from golongrl_operator.cases import Seen
from golongrl_operator.kueue import workload
from golongrl_operator.reconcile import ReconcileResult, reconcile
from support.training_runs import NOW, SITE, a_run

QUEUE = {"schedule": {"queue": "research", "priority": 7}}
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
POOL = SITE.pool.name


class World:
    """A run with a queue, and a Kueue that does what the test says."""

    def __init__(self, site: Site = SITE, **spec: Any) -> None:
        self.site = site
        self.run = a_run(**{**QUEUE, **spec})
        self.jobs: dict[str, dict[str, Any]] = {}
        self.admissions: dict[str, dict[str, Any]] = {}
        self.pool = {**copy.deepcopy(site.pool.workload), "status": {}}
        self.pool["spec"]["replicas"] = 0

    def once(self) -> ReconcileResult:
        works = list(copy.deepcopy(self.admissions).values())
        jobs = list(copy.deepcopy(self.jobs).values())
        seen = Seen(NOW, [copy.deepcopy(self.run)], jobs, workloads=[self.pool], admissions=works)
        (outcome,) = reconcile(self.site, seen)
        self.run["status"] = outcome.status
        for item in outcome.admission.apply:
            self.admissions[item["metadata"]["name"]] = copy.deepcopy(item)
        for name in outcome.admission.delete:
            del self.admissions[name]
        for name, change in (outcome.admission.report or {}).items():
            status = self.admissions[name].setdefault("status", {})
            status.update({key: value for key, value in change["status"].items() if value is not None})
            for key in [key for key, value in change["status"].items() if value is None]:
                status.pop(key, None)
        for item in outcome.apply:
            if item["kind"] == "RayJob":
                self.jobs[item["metadata"]["name"]] = copy.deepcopy(item)
        for name in outcome.delete:
            self.jobs[name]["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
        for size in outcome.pool.scale.values():
            self.pool["spec"]["replicas"] = size
            self.pool["status"] = {"replicas": size, "readyReplicas": size}
        return outcome

    def settle(self) -> ReconcileResult:
        """Passes until one changes nothing."""
        for _ in range(10):
            before = copy.deepcopy([self.run, self.jobs, self.admissions, self.pool])
            outcome = self.once()
            if [self.run, self.jobs, self.admissions, self.pool] == before:
                return outcome
        raise AssertionError("it never settles")

    def kueue(self, *, engines: int | None = None, reason: str = "Preempted", **said: str) -> None:
        status = self.admitted.setdefault("status", {})
        old = {one["type"]: one for one in status.get("conditions", [])}
        for kind, value in said.items():
            time = {"lastTransitionTime": "2026-01-02T03:04:05Z"}
            old[kind] = {"type": kind, "status": value, "reason": reason, "message": f"{kind} for a reason", **time}
        status["conditions"] = list(old.values())
        if engines is not None:
            sets = [{"name": "head", "count": 1}, {"name": "engines", "count": engines}]
            status["admission"] = {"clusterQueue": "all", "podSetAssignments": sets}

    def trains(self) -> None:
        self.kueue(QuotaReserved="True", Admitted="True", Evicted="False", engines=2)
        self.once()
        for job in self.jobs.values():
            job["status"] = dict(RUNNING)
        self.settle()

    @property
    def admitted(self) -> dict[str, Any]:
        (found,) = self.admissions.values()
        return found

    @property
    def phase(self) -> str:
        return str(self.run["status"]["phase"])

    def condition(self, kind: str = "Admitted") -> tuple[str, str]:
        (found,) = [one for one in self.run["status"]["conditions"] if one["type"] == kind]
        return found["status"], found["reason"]

    def reserved(self) -> bool:
        found = {one["type"]: one["status"] for one in self.admitted["status"]["conditions"]}
        return found.get("QuotaReserved") == "True"


def test_nothing_starts_before_the_admission_and_then_both() -> None:
    world = World()
    world.settle()
    assert (world.phase, world.jobs, world.pool["spec"]["replicas"]) == ("Waiting", {}, 0)
    assert world.condition()[0] == "False"
    assert "research has not admitted" in world.run["status"]["message"]
    made = world.admitted
    assert (made["apiVersion"], made["spec"]["queueName"], made["spec"]["priority"]) == (
        "kueue.x-k8s.io/v1beta2", "research", 7,
    )  # fmt: skip
    assert {one["name"]: one["count"] for one in made["spec"]["podSets"]} == {"head": 1, "ranks": 1, "engines": 2}
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["controller"]) == ("TrainingRun", True)
    # A reservation that checks have not confirmed is no admission.
    world.kueue(QuotaReserved="True", Admitted="False", engines=2)
    world.settle()
    assert world.jobs == {}
    world.trains()
    assert (world.phase, len(world.jobs), world.pool["spec"]["replicas"]) == ("Running", 1, 2)
    assert world.condition() == ("True", "Admitted")


def test_kueue_does_not_admit_the_rayjob_and_the_pool_by_themselves() -> None:
    gang = replace(SITE, rayjob={**SITE.rayjob, "metadata": {**SITE.rayjob["metadata"], "labels": {
        "kueue.x-k8s.io/queue-name": "other", "app.kubernetes.io/instance": "demo"}}})  # fmt: skip
    run = a_run(**QUEUE, rollout={"dedicated": True})
    made = objects(gang, run, resolve(gang, run), 0)
    assert "kueue" not in str(made)


def test_a_release_whose_rayjobs_have_a_queue_has_one_admission_too() -> None:
    """`learner.gang` of the chart labels the RayJob; a label of the run's own patch is the same."""
    label = {"kueue.x-k8s.io/queue-name": "team"}
    metadata = {**SITE.rayjob["metadata"], "labels": {**SITE.rayjob["metadata"]["labels"], **label}}
    for world in (
        World(replace(SITE, rayjob={**SITE.rayjob, "metadata": metadata}), schedule={}),
        World(schedule={}, learner={"metadata": {"labels": label}}),
    ):
        world.settle()
        assert world.phase == "Waiting"
        assert world.admitted["spec"]["queueName"] == "team"
        world.trains()
        (job,) = world.jobs.values()
        assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"]


def test_an_eviction_suspends_and_gives_the_quota_back_when_all_is_gone() -> None:
    world = World()
    world.once()
    world.trains()
    world.kueue(Evicted="True")
    world.once()
    assert world.phase == "Suspending"
    assert world.condition() == ("False", "Preempted")
    world.settle()
    assert world.reserved(), "the RayJob's pods are still there"
    assert world.pool["spec"]["replicas"] == 0
    world.jobs.clear()
    world.settle()
    assert not world.reserved()
    status = world.admitted["status"]
    assert "admission" not in status
    told = {one["type"]: one["status"] for one in status["conditions"]}
    assert (told["Requeued"], told["Admitted"], told["PodsReady"]) == ("True", "False", "False")
    assert world.phase == "Waiting"
    world.trains()
    assert (world.phase, len(world.jobs)) == ("Running", 1)
    assert world.run["status"]["restarts"] == 0


@pytest.mark.parametrize(("reason", "requeued"), [("NodeFailures", "True"), ("Deactivated", "False")])
def test_after_other_evictions_kueue_decides_when_it_is_queued_again(reason: str, requeued: str) -> None:
    world = World()
    world.once()
    world.kueue(QuotaReserved="True", Admitted="True", engines=2)
    world.kueue(Evicted="True", reason=reason)
    world.settle()
    assert {one["type"]: one["status"] for one in world.admitted["status"]["conditions"]}["Requeued"] == requeued
    assert not world.reserved()
    assert len(world.admissions) == 1, "a person's `active: false` stays"


def test_fewer_engines_may_be_admitted_and_the_pool_stays_within() -> None:
    world = World(rollout={"minReplicas": 2, "maxReplicas": 6})
    world.once()
    (engines,) = [one for one in world.admitted["spec"]["podSets"] if one["name"] == "engines"]
    assert (engines["count"], engines["minCount"]) == (6, 2)
    world.kueue(QuotaReserved="True", Admitted="True", engines=3)
    world.once()
    world.run["spec"]["rollout"] = {"replicas": 5}
    world.once()
    assert world.pool["spec"]["replicas"] == 3
    assert world.run["status"]["rollout"]["reason"] == "the admission by Kueue leaves 3 of 5"
    assert len(world.jobs) == 1, "another number of engines restarts nothing"


def test_kueue_learns_that_the_run_trains() -> None:
    world = World()
    world.once()
    world.trains()
    ready = {one["type"]: one["status"] for one in world.admitted["status"]["conditions"]}
    assert ready["PodsReady"] == "True"
    assert not world.once().admission.report, "once is enough"


@pytest.mark.parametrize("status", [{"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"},
                                    {"jobDeploymentStatus": "Failed", "reason": "DeadlineExceeded"}])  # fmt: skip
def test_an_ended_run_holds_no_quota(status: dict[str, str]) -> None:
    world = World()
    world.once()
    world.trains()
    for job in world.jobs.values():
        job["status"] = status
    world.settle()
    assert world.admissions == {}
    assert world.condition() == ("False", "NotQueued")


def test_a_suspended_run_gives_its_quota_back_and_is_queued_again() -> None:
    world = World()
    world.once()
    world.trains()
    world.run["spec"]["suspend"] = True
    world.once()
    assert world.admissions, "its pods are still there"
    world.jobs.clear()
    world.settle()
    assert (world.phase, world.admissions) == ("Suspended", {})
    world.run["spec"]["suspend"] = False
    world.settle()
    assert world.phase == "Waiting"
    assert not world.reserved() if "status" in world.admitted else True


def test_other_pods_need_another_admission() -> None:
    world = World()
    world.once()
    world.trains()
    old = world.admitted
    patch = {"rayClusterSpec": {"headGroupSpec": {"template": {"spec": {"nodeSelector": {"a": "b"}}}}}}
    world.run["spec"]["learner"] = {"spec": patch}
    world.run["metadata"]["generation"] += 1
    world.once()
    assert world.phase == "Suspending"
    assert world.condition() == ("False", "Changed")
    world.jobs.clear()
    world.settle()
    assert world.admitted["metadata"]["annotations"] != old["metadata"]["annotations"]
    assert world.phase == "Waiting"


def test_a_queue_that_is_taken_back_admits_nothing_and_stops_nothing() -> None:
    world = World()
    world.once()
    world.trains()
    world.run["spec"]["schedule"] = {}
    world.settle()
    assert (world.phase, world.admissions, len(world.jobs)) == ("Running", {}, 1)
    assert not [one for one in world.run["status"]["conditions"] if one["type"] == "Admitted"]


def test_priority_moves_a_run_that_waits_and_not_one_that_trains() -> None:
    world = World()
    world.settle()
    world.run["spec"]["schedule"] = {"queue": "research", "priority": 9}
    world.settle()
    assert world.admitted["spec"]["priority"] == 9
    world.trains()
    world.run["spec"]["schedule"] = {"queue": "research", "priority": 1}
    world.settle()
    assert (world.phase, world.admitted["spec"]["priority"]) == ("Running", 9)


def test_without_the_gpu_budget_it_is_not_queued() -> None:
    site = replace(SITE, pool=SITE.pool.model_copy(update={"gpus": 8}), gpu_budget=4)
    world = World(site)
    world.settle()
    assert world.admissions == {}
    assert "operator.gpuBudget is 4" in world.run["status"]["message"]


def test_an_engine_over_nodes_is_two_sets_of_pods() -> None:
    group = {"size": 3, "leaderTemplate": SITE.pool.workload["spec"]["template"],
             "workerTemplate": SITE.pool.workload["spec"]["template"]}  # fmt: skip
    work = {**SITE.pool.workload, "kind": "LeaderWorkerSet", "spec": {"leaderWorkerTemplate": group}}
    site = replace(SITE, pool=SITE.pool.model_copy(update={"workload": work}))
    run = a_run(**QUEUE)
    counts = {one["name"]: one["count"] for one in workload(site, run, resolve(site, run))["spec"]["podSets"]}
    assert counts == {"head": 1, "ranks": 1, "engines": 2, "engine-followers": 4}


def test_a_failed_run_that_is_edited_waits_for_its_admission_and_then_retries() -> None:
    """The edit is seen at one pass, the admission comes later."""
    world = World(maxRestarts=3)
    world.once()
    world.trains()
    world.run["status"] |= {"phase": "Failed", "observedGeneration": 3}
    world.jobs.clear()
    world.pool["spec"]["replicas"], world.pool["status"] = 0, {}
    world.settle()
    assert (world.phase, world.admissions) == ("Failed", {})
    world.run["spec"]["maxRestarts"] = 4
    world.run["metadata"]["generation"] += 1
    world.settle()
    assert (world.phase, world.run["status"]["restarts"]) == ("Waiting", 1)
    world.trains()
    assert (world.phase, len(world.jobs)) == ("Running", 1)


@pytest.mark.parametrize("name", ["a", "a.b", "x" * 63, f"{'x' * 53}.abc", f"{'x' * 53}-abc"])
def test_the_name_of_a_workload_is_one_wherever_the_runs_is_cut(name: str) -> None:
    """The API server would refuse it at every pass, and the run would never train."""
    run = a_run(name, **QUEUE)
    made = workload(SITE, run, resolve(SITE, run))["metadata"]["name"]
    assert re.fullmatch(SUBDOMAIN, made)
    assert len(made) <= 63
