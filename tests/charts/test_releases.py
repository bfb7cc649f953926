"""The real helm, both majors, installs, upgrades, rolls back and uninstalls against an API server in memory."""

import asyncio
import copy
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from golongrl.kubernetes import command
from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.cluster_errors import ClusterError
from golongrl.kubernetes.deploy.helm import DeployError, Deployment
from golongrl.kubernetes.look.gather import ReleaseLook, look
from golongrl.kubernetes.look.status import lines
from support.api_http import serving
from support.api_patches import Object
from support.api_server import ApiServer
from support.chart_values import PRESETS
from support.helm import CHART, MAJORS, Helm, tool

NAMESPACE = "rl"


def look_at(release: str) -> ReleaseLook:
    """The release through the kubeconfig of the environment."""

    async def ask() -> ReleaseLook:
        async with connect(NAMESPACE) as calls:
            return await look(calls, release)

    return asyncio.run(ask())


class Cluster:
    """One helm and one server."""

    def __init__(self, helm: Helm, server: ApiServer, folder: Path) -> None:
        self.helm, self.server = helm, server
        self._where = ["--kubeconfig", str(server.kubeconfig(folder / "kubeconfig")), "-n", NAMESPACE]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return self.helm.run(*arguments, *self._where)

    def done(self, *arguments: str) -> str:
        """What helm says of a command that succeeds."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def cluster(helm: Helm, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Parametrized indirectly by whether the cluster has KubeRay; it has, where nothing is said."""
    with serving(ApiServer(kuberay=getattr(request, "param", True))) as server:
        server.create_namespace(NAMESPACE)
        yield Cluster(helm, server, tmp_path)


@pytest.fixture
def previous(tmp_path: Path) -> str:
    """The chart as an older version: the same templates, another version and appVersion."""
    folder = tmp_path / "previous"
    shutil.copytree(CHART, folder)
    chart = yaml.safe_load((folder / "Chart.yaml").read_text())
    (folder / "Chart.yaml").write_text(yaml.safe_dump(chart | {"version": "0.0.9", "appVersion": "0.0.9"}))
    return str(folder)


def kept(server: ApiServer) -> list[Object]:
    """What holds data: its content and identity, without the labels of the chart's version."""
    items = [server.one("Secret"), server.one("PersistentVolumeClaim")]
    return [
        {
            "uid": item["metadata"]["uid"],
            "name": item["metadata"]["name"],
            "data": item.get("data"),
            "spec": item.get("spec"),
        }
        for item in copy.deepcopy(items)
    ]


@pytest.mark.parametrize(
    ("cluster", "kind", "words"),
    [(True, "RayJob", "the KubeRay RayJob"), (False, "Job", "This cluster has no KubeRay")],
    indirect=["cluster"],
)
def test_an_install_asks_the_cluster_and_its_notes_say_what_is_next(cluster: Cluster, kind: str, words: str) -> None:
    notes = cluster.done("install", "demo", str(CHART)).partition("NOTES:")[2]
    learner = cluster.server.one(kind)["metadata"]["name"]
    assert f"{words}" in notes
    assert learner in notes
    # The learner's own words: of the plain Job, or of KubeRay's submitter, a Job of the RayJob's name.
    watch = f"kubectl -n {NAMESPACE} logs -f job/{learner}"
    for line in (watch, f"golongrl status --release demo -n {NAMESPACE}", f"helm test demo -n {NAMESPACE}"):
        assert line in notes
    assert not [item for item in cluster.server.of("Pod") if "test" in item["metadata"]["name"]]


@pytest.mark.full
def test_a_shared_redis_asks_for_a_name_of_the_run_in_the_notes(helm4: Helm) -> None:
    """Two namespaces may have a release of one name, and its queue would be one."""
    given = ["install", "demo", str(CHART), "--dry-run=client", "--set", "redis.external.host=r.example"]
    assert "set `run` to a name of its own" in helm4.run(*given).stdout
    assert "set `run`" not in helm4.run(*given, "--set", "run=other").stdout


