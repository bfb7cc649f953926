"""Objects and pictures with odd parts: the pass ends for every run, with sizes that make sense."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.kubernetes.forms import fit_object, fit_picture
from golongrl.kubernetes.look.pods import read_pods
from golongrl.telemetry import watchdog
from golongrl_operator.build import resolve
from golongrl_operator.cases import Seen
from golongrl_operator.evaluation import job_of
from golongrl_operator.events import manifest, transitions
from golongrl_operator.held import held_by_others
from golongrl_operator.kueue import workload
from golongrl_operator.reconcile import ReconcileResult, adopted_notes, idle_pool, own_queues, reconcile
from golongrl_operator.remembered import remembered
from golongrl_operator.scaling.signals import read_signals
from golongrl_operator.turns import adopted
from support.training_runs import NOW, PICTURE, SITE, WORKLOAD, a_job, a_run

EARLIER = "2026-01-02T03:00:05Z"
WORKER = "demo-golongrl-rollout-1"
ODD: tuple[Any, ...] = (
    None, "", 0, -1, 1.5, True, "x", "nan", "inf", "-inf", "1e400", [], {}, [1], {"a": 1}, [None], [{}],
    "2026-01-02T03:04:05Z", "2026-01-02T03:04:05", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", 2**70, -(2**70),
    "-5", "\u0663", "\u00b2", "Succeeded", "Running", "x" * 5000, "9" * 5000, "a\nb", "\ud800",
    float("nan"), float("inf"),
)  # fmt: skip
# Clocks jump.
LATER = (timedelta(0), timedelta(days=400), -timedelta(days=2))
KINDS = {"runs": "TrainingRun", "jobs": "RayJob", "pods": "Pod", "workloads": "Deployment", "evaluations": "Job",
         "admissions": "Workload"}  # fmt: skip
ON_GPUS = replace(SITE, pool=SITE.pool.model_copy(update={"gpus": 8}))
Json = dict[str, Any]


def a_pod(name: str, component: str, **status: Any) -> Json:
    began = "2026-01-01T00:00:00Z"
    return {
        "metadata": {
            "name": name, "uid": name, "creationTimestamp": began, "labels": {"app.kubernetes.io/component": component},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": True}],
        },
        "spec": {"nodeName": "n1"},
        "status": {
            "phase": "Running", "startTime": began,
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": began}],
            "containerStatuses": [
                {"name": "c", "restartCount": 1, "ready": True, "state": {"running": {}},
                 "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}}},
            ],
            **status,
        },
    }  # fmt: skip


def a_picture() -> Json:
    picture: Json = json.loads(json.dumps(PICTURE))
    picture["queue"] |= {
        "leases": [{"worker": WORKER, "progress": 12}],
        "blocking": {"uid": "0-3", "worker": WORKER, "progress_age_s": 500.0},
    }
    learner = {
        "doing": "waiting for step 3",
        "for_s": "1",
        "up_s": "100",
        "waited_s": "50",
        "step_s": "10",
        "waits": "",
    }
    worker = {
        "phase": "generating", "groups": "2", "kv_use": "0.5", "kv_waiting": "1", "engine_version": "3",
        "adoption_share": "0.1", "engine_silent_s": "0", "reward_silent_s": "0", "waits": "",
    }  # fmt: skip
    picture["services"] = [
        {"service": "learner", "id": "head", "age_s": 1.0, "fields": learner},
        {"service": "rollout", "id": WORKER, "age_s": 1.0, "fields": worker},
    ]
    return picture


def a_condition(kind: str, status: str) -> Json:
    told = {"type": kind, "status": status, "reason": "r", "message": "m", "lastTransitionTime": EARLIER}
    return told | {"observedGeneration": 3}


def a_world() -> Json:
    """A run that is sized, one with a pool of its own behind Kueue, one that is evaluated, and a person's RayJob."""
    sized = a_run("a", 0, rollout={"minReplicas": 1, "maxReplicas": 4}, stallSeconds=600)
    own = a_run("b", 1, rollout={"dedicated": True, "maxReplicas": 3}, stallSeconds=60, schedule={"queue": "q"})
    ended = a_run("c", 2, evaluation={"suite": "long-context"}, ttlSecondsAfterFinished=60)
    pool = copy.deepcopy(WORKLOAD)
    pool["spec"]["replicas"] = 2
    pool["status"] = {"replicas": 2, "readyReplicas": 1, "conditions": [a_condition("ReplicaFailure", "False")]}
    admission = workload(SITE, own, resolve(SITE, own))
    admission["status"] = {
        "conditions": [a_condition("Admitted", "True"), a_condition("QuotaReserved", "True")],
        "admission": {"clusterQueue": "cq", "podSetAssignments": [{"name": "engines", "count": 2}]},
    }
    asks = job_of(SITE, ended, resolve(SITE, ended), 40)
    asks["status"] = {"startTime": EARLIER, "ready": 1, "conditions": [a_condition("Failed", "False")]}
    by_hand = a_job(sized)
    by_hand["metadata"] |= {"name": "by-hand", "labels": {"golongrl.io/run": "demo"}, "ownerReferences": []}
    ended["status"] = {
        "observedGeneration": 3, "phase": "Succeeded", "restarts": 0, "lastCheckpoint": 40, "finished": EARLIER,
        "queue": "demo", "conditions": [a_condition("Complete", "True")],
        "evaluation": {"phase": "Running", "suite": "long-context", "step": 40, "job": asks["metadata"]["name"]},
    }  # fmt: skip
    world: Json = {
        "runs": [sized, own, ended], "jobs": [a_job(sized), a_job(own)],
        "pods": [a_pod("demo-golongrl-rollout-0", "rollout", phase="Unknown"), a_pod(WORKER, "rollout"),
                 a_pod("reward-0", "reward")],
        "workloads": [pool], "evaluations": [asks], "admissions": [admission],
        "picture": a_picture(), "pictures": {"b": a_picture()},
    }  # fmt: skip
    for run, outcome in zip(world["runs"][:2], look(world), strict=False):
        run["status"] = outcome.status
    left = a_job(a_run("gone"))
    left["metadata"]["name"] = "left-behind"
    world["jobs"] += [by_hand, left]
    sized["status"]["rollout"] |= {
        "learner": "head 10.0 5.0",
        "scaling": {"need": 2.0, "busy": 1.5, "wait": 0.1, "at": EARLIER, "changed": EARLIER, "low": EARLIER},
        "sick": [{"pod": WORKER, "since": EARLIER, "reason": "silent: x"}],
    }
    sized["status"] |= {
        "replaced": [{"pod": "p", "time": EARLIER, "reason": "r"}],
        "avoidedNodes": [{"node": "n", "time": EARLIER, "reason": "r"}],
        "failure": {"step": 3, "time": EARLIER, "repeated": False},
    }
    return world


