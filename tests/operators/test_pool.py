"""What the operator does about pools: who has engines, how many, which pool is whose."""

import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import jsonschema
import pytest

from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.site import Site, pod_templates
from golongrl_operator.build import resolve
from golongrl_operator.cases import Seen
from golongrl_operator.crd import schema
from golongrl_operator.evaluation import job_of
from golongrl_operator.reconcile import adopted_notes, idle_pool, own_queues, reconcile
from support.crd import close
from support.training_runs import NOW, PICTURE, QUEUE, SERVICES, SITE, a_job, a_run

GPUS = replace(SITE, pool=SITE.pool.model_copy(update={"gpus": 8, "replicas": 2}), gpu_budget=0)
POOL = SITE.pool.name
STATUS = jsonschema.Draft7Validator(close(schema()["properties"]["status"]))


def workload(replicas: int, name: str = POOL, **status: int) -> dict[str, Any]:
    item = copy.deepcopy(SITE.pool.workload)
    item["metadata"]["name"] = name
    item["spec"]["replicas"] = replicas
    return {**item, "status": {"replicas": replicas, "readyReplicas": replicas, **status}}


def engines(*names: str) -> list[Pod]:
    return [Pod(name, "rollout", "Running", True, 0, "") for name in names]


def planned(run: dict[str, Any], *jobs: dict[str, Any], site: Site = SITE, **seen: Any) -> Any:
    seen.setdefault("workloads", [workload(1)])
    (outcome,) = reconcile(site, Seen(seen.pop("now", NOW), [run], jobs, **seen))
    # The API server drops what the schema does not have.
    STATUS.validate(outcome.status)
    return outcome


@pytest.mark.parametrize(
    ("rollout", "size", "reason"),
    [
        ({}, 2, "a fixed number"),
        ({"replicas": 5}, 5, "a fixed number"),
        ({"replicas": 0}, 0, "a fixed number"),
        ({"minReplicas": 4}, 4, "a fixed number"),
        ({"minReplicas": 3, "maxReplicas": 6}, 3, "the run may have at least 3"),
        ({"minReplicas": 3, "maxReplicas": 6, "replicas": 4}, 4, "a fixed number"),
    ],
)
def test_how_many_engines_a_run_has(rollout: dict[str, Any], size: int, reason: str) -> None:
    run = a_run(rollout=rollout)
    outcome = planned(run, a_job(run), picture=PICTURE)
    assert outcome.status["rollout"]["desired"] == size
    assert reason in outcome.status["rollout"]["reason"]
    assert outcome.pool.scale == ({} if size == 1 else {POOL: size})
    # Once it is so, nothing more is done.
    run["status"] = outcome.status
    assert planned(run, a_job(run), picture=PICTURE, workloads=[workload(size)]).pool.scale == {}


WHERE: dict[str, Any] = {
    "nodeSelector": {"gpu": "h100"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
    ],
    "priorityClassName": "research",
    "runtimeClassName": "nvidia",
}


def test_a_run_that_says_where_its_engines_may_be_has_a_pool_of_its_own() -> None:
    for key, value in WHERE.items():
        assert resolve(SITE, a_run(rollout={key: value})).dedicated == f"spec.rollout.{key} is set"
    run = a_run(rollout=WHERE)
    (_, work) = planned(run, a_job(run), picture=PICTURE).pool.apply
    spec = work["spec"]["template"]["spec"]
    assert {key: spec[key] for key in WHERE} == WHERE
    assert spec["containers"]


def test_a_run_says_where_its_learner_and_its_evaluation_may_be() -> None:
    """In all pods of the RayJob; a patch of one group goes over it."""
    group = {"groupName": "ranks", "template": {"spec": {"priorityClassName": "other"}}}
    patch = {"rayClusterSpec": {"workerGroupSpecs": [group]}}
    run = a_run(learner={**WHERE, "spec": patch}, evaluation={"suite": "general", **WHERE})
    meaning = resolve(SITE, run)
    head, ranks = (template["spec"] for template in pod_templates(meaning.rayjob))
    assert {key: head[key] for key in WHERE} == WHERE
    assert {key: ranks[key] for key in WHERE} == {**WHERE, "priorityClassName": "other"}
    assert not meaning.dedicated
    assert meaning.content != resolve(SITE, a_run()).content
    spec = job_of(SITE, run, meaning, None)["spec"]["template"]["spec"]
    assert {key: spec[key] for key in WHERE} == WHERE
    assert resolve(SITE, a_run()).rayjob == SITE.rayjob


