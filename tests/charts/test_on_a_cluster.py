"""What API server, scheduler, kubelet and operators make of the chart's objects, as far as it can be computed.

Each test names the surprise it guards against: one that a rendering alone does not show.
"""

import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from support.chart_values import GPU_LEARNER, MATRIX, PRESETS, SGLANG
from support.helm import Helm, Manifest, Rendered, containers, pod_specs
from support.redis_server import free_port

_BINARY = {"": 0, "Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_DECIMAL = {"n": -3, "u": -2, "m": -1, "": 0, "k": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6}


def amount(text: str) -> Decimal:
    """A Kubernetes quantity in bytes, cores or pieces."""
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text).groups()  # type: ignore[union-attr]
    factor = Decimal(1024) ** _BINARY[suffix] if suffix in _BINARY else Decimal(1000) ** _DECIMAL[suffix]
    return Decimal(number) * factor


def canonical(text: str) -> str:
    """A quantity as Kubernetes' Go types write it: the largest unit of its own kind that leaves a whole number."""
    value = amount(text)
    binary = text.endswith("i")
    base, units = (Decimal(1024), _BINARY) if binary else (Decimal(1000), _DECIMAL)
    for suffix, power in sorted(units.items(), key=lambda unit: -unit[1]):
        scaled = value / base**power
        if scaled == scaled.to_integral_value():
            return f"{int(scaled)}{suffix}"
    raise AssertionError(text)


def test_canonical_quantities_are_gos() -> None:
    known = {"1": "1", "1000m": "1", "0.5": "500m", "1024Mi": "1Gi", "1536Mi": "1536Mi", "2000M": "2G", "10Gi": "10Gi"}
    assert {text: canonical(text) for text in known} == known


def amounts(objects: Rendered) -> Iterator[tuple[str, Any]]:
    for name, _, spec in pod_specs(objects.of("RayJob")):
        for item in containers(spec):
            for part in item["resources"].values():
                yield from ((f"{name}/{item['name']}: {key}", value) for key, value in part.items())
        for volume in spec["volumes"]:
            if "sizeLimit" in volume.get("emptyDir", {}):
                yield f"{name}: {volume['name']}", volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize("files", [(), *[(preset, "values-rdma.yaml") for preset in PRESETS], ("values-gpu.yaml",)])
def test_kuberay_writes_every_quantity_of_a_rayjob_back_unchanged(helm4: Helm, files: tuple[str, ...]) -> None:
    """Its operator reads and writes whole objects. An amount that it writes differently (8 as "8") becomes its field,
    and the next `helm upgrade` by server-side apply fails with a conflict."""
    found = list(amounts(helm4.template(files=files)))
    assert found
    for name, value in found:
        assert isinstance(value, str), name
        assert value == canonical(value), name


# Fields that Go keeps when they are false or zero, because they are pointers.
POINTERS = {
    "allowPrivilegeEscalation",
    "runAsNonRoot",
    "runAsUser",
    "automountServiceAccountToken",
    "enableServiceLinks",
}


def dropped_by_go(item: Any, path: str = "") -> Iterator[str]:
    """Values that typed Go code reads and does not write again; a container's missing `resources` it adds."""
    if isinstance(item, dict):
        if isinstance(item.get("image"), str) and "resources" not in item:
            yield f"{path}: no resources"
        for key, value in item.items():
            if value in ("", None, [], False, 0) and key not in POINTERS:
                yield f"{path}.{key}"
            yield from dropped_by_go(value, f"{path}.{key}")
    elif isinstance(item, list):
        for index, value in enumerate(item):
            yield from dropped_by_go(value, f"{path}[{index}]")


@pytest.mark.parametrize("name", [name for name in MATRIX if name not in ("learner-off", "learner-job")])
def test_kuberay_writes_every_pod_of_a_rayjob_back_unchanged(helm4: Helm, name: str) -> None:
    """The lists of a custom resource are one field each: a container that loses or gains a key is the whole list's
    change, and then the operator's."""
    for pod, _, spec in pod_specs(helm4.template(MATRIX[name]).of("RayJob")):
        assert list(dropped_by_go(spec)) == [], pod


