"""The optional Jobs that construct data: what they run, where they may connect, and the same by `render datajob`."""

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from golongrl.data.construct.datajob import datajob_yaml
from golongrl.data.construct.load import load, packaged
from golongrl.data.construct.tables import ORDER
from golongrl.errors import GolongrlError
from golongrl.kubernetes.values.construction import ConstructionValues, Stage
from support.chart_values import MATRIX
from support.helm import Helm, Manifest, Rendered

PLAIN: dict[str, Any] = MATRIX["construction"]
ON_RAY: dict[str, Any] = MATRIX["construction-on-ray"]
STAGE = "golongrl.io/stage"
ALL = "/store/constructed"
SCRAPED = ("--metrics-host", "0.0.0.0", "--metrics-port", "8090")


def with_values(base: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**base, "construction": {**base["construction"], **more}}


def jobs(objects: Rendered, kind: str) -> dict[str, Manifest]:
    """By stage."""
    mine = [one for one in objects.of(kind) if STAGE in one["metadata"]["labels"]]
    return {one["metadata"]["labels"][STAGE]: one for one in mine}


def container(job: Manifest) -> Manifest:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(found, dict)
    return found


def secrets(found: Manifest) -> dict[str, Any]:
    return {one["name"]: one["valueFrom"]["secretKeyRef"] for one in found["env"] if "valueFrom" in one}


@pytest.fixture
def path_with_helm(helm4: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "helm").symlink_to(helm4.binary)
    monkeypatch.setenv("PATH", str(tools), prepend=":")


def test_the_chart_knows_every_stage_and_packaged_pipeline() -> None:
    assert get_args(Stage) == ORDER
    presets = get_args(ConstructionValues.model_fields["preset"].annotation)
    assert sorted(presets) == sorted(packaged())


def test_it_is_off_by_default(helm4: Helm) -> None:
    names = [one["metadata"]["name"] for one in helm4.template(MATRIX["defaults"])]
    assert not [name for name in names if "-construction" in name or "-data-" in name]


def test_one_job_runs_all_stages_of_a_preset(helm4: Helm) -> None:
    objects = helm4.template(PLAIN)
    ((stage, job),) = jobs(objects, "Job").items()
    assert stage == "all"
    found = container(job)
    redis = "redis://demo-golongrl-redis:6379/0"
    assert found["command"] == [
        "golongrl", "data", "construct", "laptop", "--out", ALL, *SCRAPED, "--pool-redis-url", redis, "--workers", "2",
    ]  # fmt: skip
    mounts = {one["name"]: one for one in found["volumeMounts"]}
    assert mounts["documents"] == {"name": "documents", "mountPath": "/documents", "readOnly": True}
    assert "pipeline" not in mounts
    assert set(secrets(found)) == {"GOLONGRL_REDIS_PASSWORD"}
    assert not [one for one in objects.of("ConfigMap") if one["metadata"]["name"].endswith("-construction")]


def test_each_stage_has_its_job_and_waits_for_those_before(helm4: Helm) -> None:
    objects = helm4.template(ON_RAY)
    plain, on_ray = jobs(objects, "Job"), jobs(objects, "RayJob")
    assert set(plain) == {"verify", "passrate"}
    assert set(on_ray) == {"sources", "generate", "decontaminate"}
    for stage, job in plain.items():
        words = [word for word in container(job)["command"] if word not in SCRAPED]
        assert words[:8] == [
            "golongrl", "data", "construct", "/etc/golongrl/pipeline.yaml", "--out", "/store/r7/constructed",
            "--stage", stage,
        ]  # fmt: skip
        assert words[8:10] == ["--wait-s", "604800"]
        assert ("--pool-redis-url" in words) == (stage == "passrate")
        assert secrets(container(job))["GOLONGRL_LLM_API_KEY"] == {"name": "writer", "key": "api-key"}
    for stage, job in on_ray.items():
        assert job["spec"]["entrypoint"].endswith(f"--stage {stage} --wait-s 604800 --on ray")
    (pipeline,) = [one for one in objects.of("ConfigMap") if one["metadata"]["name"].endswith("-construction")]
    assert pipeline["data"] == {"pipeline.yaml": "name: mine\n"}


