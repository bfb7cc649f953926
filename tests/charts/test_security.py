"""Every pod of every switch obeys Pod Security `restricted`, and RDMA is the only, explicit, way out."""

import copy
import re
from typing import Any

import pytest

from support.chart_values import GPU_LEARNER, MATRIX, PRESETS, RAYJOBS, SGLANG
from support.helm import Helm, Manifest, Rendered, containers, pod_specs

# Volume types that `restricted` admits, and `image`, which newer servers admit too.
VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "image",
}  # fmt: skip
RDMA = [name for name, values in MATRIX.items() if values.get("network", {}).get("rdma", {}).get("enabled")]


def violations(objects: Rendered) -> list[str]:
    """What Pod Security `restricted` would refuse, each named by pod and container."""
    found: list[str] = []
    for name, _, spec in pod_specs(objects):
        pod = spec["securityContext"]
        for flag in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(flag):
                found.append(f"{name}: {flag}")
        for volume in spec.get("volumes", []):
            if not (set(volume) - {"name"}) <= VOLUMES:
                found.append(f"{name}: volume {volume}")
        for container in containers(spec):
            where, context = f"{name}/{container['name']}", container["securityContext"]
            capabilities = context.get("capabilities", {})
            checks: dict[str, Any] = {
                "runAsNonRoot": context.get("runAsNonRoot", pod.get("runAsNonRoot")) is True,
                "runAsUser": context.get("runAsUser", pod.get("runAsUser")) != 0,
                "seccomp": context.get("seccompProfile", pod.get("seccompProfile", {})).get("type") == "RuntimeDefault",
                "escalation": context.get("allowPrivilegeEscalation") is False,
                "privileged": not context.get("privileged"),
                "drop ALL": capabilities.get("drop") == ["ALL"],
                "added capabilities": not capabilities.get("add"),
                "hostPort": not any("hostPort" in port for port in container.get("ports", [])),
            }
            found += [f"{where}: {rule}" for rule, kept in checks.items() if not kept]
    return found


@pytest.mark.parametrize("name", [name for name in MATRIX if name not in RDMA])
def test_every_pod_is_restricted(helm4: Helm, name: str) -> None:
    assert violations(helm4.template(MATRIX[name])) == []


@pytest.mark.parametrize("preset", PRESETS)
def test_every_pod_of_a_preset_is_restricted_without_rdma(helm4: Helm, preset: str) -> None:
    assert violations(helm4.template(files=(preset,))) == []


def test_the_check_sees_what_it_should(helm4: Helm) -> None:
    """RDMA is refused by `restricted`, for engines and ranks alone and for nothing but root and IPC_LOCK."""
    found = violations(helm4.template(files=(PRESETS[0], "values-rdma.yaml")))
    assert {line.partition(": ")[2] for line in found} == {"runAsNonRoot", "runAsUser", "added capabilities"}
    assert {line.partition(": ")[0].rpartition("/")[2] for line in found} == {"engine", "ray-worker"}
    objects = helm4.template(files=(PRESETS[0], "values-rdma.yaml"))
    added = [
        c["securityContext"]["capabilities"].get("add") for _, _, spec in pod_specs(objects) for c in containers(spec)
    ]
    assert {tuple(capabilities) for capabilities in added if capabilities} == {("IPC_LOCK",)}


