"""What `golongrl status --release` reads from the API server, and what it says where that refuses."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from golongrl.kubernetes.cluster_errors import ClusterError
from golongrl.kubernetes.look.queue import look_at_queue
from golongrl.kubernetes.look.refusals import read_refusals
from golongrl.kubernetes.look.runs import run_lines, run_problems
from golongrl.kubernetes.look.status import lines
from golongrl.queue import SampleQueue
from support.api_server import TRAINING_RUNS, ApiServer
from support.groups import queue_settings
from support.releases import READY, look_at, pod, stored


async def filled(redis_url: str, run: str) -> str:
    """What `golongrl status --json` prints in a pod."""
    async with SampleQueue.from_url(redis_url, run) as queue:
        settings = queue_settings(2, max_bytes=1 << 20, lease_s=3600, stall_s=3600)
        await queue.setup(settings, [[0, 1, 2, 3]], ["T1"] * 4)
        await queue.lease("w-0", 0)
    return json.dumps({"pods": None, **await look_at_queue(redis_url, run)})


def test_a_release_is_asked_in_its_pods(api: ApiServer, redis_url: str, run_name: str) -> None:
    """The command runs in a worker; what that prints is the answer of a real queue."""
    answer = asyncio.run(filled(redis_url, run_name))
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
    seen, picture = look_at()
    assert picture is None
    assert seen.unknown[-1].endswith("container worker: failed: error: no such run")


def test_few_pods_are_asked_ready_ones_first_and_none_after_a_refusal(api: ApiServer) -> None:
    asked: list[str] = []

    def command(pod: str, container: str, words: list[str]) -> tuple[int, str, str]:
        asked.append(pod)
        return 0, "an older version's text", ""

    api.commands = command
    for number in range(9):
        api.put(stored(pod(f"w-{number}", **(READY if number > 6 else {"phase": "Running"}))))
    seen, picture = look_at()
    assert (picture, asked) == (None, ["w-7", "w-8", "w-0"])
    assert seen.unknown == [
        "pod w-0: `golongrl status --json` did not print what this version reads: does it run another one?"
    ]
    api.refuse["pods/exec", "get"] = 403
    assert "403" in look_at()[0].unknown[0]
    assert len(asked) == 3


def test_the_command_shows_the_whole_release(api: ApiServer, redis_url: str, run_name: str) -> None:
    answer = asyncio.run(filled(redis_url, run_name))
    api.commands = lambda *_: (0, answer, "")
    api.put(stored(pod("w-0", **READY)))
    line = [sys.executable, "-m", "golongrl", "status", "--release", "demo"]
    shown = subprocess.run(line, capture_output=True, text=True, timeout=240, check=True).stdout.splitlines()
    assert shown[0].split() == ["POD", "PART", "READY", "RESTARTS", "STATE"]
    assert shown[1].split() == ["w-0", "rollout", "yes", "0", "running"]
    assert shown[3].startswith("queue: version 0 (checkpoint 0), leased 1, ready 0 of 2 a step")
    assert shown[-1].startswith("stuck: no rollout worker reports")
    printed = subprocess.run([*line, "--json"], capture_output=True, text=True, timeout=240, check=True).stdout
    found = json.loads(printed)
    assert (found["pods"][0]["name"], found["queue"]["leased"], found["unknown"]) == ("w-0", 1, [])
    refused = subprocess.run([*line, "--context", "prod"], capture_output=True, text=True, timeout=240, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.endswith("no context prod; it has: fake\n")
    assert len(refused.stderr.splitlines()) == 1


def test_nothing_of_a_release_is_one_line(api: ApiServer) -> None:
    api.put(stored(pod("w-0", **READY)))
    with pytest.raises(
        ClusterError, match=r"^release other: nothing of it in .* of API server http\S+; releases here: demo$"
    ):
        look_at("other")


def test_a_namespace_without_any_release_says_where_to_look(api: ApiServer) -> None:
    with pytest.raises(ClusterError, match=r"nothing of it in namespace rl of API server .*; `helm list -A` shows"):
        look_at()


def run(name: str, release: str = "demo", **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"release": release}, "status": status}


def test_a_run_that_does_not_train_says_why() -> None:
    refused = [{"type": "Progressing", "status": "False", "reason": "Refused"}]
    items = [
        run("a", phase="Invalid", message="recipe: unknown key learner.stepz"),
        run("b", phase="Failed", message="all 2 restarts are used"),
        run("c", phase="Pending", message="RayJob x: forbidden", conditions=refused),
        run("d", phase="Running", message="RayJob y trains"),
        run("e", release="other", phase="Failed", message="not ours"),
        run("f"),
    ]
    assert list(run_problems(items, "demo", {"demo", "other"})) == [
        "trainingrun a: Invalid: recipe: unknown key learner.stepz",
        "trainingrun b: Failed: all 2 restarts are used",
        "trainingrun c: Pending: RayJob x: forbidden",
    ]


@pytest.mark.parametrize(
    ("served", "told"),
    [
        (
            {"demo"},
            ["trainingrun b: no operator serves its spec.release dmeo: operators here serve demo"],
        ),
        (
            set(),
            [
                "trainingrun a: release demo has no operator: helm upgrade with operator.enabled=true",
                "trainingrun b: no operator serves its spec.release dmeo: there is none in this namespace",
            ],
        ),
        (None, []),
    ],
)
def test_a_run_that_no_operator_serves_is_named(served: set[str] | None, told: list[str]) -> None:
    """The API server accepts any release's name, and nobody writes such a run's status."""
    assert list(run_problems([run("a"), run("b", "dmeo")], "demo", served)) == told


def operator(release: str) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": "operator", "app.kubernetes.io/instance": release}
    return stored({"metadata": {"name": f"{release}-operator", "labels": labels}, "spec": {}}, "Deployment", "apps/v1")


@pytest.mark.parametrize(("release", "problems"), [("demo", 0), ("dmeo", 1)])
def test_operators_are_found_by_their_deployments(api: ApiServer, release: str, problems: int) -> None:
    api.resources = api.resources | TRAINING_RUNS
    for item in (stored(pod("w-0", **READY)), operator("demo"), operator("prod")):
        api.put(item)
    asked = run("longer", release, phase="Running", step="3/40", message="RayJob x trains")
    api.put(stored(asked, "TrainingRun", "golongrl.io/v1alpha1"))
    seen = look_at()[0]
    assert len(seen.refused) == problems
    if problems:
        assert seen.refused == [
            "trainingrun longer: no operator serves its spec.release dmeo: operators here serve demo, prod"
        ]
    else:
        assert seen.runs == ["trainingrun longer: Running; step 3/40; RayJob x trains"]


CONTAINER = {
    "name": "learner",
    "env": [
        {"name": "A", "valueFrom": {"secretKeyRef": {"name": "hf", "key": "token"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "maybe", "key": "token", "optional": True}}},
        {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "x"}}},
        {"name": "D", "value": "plain"},
    ],
    "envFrom": [{"secretRef": {"name": "all"}}],
}
SPEC = {
    "containers": [CONTAINER],
    "priorityClassName": "high",
    "runtimeClassName": "gvisor",
    "serviceAccountName": "trainer",
    "imagePullSecrets": [{"name": "registry"}],
    "volumes": [
        {"name": "store", "persistentVolumeClaim": {"claimName": "mine"}},
        {"name": "auth", "secret": {"secretName": "auth"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {"storageClassName": "local"}}}},
        {"name": "vault", "csi": {"driver": "vault", "nodePublishSecretRef": {"name": "login"}}},
        {"name": "both", "projected": {"sources": [{"secret": {"name": "part"}}, {"configMap": {"name": "cm"}}]}},
    ],
}
NEEDED = {
    "secret hf", "configmap settings", "secret all", "priorityclass high", "runtimeclass gvisor",
    "serviceaccount trainer", "secret registry", "persistentvolumeclaim mine", "secret auth", "secret part",
    "configmap cm", "storageclass local", "secret login",
}  # fmt: skip


def owner(kind: str, version: str, spec: dict[str, Any], **status: Any) -> dict[str, Any]:
    return stored({"metadata": {"name": "x"}, "spec": spec, "status": status}, kind, version)


RAY = {"headGroupSpec": {"template": {"spec": SPEC}}}
FAILED = [{"type": "Failed", "status": "True"}]


@pytest.mark.parametrize(
    ("item", "needs"),
    [
        (owner("Job", "batch/v1", {"template": {"spec": SPEC}}, active=1), NEEDED),
        (owner("Job", "batch/v1", {"template": {"spec": SPEC}}, succeeded=1), set()),
        (owner("Job", "batch/v1", {"template": {"spec": SPEC}}, conditions=FAILED), set()),
        (owner("ReplicaSet", "apps/v1", {"replicas": 1, "template": {"spec": SPEC}}, replicas=1), NEEDED),
        (owner("ReplicaSet", "apps/v1", {"replicas": 0, "template": {"spec": SPEC}}), set()),
        (owner("RayJob", "ray.io/v1", {"rayClusterSpec": RAY}), NEEDED),
        (owner("RayJob", "ray.io/v1", {"rayClusterSpec": RAY}, jobDeploymentStatus="Complete"), set()),
        (
            owner("RayCluster", "ray.io/v1", {"workerGroupSpecs": [{"template": {"spec": SPEC}}]}, state="ready"),
            NEEDED,
        ),
        (
            owner(
                "StatefulSet",
                "apps/v1",
                {"template": {"spec": {}}, "volumeClaimTemplates": [{"spec": {"storageClassName": "f"}}]},
            ),
            {"storageclass f"},
        ),
        (
            owner("ScaledObject", "keda.sh/v1alpha1", {"triggers": [{"authenticationRef": {"name": "prom"}}, {},
                  {"authenticationRef": {"name": "all", "kind": "ClusterTriggerAuthentication"}}]}),
            {"triggerauthentication prom"},
        ),
        (owner("PersistentVolumeClaim", "v1", {"storageClassName": "fast"}, phase="Pending"), {"storageclass fast"}),
        (owner("PersistentVolumeClaim", "v1", {"storageClassName": "fast"}, phase="Bound"), set()),
    ],
)  # fmt: skip
def test_what_a_release_needs_and_is_missing_is_named(api: ApiServer, item: dict[str, Any], needs: set[str]) -> None:
    api.put(stored(pod("w-0", **READY)))
    api.put(item)
    user = f"{item['kind'].lower()} x"
    assert set(look_at()[0].refused) == {f"{name} does not exist: {user} needs it" for name in needs}


def test_what_exists_is_not_named_and_secrets_are_not_read(api: ApiServer) -> None:
    api.put(stored(pod("w-0", **READY)))
    api.put(owner("Job", "batch/v1", {"template": {"spec": {"imagePullSecrets": [{"name": "registry"}]}}}, active=1))
    api.put(stored({"metadata": {"name": "registry"}, "data": {"key": "aGlkZGVu"}}, "Secret"))
    assert look_at()[0].refused == []
    assert api.metadata_only == {"secrets"}


@pytest.mark.parametrize(
    ("spec", "phase", "told"),
    [
        ({"storageClassName": None}, "Pending", "Pending without a StorageClass: the cluster has no default one"),
        ({"storageClassName": ""}, "Pending", None),
        ({"storageClassName": "standard"}, "Lost", "Lost: its volume no longer exists"),
    ],
)
def test_a_claim_that_will_not_be_bound_is_named(
    api: ApiServer, spec: dict[str, Any], phase: str, told: str | None
) -> None:
    api.put(stored(pod("w-0", **READY)))
    api.put(stored({"metadata": {"name": "standard"}}, "StorageClass", "storage.k8s.io/v1"))
    api.put(owner("PersistentVolumeClaim", "v1", spec, phase=phase))
    assert look_at()[0].refused == ([f"persistentvolumeclaim x: {told}"] if told else [])


@pytest.mark.parametrize(
    ("plural", "verb"),
    [
        ("events", "list"), ("trainingruns", "list"), ("deployments", "list"), ("rayjobs", "list"),
        ("persistentvolumeclaims", "list"), ("secrets", "get"),
    ],
)  # fmt: skip
def test_what_may_not_be_read_is_listed_and_the_rest_is_shown(api: ApiServer, plural: str, verb: str) -> None:
    api.resources = api.resources | TRAINING_RUNS
    api.put(stored(pod("w-0", **READY)))
    api.put(owner("Job", "batch/v1", {"template": {"spec": {"imagePullSecrets": [{"name": "registry"}]}}}, active=1))
    api.refuse[plural, verb] = 403
    seen = look_at()[0]
    assert [found.name for found in seen.pods] == ["w-0"]
    line, asked = seen.unknown
    assert "command in pod w-0" in asked
    assert f"403 {plural} is forbidden" in line
    assert ("registry" in "".join(seen.refused)) == (verb == "list")


def test_a_kind_whose_webhook_does_not_answer_is_listed_and_the_rest_is_shown(api: ApiServer) -> None:
    api.put(stored(pod("w-0", **READY)))
    api.refuse["rayjobs", "list"] = 500
    seen = look_at()[0]
    assert [found.name for found in seen.pods] == ["w-0"]
    assert "500" in seen.unknown[0]


@pytest.mark.parametrize(
    "status", [{"conditions": "x", "phase": 5, "step": []}, {"conditions": [{"type": "Stuck"}, 3]}, "x"]
)
def test_a_status_of_another_form_hides_no_run(api: ApiServer, status: Any) -> None:
    api.resources = api.resources | TRAINING_RUNS
    api.put(stored(pod("w-0", **READY)))
    api.put(stored({**run("a"), "status": status}, "TrainingRun", "golongrl.io/v1alpha1"))
    assert look_at()[0].runs == ["trainingrun a: no operator has seen it"]


def test_a_refused_run_without_a_phase_is_named() -> None:
    refused = [{"type": "Progressing", "status": "False", "reason": "Refused"}]
    (line,) = run_problems([run("a", conditions=refused, message="a quota")], "demo", {"demo"})
    assert line == "trainingrun a: Refused: a quota"


@pytest.mark.parametrize(
    ("item", "held"),
    [
        (
            owner("RayJob", "ray.io/v1", {"suspend": True}, jobDeploymentStatus="Suspended"),
            "rayjob x is suspended: spec.suspend is set",
        ),
        (owner("Job", "batch/v1", {"suspend": True}), "job x is suspended: spec.suspend is set"),
        (
            stored(run("x", phase="Suspended"), "TrainingRun", "golongrl.io/v1alpha1"),
            "trainingrun x is suspended: spec.suspend is set",
        ),
    ],
)
def test_what_is_suspended_is_said_to_be(api: ApiServer, item: dict[str, Any], held: str) -> None:
    api.resources = api.resources | TRAINING_RUNS
    api.put(operator("demo"))
    api.put(item)
    assert look_at()[0].held == [held]


def test_a_suspended_run_beside_one_that_trains_holds_nothing(api: ApiServer) -> None:
    api.resources = api.resources | TRAINING_RUNS
    api.put(operator("demo"))
    for item in (run("a", phase="Suspended"), run("b", phase="Running")):
        api.put(stored(item, "TrainingRun", "golongrl.io/v1alpha1"))
    assert look_at()[0].held == []


def learner(kind: str, made: str = "1", owner: bool = False, **status: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": f"l-{made}", "labels": {"app.kubernetes.io/component": "learner"},
        "creationTimestamp": f"2026-01-01T00:00:0{made}Z",
    }  # fmt: skip
    if owner:
        metadata["ownerReferences"] = [{"kind": "TrainingRun", "uid": "u", "controller": True}]
    version = "ray.io/v1" if kind == "RayJob" else "batch/v1"
    return stored({"metadata": metadata, "spec": {}, "status": status}, kind, version)


GAVE_UP = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": "it was reached"}
BOOM = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "boom\nat x"}
WELL = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}


@pytest.mark.parametrize(
    ("items", "done", "failed"),
    [
        ([learner("RayJob", **BOOM)], "", ["rayjob l-1 failed: AppFailed: boom at x"]),
        (
            [learner("RayJob", jobDeploymentStatus="Complete", jobStatus="STOPPED")],
            "",
            ["rayjob l-1 failed: STOPPED"],
        ),
        (
            [learner("Job", conditions=[GAVE_UP])],
            "",
            ["job l-1 failed: BackoffLimitExceeded: it was reached"],
        ),
        ([learner("RayJob", **WELL)], "done: rayjob l-1 is complete", []),
        ([learner("Job", conditions=[{"type": "Complete", "status": "True"}])], "done: job l-1 is complete", []),
        # While it runs or is retried, and where a newer one is what counts.
        ([learner("RayJob", jobDeploymentStatus="Retrying", jobStatus="FAILED")], "", []),
        ([learner("Job", active=1, failed=2)], "", []),
        ([learner("RayJob", "1", **BOOM), learner("RayJob", "2", jobDeploymentStatus="Running")], "", []),
        ([learner("RayJob", "1", **BOOM), learner("RayJob", "2", **WELL)], "done: rayjob l-2 is complete", []),
        (
            [learner("RayJob", "1", **WELL), learner("RayJob", "2", **BOOM)],
            "",
            ["rayjob l-2 failed: AppFailed: boom at x"],
        ),
        # The TrainingRun says what it does about it.
        ([learner("RayJob", owner=True, **BOOM)], "", []),
    ],
)  # fmt: skip
def test_how_the_learners_job_ended_is_said_when_nobody_else_can(
    api: ApiServer, items: list[dict[str, Any]], done: str, failed: list[str]
) -> None:
    """Events are gone after an hour, and a finished loop may have no pod left to ask."""
    for item in items:
        api.put(item)
    seen = look_at()[0]
    assert (seen.done, seen.refused) == (done, failed)
    told = list(lines(seen.pods, None, None, seen.refused, done=seen.done))
    assert told[-1] == (done or "queue state unknown: no running worker or learner answered")


def test_a_job_that_kueue_has_not_admitted_names_its_queue(api: ApiServer) -> None:
    job = owner("RayJob", "ray.io/v1", {"suspend": True}, jobDeploymentStatus="Suspended")
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "evening"
    api.put(job)
    held = ["rayjob x is suspended: Kueue's queue evening has not admitted it"]
    seen = look_at()[0]
    assert (seen.held, seen.refused) == (held, ["localqueue evening does not exist: rayjob x needs it"])
    api.put(stored({"metadata": {"name": "evening"}}, "LocalQueue", "kueue.x-k8s.io/v1beta2"))
    assert (look_at()[0].held, look_at()[0].refused) == (held, [])
    job["spec"] = {}  # Without Kueue nobody has suspended it.
    job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "other"
    api.put(job)
    assert look_at()[0].refused == []


def test_a_run_that_only_its_finalizers_keep_says_so() -> None:
    metadata = {"name": "r", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["backup.example/wait", "b"]}
    item = {"metadata": metadata, "status": {"phase": "Running", "step": "3/40"}}
    (line,) = run_lines([item])
    assert line == "trainingrun r: is being deleted, which waits for its finalizers: backup.example/wait, b; step 3/40"
    del metadata["finalizers"]
    assert next(run_lines([item])) == "trainingrun r: is being deleted; step 3/40"


@pytest.mark.parametrize(
    ("states", "named"),
    [
        ([{"waiting": {"reason": "ContainerCreating"}}], True),
        ([{"waiting": {"reason": "PodInitializing"}}, {"waiting": {"reason": "PodInitializing"}}], True),
        ([{"running": {}}, {"waiting": {"reason": "PodInitializing"}}], False),
        ([{"waiting": {"reason": "ImagePullBackOff"}}], False),
        ([{"running": {}}], False),
    ],
)
def test_a_volume_that_cannot_be_mounted_is_named(api: ApiServer, states: list[dict[str, Any]], named: bool) -> None:
    """The pod says nothing but Pending; of a pod that is past that, the event is history."""
    entries = [{"name": f"c-{number}", "state": state} for number, state in enumerate(states)]
    api.put(stored(pod("w-0", phase="Pending", containerStatuses=entries)))
    event = {
        "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "FailedAttachVolume",
        "message": "Multi-Attach error for volume pvc-1", "metadata": {"name": "w-0.1", "namespace": "rl"},
        "involvedObject": {"kind": "Pod", "name": "w-0"},
    }  # fmt: skip
    api.put(event)
    line = "pod w-0: FailedAttachVolume: Multi-Attach error for volume pvc-1"
    assert (line in look_at()[0].refused) == named


@pytest.mark.parametrize("kind", ["RayJob", "Job"])
def test_the_end_of_an_older_learner_is_history(kind: str) -> None:
    """Its events are there for an hour, and it is for ever, while a newer one trains."""
    jobs = [learner(kind, "1", conditions=[GAVE_UP], **BOOM), learner(kind, "2")]
    about = [{"involvedObject": {"kind": kind, "name": f"l-{made}"}, "reason": "Failed"} for made in "12"]
    assert read_refusals(jobs, about) == [f"{kind.lower()} l-2: Failed: "]
    assert read_refusals(jobs[:1], about) == [f"{kind.lower()} l-1: Failed: "]


MADE, AGAIN = "2026-01-01T00:00:05Z", "2026-01-01T00:10:00Z"


@pytest.mark.parametrize(
    ("item", "event", "named"),
    [
        # A retry, and what Kueue or a person has resumed, begin again.
        (learner("RayJob", "5", startTime=AGAIN), {"lastTimestamp": "2026-01-01T00:08:59Z"}, False),
        (learner("RayJob", "5", startTime=AGAIN), {"lastTimestamp": AGAIN}, True),
        (learner("Job", "5", startTime=AGAIN), {"lastTimestamp": MADE}, False),
        (learner("RayJob", "5"), {"eventTime": "2026-01-01T00:00:05.000001Z", "lastTimestamp": None}, True),
        # By a clock that is late.
        (learner("RayJob", "5"), {"eventTime": "2025-12-31T23:59:06Z"}, True),
        # An earlier object of this name, and one that was told of again.
        (learner("RayJob", "5"), {"eventTime": "2025-12-31T23:59:04.999999Z"}, False),
        (
            learner("RayJob", "5"),
            {"eventTime": "2026-01-01T00:00:00Z", "series": {"lastObservedTime": "2026-01-01T00:20:00.5Z"}},
            True,
        ),
        ({**learner("RayJob", "5"), "spec": {"suspend": True}}, {"lastTimestamp": AGAIN}, False),
        ({**learner("Job", "5"), "spec": {"suspend": True}}, {"lastTimestamp": AGAIN}, False),
    ],
)
def test_a_warning_of_an_earlier_attempt_is_history(item: dict[str, Any], event: dict[str, Any], named: bool) -> None:
    about = {"kind": item["kind"], "name": item["metadata"]["name"]}
    told = read_refusals([item], [{"involvedObject": about, "reason": "No", "message": "why", **event}])
    assert told == ([f"{about['kind'].lower()} {about['name']}: No: why"] if named else [])


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01T00:00:05", ""])
def test_a_warning_without_a_time_is_told(api: ApiServer, time: str) -> None:
    api.put(stored(pod("w-0", **READY)))
    api.put(owner("ReplicaSet", "apps/v1", {"replicas": 2, "template": {"spec": {}}}, replicas=1))
    about = {"involvedObject": {"kind": "ReplicaSet", "name": "x"}, "type": "Warning", "reason": "No", "message": "why"}
    api.put(stored({"metadata": {"name": "e"}, **about, "lastTimestamp": time}, "Event"))
    assert look_at()[0].refused == ["replicaset x: No: why"]


def part(kind: str, version: str, component: str = "rollout", spec: Any = None, **status: Any) -> dict[str, Any]:
    item = owner(kind, version, spec or {}, **status)
    item["metadata"]["labels"] |= {"app.kubernetes.io/component": component, "app.kubernetes.io/part-of": "golongrl"}
    return item


def since(item: dict[str, Any], key: str, minutes: int, **metadata: Any) -> dict[str, Any]:
    time = (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {**item, "metadata": {**item["metadata"], key: time, **metadata}}


READY_ONCE = {"state": "ready", "desiredWorkerReplicas": 2, "readyWorkerReplicas": 2}
HEADLESS = {"type": "HeadPodReady", "status": "False", "reason": "HeadPodNotFound"}
REFUSED = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
NO_SET = {"type": "Progressing", "status": "False", "reason": "ReplicaSetCreateError", "message": "exceeded quota"}
SET = "leaderworkerset.x-k8s.io/v1"


@pytest.mark.parametrize(
    ("item", "event", "told"),
    [
        # Once it was ready KubeRay's state stays so, also without its pods.
        (
            part("RayCluster", "ray.io/v1", **READY_ONCE | {"readyWorkerReplicas": 1}),
            "RayCluster/x",
            ["raycluster x: No: why"],
        ),
        (
            part("RayCluster", "ray.io/v1", **READY_ONCE, conditions=[HEADLESS]),
            "RayCluster/x",
            ["raycluster x: No: why"],
        ),
        (part("RayCluster", "ray.io/v1", **READY_ONCE), "RayCluster/x", []),
        (part("LeaderWorkerSet", SET, spec={"replicas": 2}), "StatefulSet/x", ["leaderworkerset x: No: why"]),
        (part("LeaderWorkerSet", SET, spec={"replicas": 2}), "StatefulSet/x-11", ["leaderworkerset x: No: why"]),
        (part("LeaderWorkerSet", SET, spec={"replicas": 2}), "StatefulSet/x-y", []),
        (part("LeaderWorkerSet", SET, spec={"replicas": 2}, readyReplicas=2), "StatefulSet/x", []),
        # The event of an hour ago is gone, or never came.
        (
            part("ReplicaSet", "apps/v1", spec={"replicas": 1}, conditions=[REFUSED]),
            "",
            ["replicaset x: FailedCreate: exceeded quota"],
        ),
        (
            part("Deployment", "apps/v1", spec={"replicas": 1}, conditions=[NO_SET]),
            "",
            ["deployment x: ReplicaSetCreateError: exceeded quota"],
        ),
        # Its ReplicaSet says this one.
        (part("Deployment", "apps/v1", spec={"replicas": 1}, conditions=[REFUSED]), "", []),
    ],
)
def test_what_may_not_be_made_is_named(api: ApiServer, item: dict[str, Any], event: str, told: list[str]) -> None:
    api.put(item)
    kind, _, name = event.partition("/")
    warning = {"type": "Warning", "reason": "No", "message": "why", "metadata": {"name": "e", "namespace": "rl"}}
    api.put({"apiVersion": "v1", "kind": "Event", **warning, "involvedObject": {"kind": kind, "name": name}})
    assert look_at()[0].refused == told


CREATED, DELETED = "creationTimestamp", "deletionTimestamp"


@pytest.mark.parametrize(
    ("item", "moment", "minutes", "told"),
    [
        (part("StatefulSet", "apps/v1", "redis", {"replicas": 0}), CREATED, 1, "statefulset x: has no pod, because"),
        (part("Deployment", "apps/v1", "operator", {"replicas": 0}), CREATED, 1, "deployment x: has no pod, because"),
        # The operator and KEDA do this to a pool.
        (part("Deployment", "apps/v1", "rollout", {"replicas": 0}), CREATED, 1, ""),
        (part("RayJob", "ray.io/v1"), CREATED, 10, "rayjob x: KubeRay has not looked at it since"),
        (part("RayJob", "ray.io/v1"), CREATED, 1, ""),
        (part("RayJob", "ray.io/v1", spec={"suspend": True}), CREATED, 10, ""),
        (part("RayJob", "ray.io/v1", jobDeploymentStatus="Running"), CREATED, 10, ""),
        (part("RayCluster", "ray.io/v1"), DELETED, 20, "raycluster x: should be deleted since"),
        (part("RayCluster", "ray.io/v1", **READY_ONCE), DELETED, 2, ""),
        (
            part("PersistentVolumeClaim", "v1", phase="Bound"),
            DELETED,
            2,
            "persistentvolumeclaim x: is being deleted: it goes, with its data, once no pod uses it",
        ),
    ],
)
def test_what_is_stopped_unseen_or_never_gone_is_named(
    api: ApiServer, item: dict[str, Any], moment: str, minutes: int, told: str
) -> None:
    api.put(stored(pod("w-0", **READY)))
    api.put(since(item, moment, minutes, finalizers=["a/b", "c"]))
    (line,) = look_at()[0].refused or [""]
    assert line.startswith(told)
    assert bool(line) == bool(told)
    if "should be deleted" in told:
        assert line.endswith(": it waits for its finalizers: a/b, c")
