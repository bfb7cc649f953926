"""A node that ran short of memory or disk is avoided by the next pods, for a while, and never at any price."""

import copy
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.kubernetes.look.pods import Pod, read_pods
from golongrl_operator.api import AvoidedNode
from golongrl_operator.build import resolve
from golongrl_operator.cases import Seen
from golongrl_operator.events import transitions
from golongrl_operator.nodes import AVOIDED_S, MOST, avoid, avoided
from golongrl_operator.reconcile import reconcile
from support.training_runs import NOW, RAYJOB, SITE, a_job, a_run, one

LOW = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi."
AT = "2026-01-02T03:00:00Z"


def item(conditions: list[dict[str, str]] | None = None, node: str = "node-a", **status: Any) -> dict[str, Any]:
    """A pod as the API server has it."""
    target = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "lastTransitionTime": AT}
    return {
        "metadata": {"name": "p-0", "uid": "u", "labels": {"app.kubernetes.io/component": "rollout"}},
        "spec": {"nodeName": node},
        "status": {"phase": "Failed", "conditions": [target] if conditions is None else conditions, **status},
    }


READY = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T02:59:00Z"}
PREEMPTED = {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler", "lastTransitionTime": AT}
LEAVING = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "lastTransitionTime": AT}


@pytest.mark.parametrize(
    ("pod", "at"),
    [
        (item(reason="Evicted", message=LOW), AT),
        (item(reason="Evicted", message=LOW.replace("memory", "ephemeral-storage")), AT),
        # Before its phase changes, and where only the condition says why.
        (item([{**LEAVING, "message": LOW}], phase="Running"), AT),
        # A kubelet without that condition.
        (item([READY], reason="Evicted", message=LOW), "2026-01-02T02:59:00Z"),
        (item([], reason="Evicted", message=LOW), ""),
        # The pod used more than its own limit.
        (item(reason="Evicted", message="Container worker exceeded its local ephemeral storage limit \"1Gi\"."), ""),
        (item(reason="Evicted", message='Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".'), ""),
        # A shutdown, a preemption, a drain, a lost node.
        (item([{**LEAVING, "message": "Pod was terminated in response to imminent node shutdown."}]), ""),
        (item([PREEMPTED], reason="Preempting", message="preempted"), ""),
        (item([], reason="NodeLost", message="Node node-a which was running pod p-0 is unresponsive"), ""),
        (item([READY], phase="Running"), ""),
        ({"metadata": {"name": "p-0"}}, ""),
    ],
)  # fmt: skip
def test_what_evicted_pods_say_of_their_nodes(pod: dict[str, Any], at: str) -> None:
    (seen,) = read_pods([pod], NOW)
    assert seen.pressure_at == at
    expected = [] if not at else [("node-a", at)]
    assert [(one.node, one.time) for one in avoided([seen], {}, NOW)] == expected


def evicted(node: str, at: str = AT, name: str = "p-0") -> Pod:
    return Pod(name, "rollout", "Failed", False, 0, "", node=node, pressure=LOW, pressure_at=at)


def test_it_is_remembered_when_the_pod_is_gone_and_forgotten_after_an_hour() -> None:
    status = {"avoidedNodes": [one.model_dump(mode="json", by_alias=True) for one in avoided([evicted("a")], {}, NOW)]}
    assert status["avoidedNodes"] == [{"node": "a", "time": AT, "reason": f"pod p-0: {LOW}"}]
    assert len(avoided([], status, NOW)) == 1
    later = NOW + timedelta(seconds=AVOIDED_S)
    assert avoided([], status, later) == []
    # Its pod may be listed for weeks.
    assert avoided([evicted("a")], status, later) == []
    again = avoided([evicted("a", "2026-01-02T04:00:00Z", "p-1")], status, later)
    assert [(one.time, one.reason) for one in again] == [("2026-01-02T04:00:00Z", f"pod p-1: {LOW}")]


times = st.integers(-7200, 600).map(lambda offset: (NOW + timedelta(seconds=offset)).strftime("%Y-%m-%dT%H:%M:%SZ"))
seen_pods = st.lists(
    st.builds(evicted, st.sampled_from([f"n{i}" for i in range(40)]), times, st.text("ab")), max_size=60
)


@given(seen_pods, seen_pods)
def test_it_is_bounded_and_a_repeated_pass_says_the_same(first: list[Pod], second: list[Pod]) -> None:
    status: dict[str, Any] = {}
    for pods in (first, second, second):
        before = status
        found = avoided(pods, status, NOW)
        status = {"avoidedNodes": [one.model_dump(mode="json", by_alias=True) for one in found]}
        assert len(found) <= MOST
        assert len({one.node for one in found}) == len(found)
    assert status == before