def look(world: Json, at: timedelta = timedelta(0)) -> list[ReconcileResult]:
    """A pass over what the API server and the queue answer."""
    now = NOW + at
    read = {
        key: [{**one, "kind": kind} for item in world[key] if (one := fit_object(kind, item))]
        for key, kind in KINDS.items()
    }
    runs = [{**run, "status": remembered(run.get("status"), now)} for run in read["runs"]]
    pictures = {name: (fit_picture(told), "") for name, told in world["pictures"].items()}
    pods = read_pods(read["pods"], now)
    seen = Seen(
        now, runs, read["jobs"], pods, fit_picture(world["picture"]), "", read["workloads"], read["evaluations"],
        read["admissions"], pictures,
    )  # fmt: skip
    own_queues(SITE, runs)
    outcomes = reconcile(SITE, seen)
    for job in adopted(SITE, seen.jobs):
        adopted_notes(SITE, job, seen)
    assert all(gpus > 0 for gpus in held_by_others(ON_GPUS, ["a"], seen, "RayJob x", None).values())
    sizes = list(idle_pool(SITE, outcomes, seen).values())
    for outcome in outcomes:
        hash(outcome.writes)
        json.dumps(outcome.status, allow_nan=False).encode()
        for event in transitions(outcome.run["status"], outcome.status):
            json.dumps(manifest(outcome.run, event, now, "me")).encode()
        sizes += [*outcome.pool.scale.values(), (outcome.status.get("rollout") or {}).get("desired", 0)]
        deleted = {*outcome.delete, *outcome.evaluation.delete, *outcome.admission.delete, *outcome.pool.evict}
        # An object of a run is the run's by its owner, whatever its name is.
        owned = [item for kind in KINDS for item in read[kind] if item["metadata"].get("ownerReferences")]
        known = {item["metadata"]["name"] for item in [*MADE, *owned, *read["pods"]]}
        # A stalled queue whose workers wait for the reward service has that restarted.
        spared = {"by-hand", "left-behind"} | (set() if _blames_reward(seen) else {"reward-0"})
        assert deleted <= known - spared
    assert all(isinstance(size, int) and 0 <= size <= 4 for size in sizes), sizes
    return outcomes


