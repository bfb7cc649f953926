"""What `golongrl status` says of pods, processes and queue."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.kubeconfig import ClusterAccessError, ClusterError
from golongrl.kubernetes.look.gather import ReleaseLook, ask, look
from golongrl.kubernetes.look.pods import read_pods
from golongrl.kubernetes.look.queue import look_at_queue
from golongrl.kubernetes.look.refusals import read_runs
from golongrl.kubernetes.look.status import lines, stuck
from golongrl.queue import SampleQueue
from support.api_http import serving
from support.api_server import ApiServer
from support.groups import queue_settings


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
    (found,) = read_pods([pod("a", **status)])
    assert found.trouble == trouble


def test_pods_are_counted_and_sorted() -> None:
    restarts = {
        "initContainerStatuses": [{"name": "engine", "restartCount": 2}],
        "containerStatuses": [{"name": "worker", "restartCount": 1}],
    }
    found = read_pods([pod("b", **READY), pod("a", **READY, **restarts), pod("z", "learner", **READY)])
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
    assert read_runs(items, "demo") == [
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
            settings = queue_settings(2, max_bytes=1 << 20, lease_s=3600, stall_s=3600)
            await queue.setup(settings, [[0, 1, 2, 3]], ["T1"] * 4)
            await queue.beat(
                "rollout", "pod-a", {"phase": "waiting", "waiting_for": "the engine", "version": "0"}, 3600
            )
            await queue.lease("pod-a", 0)

    asyncio.run(fill())
    return run_name


def test_a_real_queue_is_shown(redis_url: str, run_with_queue: str) -> None:
    picture = json.loads(json.dumps(asyncio.run(look_at_queue(redis_url, run_with_queue))))
    text = "\n".join(lines(None, picture["queue"], picture["services"]))
    assert "leased 1, ready 0 of B = 2" in text
    assert "queue.max_staleness 1" in text
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


NAMESPACE = "rl"


def stored(item: dict[str, Any], kind: str = "Pod", version: str = "v1") -> dict[str, Any]:
    """An object of the release `demo` as the API server keeps it."""
    metadata = item["metadata"]
    labels = {"app.kubernetes.io/instance": "demo", **metadata.get("labels", {})}
    return {"apiVersion": version, "kind": kind, **item, "metadata": {**metadata, "namespace": "rl", "labels": labels}}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with serving(ApiServer()) as server:
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig", "rl")))
        yield server


def look_at(release: str = "demo", context: str | None = None) -> tuple[ReleaseLook, dict[str, Any] | None]:
    async def see() -> tuple[ReleaseLook, dict[str, Any] | None]:
        async with connect(context=context) as calls:
            seen = await look(calls, release)
            return seen, await ask(calls, seen.pods)

    return asyncio.run(see())


def test_a_release_is_asked_in_its_pods(api: ApiServer, redis_url: str, run_with_queue: str) -> None:
    """The command runs in a worker; what that prints is the answer of a real queue."""
    answer = json.dumps({"pods": None, **asyncio.run(look_at_queue(redis_url, run_with_queue))})
    asked: list[tuple[str, str, list[str]]] = []

    def command(pod: str, container: str, words: list[str]) -> tuple[int, str, str]:
        asked.append((pod, container, words))
        return (0, answer, "") if pod == "w-0" else (1, "", "error: no such run\n")

    api.commands = command
    for item in (pod("w-0", **READY), pod("r-0", "reward", **READY)):
        api.put(stored(item))
    seen, picture = look_at()
    assert ([found.name for found in seen.pods], seen.refused) == (["r-0", "w-0"], [])
    assert picture is not None
    assert picture["queue"]["leased"] == 1
    assert asked == [("w-0", "worker", ["golongrl", "status", "--json"])]
    api.remove(("v1", "pods", "rl", "w-0"))
    api.put(stored(pod("w-1", **READY)))
    assert look_at()[1] is None


def test_nothing_of_a_release_is_one_line(api: ApiServer) -> None:
    api.put(stored(pod("w-0", **READY)))
    with pytest.raises(ClusterError, match=r"^release other: nothing of it in namespace rl; `helm list -A`"):
        look_at("other")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        (403, r"API server http://127.0.0.1:\d+, namespace rl: list of pods: 403 pods is forbidden"),
        (401, r"list of pods: 401 pods is forbidden; log in again"),
        (500, r"list of pods: 500 "),
    ],
)
def test_a_refusal_is_one_line(api: ApiServer, code: int, line: str) -> None:
    api.refuse["pods", "list"] = code
    with pytest.raises(ClusterError, match=line) as refused:
        look_at()
    assert "\n" not in str(refused.value)


def test_a_command_that_fails_or_is_refused_is_one_line(api: ApiServer) -> None:
    async def run() -> None:
        async with connect() as calls:
            await calls.execute("w-0", "worker", ["golongrl", "status"])

    with pytest.raises(ClusterError, match="command in pod w-0, container worker: 500 "):
        asyncio.run(run())
    api.commands = lambda *_: (1, "", "one\nerror: no such run\n")
    with pytest.raises(ClusterError, match="the command failed: error: no such run"):
        asyncio.run(run())


def test_a_server_that_is_not_there_is_one_line(api: ApiServer, tmp_path: Path) -> None:
    api.url = "http://127.0.0.1:9"
    api.kubeconfig(tmp_path / "kubeconfig", "rl")
    with pytest.raises(ClusterError, match=r"API server http://127.0.0.1:9.*no answer \(ClientConnectorError") as error:
        look_at()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "no such file, and no service account of a pod: set KUBECONFIG"),
        ("", "cannot be used"),
        ("a: [", "not valid YAML"),
        ("- a", "cannot be used"),
        ("just words", "cannot be used"),
        ("{clusters: 1, contexts: 2}", "cannot be used"),
        ("current-context: gone\nclusters: []\ncontexts: []\nusers: []\n", "cannot be used"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used_is_one_line(
    text: str | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(path))
    with pytest.raises(ClusterAccessError, match=line) as error:
        look_at()
    assert f"kubeconfig {path}" in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_a_context_that_is_not_there_is_named_with_those_that_are(api: ApiServer) -> None:
    with pytest.raises(ClusterAccessError, match="no context prod; it has: fake"):
        look_at(context="prod")
    api.put(stored(pod("w-0", **READY)))
    assert look_at(context="fake")[0].pods