@pytest.mark.parametrize("more", [pytest.param((), marks=pytest.mark.full), ("--set", "fullnameOverride=other")])
def test_what_a_failed_test_leaves_behind_is_named_in_the_notes(cluster: Cluster, more: tuple[str, ...]) -> None:
    """`helm uninstall` removes no hook's pod: the notes have the command for every one that can be left."""
    notes = cluster.done("install", "demo", str(CHART), *more).partition("NOTES:")[2]
    hooks = [item for item in yaml.safe_load_all(cluster.done("get", "hooks", "demo")) if item]
    tests = [item for item in hooks if "test" in item["metadata"]["annotations"]["helm.sh/hook"]]
    assert [item["kind"] for item in tests] == ["Pod"]
    for item in tests:
        assert "hook-failed" not in item["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
        assert f"kubectl delete pod {item['metadata']['name']} -n {NAMESPACE} --ignore-not-found" in notes
    silent = cluster.done("upgrade", "demo", str(CHART), *more, "--set", "tests.enabled=false").partition("NOTES:")[2]
    assert "helm test" not in silent


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_installs_on_a_cluster_with_kuberay_alone(cluster: Cluster, preset: str) -> None:
    """One object without its CRD fails a whole installation: Prometheus' come where the cluster has its operator."""
    cluster.done("install", "demo", str(CHART), "-f", str(CHART / preset))
    assert cluster.server.one("RayJob")
    assert cluster.run("upgrade", "demo", str(CHART), "--set", "metrics.rules.enabled=true").returncode != 0


def test_an_upgrade_from_the_previous_version_keeps_claims_and_passwords(cluster: Cluster, previous: str) -> None:
    cluster.done("install", "demo", previous)
    before, redis = kept(cluster.server), cluster.server.one("StatefulSet")
    (old,) = cluster.server.of("RayJob")
    cluster.server.log.clear()
    cluster.done("upgrade", "demo", str(CHART), "--set", "reward.replicas=3")
    assert kept(cluster.server) == before
    assert cluster.server.one("StatefulSet")["metadata"]["uid"] == redis["metadata"]["uid"]
    assert cluster.server.one("StatefulSet")["spec"]["template"] == redis["spec"]["template"]  # no restart of Redis
    # The images' tag is the version: another learner, so another job.
    assert cluster.server.one("RayJob")["metadata"]["name"] != old["metadata"]["name"]
    deleted = [line for line in cluster.server.log if line.startswith("DELETE") and "sh.helm" not in line]
    assert deleted == [f"DELETE rayjobs/{old['metadata']['name']}"]


def test_an_upgrade_of_something_else_leaves_the_learner_alone(cluster: Cluster) -> None:
    cluster.done("install", "demo", str(CHART))
    before = copy.deepcopy(cluster.server.one("RayJob"))
    cluster.done("upgrade", "demo", str(CHART), "--set", "reward.replicas=3,rollout.drainSeconds=60")
    after = cluster.server.one("RayJob")
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])


def test_a_rollback_keeps_claims_and_passwords(cluster: Cluster) -> None:
    cluster.done("install", "demo", str(CHART))
    before = kept(cluster.server)
    cluster.done("upgrade", "demo", str(CHART), "--set", "reward.replicas=3")
    cluster.done("rollback", "demo", "1")
    assert kept(cluster.server) == before
    (reward,) = [item for item in cluster.server.of("Deployment") if item["metadata"]["name"].endswith("-reward")]
    assert reward["spec"]["replicas"] == 1


def test_a_release_of_the_same_name_resumes_from_what_the_last_one_left(cluster: Cluster) -> None:
    cluster.done("install", "demo", str(CHART))
    before = kept(cluster.server)
    cluster.done("uninstall", "demo")
    left = {item["kind"] for item in cluster.server.objects.values()}
    assert left == {"Namespace", "Secret", "PersistentVolumeClaim"}
    cluster.done("install", "demo", str(CHART))
    assert kept(cluster.server) == before


def test_an_upgrade_survives_what_kuberay_and_kueue_wrote(cluster: Cluster) -> None:
    """KubeRay's operator writes the whole RayJob back with Go's quantities, Kueue lets it go; neither may be undone,
    and with server-side apply neither may be contradicted."""
    values = [
        "-f", str(CHART / "values-qwen3-4b.yaml"), "-f", str(CHART / "values-rdma.yaml"),
        "--set", "learner.gang.scheduler=kueue,learner.gang.queue=q",
    ]  # fmt: skip
    cluster.done("install", "demo", str(CHART), *values)
    job = cluster.server.one("RayJob")
    key = ("ray.io/v1", "rayjobs", NAMESPACE, job["metadata"]["name"])
    written = as_go_writes(job) | {"status": {"jobDeploymentStatus": "Running"}}
    written["metadata"]["finalizers"] = ["ray.io/rayjob-finalizer"]
    written["spec"]["suspend"] = False
    cluster.server.objects[key] = written
    cluster.done("upgrade", "demo", str(CHART), *values, "--set", "reward.workers=5")
    after = cluster.server.one("RayJob")
    assert after["spec"] == written["spec"]
    assert after["metadata"]["finalizers"] == ["ray.io/rayjob-finalizer"]


