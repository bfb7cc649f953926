"""What a pass makes of a look at the cluster and the queue."""

import copy
import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from golongrl import recipe as recipes
from golongrl.kubernetes.look.pods import Pod
from golongrl.telemetry.waits import PendingWait, dumps
from golongrl_operator.build import objects, resolve
from golongrl_operator.cases import Seen
from golongrl_operator.reconcile import ReconcileResult, reconcile, unwritten
from support.training_runs import NOW, PICTURE, QUEUE, SERVICES, SITE, a_job, a_run, a_site, one


def conditions(outcome: ReconcileResult) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in outcome.status["conditions"]}


def test_a_new_run_gets_its_configmap_and_then_its_rayjob() -> None:
    outcome = one(a_run())
    assert [item["kind"] for item in outcome.apply] == ["ConfigMap", "RayJob"]
    assert len({item["metadata"]["name"] for item in outcome.apply} | {outcome.status["job"]}) == 1
    assert outcome.status["phase"] == "Pending"
    assert conditions(outcome) == {
        "Accepted": "True", "Progressing": "True", "Stuck": "False", "Stalled": "False", "Complete": "False",
        "Failed": "False",
    }  # fmt: skip


def test_the_queues_figures_are_the_status() -> None:
    run = a_run()
    told = one(run, a_job(run), picture=PICTURE).status
    figures = ("step", "policyVersion", "lastCheckpoint", "staleness")
    assert [told[key] for key in figures] == ["12/40", 11, 10, "1 of 1"]
    assert told["observedGeneration"] == 3


