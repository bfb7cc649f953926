"""Runs that share a release: whose turn it is, and what a deleted run leaves behind."""

import copy
from dataclasses import replace
from typing import Any

import pytest

from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.site import Site, patch
from golongrl_operator.build import objects, resolve
from golongrl_operator.cases import Seen
from golongrl_operator.evaluation import job_of
from golongrl_operator.reconcile import ReconcileResult, reconcile
from support.training_runs import NOW, PICTURE, SITE, a_job, a_run, one


def test_one_run_at_a_time_oldest_first() -> None:
    runs = [a_run("young", 2), a_run("old", 1), a_run("foreign", 0, release="prod")]
    told = {item.run["metadata"]["name"]: item for item in reconcile(SITE, Seen(NOW, runs))}
    assert set(told) == {"old", "young"}
    assert told["old"].apply
    assert told["young"].status["phase"] == "Waiting"
    assert told["young"].apply == ()
    # One that trains keeps the release, even from an older one that was resumed.
    trains = reconcile(SITE, Seen(NOW, runs, [a_job(runs[0])], picture=PICTURE))
    assert [item.status["phase"] for item in trains] == ["Waiting", "Running"]
    assert [item.status["step"] for item in trains] == ["", "12/40"], "the figures are the trainer's"


def test_a_run_that_failed_for_good_holds_nobody_up() -> None:
    runs = [a_run("first", 0), a_run("second", 1)]
    late = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "DeadlineExceeded"}
    told = reconcile(SITE, Seen(NOW, runs, [a_job(runs[0], **late)]))
    assert [item.status["phase"] for item in told] == ["Failed", "Pending"]
    # One that is to be restarted keeps its turn.
    told = reconcile(SITE, Seen(NOW, runs, [a_job(runs[0], **late | {"reason": "AppFailed"})]))
    assert [item.status["phase"] for item in told] == ["Restarting", "Waiting"]