def test_the_status_serves_kubectl_scale() -> None:
    run = a_run()
    rollout = planned(run, a_job(run), workloads=[workload(2, readyReplicas=1)]).status["rollout"]
    assert (rollout["replicas"], rollout["readyReplicas"], rollout["desired"]) == (2, 1, 2)
    assert rollout["selector"].startswith("app.kubernetes.io/instance=demo,app.kubernetes.io/component=rollout")


@pytest.mark.parametrize(
    ("spec", "job"),
    [
        ({"suspend": True}, {}),
        ({}, {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}),
        ({}, {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "DeadlineExceeded"}),
        # Kueue has not admitted it.
        ({}, {"jobDeploymentStatus": "Suspended"}),
    ],
)
def test_who_does_not_train_has_no_engines(spec: dict[str, Any], job: dict[str, str]) -> None:
    run = a_run(**spec)
    outcome = planned(run, a_job(run, **job))
    seen = Seen(NOW, [run], workloads=[workload(1)])
    assert {**outcome.pool.scale, **idle_pool(SITE, [outcome], seen)} == {POOL: 0}


def test_a_release_without_runs_has_no_engines_and_one_with_keda_is_left_alone() -> None:
    assert idle_pool(SITE, [], Seen(NOW, [], workloads=[workload(2)])) == {POOL: 0}
    assert idle_pool(SITE, [], Seen(NOW, [], workloads=[workload(0)])) == {}
    assert idle_pool(SITE, [], Seen(NOW, [])) == {}
    keda = replace(SITE, pool=SITE.pool.model_copy(update={"autoscaled": True}))
    assert idle_pool(keda, [], Seen(NOW, [], workloads=[workload(2)])) == {}
    run = a_run(rollout={"replicas": 7})
    assert planned(run, a_job(run), site=keda).pool.scale == {}


def test_a_spec_that_cannot_be_trained_leaves_the_pool_alone() -> None:
    run = a_run()
    run["status"] = planned(run, a_job(run), picture=PICTURE).status
    broken = a_run(status=run["status"], recipe={"learner": {"lrr": 1}})
    outcome = planned(broken, a_job(run))
    assert outcome.status["phase"] == "Invalid"
    assert idle_pool(SITE, [outcome], Seen(NOW, [broken], workloads=[workload(5)])) == {}


def test_a_hungry_learner_gets_engines_and_the_memory_survives_a_restart_of_the_operator() -> None:
    """All that is remembered is in the status."""
    run, size = a_run(rollout={"maxReplicas": 4}), 2
    job = a_job(run)
    for minute in range(60):
        learner = {"up_s": f"{60.0 * minute:.1f}", "waited_s": f"{30.0 * minute:.1f}", "doing": "waiting for step 3"}
        services = [{"service": "learner", "id": "head", "age_s": 1.0, "fields": learner}]
        names = [f"{POOL}-{number}" for number in range(size)]
        works = {"phase": "generating", "groups": "8", "wait": ""}
        services += [{"service": "rollout", "id": name, "age_s": 1.0, "fields": works} for name in names]
        outcome = planned(
            run, job, now=NOW + timedelta(minutes=minute), picture={"queue": QUEUE, "services": services},
            workloads=[workload(size)], pods=engines(*names),
        )  # fmt: skip
        size = outcome.pool.scale.get(POOL, size)
        run["status"] = outcome.status
    assert size == 4
    assert run["status"]["rollout"]["scaling"]["need"] > 4


def test_before_a_pool_shrinks_kubernetes_learns_which_engine_has_the_least_to_lose() -> None:
    run = a_run(rollout={"replicas": 1})
    leases = [{"worker": f"{POOL}-a", "progress": 700}]
    works = [
        {"service": "rollout", "id": f"{POOL}-{name}", "age_s": 1.0, "fields": {"phase": "generating"}} for name in "ab"
    ]
    picture = {"queue": {**QUEUE, "leases": leases}, "services": [*SERVICES, *works]}
    outcome = planned(run, a_job(run), picture=picture, workloads=[workload(2)], pods=engines(f"{POOL}-a", f"{POOL}-b"))
    assert outcome.pool.scale == {POOL: 1}
    assert outcome.pool.costs == {f"{POOL}-a": 801, f"{POOL}-b": 1}