def as_go_writes(item: Any, key: str = "") -> Any:
    """An object as typed Go code writes it: amounts are text, empty values of plain fields are gone."""
    if isinstance(item, dict):
        if key in ("requests", "limits"):
            return {name: str(value) for name, value in item.items()}
        return {name: as_go_writes(value, name) for name, value in item.items() if value not in ("", None, [])}
    return [as_go_writes(value) for value in item] if isinstance(item, list) else item


FIXED = {
    "redis.size=8Gi": "redis.size: the volume of StatefulSet demo-golongrl-redis was made with 4Gi",
    "redis.storageClass=fast": "redis.storageClass: the volume of StatefulSet demo-golongrl-redis was made",
    "storage.accessModes={ReadWriteMany}": "storage.accessModes: the claim demo-golongrl-store has ReadWriteOnce",
    "storage.storageClass=fast": 'storage.storageClass: the claim demo-golongrl-store has "standard"',
    "fullnameOverride=other": "the release has demo-golongrl-reward, and an upgrade to other-reward would leave",
    "nameOverride=other": "the release has demo-golongrl-reward, and an upgrade to demo-other-reward would leave",
}


def test_what_cannot_change_is_refused_in_words_before_anything_changes(cluster: Cluster) -> None:
    cluster.done("install", "demo", str(CHART))
    before = copy.deepcopy(cluster.server.one("StatefulSet"))
    for change, message in FIXED.items():
        refused = cluster.run("upgrade", "demo", str(CHART), "--set", change)
        assert refused.returncode != 0, change
        assert message in refused.stderr
        assert cluster.server.one("StatefulSet") == before
    cluster.done("upgrade", "demo", str(CHART), "--set", "storage.size=20Gi")  # a claim may grow


def test_jobs_whose_pods_an_upgrade_changes_are_other_jobs(cluster: Cluster) -> None:
    """A Job cannot be changed: an upgrade that tries ends half done."""
    on = "evaluation.enabled=true,construction.enabled=true,construction.passrate.enabled=true"
    cluster.done("install", "demo", str(CHART), "--set", on)
    before = {job["metadata"]["name"] for job in cluster.server.of("Job")}
    assert len(before) == 4
    cluster.done("upgrade", "demo", str(CHART), "--set", f"{on},tests.enabled=false")
    assert {job["metadata"]["name"] for job in cluster.server.of("Job")} == before
    for change in (
        "evaluation.resources.limits.memory=6Gi,construction.passrate.small.engine.resources.limits.memory=4Gi",
        "commonLabels.team=x,storage.existingClaim=other,recipe.model.context_length=1024",
    ):
        cluster.done("upgrade", "demo", str(CHART), "--set", f"{on},{change}")
        assert len(cluster.server.of("Job")) == 4


@pytest.mark.parametrize(("given", "stored"), [("4096Mi", "4Gi"), pytest.param("5000M", "5G", marks=pytest.mark.full)])
def test_an_upgrade_with_the_size_that_the_api_server_stored_in_other_words(
    cluster: Cluster, given: str, stored: str
) -> None:
    values = ["--set", f"redis.size={given}"]
    cluster.done("install", "demo", str(CHART), *values)
    claim = cluster.server.one("StatefulSet")["spec"]["volumeClaimTemplates"][0]
    claim["spec"]["resources"]["requests"]["storage"] = stored
    assert "redis.size: " not in cluster.run("upgrade", "demo", str(CHART), *values).stderr


def test_the_server_refuses_what_kubernetes_refuses(cluster: Cluster) -> None:
    """The server of these tests is no yes-man: without the chart's own check the change still fails."""
    cluster.done("install", "demo", str(CHART))
    server = cluster.server
    claim = copy.deepcopy(server.one("StatefulSet"))
    claim["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"] = "8Gi"
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/statefulsets/demo-golongrl-redis"
    code, said = server.answer("PUT", path, "application/json", yaml.safe_dump(claim).encode())
    assert (code, said["reason"]) == (422, "Invalid")
    assert "volumeClaimTemplates" in said["message"]


