"""What `golongrl status` says of pods, processes and queue."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import pytest

from golongrl.kubernetes.look.kubectl import Cluster, ClusterError, ask_queue
from golongrl.kubernetes.look.status import lines, read_pods, read_runs, stuck
from golongrl.queue import QueueSettings, SampleQueue


def status(*words: str) -> "subprocess.CompletedProcess[str]":
    """The command in a process of its own: it sets up logging."""
    line = [sys.executable, "-m", "golongrl", "status", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)


def pod(name: str, component: str = "rollout", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}}, "status": status}


READY = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}


@pytest.mark.parametrize(
    ("status", "trouble"),
    [
        (READY, ""),
        ({"phase": "Succeeded"}, ""),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "message": "0/3 nodes: Insufficient nvidia.com/gpu"}
                ],
            },
            "not scheduled: 0/3 nodes: Insufficient nvidia.com/gpu",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [
                    {"name": "worker", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}}
                ],
            },
            "worker: ImagePullBackOff: no such tag",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [{"name": "wait-for-weights", "ready": False, "state": {"running": {}}}],
            },
            "wait-for-weights is running",
        ),
        (
            {"phase": "Running", "containerStatuses": [{"name": "worker", "ready": False, "state": {"running": {}}}]},
            "worker not ready",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [
                    {"name": "learner", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}
                ],
            },
            "learner ended with 137 (OOMKilled)",
        ),
    ],
)
def test_a_pods_trouble_is_named(status: dict[str, Any], trouble: str) -> None:
    (found,) = read_pods({"items": [pod("a", **status)]})
    assert found.trouble == trouble


def test_pods_are_counted_and_sorted() -> None:
    restarts = {
        "initContainerStatuses": [{"name": "engine", "restartCount": 2}],
        "containerStatuses": [{"name": "worker", "restartCount": 1}],
    }
    found = read_pods({"items": [pod("b", **READY), pod("a", **READY, **restarts), pod("z", "learner", **READY)]})
    assert [(item.name, item.restarts) for item in found] == [("z", 0), ("a", 3), ("b", 0)]


def test_a_run_that_does_not_train_says_why() -> None:
    def run(name: str, release: str = "demo", **status: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"release": release}, "status": status}

    refused = [{"type": "Progressing", "status": "False", "reason": "Refused"}]
    items = [
        run("a", phase="Invalid", message="recipe: unknown key learner.stepz"),
        run("b", phase="Failed", message="2 restarts used up"),
        run("c", phase="Pending", message="RayJob x: forbidden", conditions=refused),
        run("d", phase="Running", message="RayJob y trains"),
        run("e", release="other", phase="Failed", message="not ours"),
        run("f"),
    ]
    assert read_runs({"items": items}, "demo") == [
        "trainingrun a: Invalid: recipe: unknown key learner.stepz",
        "trainingrun b: Failed: 2 restarts used up",
        "trainingrun c: Pending: RayJob x: forbidden",
    ]


def test_nobody_to_ask_is_not_fine() -> None:
    assert stuck((), None, None) == ["the queue: nobody could be asked (no running worker or learner answered)"]


@pytest.fixture
def run_with_queue(redis_url: str, run_name: str) -> str:
    async def fill() -> None:
        async with SampleQueue.from_url(redis_url, run_name) as queue:
            settings = QueueSettings(groups_per_step=2, max_staleness=1, max_bytes=1 << 20, lease_s=3600, stall_s=3600)
            await queue.setup(settings, [[0, 1, 2, 3]], ["T1"] * 4)
            await queue.beat(
                "rollout", "pod-a", {"phase": "waiting", "waiting_for": "the engine", "version": "0"}, 3600
            )
            await queue.lease("pod-a", 0)

    asyncio.run(fill())
    return run_name


def test_a_real_queue_is_shown(redis_url: str, run_with_queue: str) -> None:
    picture = json.loads(json.dumps(ask_queue(redis_url, run_with_queue)))
    text = "\n".join(lines(None, picture["queue"], picture["services"]))
    assert "leased 1, ready 0 of B = 2" in text
    assert "bound eta = 1" in text
    assert "stuck: rollout pod-a waits for the engine" in text
    picture["queue"]["blocking"] = {"uid": "0-3", "worker": "pod-a", "progress_age_s": 500.0}
    assert "stuck: the next batch waits for group 0-3 on pod-a, without progress for 500 s" in "\n".join(
        lines(None, picture["queue"], [])
    )


@pytest.mark.parametrize(
    ("doing", "found"),
    [
        ("updating", []),
        ("waiting for step 3: 1 of 2 groups", ["rollout pod-a waits for full: enough groups wait"]),
        (None, ["rollout pod-a waits for full: enough groups wait"]),
    ],
)
def test_groups_that_wait_for_a_busy_learner_are_not_stuck(doing: str | None, found: list[str]) -> None:
    queue = {"bytes": 0, "reserved_bytes": 0, "max_bytes": 1}
    services = [{"service": "rollout", "id": "pod-a", "fields": {"waiting_for": "full: enough groups wait"}}]
    if doing is not None:
        services.append({"service": "learner", "id": "host", "fields": {"doing": doing}})
    assert stuck((), queue, services) == found


def test_the_command_asks_a_queue_directly(redis_url: str, run_with_queue: str) -> None:
    words = ["--redis-url", redis_url, "--run", run_with_queue]
    assert "queue: version 0" in status(*words).stdout
    assert json.loads(status(*words, "--json").stdout)["queue"]["leased"] == 1


def test_a_silent_queue_is_one_line() -> None:
    """Of many tries; what a pod prints for `golongrl status --release` stays JSON alone."""
    done = status("--redis-url", "redis://127.0.0.1:1/0", "--run", "x", "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1
    assert "Redis at 127.0.0.1:1" in done.stderr


def test_a_cluster_is_asked_through_kubectl(tmp_path: Any, redis_url: str, run_with_queue: str) -> None:
    """A kubectl that answers like the real one: pods as JSON, and exec runs the real command inside."""
    listing = tmp_path / "pods.json"
    listing.write_text(json.dumps({"items": [pod("w-0", **READY), pod("r-0", "reward", **READY)]}))
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"pods": None, **ask_queue(redis_url, run_with_queue)}))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        f'*"exec w-0 -c worker -- golongrl status --json") cat {answer};;\n'
        f'*"get pods"*) cat {listing};;\n'
        """*"get rayjobs"*|*" exec "*) exit 1;;\n*) echo '{"items": []}';;\nesac\n"""
    )
    kubectl.chmod(0o755)
    cluster = Cluster("rl", binary=str(kubectl))
    pods, refused = cluster.look("demo")
    assert refused == []
    picture = cluster.ask(pods)
    assert picture is not None
    assert picture["queue"]["leased"] == 1
    listing.write_text(json.dumps({"items": [pod("w-1", **READY)]}))
    assert cluster.ask(cluster.look("demo")[0]) is None
    listing.write_text("{}")
    with pytest.raises(ClusterError, match="release demo: no pods in namespace rl"):
        cluster.look("demo")


def test_a_missing_kubectl_and_a_refusal_are_one_line(tmp_path: Any) -> None:
    with pytest.raises(ClusterError, match="not on PATH"):
        Cluster(binary=str(tmp_path / "none")).look("demo")
    kubectl = tmp_path / "kubectl"
    kubectl.write_text("#!/bin/sh\necho one >&2\necho 'pods is forbidden' >&2\nexit 1\n")
    kubectl.chmod(0o755)
    with pytest.raises(ClusterError, match=r"^kubectl get: pods is forbidden$"):
        Cluster(binary=str(kubectl)).look("demo")
