"""The optional Job that evaluates a release: what it runs, where it may connect, and the same by `render evaljob`."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from golongrl.errors import GolongrlError
from golongrl.kubernetes.evaljob import evaljob_yaml
from support.chart_values import MATRIX
from support.helm import Helm, Rendered

POOL = "evaluation.target=pool"
ON: dict[str, Any] = MATRIX["learner-off"]
DNS = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def job(objects: Rendered) -> Any:
    (found,) = [one for one in objects.of("Job") if "-evaluation-" in one["metadata"]["name"]]
    return found


def container(objects: Rendered) -> Any:
    (found,) = job(objects)["spec"]["template"]["spec"]["containers"]
    return found


def evaluating(**more: Any) -> dict[str, Any]:
    return {**ON, "evaluation": {**ON["evaluation"], **more}}


def test_it_is_off_by_default(helm4: Helm) -> None:
    assert not [one for one in helm4.template(MATRIX["defaults"]).of("Job") if "evaluation" in one["metadata"]["name"]]


def test_it_evaluates_the_newest_weights_on_the_volume(helm4: Helm) -> None:
    values = evaluating(suite="table", args=["--mode", "compat"])
    found = container(helm4.template({**values, "storage": {"existingClaim": "shared", "folder": "r7"}}))
    assert found["command"] == [
        "golongrl", "eval", "run", "table", "--target", "/store/r7/run", "--last", "--data", "/store/r7/eval-data",
        "--out", "/store/r7/evals/table", "--metrics-host", "0.0.0.0", "--metrics-port", "8090",
        "--summary", "/dev/termination-log",
        "--judge", "http://judge/v1", "--judge-model", "j", "--mode", "compat",
    ]  # fmt: skip
    secrets = [entry for entry in found["env"] if "valueFrom" in entry]
    assert [(entry["name"], entry["valueFrom"]["secretKeyRef"]) for entry in secrets] == [
        ("GOLONGRL_JUDGE_API_KEY", {"name": "judge", "key": "api-key"})
    ]


def test_the_pool_is_asked_through_a_service_of_its_own(helm4: Helm) -> None:
    """The Job takes no GPU, the engines' key is in its environment, and their policy lets it in."""
    for more, selected in (({}, {}), ({"nodes": 2}, {"leaderworkerset.sigs.k8s.io/worker-index": "0"})):
        engine = {"kind": "sglang", "tensorParallel": 2, "port": 31000}
        values = {**evaluating(target="pool", tokenizer="/store/models/q"), "rollout": {"engine": engine, **more}}
        objects = helm4.template(values)
        found = container(objects)
        assert found["command"][4:8] == ["--target", "release:demo-golongrl", "--tokenizer", "/store/models/q"]
        assert "--last" not in found["command"]
        assert "nvidia.com/gpu" not in json.dumps(found["resources"])
        (key,) = [entry for entry in found["env"] if entry["name"] == "GOLONGRL_EVAL_API_KEY"]
        assert key["valueFrom"]["secretKeyRef"]["key"] == "engine-api-key"
        (service,) = [one for one in objects.of("Service") if one["metadata"]["name"] == "demo-golongrl-engines"]
        assert service["spec"]["ports"] == [{"name": "http", "port": 30000, "targetPort": 31000}]
        rollout = {"app.kubernetes.io/instance": "demo", "app.kubernetes.io/component": "rollout"}
        assert rollout.items() <= service["spec"]["selector"].items()
        assert selected.items() <= service["spec"]["selector"].items()
        policies = {one["metadata"]["name"]: one["spec"] for one in objects.of("NetworkPolicy")}
        (entry,) = policies["demo-golongrl-engines"]["ingress"]
        assert entry["ports"] == [{"port": 31000, "protocol": "TCP"}]
        (peer,) = entry["from"]
        assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "evaluation"
        egress = policies["demo-golongrl-evaluation"]["egress"][1]
        assert egress["ports"] == [{"port": 31000, "protocol": "TCP"}]
        assert egress["to"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "rollout"


def test_gpus_need_an_image_that_has_sglang(helm4: Helm) -> None:
    image = {"repository": "mine/golongrl-evaluation"}
    found = container(helm4.template(evaluating(gpus=2, image=image)))
    assert found["resources"]["limits"]["nvidia.com/gpu"] == found["resources"]["requests"]["nvidia.com/gpu"] == "2"
    words = [b for a, b in itertools.pairwise(found["command"]) if a == "--set"]
    assert words == ["target.engine=sglang", "target.gpus=2", "target.sglang_venv=/usr"]
    assert "--set" not in container(helm4.template(ON))["command"]
    for values, said in (
        ({"gpus": 1}, "golongrl/golongrl-learner has no SGLang"),
        ({"gpus": 1, "image": {"repository": "proxy/golongrl/golongrl-learner"}}, "has no SGLang"),
        ({"gpus": 1, "image": image, "target": "pool"}, "evaluation.gpus: must be 0 with evaluation.target pool"),
        ({"target": "engines"}, "must be one of 'weights', 'pool'"),
        ({"gpus": -1}, "gpus"),
        ({"suite": "nosuch"}, "evaluation.suite: 'nosuch' is none of table, long-context, "),
    ):
        assert said in helm4.refusal(evaluating(**values))


def test_another_command_is_another_job(helm4: Helm) -> None:
    names = {
        job(helm4.template(values))["metadata"]["name"]
        for values in (ON, ON, evaluating(suite="general"), evaluating(args=["--limit", "5"]))
    }
    assert len(names) == 3
    assert all(len(name) <= 63 for name in names)


def test_only_prometheus_connects_to_it_and_it_connects_to_a_judge_alone(helm4: Helm) -> None:
    rule = {"to": [{"ipBlock": {"cidr": "203.0.113.5/32"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    for extra in ([], [rule]):
        policies = helm4.template({**ON, "networkPolicy": {"extraEgress": {"evaluation": extra}}}).of("NetworkPolicy")
        (mine,) = [
            one["spec"]
            for one in policies
            if one["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "evaluation"
        ]
        assert mine["policyTypes"] == ["Ingress", "Egress"]
        (ingress,) = mine["ingress"]
        (peer,) = ingress["from"]
        assert peer["podSelector"] == {"matchLabels": {"app.kubernetes.io/name": "prometheus"}}
        assert ingress["ports"] == [{"port": 8090, "protocol": "TCP"}]
        dns, *rest = mine["egress"]
        assert dns["ports"] == DNS["ports"]
        assert rest == extra
        others = [one["spec"] for one in policies if one["spec"] != mine]
        assert "component: evaluation" not in yaml.safe_dump(others)


def test_with_a_volume_of_one_node_it_runs_there(helm4: Helm) -> None:
    objects = helm4.template({**ON, "storage": {"accessModes": ["ReadWriteOnce"]}})
    affinity = job(objects)["spec"]["template"]["spec"]["affinity"]["podAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    (expression,) = term["labelSelector"]["matchExpressions"]
    assert expression["values"] == ["construction", "evaluation", "learner", "passrate", "rollout"]


def test_render_evaljob_is_the_charts_job(helm4: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "helm").symlink_to(helm4.binary)
    monkeypatch.setenv("PATH", str(tools), prepend=":")
    text = evaljob_yaml("general", "demo", "", (), ["evaluation.args={--mode,compat}"])
    kinds = [found["kind"] for found in yaml.safe_load_all(text)]
    assert sorted(kinds) == ["Job", "NetworkPolicy", "ServiceAccount"]
    (found,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "Job"]
    command = found["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[:4] == ["golongrl", "eval", "run", "general"]
    assert command[-2:] == ["--mode", "compat"]
    assert "namespace" not in found["metadata"]
    assert "namespace: rl" in evaljob_yaml("general", "demo", "rl")
    kinds = [found["kind"] for found in yaml.safe_load_all(evaljob_yaml("general", "demo", "", (), [POOL]))]
    assert sorted(kinds) == ["Job", "NetworkPolicy", "NetworkPolicy", "Service", "ServiceAccount"]
    with pytest.raises(GolongrlError, match="has no SGLang"):
        evaljob_yaml("general", "demo", "", (), ["evaluation.gpus=1"])
    with pytest.raises(GolongrlError, match="suite"):
        evaljob_yaml("no suite", "demo")
    with pytest.raises(GolongrlError, match=r"evaluation\.suite: 'nosuch' is none of table, long-context, .*mrcr-128k"):
        evaljob_yaml("nosuch", "demo")
    with pytest.raises(GolongrlError, match="'other' is none of"):
        evaljob_yaml("table", "demo", "", (), ["evaluation.suite=other"])
    assert "mine" in evaljob_yaml("mine", "demo", "", (), ["evaluation.image.repository=my/eval"])