def test_numbers_in_values_become_text(helm: Helm) -> None:
    resources = {"requests": {"cpu": 2, "memory": 4294967296}, "limits": {"memory": "8Gi"}}
    head = helm.template({"learner": {"head": {"resources": resources}}}).one("RayJob")
    (container,) = head["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "4294967296"}, "limits": {"memory": "8Gi"}}


GANG_LABELS = {
    "kueue": {"kueue.x-k8s.io/queue-name": "q"},
    "volcano": {"ray.io/scheduler-name": "volcano", "volcano.sh/queue-name": "q"},
    "yunikorn": {
        "ray.io/scheduler-name": "yunikorn",
        "ray.io/gang-scheduling-enabled": "true",
        "yunikorn.apache.org/app-id": "demo-golongrl-learner",
        "yunikorn.apache.org/queue": "q",
    },
}


@pytest.mark.parametrize("scheduler", GANG_LABELS)
def test_gang_labels_are_those_that_kuberay_and_the_schedulers_read(helm4: Helm, scheduler: str) -> None:
    job = helm4.template(MATRIX[scheduler]).one("RayJob")
    labels = {key: value for key, value in job["metadata"]["labels"].items() if key in GANG_LABELS[scheduler]}
    assert labels == GANG_LABELS[scheduler]
    others = {key for name, known in GANG_LABELS.items() if name != scheduler for key in known} - labels.keys()
    assert not others & job["metadata"]["labels"].keys()


def test_an_upgrade_never_stops_a_job_that_kueue_let_go(helm4: Helm) -> None:
    """Kueue's webhook suspends a new job and its controller resumes it: a `suspend` of ours would be put back (Helm 3)
    or fail the upgrade (Helm 4). What Kueue asks of a RayJob holds."""
    job = helm4.template(MATRIX["kueue"]).one("RayJob")["spec"]
    assert "suspend" not in job
    assert job["shutdownAfterJobFinishes"] is True
    assert "enableInTreeAutoscaling" not in job["rayClusterSpec"]
    assert len(job["rayClusterSpec"]["workerGroupSpecs"]) <= 7
    plain = helm4.template({"learner": {"gang": {"scheduler": "kueue", "queue": "q"}}}, kuberay=False).one("Job")
    assert plain["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"
    assert "suspend" not in plain["spec"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"learner": {"clusterSelector": "c", "gang": {"scheduler": "kueue", "queue": "q"}}},
            "learner.gang: an existing cluster cannot be gang scheduled",
        ),
        (
            {"learner": {"clusterSelector": "c", "submissionMode": "SidecarMode"}},
            "learner.submissionMode: SidecarMode does not work with an existing cluster",
        ),
        ({"rollout": {"maxUnavailable": 0}}, "rollout.maxUnavailable: must be at least 1"),
        ({"rollout": {"maxUnavailable": "0%"}}, "rollout.maxUnavailable: must be at least 1"),
        ({"storage": {"accessModes": ["ReadWriteOncePod"]}}, "ReadWriteMany"),
    ],
)
def test_what_a_server_would_refuse_or_hang_on_is_refused_in_words(
    helm: Helm, values: dict[str, Any], message: str
) -> None:
    assert message in helm.refusal(values)


@pytest.mark.parametrize("api", ["ray.io/v1", "ray.io/v1/RayJob"])
def test_kuberay_is_recognised_by_group_and_by_kind(helm: Helm, api: str) -> None:
    """`helm template --api-versions` knows what it is told: people give the group alone."""
    chart = str(Path(__file__).parents[2] / "charts" / "golongrl")
    done = helm.run("template", "demo", chart, "--api-versions", api, "-s", "templates/learner/rayjob.yaml")
    assert "kind: RayJob" in done.stdout, done.stderr


# Labels of KubeRay's operator, by its own chart and by its kustomization.
OPERATORS: list[dict[str, str]] = [
    {"app.kubernetes.io/name": "kuberay-operator", "app.kubernetes.io/component": "kuberay-operator"},
    {"app.kubernetes.io/name": "kuberay", "app.kubernetes.io/component": "kuberay-operator"},
]


@pytest.mark.parametrize("labels", OPERATORS, ids=["chart", "kustomize"])
def test_kuberays_operator_reaches_the_dashboard_however_it_was_installed(helm4: Helm, labels: dict[str, str]) -> None:
    """Refused, it never submits and the job waits for ever."""
    ingress = helm4.template().one("NetworkPolicy", "-learner")["spec"]["ingress"]
    (rule,) = [rule for rule in ingress if rule.get("ports") == [{"port": 8265, "protocol": "TCP"}]]
    elsewhere, here = rule["from"]
    for peer in (elsewhere, here):
        assert peer["podSelector"]["matchLabels"].items() <= labels.items()
    (namespaces,) = elsewhere["namespaceSelector"]["matchExpressions"]
    assert (namespaces["key"], namespaces["operator"]) == ("kubernetes.io/metadata.name", "In")
    assert {"default", "kuberay-operator"} <= set(namespaces["values"])
    assert "namespaceSelector" not in here


def test_the_viewer_may_exec_over_websockets_too(helm4: Helm) -> None:
    rules = helm4.template(MATRIX["everything-observed"]).one("Role")["rules"]
    (execs,) = [rule for rule in rules if rule["resources"] == ["pods/exec"]]
    assert execs["verbs"] == ["get", "create"]