NODES = [AvoidedNode(node="b", time=AT, reason=""), AvoidedNode(node="a", time=AT, reason="")]
TERM = {
    "weight": 100,
    "preference": {
        "matchFields": [
            {"key": "metadata.name", "operator": "NotIn", "values": ["a"]},
            {"key": "metadata.name", "operator": "NotIn", "values": ["b"]},
        ]
    },
}


def test_what_a_person_asked_of_nodes_stays() -> None:
    required = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}
    mine = {"weight": 1, "preference": {"matchExpressions": [{"key": "zone", "operator": "Exists"}]}}
    template = {
        "spec": {
            "affinity": {
                "podAntiAffinity": {"x": 1},
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": required,
                    "preferredDuringSchedulingIgnoredDuringExecution": [mine],
                },
            }
        }
    }
    avoid([template], NODES)
    assert template["spec"]["affinity"] == {
        "podAntiAffinity": {"x": 1},
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": [mine, TERM],
        },
    }
    plain: dict[str, Any] = {"spec": {}}
    avoid([plain], [])
    assert plain == {"spec": {}}


def preferred(template: dict[str, Any]) -> list[Any]:
    affinity = template["spec"].get("affinity", {}).get("nodeAffinity", {})
    return list(affinity.get("preferredDuringSchedulingIgnoredDuringExecution", []))


def test_the_next_rayjob_avoids_it_and_the_one_that_trains_is_not_touched() -> None:
    run = a_run()
    pods = [evicted("a")]
    trains = one(run, a_job(run), pods=pods)
    assert (trains.delete, trains.apply) == ((), ())
    assert [entry["node"] for entry in trains.status["avoidedNodes"]] == ["a"]
    (event,) = [event for event in transitions({}, trains.status) if event.reason == "NodeAvoided"]
    assert event.note == f"new pods prefer other nodes for an hour: a: pod p-0: {LOW}"
    assert not [event for event in transitions(trains.status, trains.status) if event.reason == "NodeAvoided"]
    # The pod is gone with its RayJob.
    run["status"] = trains.status
    made = one(run).apply[-1]["spec"]["rayClusterSpec"]
    for group in (made["headGroupSpec"], *made["workerGroupSpecs"]):
        (term,) = preferred(group["template"])
        assert term["preference"]["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["a"]}]
    # What the run means is the same, and the release's RayJob too.
    assert "affinity" not in str(resolve(SITE, run).rayjob) + str(RAYJOB)
    plain = one(a_run(), pods=[]).apply[-1]
    assert plain["metadata"]["name"] == one(run).apply[-1]["metadata"]["name"]
    assert "affinity" not in str(plain)


def test_a_pool_of_its_own_avoids_it_when_it_starts_and_never_restarts_its_engines_for_that() -> None:
    run = a_run(rollout={"dedicated": True, "replicas": 3})
    outcome = one(run, a_job(run))
    work = copy.deepcopy(outcome.pool.apply[1])
    run["status"] = outcome.status
    runs = one(run, a_job(run), workloads=[work], pods=[evicted("a")])
    assert (runs.pool.apply, runs.pool.scale) == ((), {})
    run["status"] = runs.status
    work["spec"]["replicas"] = 0
    starts = one(run, a_job(run), workloads=[work])
    assert starts.pool.apply[1]["spec"]["replicas"] == 3
    assert len(preferred(starts.pool.apply[1]["spec"]["template"])) == 1
    # Done, nothing more is done, and neither when the node is forgotten.
    run["status"] = starts.status
    work = copy.deepcopy(starts.pool.apply[1])
    for now in (NOW, NOW + timedelta(hours=2)):
        again = one(run, a_job(run), workloads=[work], now=now)
        assert (again.pool.apply, again.pool.scale) == ((), {})
    # Only its next start is without it.
    work["spec"]["replicas"] = 0
    late = one(run, a_job(run), workloads=[work], now=NOW + timedelta(hours=2))
    assert preferred(late.pool.apply[1]["spec"]["template"]) == []


def test_one_runs_evicted_pod_is_news_for_all_runs() -> None:
    runs = [a_run("r", 0), a_run("s", 1, rollout={"dedicated": True})]
    outcomes = reconcile(SITE, Seen(NOW, runs, pods=[evicted("a")]))
    assert [[entry["node"] for entry in outcome.status["avoidedNodes"]] for outcome in outcomes] == [["a"], ["a"]]
    (ended,) = reconcile(SITE, Seen(NOW, [runs[0]], [a_job(runs[0], **DONE)], pods=[evicted("a")]))
    assert (ended.status["phase"], ended.status["avoidedNodes"]) == ("Succeeded", [])
    waits = {**outcomes[0].status, "phase": "Waiting"}
    assert "NodeAvoided" not in [event.reason for event in transitions({}, waits)]


DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