def test_the_last_figures_stand_while_the_queue_is_silent_and_the_run_is_over() -> None:
    run = a_run()
    run["status"] = one(run, a_job(run), picture=PICTURE).status
    silent = one(run, a_job(run), silence="the queue: no answer")
    assert silent.status["step"] == "12/40"
    assert conditions(silent)["Stuck"] == "Unknown"
    assert silent.status["stuck"] == ["the queue: no answer"]
    done = one(run, a_job(run, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"), picture=PICTURE)
    assert (done.status["step"], done.status["stuck"]) == ("12/40", [])
    assert conditions(done)["Complete"] == "True"
    run["status"] = done.status
    assert one(run).status["step"] == "12/40", "without its RayJob too"


def test_the_last_step_is_told_too() -> None:
    """When the RayJob is done the run holds the release no more, but the queue's figures are still its own."""
    run = a_run()
    run["status"] = one(run, a_job(run), picture=PICTURE).status
    end = {"queue": QUEUE | {"version": 40}, "services": []}
    done = one(run, a_job(run, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"), picture=end)
    assert (done.status["phase"], done.status["step"]) == ("Succeeded", "40/40")


def test_who_waits_for_a_process_that_does_not_answer_is_the_condition_stalled() -> None:
    run = a_run()
    groups = PendingWait("rollout/w-1", "3 groups of step 12", 9.0)
    services = [
        {"service": "learner", "id": "h", "age_s": 0.5, "fields": {"doing": "waiting", "waits": dumps([groups])}},
        {"service": "rollout", "id": "w-1", "age_s": 31.0, "fields": {"phase": "generating"}},
    ]
    told = one(run, a_job(run), picture=PICTURE | {"services": services})
    chain = "learner waits for 3 groups of step 12, 9 s <- w-1 has sent no heartbeat for 31 s"
    (stalled,) = [entry for entry in told.status["conditions"] if entry["type"] == "Stalled"]
    assert (stalled["status"], stalled["reason"], stalled["message"]) == ("True", "NoAnswer", chain)
    assert told.status["stuck"] == [chain]
    ended = {"queue": QUEUE | {"stopped": {"reason": "complete", "detail": "40 steps"}}, "services": services}
    assert conditions(one(run, a_job(run), picture=ended))["Stalled"] == "False"
    assert conditions(one(run, a_job(run), silence="no answer"))["Stalled"] == "Unknown"


def test_what_is_stuck_is_named() -> None:
    run = a_run()
    pods = [Pod("w-0", "rollout", "Pending", False, 0, "not scheduled: 0/3 nodes: Insufficient nvidia.com/gpu")]
    blocked = {"uid": "0-3", "worker": "w-1", "progress_age_s": 500.0}
    told = one(run, a_job(run), pods=pods, picture=PICTURE | {"queue": QUEUE | {"blocking": blocked}})
    assert conditions(told)["Stuck"] == "True"
    assert told.status["stuck"][0].startswith("pod w-0: not scheduled")
    assert "group 0-3 on w-1" in told.status["stuck"][1]
    # Before the learner runs, the queue is that of an earlier try; pods are what is waited for.
    early = one(run, a_job(run, jobDeploymentStatus="Initializing"), pods=pods, silence="the queue: no such run")
    assert early.status["stuck"] == ["pod w-0: not scheduled: 0/3 nodes: Insufficient nvidia.com/gpu"]


def test_a_stall_is_what_the_queue_says_for_long_enough() -> None:
    run = a_run(stallSeconds=600)
    job = a_job(run)

    def after(seconds: int, picture: Any = PICTURE, silence: str = "") -> ReconcileResult:
        outcome = one(run, job, now=NOW + timedelta(seconds=seconds), picture=picture, silence=silence)
        run["status"] = outcome.status
        return outcome

    assert after(0).status["progress"]["since"] == "2026-01-02T03:04:05Z"
    assert after(599).status["phase"] == "Running"
    # Anything that moves begins it anew; so does not knowing.
    assert after(700, {"queue": QUEUE | {"ready": 4}, "services": []}).status["phase"] == "Running"
    assert after(1200, {"queue": QUEUE | {"ready": 4}, "services": []}).status["phase"] == "Running"
    assert "progress" not in after(1250, None, "the queue: no answer").status
    assert after(1400, {"queue": QUEUE | {"ready": 4}, "services": []}).status["phase"] == "Running"
    stalled = after(2000, {"queue": QUEUE | {"ready": 4}, "services": []})
    assert stalled.status["phase"] == "Restarting"
    assert stalled.status["message"] == "the queue made no progress for 600 s; restart 1 of 2"
    assert stalled.delete == (job["metadata"]["name"],)


def test_a_restart_is_another_object_of_the_same_content() -> None:
    run = a_run()
    run["status"] = one(run, a_job(run, jobDeploymentStatus="Failed", jobStatus="FAILED")).status
    assert run["status"]["restarts"] == 1
    waiting = one(run, a_job(run, deleting=True))
    assert (waiting.apply, waiting.delete, waiting.status["phase"]) == ((), (), "Restarting")
    again = one(run).apply[1]
    first = a_job(run)
    assert again["metadata"]["annotations"]["golongrl.io/attempt"] == "1"
    assert (
        again["metadata"]["annotations"]["golongrl.io/content"]
        == first["metadata"]["annotations"]["golongrl.io/content"]
    )
    assert again["metadata"]["name"] != first["metadata"]["name"]
    assert again["spec"]["entrypoint"] == first["spec"]["entrypoint"]


def test_a_changed_spec_replaces_and_what_does_not_run_differently_leaves_alone() -> None:
    run = a_run()
    job = a_job(run)
    changed = a_run(recipe={"learner": {"steps": 7}})
    assert one(changed, job).delete == (job["metadata"]["name"],)
    assert one(changed, job).status["phase"] == "Replacing"
    for same in (a_run(maxRestarts=9), a_run(stallSeconds=5), a_run(recipe={"learner": {"steps": 40}})):
        assert one(same, job).delete == ()


def test_what_a_run_means_is_worked_out_once_and_anew_when_it_changes() -> None:
    first = resolve(SITE, a_run())
    assert resolve(SITE, a_run(name="other")) is first
    assert resolve(SITE, a_run(recipe={"learner": {"steps": 7}})).content != first.content
    assert resolve(a_site(entrypoint="golongrl learner --verbose"), a_run()).content != first.content
    made = objects(SITE, a_run(), first, 0)
    made[1]["spec"].clear()
    assert objects(SITE, a_run(), first, 0)[1]["spec"], "what is made of it is not shared"


def test_a_queue_label_is_part_of_what_runs() -> None:
    patches = [{"metadata": {"labels": {"volcano.sh/queue-name": name}}} for name in ("a", "b")]
    contents = {resolve(SITE, a_run(learner=patch)).content for patch in patches}
    assert len(contents) == 2


def workers(replicas: Any = 2, gpus: str | None = None) -> dict[str, Any]:
    """A patch of the ranks' group alone."""
    container = {"name": "ray-worker", "resources": {"limits": {"nvidia.com/gpu": gpus}}}
    group = {"groupName": "ranks", "replicas": replicas, "template": {"spec": {"containers": [container]}}}
    return {"learner": {"spec": {"rayClusterSpec": {"workerGroupSpecs": [group]}}}}


def test_a_patch_changes_what_it_names_and_nothing_else() -> None:
    run = a_run(**workers(gpus="4"), recipe={"learner": {"ranks": 8}})
    config, job = one(run).apply
    cluster = job["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    (container,) = group["template"]["spec"]["containers"]
    assert (group["replicas"], container["image"]) == (2, "learner:1")
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "4"}}
    for template in (group["template"], cluster["headGroupSpec"]["template"]):
        recipe, scratch = template["spec"]["volumes"]
        assert recipe == {"name": "recipe", "configMap": {"name": config["metadata"]["name"]}}
        assert scratch == {"name": "tmp", "emptyDir": {}}
    assert recipes.parse(recipes.read_yaml(config["data"]["recipe.yaml"])).learner.ranks == 8


def test_no_patch_takes_the_labels_by_which_the_operator_finds_its_rayjob() -> None:
    taken = {"golongrl.io/training-run": "other", "app.kubernetes.io/instance": None, "team": "a"}
    _, job = one(a_run(learner={"metadata": {"labels": taken, "annotations": {"note": "b"}}})).apply
    labels = {"golongrl.io/training-run": "r", "app.kubernetes.io/instance": "demo", "team": "a"}
    assert job["metadata"]["labels"] == labels
    assert job["metadata"]["annotations"]["note"] == "b"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"recipe": {"learner": {"lrr": 1}}}, "learner.lrr"),
        ({"recipePreset": "nope"}, "nope"),
        # No file of the operator's pod is read, whatever is in it.
        ({"recipePreset": "/etc/passwd"}, "spec.recipePreset: '/etc/passwd' is none of quickstart"),
        ({"recipePreset": "a\n\0"}, "spec.recipePreset: 'a\\n\\x00' is none of"),
        ({"learner": {"specs": {}}}, "spec: unknown key learner.specs; did you mean learner.spec?"),
        ({"learner": {"spec": {"entrypoint": None}}}, "spec.learner: RayJob: missing key spec.entrypoint"),
        ({"learner": {"spec": {"rayClusterSpec": {"workerGroupSpecs": 2}}}}, "spec.rayClusterSpec.workerGroupSpecs"),
        (workers(replicas="2"), "rayClusterSpec.workerGroupSpecs.0.replicas"),
        (workers(gpus="half"), "nvidia.com/gpu: 'half' is not an amount, such as"),
        (workers(gpus="500m"), "nvidia.com/gpu: '500m' is not a whole number"),
        (workers(gpus="8"), "its workers have 16 GPUs (nvidia.com/gpu), but the recipe's learner.ranks is 1"),
        ({"maxRestart": 1}, "spec: unknown key maxRestart; did you mean maxRestarts?"),
        ({"suspend": "no"}, "spec: suspend"),
    ],
)
def test_a_spec_that_cannot_be_trained_is_named_and_touches_nothing(spec: dict[str, Any], message: str) -> None:
    good = a_run()
    good["status"] = one(good, a_job(good), picture=PICTURE).status
    outcome = one(a_run(status=good["status"], **spec), a_job(good), picture=PICTURE)
    assert (outcome.delete, outcome.apply, outcome.status["phase"]) == ((), (), "Invalid")
    assert message in outcome.status["message"]
    assert conditions(outcome)["Accepted"] == "False"
    assert outcome.status["content"] == good["status"]["content"], "and is remembered for when it is put right"


