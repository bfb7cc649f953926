"""Every object that the chart can render is valid: core kinds by Kubernetes' own schema, RayJobs by KubeRay's CRD."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from golongrl.operator.crd import crd
from support.chart_values import MATRIX, PRESETS
from support.helm import CRDS, YAML, Helm, Manifest, Rendered

KUBERNETES = "1.36"
# Fields that the charts' custom resources may have: their CRDs belong to other projects and are not carried here.
CUSTOM: dict[str, tuple[str, set[str]]] = {
    "ServiceMonitor": ("monitoring.coreos.com/v1", {"selector", "endpoints"}),
    "PodMonitor": ("monitoring.coreos.com/v1", {"selector", "podMetricsEndpoints"}),
    "PrometheusRule": ("monitoring.coreos.com/v1", {"groups"}),
    "ScaledObject": (
        "keda.sh/v1alpha1",
        {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "cooldownPeriod", "advanced", "triggers"},
    ),
    "LeaderWorkerSet": (
        "leaderworkerset.x-k8s.io/v1",
        {"replicas", "startupPolicy", "rolloutStrategy", "leaderWorkerTemplate"},
    ),
}


def close(schema: Any) -> Any:
    """A copy of a CRD's schema that refuses unknown keys, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: close(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if closed.pop("x-kubernetes-int-or-string", False):
        closed.pop("type", None)
        closed["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    return closed


@pytest.fixture(scope="session")
def rayjob_schema() -> jsonschema.Draft7Validator:
    path = CRDS / "ray.io_rayjobs.yaml"
    if not path.is_file():
        pytest.skip(f"KubeRay's CRDs are not at {CRDS}")
    crd = yaml.load(path.read_text(), Loader=YAML)
    (version,) = [item for item in crd["spec"]["versions"] if item["name"] == "v1"]
    schema: Manifest = close(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft7Validator(schema)


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


def check_rayjob(job: Manifest, schema: jsonschema.Draft7Validator) -> None:
    schema.validate(job)
    # What KubeRay's webhook and controller refuse beyond the schema.
    spec = job["spec"]
    assert len(job["metadata"]["name"]) <= 47
    if "clusterSelector" in spec:
        assert not spec.get("backoffLimit")
        assert not spec.get("suspend")
        assert spec["submissionMode"] != "SidecarMode"
    else:
        assert spec["shutdownAfterJobFinishes"] is True
    if spec["submissionMode"] == "SidecarMode":
        assert "submitterPodTemplate" not in spec
        assert "submitterConfig" not in spec


def check_training_run(run: Manifest) -> None:
    (version,) = crd()["spec"]["versions"]
    schema: Manifest = close(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft4Validator(schema).validate(run)


def check(objects: Rendered, rayjob_schema: jsonschema.Draft7Validator) -> None:
    for item in objects:
        kind = item["kind"]
        if kind == "RayJob":
            check_rayjob(item, rayjob_schema)
            for template in _pod_templates(item):
                # The CRD knows a subset of what a pod may say; the pods themselves are checked as pods.
                check_pod(template)
        elif kind == "TrainingRun":
            check_training_run(item)
        elif kind in CUSTOM:
            version, known = CUSTOM[kind]
            assert item["apiVersion"] == version
            assert set(item["spec"]) <= known
            if kind == "LeaderWorkerSet":
                for role in ("leaderTemplate", "workerTemplate"):
                    check_pod(item["spec"]["leaderWorkerTemplate"][role])
        else:
            check_core(json.dumps(item))


def _pod_templates(job: Manifest) -> list[Manifest]:
    spec = job["spec"]
    cluster = spec.get("rayClusterSpec", {})
    heads = [cluster["headGroupSpec"]["template"]] if cluster else []
    groups = [group["template"] for group in cluster.get("workerGroupSpecs", [])]
    return [*([spec["submitterPodTemplate"]] if "submitterPodTemplate" in spec else []), *heads, *groups]


@pytest.mark.parametrize("name", MATRIX)
def test_every_object_of_every_switch_is_valid(
    helm: Helm, name: str, rayjob_schema: jsonschema.Draft7Validator
) -> None:
    check(helm.template(MATRIX[name]), rayjob_schema)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("overlay", [(), ("values-rdma.yaml",)], ids=["ethernet", "rdma"])
def test_every_object_of_every_preset_is_valid(
    helm: Helm, preset: str, overlay: tuple[str, ...], rayjob_schema: jsonschema.Draft7Validator
) -> None:
    check(helm.template(files=(preset, *overlay)), rayjob_schema)


def test_an_unknown_key_of_a_rayjob_is_refused(helm4: Helm, rayjob_schema: jsonschema.Draft7Validator) -> None:
    job = helm4.template().one("RayJob")
    for path in (("backoffLimits",), ("rayClusterSpec", "headGroup"), ("rayClusterSpec", "headGroupSpec", "templat")):
        broken = copy.deepcopy(job)
        node = broken["spec"]
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = 1
        with pytest.raises(jsonschema.ValidationError):
            check_rayjob(broken, rayjob_schema)


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "charts/golongrl/rayjobs").glob("*.yaml")), ids=lambda p: p.stem
)
def test_ready_made_rayjobs_are_valid(path: Path, rayjob_schema: jsonschema.Draft7Validator) -> None:
    check(Rendered(list(yaml.load_all(path.read_text(), Loader=YAML))), rayjob_schema)