@contextmanager
def reached(server: ApiServer, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A served API server with the namespace, which `golongrl deploy` asks by the helm of this name."""
    (tmp_path / "helm").symlink_to(tool(name))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with serving(server):
        server.create_namespace(NAMESPACE)
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


@pytest.mark.parametrize("name", MAJORS)
def test_golongrl_deploy_previews_what_the_cluster_would_get(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A preview by the client alone knows no KubeRay and promises a plain Job."""
    with reached(ApiServer(), name, tmp_path, monkeypatch) as server:
        deployment = Deployment("demo", NAMESPACE, timeout="5m")
        planned = deployment.preview({})
        said = [record.getMessage() for record in caplog.records if record.name.startswith(("golongrl", "pyhelm3"))]
        assert said == [], "that there is no release yet is no failure"
        assert [line for line in planned if line.startswith("+ RayJob/demo-golongrl-learner-")]
        assert not [line for line in planned if line.startswith("+ Job/")]
        assert [item["kind"] for item in server.objects.values()] == ["Namespace"]
        assert "the KubeRay RayJob" in deployment.apply({})
        assert deployment.status()["info"]["status"] == "deployed"
        changed = deployment.preview({"reward": {"replicas": 3}})
        assert changed[0] == "~ Deployment/demo-golongrl-reward"
        assert changed[-1].startswith("0 added, 1 changed, 0 removed")
        deployment.uninstall()
        assert {item["kind"] for item in server.objects.values()} == {"Namespace", "Secret", "PersistentVolumeClaim"}


@pytest.mark.parametrize("verb", ["get", "delete"])
@pytest.mark.parametrize("name", MAJORS)
def test_an_object_that_an_uninstallation_leaves_is_named(
    name: str, verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Helm 4 leaves what it cannot read, forgets the release and ends well: the engines would run on unseen."""
    with reached(ApiServer(), name, tmp_path, monkeypatch) as server:
        deployment = Deployment("demo", NAMESPACE, timeout="5m")
        deployment.apply({})
        server.refuse["deployments", verb] = 500
        if (name, verb) == ("helm3", "get"):
            deployment.uninstall()
            assert not server.of("Deployment")
            return
        with pytest.raises(DeployError, match="release demo in namespace rl: ") as error:
            deployment.uninstall()
        assert len(server.of("Deployment")) == 2
        if verb == "get":
            for item in server.of("Deployment"):
                assert f"[Deployment] {item['metadata']['name']}: " in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", MAJORS)
def test_what_people_made_for_a_release_and_an_uninstallation_leaves_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TrainingRun's RayJob and engines hold their GPUs, without an operator that would ever end them."""
    with reached(ApiServer(training_runs=True), name, tmp_path, monkeypatch) as server:
        words = ["--release", "demo", "-n", NAMESPACE]
        Deployment("demo", NAMESPACE, timeout="5m").apply(
            {"learner": {"enabled": False}, "operator": {"enabled": True}}
        )

        def put(kind: str, version: str, name: str, release: str = "demo", **metadata: Any) -> None:
            labels = {"app.kubernetes.io/instance": release}
            about = {"name": name, "namespace": NAMESPACE, "labels": labels, **metadata}
            server.put({"apiVersion": version, "kind": kind, "metadata": about, "spec": {"release": release}})

        owner = {"kind": "TrainingRun", "apiVersion": "golongrl.io/v1alpha1", "name": "mine", "uid": "u"}
        put("TrainingRun", "golongrl.io/v1alpha1", "mine")
        put("TrainingRun", "golongrl.io/v1alpha1", "theirs", "other")
        put("RayJob", "ray.io/v1", "by-hand")
        put("RayJob", "ray.io/v1", "of-mine", ownerReferences=[owner])
        put("RayJob", "ray.io/v1", "going", deletionTimestamp="2026-01-01T00:00:00Z")
        put("Job", "batch/v1", "evaluation")
        server.refuse["jobs", "list"] = 403
        done = CliRunner().invoke(command.deploy, ["uninstall", *words])
        assert done.exit_code == 0, done.output
        removed, left, unknown = done.output.splitlines()
        assert removed.startswith("demo: removed.")
        assert left.endswith("kubectl -n rl delete trainingrun/mine rayjob/by-hand")
        assert unknown.startswith("not checked what else is left: API server ")
        assert "list of jobs" in unknown
        assert not server.of("Deployment")


def test_deploy_upgrade_wants_a_release_and_install_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helm").symlink_to(tool("helm4"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with serving(ApiServer()) as server:
        server.create_namespace(NAMESPACE)
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        words = ["--release", "demo", "-n", NAMESPACE, "--set", "reward.replicas=2"]
        refused = CliRunner().invoke(command.deploy, ["upgrade", *words])
        assert isinstance(refused.exception, DeployError)
        assert "not found" in str(refused.exception)
        for word in ("install", "upgrade"):
            done = CliRunner().invoke(command.deploy, [word, "quickstart", *words])
            assert done.exit_code == 0, done.output
            assert "golongrl status --release demo" in done.output


# The default class of the server's claims.
STANDARD = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "standard"}}
SECURITY = 'pods "x" is forbidden: violates PodSecurity "restricted:latest"'