def test_a_run_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    run = a_run()
    run["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert reconcile(SITE, Seen(NOW, [run])) == []


def test_somebody_elses_rayjob_is_not_touched() -> None:
    run = a_run()
    foreign = a_job(run)
    foreign["metadata"]["ownerReferences"] = [{"kind": "TrainingRun", "name": "other"}]
    foreign["metadata"]["labels"]["app.kubernetes.io/instance"] = "prod"
    alone = copy.deepcopy(foreign)
    del alone["metadata"]["ownerReferences"]
    outcome = one(run, foreign, alone)
    assert outcome.delete == ()
    assert outcome.apply


@pytest.mark.parametrize("orphaned", [False, True])
def test_a_deleted_runs_rayjob_keeps_the_release_until_it_is_gone(orphaned: bool) -> None:
    """Else two learners would train on one queue while the garbage collector takes its time."""
    gone, run = a_run("gone"), a_run("next", 1)
    left = a_job(gone)
    if orphaned:
        del left["metadata"]["ownerReferences"]
    outcome = one(run, left)
    assert (outcome.apply, outcome.delete, outcome.status["phase"]) == ((), (), "Waiting")
    assert f"RayJob {left['metadata']['name']} of the deleted TrainingRun gone" in outcome.status["message"]
    # Being deleted, it is still there for the API server, but no longer ours to look at.
    gone["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    (waits,) = reconcile(SITE, Seen(NOW, [gone, run], [left]))
    assert waits.status["phase"] == "Waiting"
    left["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}
    assert one(run, left).apply
    # What trains already is not stopped by it.
    assert one(run, a_job(gone), a_job(run), picture=PICTURE).status["phase"] == "Running"


@pytest.mark.parametrize(
    "ended", [{"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, {"jobDeploymentStatus": "Failed"}, {}]
)
def test_how_an_earlier_run_of_the_name_ended_is_not_this_ones(ended: dict[str, str]) -> None:
    """`kubectl delete` returns when the run is gone, its RayJob goes later; one made anew meanwhile is to train."""
    earlier, run = a_run(), a_run()
    run["metadata"]["uid"] = "another"
    outcome = one(run, a_job(earlier, **ended))
    assert (outcome.apply, outcome.delete, outcome.status["phase"]) == ((), (), "Replacing")
    run["status"] = outcome.status
    assert one(run).apply


def test_what_an_earlier_run_of_the_name_left_behind_goes_first() -> None:
    earlier, run = a_run(), a_run()
    run["metadata"]["uid"] = "another"
    outcome = one(run, a_job(earlier, deleting=True))
    assert outcome.apply == ()
    assert "waiting until RayJob" in outcome.status["message"]


def gpu_run(name: str, age: int, priority: int, replicas: int = 0, **spec: Any) -> dict[str, Any]:
    """A run with a pool of its own on engines of 8 GPUs."""
    rollout = {"dedicated": True, "replicas": 2, "minReplicas": 2}
    status = {"rollout": {"name": "pool", "replicas": replicas}} if replicas else None
    return a_run(name, age, status, rollout=rollout, schedule={"priority": priority}, **spec)


@pytest.mark.parametrize("suspended", [False, True])
def test_a_run_that_does_not_stop_draining_keeps_its_gpus(suspended: bool) -> None:
    """Suspended by a person or by another run, it has its GPUs until its RayJob is gone; others wait."""
    site = replace(SITE, pool=SITE.pool.model_copy(update={"gpus": 8}), gpu_budget=20)
    low = gpu_run("low", 0, 0, replicas=2, **({"suspend": True} if suspended else {}))
    high = gpu_run("high", 1, 1)
    for deleting in (False, True):
        told = {
            item.run["metadata"]["name"]: item
            for item in reconcile(site, Seen(NOW, [low, high], [a_job(low, deleting=deleting)]))
        }
        assert told["low"].status["phase"] == "Suspending"
        assert bool(told["low"].delete) is not deleting
        assert (told["high"].status["phase"], told["high"].apply) == ("Waiting", ())
        assert told["high"].status["message"] == "waiting: low must free its GPUs first"
    (low_told, high_told) = reconcile(site, Seen(NOW, [low, high]))
    assert high_told.apply
    assert low_told.status["phase"] == ("Suspended" if suspended else "Waiting")


def test_a_budget_that_shrinks_suspends_the_run_of_the_lowest_priority_and_gives_it_back_its_turn() -> None:
    site = replace(SITE, pool=SITE.pool.model_copy(update={"gpus": 8}), gpu_budget=32)
    runs = [gpu_run("a", 0, 0), gpu_run("b", 1, 1)]
    jobs = [a_job(run) for run in runs]
    both = reconcile(site, Seen(NOW, runs, jobs))
    assert [(item.status["phase"], item.delete) for item in both] == [("Running", ()), ("Running", ())]
    small = replace(site, gpu_budget=16)
    told = reconcile(small, Seen(NOW, runs, jobs))
    assert [item.status["phase"] for item in told] == ["Suspending", "Running"]
    told = reconcile(small, Seen(NOW, runs, jobs[1:]))
    assert [item.status["phase"] for item in told] == ["Waiting", "Running"]
    (back, _) = reconcile(site, Seen(NOW, runs, jobs[1:]))
    assert back.apply


def engine(name: str, run: str = "", phase: str = "Running") -> Pod:
    return Pod(name, "rollout", phase, True, 0, "", run=run)


def gpu_site(budget: int) -> Site:
    """Learners of 8 GPUs and engines of 8."""
    workers = {"containers": [{"name": "ray-worker", "resources": {"limits": {"nvidia.com/gpu": "8"}}}]}
    groups = {"workerGroupSpecs": [{"groupName": "ranks", "template": {"spec": workers}}]}
    rayjob = patch(SITE.rayjob, {"spec": {"rayClusterSpec": groups}})
    return replace(SITE, rayjob=rayjob, pool=SITE.pool.model_copy(update={"gpus": 8}), gpu_budget=budget)


def made_by(site: Site, run: dict[str, Any]) -> dict[str, Any]:
    job = copy.deepcopy(objects(site, run, resolve(site, run), 0)[1])
    return {**job, "status": {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}}


RANKS: dict[str, Any] = {"recipe": {"learner": {"ranks": 8}}}
EVALUATES: dict[str, Any] = {"suite": "general", "resources": {"limits": {"nvidia.com/gpu": 8}}}


@pytest.mark.parametrize("how", ["finalizer", "gone", "invalid"])
def test_gpus_of_a_run_that_nobody_asks_any_more_count_until_they_are_free(how: str) -> None:
    """Somebody else's finalizer keeps a deleted run, or its objects are orphans, or its spec was spoilt."""
    site = gpu_site(40)
    old = gpu_run("old", 0, 0, **RANKS)
    job, engines = made_by(site, old), [engine("e-0", "old"), engine("e-1", "old")]
    runs = [old, gpu_run("new", 1, 9, **RANKS)]
    if how == "finalizer":
        old["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["backup.example/wait"]}
    elif how == "gone":
        del runs[0]
    else:
        old["spec"]["rollout"]["minReplicas"] = "two"

    def new(seen: Seen) -> ReconcileResult:
        return next(item for item in reconcile(site, seen) if item.run["metadata"]["name"] == "new")

    waits = new(Seen(NOW, runs, [job], engines))
    assert (waits.status["phase"], waits.apply) == ("Waiting", ())
    name = job["metadata"]["name"]
    assert waits.status["message"] == (
        f"waiting: the GPU budget of 40 is used by RayJob {name} of TrainingRun old, the engines of TrainingRun old"
    )
    # Its RayJob is gone and its engines drain: 24 of 40 are free.
    assert new(Seen(NOW, runs, [], engines)).apply
    ended = [engine("e-0", "old", "Succeeded"), engine("e-1", "old", "Failed")]
    assert new(Seen(NOW, runs, [], ended)).apply


def test_a_run_that_trains_grows_only_into_what_a_deleted_one_has_freed() -> None:
    site = gpu_site(64)
    gone, run = gpu_run("gone", 0, 0, **RANKS), gpu_run("run", 1, 0, **RANKS)
    run["spec"]["rollout"] = {"dedicated": True, "replicas": 9}
    left = Seen(NOW, [run], [made_by(site, gone), made_by(site, run)], [engine("e-0", "gone"), engine("e-1", "gone")])
    (told,) = reconcile(site, left)
    # 64 - 8 - 16 - 8: four engines.
    assert told.status["rollout"]["desired"] == 4
    (told,) = reconcile(site, replace(left, jobs=left.jobs[1:], pods=()))
    assert told.status["rollout"]["desired"] == 7


def test_an_evaluation_of_a_deleted_run_counts_until_it_has_ended() -> None:
    site = gpu_site(16)
    gone = gpu_run("gone", 0, 0, evaluation=EVALUATES, **RANKS)
    job = job_of(site, gone, resolve(site, gone), 7)
    run = gpu_run("run", 1, 0, **RANKS)
    run["spec"]["rollout"] = {"dedicated": True, "replicas": 1}
    (told,) = reconcile(site, Seen(NOW, [run], evaluations=[job]))
    assert told.status["message"] == (
        f"waiting: the GPU budget of 16 is used by Job {job['metadata']['name']} of TrainingRun gone"
    )
    job["status"] = {"conditions": [{"type": "Failed", "status": "True"}]}
    (told,) = reconcile(site, Seen(NOW, [run], evaluations=[job]))
    assert told.apply


def test_a_rayjob_that_a_person_made_counts_with_the_pool_it_uses() -> None:
    site = gpu_site(40)
    mine = made_by(site, a_run("x", **RANKS))
    mine["metadata"] = {"name": "mine", "labels": {"golongrl.io/run": "demo"}}
    pods = [engine("demo-golongrl-rollout-0"), engine("demo-golongrl-rollout-1")]
    run = gpu_run("run", 1, 0, **RANKS)
    (told,) = reconcile(site, Seen(NOW, [run], [mine], pods))
    assert told.status["message"] == (
        "waiting: the GPU budget of 40 is used by RayJob mine, the engines of the release's pool"
    )
    # Without it the pool is drained first.
    (told,) = reconcile(site, Seen(NOW, [run], [], [*pods, engine("demo-golongrl-rollout-2")]))
    assert told.status["phase"] == "Waiting"
    (told,) = reconcile(site, Seen(NOW, [run], [], pods))
    assert told.apply


def test_engines_of_a_suspended_run_count_while_they_drain() -> None:
    site = gpu_site(32)
    old, new = gpu_run("old", 0, 0, suspend=True, **RANKS), gpu_run("new", 1, 0, **RANKS)
    drains = [engine("e-0", "old"), engine("e-1", "old")]
    (_, told) = reconcile(site, Seen(NOW, [old, new], [], drains))
    assert told.status["message"] == "waiting: old must free its GPUs first"
    (_, told) = reconcile(site, Seen(NOW, [old, new], [], drains[:1]))
    assert told.status["message"] == "creating RayJob " + told.apply[-1]["metadata"]["name"]


def test_a_deleted_run_with_a_pool_of_its_own_does_not_block_the_release_s() -> None:
    gone, run = a_run("gone", rollout={"dedicated": True}), a_run("next", 1)
    assert one(run, a_job(gone)).apply
