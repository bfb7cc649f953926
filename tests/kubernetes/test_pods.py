"""What `golongrl status` says of a pod: its trouble, that it starts, or that another has replaced it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from golongrl.kubernetes.look.pods import read_pods

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
RUNS = {"running": {}}
CREATING = {"reason": "ContainerCreating"}


def pod(name: str, component: str = "rollout", made: str = "11:59:00", **status: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": component}
    metadata = {"name": name, "labels": labels, "creationTimestamp": f"2026-01-01T{made}Z"}
    return {"metadata": metadata, "status": status}


def container(name: str, **state: Any) -> dict[str, Any]:
    return {"name": name, "ready": False, "state": state}


def died(code: int, reason: str) -> dict[str, Any]:
    return {"exitCode": code, "reason": reason}


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (READY, ""),
        ({"phase": "Succeeded"}, ""),
        *(
            (
                {"phase": "Pending", "containerStatuses": [container("worker", waiting={"reason": reason, **more})]},
                f"worker: {reason}{told}",
            )
            for reason, more, told in [
                ("ImagePullBackOff", {"message": "no such tag"}, ": no such tag"),
                ("ErrImagePull", {}, ""),
                ("InvalidImageName", {"message": "a b"}, ": a b"),
                ("CreateContainerConfigError", {"message": 'secret "hf" not found'}, ': secret "hf" not found'),
            ]
        ),
        (
            {"phase": "Failed", "containerStatuses": [container("learner", terminated=died(137, "OOMKilled"))]},
            "learner ended with 137 (OOMKilled)",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory"},
            "Evicted: The node was low on memory",
        ),
        ({"phase": "Failed"}, "failed"),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {
                        **container("worker", waiting={"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}),
                        "lastState": {"terminated": died(2, "Error")},
                        "restartCount": 7,
                    }
                ],
            },
            "worker ended with 2 (Error); it is restarted after a pause, 7 restarts so far",
        ),
    ],
)
def test_a_pods_trouble_is_named(status: dict[str, Any], trouble: str) -> None:
    (found,) = read_pods([pod("a", **status)], NOW)
    assert (found.trouble, found.starting) == (trouble, "")


@pytest.mark.parametrize(
    ("status", "doing"),
    [
        ({"phase": "Running", "containerStatuses": [container("engine", **RUNS)]}, "engine not ready"),
        ({"phase": "Pending", "containerStatuses": [container("a", waiting=CREATING)]}, "pending"),
        ({"phase": "Pending"}, "pending"),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    {**container("worker", **RUNS), "lastState": {"terminated": died(137, "Error")}, "restartCount": 1}
                ],
            },
            "worker not ready",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("component", "made", "late"),
    [
        ("rollout", "11:59:00", False),
        ("rollout", "11:16:00", False),  # an engine may load its model for 45 minutes
        ("rollout", "11:14:00", True),
        ("reward", "11:56:00", False),
        ("reward", "11:54:00", True),
        ("learner", "11:54:00", True),
    ],
)
def test_a_pod_that_starts_is_in_trouble_only_past_its_deadline(
    status: dict[str, Any], doing: str, component: str, made: str, late: bool
) -> None:
    (found,) = read_pods([pod("a", component, made, **status)], NOW)
    assert (found.trouble, found.starting) == ((doing, "") if late else ("", doing))


UNSCHEDULED = [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes: no GPU"}]


@pytest.mark.parametrize(
    ("component", "made", "status", "doing", "late"),
    [
        # Engines wait until the ranks have their nodes, and others for a node that an autoscaler adds.
        *(
            (component, made, {"phase": "Pending", "conditions": UNSCHEDULED}, "not scheduled: 0/3 nodes: no GPU", late)
            for component in ("learner", "rollout")
            for made, late in (("11:59:55", False), ("11:56:00", False), ("11:54:00", True))
        ),
        # A model of 60 GB is downloaded, data is prepared, and all others wait for that.
        *(
            (component, made, {"phase": "Pending", "initContainerStatuses": [container(name, **RUNS)]}, said, late)
            for name in ("wait-for-x", "prepare-data", "download-model")
            for said in (f"{name} is running",)
            for component in ("learner", "rollout")
            for made, late in (("11:16:00", False), ("11:14:00", True))
        ),
    ],
)
def test_what_a_pod_waits_for_before_it_starts_has_a_deadline_of_its_own(
    component: str, made: str, status: dict[str, Any], doing: str, late: bool
) -> None:
    (found,) = read_pods([pod("a", component, made, **status)], NOW)
    assert (found.trouble, found.starting) == ((doing, "") if late else ("", doing))


@pytest.mark.parametrize(("ended", "late"), [("11:59:00", False), ("11:50:00", True)])
def test_a_container_that_follows_a_long_step_has_its_whole_time(ended: str, late: bool) -> None:
    step = {"exitCode": 0, "reason": "Completed", "finishedAt": f"2026-01-01T{ended}Z"}
    status = {
        "phase": "Pending",
        "initContainerStatuses": [{**container("download-model", terminated=step), "ready": True}],
        "containerStatuses": [container("ray-head", waiting={"reason": "PodInitializing"})],
    }
    (found,) = read_pods([pod("a", "learner", "10:00:00", **status)], NOW)
    assert (found.trouble, found.starting) == (("pending", "") if late else ("", "pending"))


def test_a_pod_that_is_being_deleted_is_in_trouble_where_its_node_is_lost() -> None:
    going, lost = pod("a", **READY), pod("b", **READY)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T11:58:00Z"
    lost["metadata"]["deletionTimestamp"] = "2026-01-01T11:00:00Z"
    assert [(found.trouble, found.starting) for found in read_pods([going, lost], NOW)] == [
        ("", "is being deleted"),
        ("should be deleted since 2026-01-01T11:00:00Z: is its node lost?", ""),
    ]
    lost["metadata"]["finalizers"] = ["example.com/wait"]
    (found,) = read_pods([lost], NOW)
    assert found.trouble.endswith(": it waits for its finalizers: example.com/wait")


def owned(item: dict[str, Any], uid: str = "job-1", name: str = "job", **labels: str) -> dict[str, Any]:
    item["metadata"]["ownerReferences"] = [{"uid": uid, "name": name, "controller": True}]
    item["metadata"]["labels"] |= labels
    return item


DEAD = {"phase": "Failed", "containerStatuses": [container("learner", terminated=died(137, "Error"))]}


@pytest.mark.parametrize(
    ("items", "trouble"),
    [
        # A retry that trains, one that still starts, one that has ended well.
        ([owned(pod("a", made="11:00:00", **DEAD)), owned(pod("b", **READY))], set()),
        ([owned(pod("a", made="11:00:00", **DEAD)), owned(pod("b", phase="Pending"))], set()),
        ([owned(pod("a", made="11:00:00", **DEAD)), owned(pod("b", phase="Succeeded"))], set()),
        # The retry died too: it is the one that counts.
        ([owned(pod("a", made="11:00:00", **DEAD)), owned(pod("b", **DEAD))], {"b"}),
        # No retry yet, or a newer pod of another owner, of no owner, or of another kind within a Ray cluster.
        ([owned(pod("a", **DEAD))], {"a"}),
        ([owned(pod("a", made="11:00:00", **DEAD)), owned(pod("b", **READY), "job-2")], {"a"}),
        ([pod("a", made="11:00:00", **DEAD), pod("b", **READY)], {"a"}),
        (
            [
                owned(pod("a", made="11:00:00", **DEAD), **{"ray.io/node-type": "head"}),
                owned(pod("b", **READY), **{"ray.io/node-type": "worker"}),
            ],
            {"a"},
        ),
        # A Deployment's ReplicaSets are one owner, and the pods that a node turns away are made within one second.
        (
            [
                owned(pod("a", made="11:00:00", **DEAD), "rs-1", "r-6d5f4", **{"pod-template-hash": "6d5f4"}),
                owned(pod("b", **READY), "rs-2", "r-7c8b9", **{"pod-template-hash": "7c8b9"}),
            ],
            set(),
        ),
        (
            [
                owned(pod("a", made="11:00:00", **DEAD), "rs-1", "r-6d5f4", **{"pod-template-hash": "6d5f4"}),
                owned(pod("b", **READY), "rs-2", "s-6d5f4", **{"pod-template-hash": "6d5f4"}),
            ],
            {"a"},
        ),
        ([owned(pod("a", **DEAD)), owned(pod("b", phase="Pending"))], set()),
        ([owned(pod("a", **DEAD)), owned(pod("b", **DEAD))], {"a", "b"}),
        # An older pod that runs replaces nothing.
        ([owned(pod("a", **DEAD)), owned(pod("b", made="11:00:00", **READY))], {"a"}),
    ],
)
def test_a_dead_pod_counts_only_until_it_is_replaced(items: list[dict[str, Any]], trouble: set[str]) -> None:
    found = {item.name: item for item in read_pods(items, NOW)}
    assert {name for name, item in found.items() if item.trouble} == trouble
    if not trouble:
        assert found["a"].ended == "learner ended with 137 (Error)"


def test_pods_are_counted_and_sorted() -> None:
    restarts = {
        "initContainerStatuses": [{"name": "engine", "restartCount": 2}],
        "containerStatuses": [{"name": "worker", "restartCount": 1}],
    }
    found = read_pods([pod("b", **READY), pod("a", **READY, **restarts), pod("z", "learner", **READY)])
    assert [(item.name, item.restarts) for item in found] == [("z", 0), ("a", 3), ("b", 0)]


def test_a_ray_head_is_another_one_after_a_restart_too() -> None:
    def seen(uid: str, restarts: int, kind: str = "head") -> str:
        item = pod("a", "learner", phase="Running", containerStatuses=[{"name": "ray-head", "restartCount": restarts}])
        item["metadata"]["uid"], item["metadata"]["labels"]["ray.io/node-type"] = uid, kind
        return read_pods([item], NOW)[0].ray_head

    assert len({seen("1", 0), seen("1", 1), seen("2", 0)}) == 3
    assert (seen("1", 0), seen("1", 0, "worker")) == (seen("1", 0), "")


def unready(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "phase": "Running", "conditions": [{"type": "Ready", "status": "False", **more}],
        "containerStatuses": list(containers),
    }  # fmt: skip


def again(since: str, restarts: int = 1) -> dict[str, Any]:
    """A container that runs again since then, after a failure."""
    before = {"lastState": {"terminated": {**died(137, "OOMKilled"), "finishedAt": f"2026-01-01T{since}Z"}}}
    return {**container("redis", running={"startedAt": f"2026-01-01T{since}Z"}), **before, "restartCount": restarts}


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (unready(again("11:58:00")), ""),
        (unready(again("11:50:00")), "redis not ready"),
        (unready(again("11:58:00", restarts=9)), "redis not ready"),
        # Of a node that was started again: the init containers come first.
        (unready({**again("11:58:00"), "state": {"waiting": {"reason": "PodInitializing"}}}), ""),
        (unready({**again("11:58:00"), "state": {"waiting": {"reason": "ContainerCreating"}}}), ""),
        (unready({**again("11:58:00"), "state": {"terminated": died(1, "Error")}}), "redis ended with 1 (Error)"),
    ],
)
def test_a_container_that_starts_again_in_an_old_pod_has_its_time(status: dict[str, Any], trouble: str) -> None:
    (found,) = read_pods([pod("a", "redis", "01:00:00", **status)], NOW)
    assert found.trouble == trouble


UP = {"name": "worker", "ready": True, "state": RUNS}


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (unready(UP), "not ready, although its containers are: is its node lost?"),
        (unready(UP, message="gate x is missing"), "not ready, although its containers are: gate x is missing"),
        ({**unready(UP), "initContainerStatuses": [container("engine", **RUNS)]}, ""),
        (unready(UP, container("engine", **RUNS)), ""),
        (unready(UP, container("engine", terminated=died(0, "Completed"))), ""),
        (
            {**unready(UP), "phase": "Unknown", "reason": "NodeLost", "message": "n1 is unresponsive"},
            "NodeLost: n1 is unresponsive",
        ),
    ],
)
def test_a_lost_node_is_seen_by_its_pods(status: dict[str, Any], trouble: str) -> None:
    """They seem to run for ever, and nobody writes that they do not."""
    (found,) = read_pods([pod("a", **status)], NOW)
    assert found.trouble == trouble