def warning(kind: str, name: str, reason: str, message: str, minute: int) -> Object:
    """An event after the objects of this test were made, in the order of the minutes."""
    seen = datetime.now(UTC) + timedelta(minutes=minute)
    return {
        "apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": reason, "message": message,
        "metadata": {"name": f"{name}.{minute}", "namespace": NAMESPACE},
        "lastTimestamp": seen.strftime("%Y-%m-%dT%H:%M:%SZ"), "involvedObject": {"kind": kind, "name": name},
    }  # fmt: skip


@pytest.mark.parametrize("cluster", [True, False], indirect=True)
def test_status_names_what_admission_or_kuberay_refused(cluster: Cluster, tmp_path: Path, monkeypatch: Any) -> None:
    """Where no pod could be created there is none to look at, and silence would look fine."""
    cluster.done("install", "demo", str(CHART))
    server = cluster.server
    server.put(STANDARD)
    (reward, rollout) = (f"demo-golongrl-{name}-5d8" for name in ("reward", "rollout"))
    labels = server.one("StatefulSet")["metadata"]["labels"]
    for name, made in ((reward, 0), (rollout, 1)):
        metadata = {"name": name, "namespace": NAMESPACE, "labels": labels}
        status = {"replicas": made}
        server.put(
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "metadata": metadata,
                "spec": {"replicas": 1},
                "status": status,
            }
        )
    server.put(warning("ReplicaSet", reward, "FailedCreate", "an older word", 1))
    server.put(warning("ReplicaSet", reward, "FailedCreate", SECURITY, 2))
    server.put(warning("ReplicaSet", rollout, "FailedCreate", "has passed", 3))
    server.put(warning("StatefulSet", "demo-golongrl-redis", "FailedCreate", 'RuntimeClass "gone" not found', 4))
    kinds = [kind for kind in ("RayJob", "Job") if server.of(kind)]
    (learner,) = (server.one(kind)["metadata"]["name"] for kind in kinds)
    server.put(warning(kinds[0], learner, "Invalid", "the spec is invalid", 5))
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
    seen = look_at("demo")
    pods, refused = seen.pods, seen.refused
    assert pods == []
    assert sorted(refused) == sorted(
        [
            f"replicaset {reward}: FailedCreate: {SECURITY}",
            'statefulset demo-golongrl-redis: FailedCreate: RuntimeClass "gone" not found',
            f"{kinds[0].lower()} {learner}: Invalid: the spec is invalid",
        ]
    )
    assert f"stuck: {refused[0]}" in "\n".join(lines(pods, None, None, refused))
    with pytest.raises(ClusterError, match="release other: nothing of it in namespace rl"):
        look_at("other")


def test_the_operator_brings_its_kind_and_its_run_follows_the_recipe(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CRD before what is of it, and only where the operator is on; it outlives the release, as Helm has it."""
    on = ["--set", "operator.enabled=true"]
    cluster.done("install", "demo", str(CHART))
    assert not cluster.server.of("CustomResourceDefinition")
    assert "the cluster has no TrainingRun" in cluster.run("upgrade", "demo", str(CHART), *on).stderr
    cluster.done("uninstall", "demo")
    cluster.done("install", "demo", str(CHART), *on)
    assert cluster.server.one("CustomResourceDefinition")["metadata"]["name"] == "trainingruns.golongrl.io"
    before = copy.deepcopy(cluster.server.one("TrainingRun"))
    cluster.done("upgrade", "demo", str(CHART), *on, "--set", "recipe.learner.steps=7")
    after = cluster.server.one("TrainingRun")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"]["recipe"]["learner"]["steps"] == 7
    cluster.server.put({**after, "status": {"phase": "Failed", "message": "all 2 restarts are used"}})
    monkeypatch.setenv("KUBECONFIG", str(cluster.server.kubeconfig(tmp_path / "kubeconfig")))
    cluster.server.put(STANDARD)
    assert look_at("demo").refused == [f"trainingrun {after['metadata']['name']}: Failed: all 2 restarts are used"]
    cluster.done("upgrade", "demo", str(CHART), "--set", "operator.enabled=false")
    assert not cluster.server.of("TrainingRun")
    assert cluster.server.one("RayJob")
    cluster.done("uninstall", "demo")
    assert cluster.server.one("CustomResourceDefinition")