@pytest.mark.parametrize(
    ("recipe", "differs"),
    [
        ({"learner": {"lr": 1e-5}, "algorithm": {"gamma": 2.0}}, ""),
        ({"rollout": {"n": 4}, "queue": {"max_staleness": 2}}, "rollout.n, queue.max_staleness"),
        ({"model": {"context_length": 1024}}, "model.context_length"),
        # The release's NetworkPolicies would let no engine ask the learner.
        ({"learner": {"weights": "broadcast"}}, "learner.weights"),
        # The release's engines return no experts, and its workers ask for none.
        ({"learner": {"routing_replay": True}}, "learner.routing_replay"),
    ],
)
def test_what_the_rollout_pool_does_not_follow_is_said(recipe: dict[str, Any], differs: str) -> None:
    """Workers have the release's recipe; a run that says otherwise trains on what they make."""
    (accepted, *_) = one(a_run(recipe=recipe)).status["conditions"]
    assert (accepted["status"], accepted["reason"]) == ("True", "PoolDiffers" if differs else "Valid")
    assert (f"keeps the release's {differs};" in accepted["message"]) is bool(differs)


def test_a_condition_keeps_its_time_while_it_holds() -> None:
    run = a_run()
    run["status"] = one(run, a_job(run), picture=PICTURE).status
    later = one(run, a_job(run), picture=PICTURE, now=NOW + timedelta(hours=1))
    assert later.status == run["status"], "nothing new, nothing written"
    done = one(run, a_job(run, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"), now=NOW + timedelta(hours=1))
    times = {entry["type"]: entry["lastTransitionTime"][11:13] for entry in done.status["conditions"]}
    kept = {"Accepted": "03", "Stuck": "03", "Stalled": "03", "Failed": "03"}
    assert times == {**kept, "Progressing": "04", "Complete": "04"}


def test_a_refusal_is_said_once() -> None:
    run = a_run()
    first = unwritten(one(run), "Refused", "RayJob x: forbidden", NOW)
    assert first["message"] == "RayJob x: forbidden"
    run["status"] = first
    later = NOW + timedelta(minutes=1)
    assert unwritten(one(run, now=later), "Refused", "RayJob x: forbidden", later) == first


def test_a_refusal_as_long_as_a_log_still_fits() -> None:
    told = unwritten(one(a_run()), "Refused", "x" * 100_000, NOW)
    (progressing,) = [entry for entry in told["conditions"] if entry["type"] == "Progressing"]
    assert len(told["message"]) == len(progressing["message"]) == 1024


def test_a_thousand_broken_pods_are_told_in_a_bounded_status() -> None:
    run = a_run()
    pods = [
        Pod(f"w-{number}", "rollout", "Pending", False, 0, "engine: ErrImagePull: " + "x" * 5000)
        for number in range(1000)
    ]
    told = one(run, a_job(run), pods=pods, picture=PICTURE).status
    assert len(told["stuck"]) == 21
    assert told["stuck"][-1] == "and 980 more: see `golongrl status`"
    assert len(json.dumps(told)) < 20_000


def test_a_run_that_exports_its_model_is_neither_stalled_nor_stuck() -> None:
    """Its last step is done and no counter moves any more, for as long as the export takes."""
    run = a_run(stallSeconds=600)
    over = PICTURE | {"queue": QUEUE | {"stopped": {"reason": "complete", "detail": "40 steps"}}}
    run["status"] = one(run, a_job(run), picture=over).status
    later = one(run, a_job(run), now=NOW + timedelta(hours=2), picture=over)
    assert (later.status["phase"], later.delete, later.status["stuck"]) == ("Running", (), [])


def test_a_stall_without_restarts_left_is_stuck_and_says_since_when() -> None:
    run = a_run(stallSeconds=600, maxRestarts=0)
    run["status"] = one(run, a_job(run), picture=PICTURE).status
    later = one(run, a_job(run), now=NOW + timedelta(seconds=700), picture=PICTURE)
    assert (later.status["phase"], conditions(later)["Stuck"]) == ("Running", "True")
    assert later.status["stuck"] == ["the queue has made no progress since 2026-01-02T03:04:05Z"]
    run["status"] = later.status
    again = one(run, a_job(run), now=NOW + timedelta(seconds=715), picture=PICTURE)
    assert again.status == later.status, "nothing new, nothing written"


def test_a_rayjob_that_does_not_go_is_named() -> None:
    run = a_run(suspend=True)
    run["status"] = one(run, a_job(run)).status
    going = a_job(run, deleting=True)
    going["metadata"]["deletionTimestamp"] = "2026-01-02T03:00:05Z"
    assert conditions(one(run, going))["Stuck"] == "False", "its pods have their grace"
    late = one(run, going, now=NOW + timedelta(minutes=2))
    assert late.status["phase"] == "Suspending"
    assert late.status["stuck"][0].startswith(
        f"RayJob {going['metadata']['name']} has been in deletion since 2026-01-02T03:00:05Z"
    )


def test_a_learner_that_finishes_its_step_is_not_stuck() -> None:
    site = a_site(rayClusterSpec={"headGroupSpec": {"template": {"spec": {"terminationGracePeriodSeconds": 900}}}})
    run = a_run(suspend=True)
    going = copy.deepcopy(objects(site, run, resolve(site, run), 0)[1])
    going["metadata"]["deletionTimestamp"] = "2026-01-02T03:00:00Z"
    going["status"] = {"jobDeploymentStatus": "Running"}
    for minutes, stuck in ((19, 0), (21, 1)):
        now = datetime(2026, 1, 2, 3, minutes, tzinfo=UTC)
        (outcome,) = reconcile(site, Seen(now, [run], [going]))
        assert outcome.status["phase"] == "Suspending"
        assert len(outcome.status["stuck"]) == stuck


def test_a_spec_that_cannot_be_trained_can_be_suspended() -> None:
    run = a_run()
    run["status"] = one(run, a_job(run), picture=PICTURE).status
    broken = a_run(status=run["status"], suspend=True, recipe={"learner": {"lrr": 1}})
    outcome = one(broken, a_job(run))
    assert outcome.delete == (a_job(run)["metadata"]["name"],)
    assert (outcome.status["phase"], conditions(outcome)["Accepted"]) == ("Suspending", "False")
    broken["status"] = outcome.status
    assert one(broken, a_job(run, deleting=True)).status["phase"] == "Suspending"
    assert one(broken).status["phase"] == "Invalid"


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ({"model": {"path": "builtin:smollm2-135m"}}, "model.path"),
        ({"data": {"prompts": 9}}, "data.prompts"),
        ({"data": {"enable_thinking": True}}, "data.enable_thinking"),
        # Rows are built from it.
        ({"seed": 99}, "seed"),
        ({"rollout": {"temperature": 0.7}}, "rollout.temperature"),
        ({"rollout": {"max_response_tokens": 3}}, "rollout.max_response_tokens"),
    ],
)
def test_what_the_release_s_pool_cannot_generate_gets_a_pool_of_its_own(recipe: dict[str, Any], key: str) -> None:
    meaning = resolve(SITE, a_run(recipe=recipe))
    assert meaning.dedicated == f"{key} differs from the release's"
    run = a_run(recipe=recipe)
    outcome = one(run)
    assert outcome.status["phase"] == "Pending"
    assert outcome.status["queue"] == "demo.r"
    config, work = outcome.pool.apply
    assert recipes.parse(recipes.read_yaml(config["data"]["recipe.yaml"])) == meaning.recipe
    assert work["spec"]["replicas"] == 2
    # A run that has begun stays where its samples are.
    begun = a_run(status=one(a_run()).status, recipe=recipe)
    assert one(begun).status["phase"] == "Invalid"
    assert key in one(begun).status["message"]