def test_what_no_value_reaches_obeys_a_quota_of_cpu_limits(helm4: Helm) -> None:
    """In a namespace whose ResourceQuota counts limits.cpu a container without one is refused."""
    limited = {
        item["name"]: item["resources"]["limits"]
        for _, _, spec in pod_specs(helm4.template())
        for item in containers(spec)
        if item["name"] in ("wait-for-weights", "smoke")
    }
    assert limited.keys() == {"wait-for-weights", "smoke"}
    assert all({"cpu", "memory"} <= limits.keys() for limits in limited.values())


@pytest.mark.parametrize("files", [(), *[(preset,) for preset in PRESETS], ("values-gpu.yaml",)])
def test_rays_object_store_fits_shared_memory(helm4: Helm, files: tuple[str, ...]) -> None:
    """Ray takes 30% of the pod's memory, at most what /dev/shm has or 10 GB; more than /dev/shm has goes to disk."""
    for kuberay in (True, False) if not files else (True,):
        for name, _, spec in pod_specs(helm4.template(files=files, kuberay=kuberay)):
            for item in spec["containers"]:
                if item["name"] not in ("ray-head", "ray-worker", "learner"):
                    continue
                (shm,) = [amount(v["emptyDir"]["sizeLimit"]) for v in spec["volumes"] if v["name"] == "shm"]
                wanted = amount(item["resources"]["limits"]["memory"]) * Decimal("0.3")
                store = min(wanted, max(Decimal(10**10), shm * Decimal("0.95")))
                assert store <= shm, f"{name}: {store} > {shm}"


def pods_with_the_volume(objects: Rendered) -> dict[str, Manifest]:
    return {
        name: spec
        for name, _, spec in pod_specs(objects)
        if any("persistentVolumeClaim" in volume for volume in spec.get("volumes", []))
        and any(volume["name"] == "store" for volume in spec["volumes"])
    }


@pytest.mark.parametrize("kuberay", [True, False])
def test_pods_of_a_volume_for_one_node_are_scheduled_on_one_node(helm: Helm, kuberay: bool) -> None:
    """On another node they would hang in a Multi-Attach error. Every pod that counts as a neighbour is itself bound."""
    objects = helm.template(kuberay=kuberay)
    users = pods_with_the_volume(objects)
    assert len(users) == 2
    bound = {name for name, _, spec in pod_specs(objects) if "affinity" in spec}
    for name, metadata, spec in pod_specs(objects):
        counts = metadata["labels"]["app.kubernetes.io/component"] in ("rollout", "learner")
        assert (name in bound) is counts, name
        if counts:
            (term,) = spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            assert term["topologyKey"] == "kubernetes.io/hostname"
            selector = term["labelSelector"]
            assert selector["matchLabels"].items() <= metadata["labels"].items()
            (expression,) = selector["matchExpressions"]
            assert metadata["labels"][expression["key"]] in expression["values"]
    assert users.keys() <= bound


@pytest.mark.parametrize(
    "values",
    [{"storage": {"accessModes": ["ReadWriteMany"]}}, {"storage": {"existingClaim": "shared"}}],
    ids=["many nodes", "own claim"],
)
def test_other_volumes_bind_no_pod(helm4: Helm, values: dict[str, Any]) -> None:
    assert not [name for name, _, spec in pod_specs(helm4.template(values)) if "affinity" in spec]


def test_own_affinity_replaces_the_charts(helm4: Helm) -> None:
    mine = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    objects = helm4.template({name: {"affinity": mine} for name in ("rollout", "learner")})
    assert all(spec["affinity"] == mine for spec in pods_with_the_volume(objects).values())


def engine_script(objects: Rendered, role: str) -> str:
    spec = objects.one("LeaderWorkerSet")["spec"]["leaderWorkerTemplate"][f"{role}Template"]["spec"]
    (engine,) = [item for item in containers(spec) if item["name"] == "engine"]
    script: str = engine["args"][0]
    return script