def test_only_what_asks_models_has_their_key(helm4: Helm) -> None:
    """Tasks of Ray work on documents of strangers; the process on the head makes the calls."""
    for job in jobs(helm4.template(ON_RAY), "RayJob").values():
        cluster = job["spec"]["rayClusterSpec"]
        (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
        (group,) = cluster["workerGroupSpecs"]
        (worker,) = group["template"]["spec"]["containers"]
        (submitter,) = job["spec"]["submitterPodTemplate"]["spec"]["containers"]
        assert set(secrets(head)) == {"GOLONGRL_REDIS_PASSWORD", "GOLONGRL_LLM_API_KEY"}
        assert secrets(worker) == secrets(submitter) == {}
        assert head["volumeMounts"] == worker["volumeMounts"]


def test_other_values_are_other_jobs(helm4: Helm) -> None:
    """A Job cannot be changed, so an upgrade with the same name would be refused."""
    variants = [
        PLAIN, PLAIN, with_values(PLAIN, preset="paper"), with_values(PLAIN, processes=4),
        with_values(PLAIN, pipeline="name: a\n"), with_values(PLAIN, resources={"limits": {"memory": "9Gi"}}),
    ]  # fmt: skip
    names = {jobs(helm4.template(one), "Job")["all"]["metadata"]["name"] for one in variants}
    assert len(names) == 5
    long = {**with_values(PLAIN, stages=["decontaminate"]), "fullnameOverride": "f" * 60}
    assert len(jobs(helm4.template(long), "Job")["decontaminate"]["metadata"]["name"]) <= 63


def test_it_connects_to_redis_and_to_what_extra_egress_allows(helm4: Helm) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "203.0.113.5/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    for values in (PLAIN, ON_RAY):
        extra = {**values, "networkPolicy": {"extraEgress": {"construction": [rule]}}}
        mine = helm4.template(extra).one("NetworkPolicy", "-construction")["spec"]
        assert mine["policyTypes"] == ["Ingress", "Egress"]
        dns, redis, *rest = mine["egress"]
        assert dns["ports"][0] == {"port": 53, "protocol": "UDP"}
        assert redis["ports"] == [{"port": 6379, "protocol": "TCP"}]
        assert redis["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "redis"
        assert rest[-1] == rule
        # Between its own Ray nodes alone.
        assert len(rest) == (2 if values is ON_RAY else 1)
        metrics, *within = mine["ingress"]
        assert metrics["ports"] == [{"port": 8090, "protocol": "TCP"}]
        assert bool(within) == (values is ON_RAY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (with_values(PLAIN, stages=["sauces"]), "stages"),
        (with_values(PLAIN, stages=["sources", "sources"]), "a stage is named twice"),
        (with_values(PLAIN, preset="my pipeline"), "preset"),
        (with_values(PLAIN, out="../other"), "out"),
        (with_values(PLAIN, out="a; rm -rf b"), "out"),
        (with_values(PLAIN, documentsClaim="Papers"), "documentsClaim"),
        (with_values(PLAIN, waitSeconds=0), "waitSeconds"),
        (with_values(PLAIN, processes=0), "processes"),
        (with_values(PLAIN, pipeline={"name": "mine"}), "pipeline"),
        (with_values(PLAIN, llm={"existingSecrt": "x"}), "existingSecrt"),
        (with_values(PLAIN, ray={"enabled": True}), "ReadWriteMany"),
    ],
)
def test_a_wrong_value_is_refused(helm4: Helm, values: dict[str, Any], message: str) -> None:
    assert message in helm4.refusal(values)


@pytest.mark.usefixtures("path_with_helm")
def test_render_datajob_is_the_charts_job_with_the_pipeline_in_it(tmp_path: Path) -> None:
    text = datajob_yaml("laptop", ["select.oversample=2", "sources.near_duplicate=null"], (), "demo")
    found = list(yaml.safe_load_all(text))
    assert sorted(one["kind"] for one in found) == ["ConfigMap", "Job", "NetworkPolicy", "ServiceAccount"]
    assert not [one for one in found if "namespace" in one["metadata"]]
    (config,) = [one for one in found if one["kind"] == "ConfigMap"]
    written = tmp_path / "pipeline.yaml"
    written.write_text(config["data"]["pipeline.yaml"])
    expected = load("laptop", ["select.oversample=2", "sources.near_duplicate=null"])
    assert load(str(written)) == expected
    assert expected.sources.near_duplicate is None
    assert "namespace: rl" in datajob_yaml("laptop", (), (), "demo", "rl")


@pytest.mark.usefixtures("path_with_helm")
def test_render_datajob_refuses_stages_that_the_pipeline_lacks() -> None:
    settings = ["construction.ray.enabled=true", "storage.accessModes={ReadWriteMany}"]
    found = list(yaml.safe_load_all(datajob_yaml("laptop", (), ["select", "sources"], "demo", "", (), settings)))
    assert [one["kind"] for one in found if STAGE in one["metadata"]["labels"]] == ["Job", "RayJob"]
    with pytest.raises(GolongrlError, match="--stage verify: the pipeline laptop has the stages sources, select"):
        datajob_yaml("laptop", (), ["verify"], "demo")
    with pytest.raises(GolongrlError, match="nosuch"):
        datajob_yaml("nosuch", (), (), "demo")
    with pytest.raises(GolongrlError, match="preset"):
        datajob_yaml("laptop", (), (), "demo", "", (), ["construction.preset=No Name"])