def test_an_upgrade_of_the_release_trains_nothing_again() -> None:
    """Nor does one that a finished run could not be trained beside."""
    run = a_run()
    done = a_job(run, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    run["status"] = one(run, done, picture=PICTURE).status
    upgrades = ({"backoffLimit": 7}, {"recipe": {"rollout": {"temperature": 0.5}}})
    for values, jobs in itertools.product(upgrades, ([done], [])):
        (outcome,) = reconcile(a_site(**values), Seen(NOW, [run], jobs))
        assert (outcome.apply, outcome.delete) == ((), ())
        assert (outcome.status["phase"], conditions(outcome)["Complete"]) == ("Succeeded", "True")
        assert (conditions(outcome)["Accepted"] == "False") is ("recipe" in values)
    # What it asks for itself is trained.
    changed = a_run(status=run["status"], recipe={"learner": {"steps": 99}})
    changed["metadata"]["generation"] += 1
    assert one(changed, done).delete == (done["metadata"]["name"],)


@pytest.mark.parametrize(
    "recipe", [{"data": {"epochs": 3}}, {"model": {"dtype": "bfloat16"}}, {"learner": {"steps": 9}}]
)
def test_what_only_the_learner_reads_is_the_runs(recipe: dict[str, Any]) -> None:
    (accepted, *_) = one(a_run(recipe=recipe)).status["conditions"]
    assert accepted["reason"] == "Valid"


def test_a_seed_orders_a_datasets_rows_and_does_not_make_them() -> None:
    """Where another order would go on from a checkpoint, the learner itself refuses it."""
    whole = {"data": {"corpus": None, "train": "/store/rows.parquet", "validation_prompts": 0}}
    site = a_site(whole)
    assert resolve(site, a_run(recipe={**whole, "seed": 99})).differs == ("seed",)


def test_the_status_has_what_a_person_asks_for() -> None:
    """Every figure of the queue and of the learner, from one look at them."""
    learner = {"doing": "updating", "for_s": "1", "reward": "0.41", "tokens_per_s": "5210"}
    services = [{"service": "learner", "id": "head", "age_s": 1.0, "fields": learner}, SERVICES[1]]
    run = a_run()
    work = {**SITE.pool.workload, "spec": {**SITE.pool.workload["spec"], "replicas": 2}}
    work["status"] = {"replicas": 2, "readyReplicas": 1}
    picture = {"queue": QUEUE, "services": services}
    status = one(run, a_job(run), picture=picture, workloads=[work]).status
    figures = {
        "phase": "Running", "observedGeneration": 3, "step": "12/40", "policyVersion": 11, "lastCheckpoint": 10,
        "staleness": "1 of 1", "reward": "0.41", "throughput": "5210 tokens/s", "bytes": "0.0 of 0 MiB", "stuck": [],
        "restarts": 0, "headReplacements": 0, "queue": "demo",
    }  # fmt: skip
    assert {key: status[key] for key in figures} == figures
    pool = status["rollout"]
    assert (pool["replicas"], pool["readyReplicas"], pool["desired"]) == (2, 1, 2)
    assert "component=rollout" in pool["selector"]
    kinds = [entry["type"] for entry in status["conditions"]]
    assert kinds == ["Accepted", "Progressing", "Stuck", "Stalled", "Complete", "Failed"]
    assert all(entry["reason"] and entry["lastTransitionTime"] for entry in status["conditions"])


@pytest.mark.parametrize(
    "edit", [{"ttlSecondsAfterFinished": 86400}, {"maxRestarts": 5}, {"suspend": True}, {"schedule": {"priority": 3}}]
)
def test_an_edit_beside_an_upgrade_trains_no_succeeded_run_again(edit: dict[str, Any]) -> None:
    """As one helm upgrade makes both, or an operator sees both that was away meanwhile."""
    run, work = a_run(), SITE.rayjob
    run["status"] = one(run, a_job(run, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"), picture=PICTURE).status
    upgraded = replace(SITE, rayjob={**work, "spec": {**work["spec"], "entrypoint": "golongrl learner --new"}})
    run["spec"] |= edit
    run["metadata"]["generation"] += 1
    (outcome,) = reconcile(upgraded, Seen(NOW, [run]))
    assert (outcome.status["phase"], outcome.apply) == ("Succeeded", ())
    run["status"] = outcome.status
    run["spec"] = {**run["spec"], "suspend": False, "recipe": {"learner": {"steps": 77}}}
    run["metadata"]["generation"] += 1
    (outcome,) = reconcile(upgraded, Seen(NOW, [run]))
    assert outcome.status["phase"] == "Pending"
    assert outcome.apply


@pytest.mark.parametrize(
    ("end", "phase"),
    [
        ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "Succeeded"),
        ({"jobDeploymentStatus": "Failed", "reason": "ValidationFailed"}, "Failed"),
    ],
)
def test_a_run_that_has_ended_stays_so_while_its_spec_means_nothing(end: dict[str, str], phase: str) -> None:
    """KubeRay or a person may have deleted its RayJob: put right again, the run would have trained once more."""
    run = a_run(maxRestarts=0)
    run["status"] = first = one(run, a_job(run, **end), picture=PICTURE).status
    assert first["phase"] == phase
    good = run["spec"]
    for recipe, said in (({"learner": {"lrr": 1}}, "learner.lrr"), ({"learner": {"stepps": 1}}, "learner.stepps")):
        run["spec"] = {**good, "recipe": recipe}
        run["metadata"]["generation"] += 1
        for _ in range(2):
            outcome = one(run)
            run["status"] = told = outcome.status
            assert (told["phase"], told["finished"], outcome.apply) == (phase, first["finished"], ())
            assert told["message"].startswith(f"{first['message']}; its spec cannot be trained again: ")
            assert (told["message"].count("again:"), said in told["message"]) == (1, True)
            assert conditions(outcome)["Accepted"] == "False"
    run["spec"] = good
    run["metadata"]["generation"] += 1
    outcome = one(run)
    assert (outcome.status["phase"], outcome.apply, conditions(outcome)["Accepted"]) == (phase, (), "True")
