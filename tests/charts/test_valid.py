"""Every object that the chart can render is valid: core kinds by Kubernetes' own schema, the others by their CRDs'."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from golongrl import recipe as recipes
from golongrl.kubernetes.rayjob.render import rayjob_yaml
from golongrl_operator.crd import crd
from support.chart_values import MATRIX, PRESETS
from support.crd import Crd, broken_rules, close
from support.helm import YAML, Helm, Manifest, Rendered, tool
from support.kuberay import refusals

KUBERNETES = "1.36"
# LeaderWorkerSet's CRD is in no package of a registry: its pods are checked as pods, its other keys against these.
LEADER_WORKER_SET = {
    "spec": {"replicas", "startupPolicy", "rolloutStrategy", "leaderWorkerTemplate"},
    "rolloutStrategy": {"type", "rollingUpdateConfiguration"},
    "rollingUpdateConfiguration": {"maxSurge", "maxUnavailable", "partition"},
    "leaderWorkerTemplate": {"size", "restartPolicy", "leaderTemplate", "workerTemplate"},
}


@pytest.fixture(scope="session")
def rayjobs() -> Crd:
    return Crd("rayjobs", "v1")


@cache
def custom(kind: str) -> jsonschema.Draft7Validator:
    """The strict schema of a kind of KEDA or the Prometheus operator."""
    return jsonschema.Draft7Validator(json.loads(tool(f"{kind}.schema.json").read_text()))


@cache
def check_core(text: str) -> None:
    """A core object, as JSON: both helms and most switches render the same objects, and reading a schema is slow."""
    kubernetes_validate.validate(json.loads(text), KUBERNETES, strict=True)


def check_pod(template: Manifest) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "x"},
        "spec": template["spec"],
    }
    check_core(json.dumps(pod))


def check_rayjob(job: Manifest, rayjobs: Crd) -> None:
    rayjobs.check(job)
    # A job of the same name that an upgrade writes again.
    rayjobs.check(job, old=job)
    assert refusals(job) == []
    for template in _pod_templates(job):
        # The CRD knows a subset of what a pod may say; the pods themselves are checked as pods.
        check_pod(template)


def check_training_run(run: Manifest) -> None:
    (version,) = crd()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    closed: Manifest = close(schema)
    closed["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft4Validator(closed).validate(run)
    assert list(broken_rules(schema, run, run)) == []


def check_leader_worker_set(item: Manifest) -> None:
    assert item["apiVersion"] == "leaderworkerset.x-k8s.io/v1"
    spec = item["spec"]
    strategy, template = spec["rolloutStrategy"], spec["leaderWorkerTemplate"]
    parts = {
        "spec": spec, "rolloutStrategy": strategy, "leaderWorkerTemplate": template,
        "rollingUpdateConfiguration": strategy["rollingUpdateConfiguration"],
    }  # fmt: skip
    for name, part in parts.items():
        assert set(part) <= LEADER_WORKER_SET[name], name
    assert (spec["startupPolicy"], strategy["type"]) == ("LeaderCreated", "RollingUpdate")
    for role in ("leaderTemplate", "workerTemplate"):
        check_pod(template[role])


def check(objects: Rendered, rayjobs: Crd) -> None:
    for item in objects:
        match item["kind"]:
            case "RayJob":
                check_rayjob(item, rayjobs)
            case "TrainingRun":
                check_training_run(item)
            case "LeaderWorkerSet":
                check_leader_worker_set(item)
            case "ServiceMonitor" | "PodMonitor" | "PrometheusRule" | "ScaledObject" | "TriggerAuthentication" as kind:
                custom(kind).validate(item)
            case _:
                check_core(json.dumps(item))


def _pod_templates(job: Manifest) -> list[Manifest]:
    spec = job["spec"]
    cluster = spec.get("rayClusterSpec", {})
    heads = [cluster["headGroupSpec"]["template"]] if cluster else []
    groups = [group["template"] for group in cluster.get("workerGroupSpecs", [])]
    return [*([spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []), *heads, *groups]


@pytest.mark.parametrize("name", MATRIX)
def test_every_object_of_every_switch_is_valid(helm: Helm, name: str, rayjobs: Crd) -> None:
    check(helm.template(MATRIX[name]), rayjobs)


@pytest.mark.parametrize("preset", [*PRESETS, "values-gpu.yaml"])
@pytest.mark.parametrize("overlay", [(), ("values-rdma.yaml",)], ids=["ethernet", "rdma"])
def test_every_object_of_every_preset_is_valid(helm: Helm, preset: str, overlay: tuple[str, ...], rayjobs: Crd) -> None:
    check(helm.template(files=(preset, *overlay)), rayjobs)


def changed(item: Manifest, path: str, value: Any) -> Manifest:
    """A copy with one value set; None removes the key."""
    copied = copy.deepcopy(item)
    node = copied
    *parents, last = path.split("/")
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
    if value is None:
        del node[last]
    else:
        node[last] = value
    return copied


@pytest.mark.parametrize(
    "path", ["spec/backoffLimits", "spec/rayClusterSpec/headGroup", "spec/rayClusterSpec/headGroupSpec/templat"]
)
def test_an_unknown_key_of_a_rayjob_is_refused(helm4: Helm, rayjobs: Crd, path: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        rayjobs.check(changed(helm4.template().one("RayJob"), path, 1))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("spec/managedBy", "somebody", "managedBy field value must be"),
        ("spec/rayClusterSpec/managedBy", "somebody", "managedBy field value must be"),
        ("spec/deletionStrategy", {"onSuccess": {"policy": "DeleteSelf"}}, "requires either BOTH"),
        (
            "spec/deletionStrategy",
            {
                "onSuccess": {"policy": "DeleteSelf"},
                "onFailure": {"policy": "DeleteSelf"},
                "deletionRules": [{"policy": "DeleteSelf", "condition": {"jobStatus": "FAILED"}}],
            },
            "cannot be used together",
        ),
        (
            "spec/deletionStrategy",
            {"deletionRules": [{"policy": "DeleteSelf", "condition": {"ttlSeconds": 1}}]},
            "requires either the JobStatus",
        ),
    ],
)
def test_the_crds_rules_are_evaluated(helm4: Helm, rayjobs: Crd, path: str, value: Any, message: str) -> None:
    """By a real CEL implementation, so that what the chart's jobs pass is a rule and not a silence."""
    with pytest.raises(AssertionError, match=message):
        rayjobs.check(changed(helm4.template().one("RayJob"), path, value))