def _blames_reward(seen: Seen) -> bool:
    told = [seen.picture, *(picture for picture, _ in seen.pictures.values())]
    stalls = [stall for one in told if one for stall in watchdog.stalls(watchdog.read(one["services"]))]
    return any(stall.culprit.startswith("reward") for stall in stalls)


MADE: list[Json] = []
WORLD = a_world()
MADE += [*WORLD["jobs"], *WORLD["evaluations"], *WORLD["admissions"]]


def places(node: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if at:
        yield at
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(value, (*at, key))


PLACES = [place for place in places(WORLD) if (len(place) > 2 and place[2:3] != ("spec",)) or place[0] == "picture"]
GONE = object()


def changed(place: tuple[Any, ...], value: Any) -> Json:
    world = copy.deepcopy(WORLD)
    node: Any = world
    for key in place[:-1]:
        node = node[key]
    if value is GONE:
        del node[place[-1]]
    else:
        node[place[-1]] = copy.deepcopy(value)
    return world


def check(place: tuple[Any, ...], value: Any, at: timedelta) -> None:
    outcomes = look(changed(place, value), at)
    named = place[:1] == ("runs",) and place[2] == "metadata"
    assert len(outcomes) == 3 or named, "no run but an odd one itself is left out"


@settings(max_examples=60)
@given(st.sampled_from(PLACES), st.sampled_from([*ODD, GONE]), st.sampled_from(LATER))
def test_an_odd_part_stops_no_pass(place: tuple[Any, ...], value: Any, at: timedelta) -> None:
    check(place, value, at)


@pytest.mark.full
@pytest.mark.timeout(3600)
@settings(max_examples=15_000)
@given(st.sampled_from(PLACES), st.sampled_from([*ODD, GONE]), st.sampled_from(LATER))
def test_no_odd_part_of_any_object_stops_a_pass(place: tuple[Any, ...], value: Any, at: timedelta) -> None:
    check(place, value, at)


@pytest.mark.parametrize(
    "place",
    [
        ("runs", 0, "status"), ("runs", 0, "status", "conditions", 0), ("runs", 0, "status", "restarts"),
        ("runs", 0, "status", "rollout", "sick"), ("runs", 2, "status", "evaluation"), ("jobs", 1, "status"),
        ("jobs", 1, "metadata", "annotations"), ("pods", 0, "status", "containerStatuses"), ("pods", 0, "metadata"),
        ("admissions", 0, "spec", "podSets"), ("evaluations", 0, "metadata", "labels"),
        ("picture", "queue", "version"), ("picture", "services", 0), ("pictures", "b", "queue", "staleness"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", ["x", 1.5, [None]])
def test_what_a_part_may_be_instead(place: tuple[Any, ...], value: Any) -> None:
    check(place, value, timedelta(0))


@pytest.mark.parametrize("odd", ["nan", "inf", "-inf", "1e400", "-5", "x", ""])
@pytest.mark.parametrize("key", ["up_s", "waited_s", "step_s", "groups", "validation_rows", "kv_use", "kv_waiting",
                                 "adoption_share"])  # fmt: skip
def test_a_figure_that_is_no_finite_number_is_not_known(key: str, odd: str) -> None:
    picture = a_picture()
    for service in picture["services"]:
        service["fields"][key] = odd
    signals, _ = read_signals(picture, 2, 4, "head 10.0 5.0")
    figures = [signals.wait_share, signals.busy, signals.step_s, signals.kv, signals.lost]
    assert all(figure is None or 0 <= figure <= 1e12 for figure in figures), figures


@pytest.mark.parametrize("last", ["head nan nan", "head x y", "head 1e400 3", "head 1 2 3", "head", " "])
def test_odd_counters_of_the_last_pass_count_from_now(last: str) -> None:
    assert read_signals(a_picture(), 2, 4, last)[0].wait_share is None


def test_a_time_that_has_not_come_is_now() -> None:
    """Or a restart, a replacement or a change of the pool would wait until the clock has caught up."""
    future = "2036-01-01T00:00:00Z"
    told = remembered({"failure": {"step": 3, "time": future}, "progress": {"mark": "m", "since": future}}, NOW)
    assert told["failure"]["time"] == told["progress"]["since"] == "2026-01-02T03:04:05Z"
    run = a_run("r", status={"phase": "Restarting", "restarts": 2, "failure": {"step": 3, "time": future}})
    world = {**WORLD, "runs": [run], "jobs": [], "evaluations": [], "admissions": []}
    (outcome,) = look(world)
    run["status"] = outcome.status
    assert look(world, timedelta(seconds=31))[0].apply


def test_an_odd_part_of_a_status_does_not_make_the_rest_forgotten() -> None:
    whole = WORLD["runs"][0]["status"]
    assert remembered(whole, NOW) == whole
    odd = whole | {"message": 3, "conditions": [{"type": "Stuck"}, *whole["conditions"]], "failure": {"time": "x"}}
    kept = {key: value for key, value in whole.items() if key not in ("message", "failure")}
    assert remembered(odd, NOW) == kept
    assert [remembered(odd, NOW) for odd in (None, "x", [])] == [{}, {}, {}]


@pytest.mark.parametrize("owners", [[], [{"kind": "TrainingRun", "name": "c", "uid": "u", "apiVersion": "other.io/v1"}],
                                    [{"kind": "RayJob", "name": "c", "uid": "u"}]])  # fmt: skip
def test_what_has_only_the_label_of_a_run_is_not_deleted(owners: list[Json]) -> None:
    world = copy.deepcopy(WORLD)
    job, admission = copy.deepcopy(world["evaluations"][0]), copy.deepcopy(world["admissions"][0])
    job["metadata"] |= {"name": "a-persons", "ownerReferences": owners}
    admission["metadata"] |= {"name": "kueues", "ownerReferences": owners}
    world["evaluations"].append(job)
    world["admissions"].append(admission)
    for outcome in look(world):
        assert {"a-persons", "kueues"}.isdisjoint((*outcome.evaluation.delete, *outcome.admission.delete))


def test_a_name_in_the_queue_deletes_no_pod_but_an_engines() -> None:
    world = copy.deepcopy(WORLD)
    world["jobs"] = world["jobs"][:2]
    world["picture"]["queue"]["blocking"]["worker"] = "reward-0"
    world["picture"]["services"][1]["id"] = "reward-0"
    world["runs"][0]["status"]["progress"]["since"] = "2026-01-01T00:00:00Z"
    for outcome in look(world):
        assert "reward-0" not in outcome.pool.evict