@pytest.mark.parametrize("preset", PRESETS)
def test_both_ends_of_a_broadcast_are_on_the_same_network(helm4: Helm, preset: str) -> None:
    """The sender, in the first rank's container, and the engines are one NCCL group: one interface, one GID, RDMA on
    both, and memory that both may pin."""
    objects = helm4.template({"recipe": {"learner": {"weights": "broadcast"}}}, files=(preset, "values-rdma.yaml"))
    ends = {c["name"]: c for _, _, spec in pod_specs(objects) for c in containers(spec)}
    rank, engine = ends["ray-worker"], ends["engine"]
    for end in (rank, engine):
        assert end["resources"]["limits"]["rdma/hca"] == "1"
        assert end["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]
    network = [
        {entry["name"]: entry["value"] for entry in end["env"] if entry["name"].startswith(("NCCL", "GLOO"))}
        for end in (rank, engine)
    ]
    assert network[0] == network[1]
    assert network[0].keys() == {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "NCCL_IB_GID_INDEX"}


@pytest.mark.parametrize("name", MATRIX)
def test_every_pod_keeps_the_house_rules(helm4: Helm, name: str) -> None:
    for pod, metadata, spec in pod_specs(helm4.template(MATRIX[name])):
        assert spec["automountServiceAccountToken"] is False, pod
        assert spec["enableServiceLinks"] is False, pod
        assert metadata["labels"]["app.kubernetes.io/instance"] == "demo", pod
        for container in containers(spec):
            where = f"{pod}/{container['name']}"
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
            assert container["resources"]["requests"] or container["resources"]["limits"], where
            mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
            assert mounts & {"/tmp", "/store"}, where
            names = [entry["name"] for entry in container.get("env", [])]
            assert len(names) == len(set(names)), where


def test_no_object_lets_a_workload_call_the_kubernetes_api(helm4: Helm) -> None:
    objects = helm4.template(MATRIX["everything-observed"])
    accounts = {account["metadata"]["name"] for account in objects.of("ServiceAccount")}
    assert all(account["automountServiceAccountToken"] is False for account in objects.of("ServiceAccount"))
    bound = {subject["name"] for binding in objects.of("RoleBinding") for subject in binding["subjects"]}
    assert not bound & accounts
    assert not objects.of("ClusterRole")
    for rule in objects.one("Role")["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]


def test_no_secret_is_in_plain_text(helm4: Helm) -> None:
    def plain(container: Manifest) -> list[str]:
        return [
            entry["name"]
            for entry in container.get("env", [])
            if any(word in entry["name"] for word in ("PASSWORD", "TOKEN", "KEY", "AUTH")) and "valueFrom" not in entry
        ]

    for _, _, spec in pod_specs(helm4.template(MATRIX["hub-model"])):
        for container in containers(spec):
            assert plain(container) == []


HUB, METRICS = ("hf", "token"), ("wandb", "k")
REDIS, REWARD, ENGINE, ADMIN = (
    ("demo-golongrl-auth", key) for key in ("redis-password", "reward-token", "engine-api-key", "engine-admin-api-key")
)
# Container -> the secrets of its work, and no other: what a download or a rank runs is not all ours.
SECRETS: dict[str, set[tuple[str, str]]] = {
    "redis": {REDIS},
    "reward": {REWARD},
    "wait-for-weights": set(),
    "engine": {ENGINE, ADMIN},
    "worker": {REDIS, REWARD, ENGINE, ADMIN},
    "download-model": {HUB},
    "download-dataset": {HUB},
    "prepare-data": {HUB},
    "learner": {REDIS, HUB, METRICS},
    "ray-head": {REDIS, HUB, METRICS},
    "ray-worker": set(),
    "submitter": set(),
    "operator": {REDIS},
    "smoke": {REDIS, REWARD},
    "evaluation": {("judge", "api-key")},
}


def secrets(container: Manifest) -> set[tuple[str, str]]:
    sources = [entry["valueFrom"] for entry in container.get("env", []) if "valueFrom" in entry]
    refs = [source["secretKeyRef"] for source in sources if "secretKeyRef" in source]
    return {(ref["name"], ref["key"]) for ref in refs}


def test_every_container_has_the_secrets_of_its_work_alone(helm4: Helm) -> None:
    hub = MATRIX["hub-model"]
    gpus = {**hub, "recipe": {**hub["recipe"], "learner": {"ranks": 16}}, "learner": GPU_LEARNER["learner"]}
    switches = ({**hub, "learner": {"mode": "job"}}, hub, gpus, {**gpus, **SGLANG}, {**hub, **MATRIX["operator"]},
                MATRIX["learner-off"])  # fmt: skip
    seen = set()
    for values in switches:
        for name, _, spec in pod_specs(helm4.template(values)):
            assert not [volume for volume in spec["volumes"] if "secret" in volume], name
            for container in containers(spec):
                where = f"{name}/{container['name']}"
                assert "envFrom" not in container, where
                assert secrets(container) == SECRETS[container["name"]], where
                seen.add(container["name"])
    assert seen == SECRETS.keys()


def test_an_engines_further_ranks_have_no_key(helm4: Helm) -> None:
    """They serve nobody: their node answers a health check alone."""
    group = helm4.template(MATRIX["engines-over-nodes"]).one("LeaderWorkerSet")["spec"]["leaderWorkerTemplate"]
    for role, keys in (("leaderTemplate", {ENGINE, ADMIN}), ("workerTemplate", set())):
        (engine,) = [item for item in containers(group[role]["spec"]) if item["name"] == "engine"]
        assert secrets(engine) == keys


BOUNDED = [({}, (preset, *rdma)) for preset in (*PRESETS, "values-gpu.yaml") for rdma in ((), ("values-rdma.yaml",))]
BOUNDED += [(values, ()) for values in MATRIX.values()]


@pytest.mark.parametrize(("values", "files"), BOUNDED)
def test_no_pod_can_fill_its_node(helm4: Helm, values: Manifest, files: tuple[str, ...]) -> None:
    """Every emptyDir has a size; what is mounted at /dev/shm, and nothing else, is memory."""
    needs_kuberay = files or "operator" in values or "workers" in values.get("learner", {})
    for kuberay in (True,) if needs_kuberay else (True, False):
        for name, _, spec in pod_specs(helm4.template(values, files=files, kuberay=kuberay)):
            mounts = {m["name"]: m["mountPath"] for c in containers(spec) for m in c["volumeMounts"]}
            for volume in spec["volumes"]:
                if "emptyDir" in volume:
                    where = f"{name}: {volume['name']}"
                    assert re.fullmatch(r"[1-9][0-9]*[MG]i", volume["emptyDir"]["sizeLimit"]), where
                    memory = volume["emptyDir"].get("medium") == "Memory"
                    if volume["name"] in mounts:
                        assert memory is (mounts[volume["name"]] == "/dev/shm"), where


def as_kuberay_makes_them(job: Manifest) -> Rendered:
    """The RayJob with the containers that KubeRay 1.7's operator adds: a wait for the head in every worker, made from
    the worker's own container, and in SidecarMode a submitter beside the head, which takes the head's image alone."""
    job = copy.deepcopy(job)
    cluster = job["spec"].get("rayClusterSpec", {})
    for group in cluster.get("workerGroupSpecs", []):
        spec = group["template"]["spec"]
        taken = ("image", "imagePullPolicy", "securityContext", "env", "volumeMounts")
        own = {key: spec["containers"][0][key] for key in taken}
        resources = {part: {"cpu": "200m", "memory": "256Mi"} for part in ("requests", "limits")}
        spec.setdefault("initContainers", []).append({"name": "wait-gcs-ready", "resources": resources, **own})
    if job["spec"]["submissionMode"] == "SidecarMode":
        containers_of_head = cluster["headGroupSpec"]["template"]["spec"]["containers"]
        containers_of_head.append(
            {"name": "ray-job-submitter", "image": containers_of_head[0]["image"], "securityContext": {}}
        )
    return Rendered([job])


@pytest.mark.parametrize("name", [name for name in RAYJOBS if name not in RDMA])
def test_the_pods_that_kuberay_makes_are_restricted_but_for_its_own_sidecar(helm4: Helm, name: str) -> None:
    job = helm4.template(MATRIX[name]).one("RayJob")
    found = violations(as_kuberay_makes_them(job))
    sidecar = job["spec"]["submissionMode"] == "SidecarMode"
    assert {line.partition(": ")[0].rpartition("/")[2] for line in found} == (
        {"ray-job-submitter"} if sidecar else set()
    )


def test_ray_takes_only_requests_with_a_token(helm4: Helm) -> None:
    """Its dashboard runs any code that it is sent."""
    cluster = helm4.template().one("RayJob")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    off = helm4.template({"learner": {"tokenAuthentication": False}}).one("RayJob")
    assert "authOptions" not in off["spec"]["rayClusterSpec"]