def test_all_nodes_of_an_engine_start_from_the_leaders_weights(helm4: Helm, tmp_path: Path) -> None:
    """The real scripts in real shells: a version published after the leader has looked is not for the followers."""
    objects = helm4.template({"rollout": {**SGLANG["rollout"], "nodes": 2}})
    port, weights, fake = free_port(), tmp_path / "store" / "weights", tmp_path / "bin"
    fake.mkdir()
    launched = "import sys; print('launched', sys.argv[1:], flush=True)"
    (fake / "python3").write_text(
        f'#!/bin/sh\nif [ "$2" = sglang.launch_server ]; then exec {sys.executable} -c "{launched}" "$@"; fi\n'
        f'exec {sys.executable} "$@"\n'
    )
    (fake / "python3").chmod(0o755)
    (weights / "v1").mkdir(parents=True)
    (weights / "v1" / "manifest.json").touch()
    env = {
        "PATH": f"{fake}:{os.environ['PATH']}", "LWS_LEADER_ADDRESS": "127.0.0.1", "LWS_GROUP_SIZE": "2",
    }  # fmt: skip
    keys = {"GOLONGRL_ENGINE_API_KEY": "k", "GOLONGRL_ENGINE_ADMIN_API_KEY": "a"}
    scripts = {
        role: engine_script(objects, role)
        .replace("/store", str(tmp_path / "store"))
        .replace("/tmp/choice", str(tmp_path / "choice"))
        .replace("/dev/shm", str(tmp_path))
        .replace("20001", str(port))
        .replace("sleep 5", "sleep 0.1")
        for role in ("leader", "worker")
    }
    # The shell goes on as a process of its own, so that its server lives as long as the engine would.
    held = scripts["leader"].replace("exec python3", "python3") + "\nread line\n"
    leader = subprocess.Popen(
        ["sh", "-c", held, "engine"], env=env | keys | {"LWS_WORKER_INDEX": "0"}, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert leader.stdout is not None
        assert leader.stdout.readline() == f"starting from {weights / 'v1'}\n"
        _until_serving(port)
        (weights / "v2").mkdir()
        (weights / "v2" / "manifest.json").touch()
        follower = subprocess.run(
            ["sh", "-c", scripts["worker"], "engine"], env=env | {"LWS_WORKER_INDEX": "1"},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
    finally:
        os.killpg(leader.pid, 15)
        leader.wait(120)
    assert follower.returncode == 0, follower.stderr
    assert "--config" not in follower.stdout  # it serves nobody, and has no keys
    assert f"starting from {weights / 'v1'}" in follower.stdout
    assert f"'--model-path', '{weights / 'v1'}', '--weight-version', '1'" in follower.stdout


def _until_serving(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/folder")
            if connection.getresponse().status == 200:
                return
        except OSError:
            assert time.monotonic() < deadline, "the leader serves no choice"
            time.sleep(0.05)
        finally:
            connection.close()


def test_stateless_pods_spread_over_nodes_softly_unless_told_otherwise(helm4: Helm) -> None:
    """Over nodes that have room, by labels that match the pods themselves; never so that a pod cannot be placed."""
    for values, files in (({}, ()), ({}, (PRESETS[0],)), (MATRIX["engines-over-nodes"], ())):
        for name, metadata, spec in pod_specs(helm4.template(values, files=files)):
            component = metadata["labels"]["app.kubernetes.io/component"]
            constraints = spec.get("topologySpreadConstraints", [])
            assert len(constraints) == (component in ("reward", "rollout")), name
            for constraint in constraints:
                assert constraint["topologyKey"] == "kubernetes.io/hostname"
                assert constraint["whenUnsatisfiable"] == "ScheduleAnyway"
                assert constraint["labelSelector"]["matchLabels"].items() <= metadata["labels"].items()
    mine = [{"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]
    objects = helm4.template({"reward": {"topologySpreadConstraints": mine}})
    assert objects.one("Deployment", "-reward")["spec"]["template"]["spec"]["topologySpreadConstraints"] == mine


def test_sidecar_mode_says_what_pod_security_makes_of_it(helm4: Helm) -> None:
    """KubeRay's own submitter container has no security context and no template to give it one."""
    chart = str(Path(__file__).parents[2] / "charts" / "golongrl")
    notes = {
        mode: helm4.run(
            "install", "demo", chart, "--dry-run=client",
            "--set", f"learner.mode=rayjob,learner.submissionMode={mode}",
        ).stdout.partition("NOTES:")[2]
        for mode in ("SidecarMode", "K8sJobMode")
    }  # fmt: skip
    assert "refuses the head's pod" in notes["SidecarMode"]
    assert "refuses the head's pod" not in notes["K8sJobMode"]


def test_gpus_have_the_name_that_their_device_plugin_gives_them(helm4: Helm) -> None:
    engine = {**SGLANG["rollout"]["engine"], "gpuResource": "amd.com/gpu"}
    workers = {"replicas": 2, "gpus": 8, "gpuResource": "amd.com/gpu"}
    values = {"rollout": {"engine": engine}, "recipe": GPU_LEARNER["recipe"], "learner": {"workers": workers}}
    limits = [
        item["resources"].get("limits", {}) for _, _, s in pod_specs(helm4.template(values)) for item in containers(s)
    ]
    assert [part["amd.com/gpu"] for part in limits if "amd.com/gpu" in part] == ["8", "8"]
    assert not [part for part in limits if "nvidia.com/gpu" in part]