def test_what_a_stalled_queue_waits_for_is_restarted_and_not_the_learner() -> None:
    run = a_run(stallSeconds=600)
    job, late = a_job(run), NOW + timedelta(seconds=700)
    pods = [*engines(f"{POOL}-a", f"{POOL}-b"), Pod("reward-0", "reward", "Running", True, 0, "")]

    def after(*services: dict[str, Any], **queue: Any) -> Any:
        picture = {"queue": {**QUEUE, **queue}, "services": list(services)}
        run["status"] = planned(run, job, picture=picture, pods=pods).status
        return planned(run, job, now=late, picture=picture, pods=pods)

    def beat(kind: str, name: str, age_s: float = 1.0, **fields: str) -> dict[str, Any]:
        return {"service": kind, "id": name, "age_s": age_s, "fields": {"phase": "generating", **fields}}

    waits = beat("learner", "head", doing="waiting for step 13: 1 of 2 groups")
    works = beat("learner", "head", doing="updating")
    a, b = (beat("rollout", f"{POOL}-{name}") for name in "ab")
    blocking = {"uid": "0-7", "worker": f"{POOL}-b", "progress_age_s": 700.0}

    slow = after(waits, a, b, blocking=blocking)
    assert (tuple(slow.pool.evict), slow.delete, slow.status["phase"]) == ((f"{POOL}-b",), (), "Running")
    assert slow.status["progress"]["since"] == "2026-01-02T03:15:45Z", "its successor has as long as it had"
    assert slow.status["replaced"][0]["reason"] == "the queue waits for it without progress"

    frozen = after(waits, a, beat("rollout", f"{POOL}-b", age_s=400.0))
    assert (tuple(frozen.pool.evict), frozen.delete) == ((f"{POOL}-b",), ())
    engine = after(waits, a | {"fields": {**a["fields"], "engine_silent_s": "500"}}, b)
    assert (tuple(engine.pool.evict), engine.delete) == ((f"{POOL}-a",), ())
    reward = after(waits, a | {"fields": {**a["fields"], "reward_silent_s": "500"}}, b)
    assert (tuple(reward.pool.evict), reward.delete) == (("reward-0",), ())

    stuck = after(works, a, b)
    assert (tuple(stuck.pool.evict), stuck.delete) == ((), (job["metadata"]["name"],))
    assert stuck.status["phase"] == "Restarting"

    # Without a worker there is nothing to restart: its pods have no node, or still load.
    pods.clear()
    del run["status"]
    alone = after(waits)
    assert (tuple(alone.pool.evict), alone.delete, alone.status["phase"]) == ((), (), "Running")
    assert "the queue has made no progress since 2026-01-02T03:04:05Z" in alone.status["stuck"]