def test_what_an_update_may_not_change_is_compared_with_what_was(helm4: Helm, rayjobs: Crd) -> None:
    kueue, kuberay = "kueue.x-k8s.io/multikueue", "ray.io/kuberay-operator"
    old, new = (changed(helm4.template().one("RayJob"), "spec/managedBy", value) for value in (kueue, kuberay))
    rayjobs.check(new)
    with pytest.raises(AssertionError, match="immutable"):
        rayjobs.check(new, old=old)


@pytest.mark.parametrize(
    ("switch", "path", "value", "message"),
    [
        ("defaults", "metadata/name", "r" * 48, "DNS-1035"),
        ("defaults", "metadata/name", "4b", "DNS-1035"),
        ("defaults", "spec/shutdownAfterJobFinishes", False, "ttlSecondsAfterFinished needs"),
        ("defaults", "spec/deletionStrategy/deletionRules", [{}], "deletionRules exclude"),
        ("defaults", "spec/rayClusterSpec", None, "neither rayClusterSpec nor"),
        ("defaults", "spec/activeDeadlineSeconds", 0, "must be positive"),
        ("defaults", "spec/backoffLimit", -1, "must not be negative"),
        ("defaults", "spec/submissionMode", "SidecarMode", "SidecarMode excludes submitterPodTemplate"),
        ("defaults", "spec/submissionMode", "InteractiveMode", "InteractiveMode excludes"),
        ("existing-cluster", "spec/suspend", True, "suspend needs"),
        ("existing-cluster", "spec/backoffLimit", 1, "clusterSelector excludes backoffLimit"),
        ("existing-cluster", "spec/submissionMode", "SidecarMode", "clusterSelector excludes SidecarMode"),
        ("volcano", "spec/rayClusterSpec/headGroupSpec/template/spec/restartPolicy", "Always", "never restarted"),
        ("one-node-gpus", "spec/rayClusterSpec/workerGroupSpecs/0/minReplicas", None, "needs minReplicas"),
        ("one-node-gpus", "spec/rayClusterSpec/workerGroupSpecs/0/minReplicas", 9, "above maxReplicas"),
        ("defaults", "spec/rayClusterSpec/headGroupSpec/resources", {"CPU": "1"}, "resources twice"),
        ("defaults", "spec/rayClusterSpec/upgradeStrategy", {"type": "None"}, "not for a RayJob"),
        (
            "defaults",
            "spec/rayClusterSpec/headGroupSpec/template/spec/containers/0/env",
            [{"name": "RAY_REDIS_ADDRESS", "value": "redis:6379"}],
            "without gcsFaultToleranceOptions",
        ),
    ],
)
def test_what_kuberays_operator_would_never_start_is_seen(
    helm4: Helm, switch: str, path: str, value: Any, message: str
) -> None:
    job = helm4.template(MATRIX[switch]).one("RayJob")
    assert refusals(job) == []
    assert message in "; ".join(refusals(changed(job, path, value)))


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("ServiceMonitor", "spec/endpoints/0/intervall"),
        ("PodMonitor", "spec/podMetricsEndpoint"),
        ("PrometheusRule", "spec/groups/0/rules/0/severity"),
        ("ScaledObject", "spec/minReplicas"),
    ],
)
def test_an_unknown_key_of_a_custom_resource_is_refused(helm4: Helm, kind: str, path: str) -> None:
    objects = helm4.template({**MATRIX["everything-observed"], **MATRIX["autoscaled"]})
    item = objects.of(kind)[0]
    custom(kind).validate(item)
    with pytest.raises(jsonschema.ValidationError, match="Additional properties"):
        custom(kind).validate(changed(item, path, 1))


@pytest.mark.parametrize("name", recipes.packaged())
def test_what_render_prints_is_valid(name: str, rayjobs: Crd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helm").symlink_to(tool("helm4"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    check(Rendered(list(yaml.load_all(rayjob_yaml(name, "demo", "rl"), Loader=YAML))), rayjobs)