def test_a_run_with_another_model_has_a_pool_a_queue_and_a_folder_of_its_own() -> None:
    run = a_run(
        recipe={"model": {"context_length": 1024}},
        rollout={"dedicated": True, "engineArgs": ["--x", "$(HOME)"]},
        reward={"url": "http://judge/$(HOME)"},
    )
    outcome = planned(run)
    config, job = outcome.apply
    own, work = outcome.pool.apply
    assert outcome.status["queue"] == "demo.r"
    assert own_queues(SITE, [{**run, "status": outcome.status}]) == {"r": "demo.r"}
    assert own["metadata"]["name"] == work["metadata"]["name"] != POOL
    assert own["data"] == config["data"]
    for item in (own, work, job):
        assert item["metadata"]["ownerReferences"][0]["uid"] == "uid-r"
    template = work["spec"]["template"]
    assert work["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    assert work["spec"]["selector"]["matchLabels"]["golongrl.io/training-run"] == "r"
    (engine,), (worker,) = template["spec"]["initContainers"], template["spec"]["containers"]
    assert engine["args"] == ["ls /store/runs/r/weights; golongrl engine --context-length 1024", "--x", "$$(HOME)"]
    values = {entry["name"]: entry["value"] for entry in worker["env"]}
    assert values["GOLONGRL_RUN"] == "demo.r"
    assert values["GOLONGRL_REWARD_URL"] == "http://judge/$$(HOME)"
    assert values["GOLONGRL_WEIGHTS"] == "/store/runs/r/weights"
    assert template["spec"]["volumes"][0]["configMap"]["name"] == own["metadata"]["name"]
    for group in (job["spec"]["rayClusterSpec"]["headGroupSpec"],):
        assert group["template"]["metadata"]["labels"]["golongrl.io/training-run"] == "r"
    # Once it is there, it is not written again; only its size is.
    there = {**work, "status": {}}
    run["status"] = outcome.status
    again = planned(run, a_job(run), workloads=[workload(1), there])
    assert (again.pool.apply, again.pool.scale) == ((), {})
    run["spec"]["rollout"]["replicas"] = 5
    assert planned(run, a_job(run), workloads=[workload(1), there]).pool.scale == {work["metadata"]["name"]: 5}


@pytest.mark.parametrize("release", ["", " --enable-return-routed-experts"])
@pytest.mark.parametrize("replayed", [False, True])
def test_engines_of_a_runs_own_pool_return_experts_where_it_replays_them(release: str, replayed: bool) -> None:
    site = copy.deepcopy(SITE)
    (engine,) = site.pool.workload["spec"]["template"]["spec"]["initContainers"]
    engine["args"] = [f"golongrl engine --context-length 512{release} --more"]
    (worker,) = site.pool.workload["spec"]["template"]["spec"]["containers"]
    copies = {"name": "store", "mountPath": "/weights", "subPath": "copies"}
    worker["volumeMounts"] = [{"name": "store", "mountPath": "/store", "readOnly": not release}, copies]
    run = a_run(recipe={"learner": {"routing_replay": replayed}}, rollout={"dedicated": True})
    (outcome,) = reconcile(site, Seen(NOW, [run], workloads=[workload(0)]))
    pod = outcome.pool.apply[1]["spec"]["template"]["spec"]
    (engine,), (worker,) = pod["initContainers"], pod["containers"]
    flag = " --enable-return-routed-experts" if replayed else ""
    assert engine["args"] == [f"golongrl engine --context-length 512{flag} --more"]
    assert worker["volumeMounts"] == [{"name": "store", "mountPath": "/store", "readOnly": not replayed}, copies]


def test_runs_with_pools_of_their_own_train_at_the_same_time() -> None:
    runs = [a_run("a"), a_run("b", 1), a_run("c", 2, rollout={"dedicated": True})]
    outcomes = reconcile(SITE, Seen(NOW, runs, workloads=[workload(0)]))
    assert [outcome.status["phase"] for outcome in outcomes] == ["Pending", "Waiting", "Pending"]


def test_priority_decides_who_is_next_and_not_who_trains() -> None:
    old, urgent = a_run("old"), a_run("urgent", 1, schedule={"priority": 5})
    outcomes = reconcile(SITE, Seen(NOW, [old, urgent]))
    assert [outcome.status["phase"] for outcome in outcomes] == ["Waiting", "Pending"]
    outcomes = reconcile(SITE, Seen(NOW, [old, urgent], [a_job(old)]))
    assert [outcome.status["phase"] for outcome in outcomes] == ["Running", "Waiting"]


def test_under_a_budget_a_run_of_higher_priority_suspends_another() -> None:
    site = replace(GPUS, gpu_budget=16)
    old = a_run("old", rollout={"dedicated": True})
    urgent = a_run("urgent", 1, schedule={"priority": 5}, rollout={"dedicated": True, "minReplicas": 2})
    (alone,) = reconcile(site, Seen(NOW, [old]))
    assert alone.status["rollout"]["desired"] == 2
    job = a_job(old)
    old["status"] = alone.status
    first, second = reconcile(site, Seen(NOW, [old, urgent], [job]))
    assert (first.status["phase"], first.delete) == ("Suspending", (job["metadata"]["name"],))
    assert first.status["message"].startswith("the GPU budget of 16 is used by urgent")
    assert second.status["phase"] == "Pending"
    old["status"] = first.status
    waiting, _ = reconcile(site, Seen(NOW, [old, urgent]))
    assert (waiting.status["phase"], waiting.apply) == ("Waiting", ())
    # The urgent one is done: the old one resumes.
    old["status"], urgent["status"] = waiting.status, second.status
    done = a_job(urgent, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    resumed, _ = reconcile(site, Seen(NOW, [old, urgent], [done]))
    assert resumed.status["phase"] == "Pending"


def test_a_budget_is_shared_fairly() -> None:
    site = replace(GPUS, gpu_budget=48)
    runs = [a_run(name, at, rollout={"dedicated": True, "replicas": 5}) for at, name in enumerate("ab")]
    outcomes = reconcile(site, Seen(NOW, runs))
    assert [outcome.status["rollout"]["desired"] for outcome in outcomes] == [3, 3]
    assert outcomes[0].status["rollout"]["reason"] == "the GPU budget leaves 3 of 5"
    large = replace(GPUS, gpu_budget=4)
    (refused, _) = reconcile(large, Seen(NOW, runs))
    assert refused.status["message"] == "waiting: it needs at least 8 GPUs, and operator.gpuBudget is 4"


def test_a_plain_rayjob_with_the_label_has_the_pool_and_is_not_changed() -> None:
    job = a_job(a_run())
    job["metadata"] = {"name": "mine", "labels": {"app.kubernetes.io/instance": "demo", "golongrl.io/run": "demo"}}
    seen = Seen(NOW, [], [job], workloads=[workload(0)], picture=PICTURE)
    assert idle_pool(SITE, [], seen) == {POOL: 2}
    notes = adopted_notes(SITE, job, seen)
    assert notes == {"golongrl.io/step": "12", "golongrl.io/last-checkpoint": "10", "golongrl.io/engines": "0"}
    job["metadata"]["annotations"] = notes
    assert adopted_notes(SITE, job, seen) == {}
    # A TrainingRun waits for it.
    (outcome,) = reconcile(SITE, replace(seen, runs=[a_run()]))
    assert (outcome.status["phase"], outcome.delete) == ("Waiting", ())
    assert outcome.status["message"] == "waiting: the release trains RayJob mine"
    assert outcome.pool.scale == {}
    assert idle_pool(SITE, [outcome], seen) == {POOL: 2}
    job["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    assert idle_pool(SITE, [], replace(seen, workloads=[workload(2)])) == {POOL: 0}


DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


def test_an_ended_run_is_deleted_when_its_time_is_over() -> None:
    run = a_run(ttlSecondsAfterFinished=600)
    ended = planned(run, a_job(run, **DONE))
    assert (ended.status["finished"], ended.expired) == ("2026-01-02T03:04:05Z", False)
    run["status"] = ended.status
    assert not planned(run, now=NOW + timedelta(seconds=599)).expired
    assert planned(run, now=NOW + timedelta(seconds=600)).expired
    never = a_run(status=ended.status)
    assert not planned(never, now=NOW + timedelta(days=900)).expired


def test_what_is_made_for_a_run_goes_when_it_ends_if_that_is_asked() -> None:
    run = a_run(rollout={"dedicated": True}, deletionPolicy="Delete")
    began = planned(run)
    work = began.pool.apply[1]
    run["status"] = began.status
    ended = planned(run, a_job(run, **DONE), workloads=[work])
    assert ended.delete == (a_job(run)["metadata"]["name"],)
    assert ended.drop_pool == work["metadata"]["name"]
    run["status"] = ended.status
    after = planned(run, workloads=[])
    assert (after.delete, after.drop_pool, after.apply) == ((), "", ())
    assert after.status["phase"] == "Succeeded"
    kept = a_run(rollout={"dedicated": True})
    kept["status"] = began.status
    assert planned(kept, a_job(kept, **DONE), workloads=[work]).delete == ()


FAILED = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "boom"}


def at_step(step: int) -> dict[str, Any]:
    return {"queue": {**QUEUE, "version": step}, "services": SERVICES}


def test_restarts_wait_longer_and_longer() -> None:
    run = a_run(maxRestarts=5)
    first = planned(run, a_job(run, **FAILED), picture=at_step(3))
    assert first.status["failure"] == {"step": 3, "time": "2026-01-02T03:04:05Z", "repeated": False}
    run["status"] = first.status
    again = planned(run, picture=at_step(3))
    assert again.status["phase"] == "Pending", "the first restart comes at once"
    run["status"] = again.status
    second = planned(run, a_job(run, attempt=1, **FAILED), picture=at_step(9))
    assert second.status["phase"] == "Restarting"
    run["status"] = second.status
    paused = planned(run, now=NOW + timedelta(seconds=29))
    assert (paused.status["phase"], paused.apply) == ("BackingOff", ())
    assert paused.status["message"] == "restart 2 of 5 begins after a pause of 30 s"
    run["status"] = paused.status
    assert planned(run, now=NOW + timedelta(seconds=30)).status["phase"] == "Pending"


def test_the_same_step_failing_twice_stops_the_run() -> None:
    run = a_run(maxRestarts=5)
    run["status"] = planned(run, a_job(run, **FAILED), picture=at_step(3)).status
    run["status"] = planned(run, a_job(run, attempt=1), picture=at_step(3)).status
    twice = planned(run, a_job(run, attempt=1, **FAILED), picture=at_step(3))
    assert (twice.status["phase"], twice.delete) == ("Failed", ())
    assert "AppFailed): boom; it failed twice at step 4" in twice.status["message"]
    # It stays so, also when the queue does not answer, until a person edits the spec.
    run["status"] = twice.status
    assert planned(run, a_job(run, attempt=1, **FAILED)).status["message"] == twice.status["message"]
    run["metadata"]["generation"] += 1
    retried = planned(run, a_job(run, attempt=1, **FAILED), picture=at_step(3))
    assert (retried.status["phase"], retried.status["failure"]["repeated"]) == ("Restarting", False)
    # The next failure is judged by itself.
    run["status"] = retried.status
    run["status"] = planned(run, a_job(run, attempt=2), picture=at_step(3)).status
    assert planned(run, a_job(run, attempt=2, **FAILED), picture=at_step(5)).status["phase"] == "Restarting"
    assert planned(run, a_job(run, attempt=2, **FAILED), picture=at_step(3)).status["phase"] == "Failed"


def test_a_failure_that_was_seen_before_its_rayjob_went_is_one_failure() -> None:
    """A pass that was cut short after the status was written is repeated."""
    run = a_run(maxRestarts=5)
    run["status"] = planned(run, a_job(run, **FAILED), picture=at_step(3)).status
    run["status"] = planned(run, a_job(run, attempt=1), picture=at_step(9)).status
    failed = a_job(run, attempt=1, **FAILED)
    for _ in range(3):
        outcome = planned(run, failed, picture=at_step(9))
        assert (outcome.status["phase"], outcome.delete) == ("Restarting", (failed["metadata"]["name"],))
        run["status"] = outcome.status


@pytest.mark.parametrize("steps", [(3, 4), (3, None), (None, 3), (None, None)])
def test_another_step_or_an_unknown_one_is_not_the_same(steps: tuple[int | None, int | None]) -> None:
    run = a_run(maxRestarts=5)
    pictures = [None if step is None else at_step(step) for step in steps]
    run["status"] = planned(run, a_job(run, **FAILED), picture=pictures[0]).status
    run["status"] = planned(run, a_job(run, attempt=1), picture=pictures[1]).status
    assert planned(run, a_job(run, attempt=1, **FAILED), picture=pictures[1]).status["phase"] == "Restarting"


def test_what_refuses_the_engines_is_said() -> None:
    """Admission refuses the pods, not the workload."""
    run = a_run()
    refused = workload(2)
    message = 'pods "x" is forbidden: exceeded quota: gpus'
    refused["status"]["conditions"] = [
        {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    ]
    outcome = planned(run, a_job(run), picture=PICTURE, workloads=[refused])
    assert outcome.status["stuck"] == [f"no engine may be made (FailedCreate): {message}"]
    stuck = {entry["type"]: entry["status"] for entry in outcome.status["conditions"]}["Stuck"]
    assert stuck == "True"
    run["status"] = outcome.status
    assert planned(run, a_job(run), picture=PICTURE, workloads=[workload(2)]).status["stuck"] == []
