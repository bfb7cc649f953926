"""The chart with its operator: a TrainingRun for the RayJob, the same training, and no more rights than calls."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from golongrl.kubernetes.rayjob.load import load_values, recipe_of
from golongrl.kubernetes.rayjob.render import chart
from golongrl.kubernetes.rayjob.site import Site, read_site
from golongrl_operator.build import objects as made_of
from golongrl_operator.build import pool as pool_of
from golongrl_operator.build import resolve
from golongrl_operator.lease import lease_name
from golongrl_operator.metrics import OperatorMetrics
from support.chart_values import MATRIX, PLACED, PRESETS, RAYJOBS
from support.helm import Helm, Manifest, Rendered, containers, pod_specs

ON = {"operator": {"enabled": True}}


def site_of(objects: Rendered) -> Site:
    """What the operator's pod reads at its start."""
    text = objects.one("ConfigMap", "-operator")["data"]["release.json"]
    return read_site(text, "release.json", "demo", "rl")


def pod(objects: Rendered) -> Manifest:
    spec: Manifest = objects.one("Deployment", "-operator")["spec"]["template"]["spec"]
    return spec


def test_without_the_switch_nothing_of_it_is_there(helm4: Helm) -> None:
    objects = helm4.template()
    assert not objects.of("TrainingRun")
    assert not objects.of("Role")
    assert not [item for item in objects if item["metadata"]["name"].endswith("-operator")]


def test_a_training_run_replaces_the_job(helm: Helm) -> None:
    objects = helm.template(MATRIX["operator"])
    assert not objects.of("RayJob")
    assert not objects.of("Job")
    spec = objects.one("TrainingRun")["spec"]
    assert (spec["release"], spec["maxRestarts"], spec["stallSeconds"]) == ("demo", 4, 3600)
    assert not helm.template(MATRIX["operator-outside"]).of("TrainingRun")
    assert helm.template(MATRIX["operator-outside"]).of("Deployment")


def test_its_pool_may_be_sized_by_the_operator(helm4: Helm) -> None:
    assert "rollout" not in helm4.template(ON).one("TrainingRun")["spec"]
    sized = {"operator": {"enabled": True, "minReplicas": 2, "maxReplicas": 8}}
    assert helm4.template(sized).one("TrainingRun")["spec"]["rollout"] == {"minReplicas": 2, "maxReplicas": 8}
    wrong = {"operator": {"enabled": True, "minReplicas": 9, "maxReplicas": 8}}
    assert "minReplicas 9 is more than maxReplicas 8" in helm4.refusal(wrong)


def test_its_name_stays_when_what_it_trains_changes(helm4: Helm) -> None:
    """The operator replaces the RayJob then; a name with a hash would leave helm to delete the run."""
    runs = [helm4.template(ON | {"recipe": {"learner": {"steps": steps}}}).one("TrainingRun") for steps in (5, 6)]
    assert runs[0]["metadata"] == runs[1]["metadata"]
    assert runs[0]["spec"]["recipe"] != runs[1]["spec"]["recipe"]


def assert_trains_what_helm_would(helm: Helm, values: Manifest, files: tuple[str, ...] = ()) -> None:
    """But for the name of the recipe's ConfigMap, which is the run's own."""
    installed = helm.template(values, files=files).one("RayJob")
    objects = helm.template(values | ON, files=files)
    run = objects.one("TrainingRun")
    run["metadata"]["uid"] = "u"
    meaning = resolve(site_of(objects), run)
    assert meaning.recipe == recipe_of(load_values([chart() / name for name in files], values))
    config, job = made_of(site_of(objects), run, meaning, 0)
    name = job["metadata"]["name"]
    assert name.rpartition("-")[0] == installed["metadata"]["name"].rpartition("-")[0]
    assert config["metadata"]["name"] == name
    expected = json.dumps(installed["spec"]).replace("demo-golongrl-recipe", name)
    assert job["spec"] == json.loads(expected)
    # Kueue admits the RayJob together with the pool, and not by its label.
    assert meaning.queue == installed["metadata"]["labels"].pop("kueue.x-k8s.io/queue-name", "")
    gang = {key for key in installed["metadata"]["labels"] if "queue" in key or "scheduler" in key}
    assert {key: job["metadata"]["labels"].get(key) for key in gang} == {
        key: installed["metadata"]["labels"][key] for key in gang
    }
    assert job["metadata"]["namespace"] == config["metadata"]["namespace"] == "rl"


@pytest.mark.parametrize("name", RAYJOBS)
def test_the_operator_trains_what_the_chart_would(helm4: Helm, name: str) -> None:
    assert_trains_what_helm_would(helm4, MATRIX[name])


@pytest.mark.parametrize("preset", PRESETS)
def test_the_operator_trains_every_preset(helm4: Helm, preset: str) -> None:
    assert_trains_what_helm_would(helm4, {}, (preset,))


@pytest.mark.parametrize(
    ("release", "values"),
    [
        ("demo", {}),
        ("my-golongrl", {}),
        ("4b", {}),
        ("a.b", {}),
        ("r" * 53, {}),
        ("r" * 52 + "s", {}),
        ("demo", {"nameOverride": "rl"}),
        ("demo", {"fullnameOverride": "a-name-that-is-longer-than-thirty-characters"}),
    ],
)
def test_the_name_of_a_rayjob_is_one_that_kuberay_takes(helm4: Helm, release: str, values: Manifest) -> None:
    for switches in (values, values | ON):
        objects = helm4.template(switches, release=release)
        if switches is values:
            name = objects.one("RayJob")["metadata"]["name"]
        else:
            text = objects.one("ConfigMap", "-operator")["data"]["release.json"]
            name = json.loads(text)["rayJob"]["metadata"]["name"] + "-12345678"
        assert len(name) <= 47
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)


def test_an_upgrade_of_the_chart_alone_replaces_no_rayjob(helm4: Helm) -> None:
    """The version of the chart stands in every label that Helm sets; the images name their own."""
    assert "helm.sh/chart" not in json.dumps(site_of(helm4.template(ON)).rayjob)


def test_what_the_release_changes_rolls_the_operator_and_what_it_does_not_read_leaves_it_alone(helm4: Helm) -> None:
    def template(values: Manifest) -> Any:
        return helm4.template(ON | values).one("Deployment", "-operator")["spec"]["template"]

    assert template({}) == template({"reward": {"replicas": 3}})
    assert template({}) != template({"rollout": {"replicas": 2}}), "the operator sizes the pool"
    assert template({}) != template({"learner": {"image": {"tag": "2"}}})
    assert template({}) != template({"storage": {"existingClaim": "mine"}})


@pytest.mark.parametrize(
    ("values", "files"),
    [
        ({}, ()),
        ({"storage": {"folder": "team"}, "run": "x"}, ()),
        (MATRIX["engines-over-nodes"], ()),
        (MATRIX["placed"], ()),
        ({}, ("values-qwen3-30b-a3b-grpo.yaml",)),
    ],
)
def test_a_pool_of_a_run_s_own_is_the_release_s_elsewhere(
    helm4: Helm, values: Manifest, files: tuple[str, ...]
) -> None:
    """Valid, with names that fit, and nothing of it in the release's queue or folder."""
    site = site_of(helm4.template(values | ON, files=files))
    spec = {"release": "demo", "rollout": {"dedicated": True, "replicas": 3}}
    run = {"metadata": {"name": "own", "uid": "u", "generation": 1}, "spec": spec}
    meaning = resolve(site, run)
    config, work = pool_of(site, run, meaning, 3)
    _, job = made_of(site, run, meaning, 0)
    if work["kind"] == "Deployment":
        kubernetes_validate.validate(work, "1.36", strict=True)
    kubernetes_validate.validate(config, "1.36", strict=True)
    assert len(work["metadata"]["name"]) <= 52
    for item in (work, job):
        text = json.dumps(item)
        folders = set(re.findall(rf"{site.store}/(?:runs/own/)?(?:data|weights|run)(?![\w-])", text))
        assert folders
        assert all(folder.startswith(f"{site.store}/runs/own/") for folder in folders)
        assert f'"value": "{site.run}.own"' in text
        assert f'"value": "{site.run}"' not in text
        assert "demo-golongrl-recipe" not in text
    templates = [work["spec"].get("template") or work["spec"]["leaderWorkerTemplate"]["leaderTemplate"]]
    assert all(template["metadata"]["labels"]["golongrl.io/training-run"] == "own" for template in templates)


def test_one_operator_at_a_time(helm4: Helm) -> None:
    spec = helm4.template(ON).one("Deployment", "-operator")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_only_the_operators_pod_has_a_token_and_only_its_account_the_role(helm4: Helm) -> None:
    for switch in ("operator", "operator-outside"):
        objects = helm4.template(MATRIX[switch])
        tokens = {
            name
            for name, _, spec in pod_specs(objects)
            for volume in spec["volumes"]
            for source in volume.get("projected", {}).get("sources", [])
            if "serviceAccountToken" in source
        }
        assert tokens == {"Deployment/demo-golongrl-operator"}
        binding = objects.one("RoleBinding", "-operator")
        account = objects.one("ServiceAccount", "-operator")["metadata"]
        assert binding["subjects"] == [
            {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
        ]
        assert pod(objects)["serviceAccountName"] == account["name"]
        users = [name for name, _, spec in pod_specs(objects) if spec["serviceAccountName"] == account["name"]]
        assert users == ["Deployment/demo-golongrl-operator"]


def test_the_role_names_what_it_allows(helm4: Helm) -> None:
    """tests/operator holds the rules against the calls that are made."""
    for rule in helm4.template(ON).one("Role", "-operator")["rules"]:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
        assert "secrets" not in rule["resources"]


def test_the_probe_is_where_the_command_serves_it(helm4: Helm) -> None:
    (container,) = containers(pod(helm4.template(ON)))
    flags = dict(word.removeprefix("--").split("=") for word in container["command"][2:])
    (port,) = container["ports"]
    assert (flags["host"], int(flags["port"]), flags["release"]) == ("0.0.0.0", port["containerPort"], "demo")
    for kind in ("startupProbe", "livenessProbe"):
        assert container[kind]["httpGet"] == {"path": "/healthz", "port": port["name"]}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert flags["site"].rpartition("/")[0] in mounts
    assert "/var/run/secrets/kubernetes.io/serviceaccount" in mounts


OBSERVED = ON | MATRIX["everything-observed"]


def test_its_rules_are_good_and_fire_when_they_should(helm4: Helm, tmp_path: Path, promtool: Path) -> None:
    rules = tmp_path / "rules-operator.yaml"
    rules.write_text(yaml.safe_dump(helm4.template(OBSERVED).one("PrometheusRule", "-operator")["spec"]))
    tests = Path(__file__).parent / "rules_operator_test.yaml"
    shutil.copy(tests, tmp_path)
    for words in (["check", "rules", str(rules)], ["test", "rules", str(tmp_path / tests.name)]):
        done = subprocess.run([str(promtool), *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]:
        assert rule["alert"] in tests.read_text()
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_its_rules_ask_for_what_it_exports(helm4: Helm) -> None:
    known = {family.name for family in OperatorMetrics().registry.collect()}
    groups = helm4.template(OBSERVED).one("PrometheusRule", "-operator")["spec"]["groups"]
    asked = [
        (name, rule["alert"])
        for rule in groups[0]["rules"]
        for name in re.findall(r"golongrl_\w+", re.sub(r'"[^"]*"', '""', rule["expr"]))
    ]
    assert {alert for _, alert in asked} == {rule["alert"] for rule in groups[0]["rules"]}
    assert {name for name, _ in asked} <= known


def test_it_is_scraped_where_it_serves_and_observed_only_where_it_is(helm4: Helm) -> None:
    (endpoint,) = helm4.template(OBSERVED).one("PodMonitor", "-operator")["spec"]["podMetricsEndpoints"]
    (container,) = containers(pod(helm4.template(OBSERVED)))
    assert (endpoint["port"], endpoint["path"]) == (container["ports"][0]["name"], "/metrics")
    off = helm4.template(MATRIX["everything-observed"])
    names = [item["metadata"]["name"] for kind in ("PodMonitor", "PrometheusRule") for item in off.of(kind)]
    assert names
    assert not [name for name in names if name.endswith("-operator")]
    assert not helm4.template(ON).of("PodMonitor")


def test_its_way_to_the_api_server_can_be_narrowed(helm4: Helm) -> None:
    egress = helm4.template(MATRIX["operator-outside"]).one("NetworkPolicy", "-operator")["spec"]["egress"]
    assert {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [{"port": 6443, "protocol": "TCP"}]} in egress
    assert {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 6380, "protocol": "TCP"}]} in egress
    anywhere = helm4.template(ON).one("NetworkPolicy", "-operator")["spec"]["egress"]
    assert {"ports": [{"port": port, "protocol": "TCP"} for port in (443, 6443)]} in anywhere


def test_placement_reaches_the_operator(helm4: Helm) -> None:
    objects = helm4.template(MATRIX["operator"])
    spec = pod(objects)
    for key in ("nodeSelector", "tolerations", "topologySpreadConstraints", "priorityClassName", "runtimeClassName"):
        assert spec[key] == PLACED[key]
    metadata = objects.one("Deployment", "-operator")["spec"]["template"]["metadata"]
    assert metadata["labels"]["team"] == "rl"
    assert metadata["annotations"]["note"] == "x"


def test_it_needs_kuberay_and_ranks_that_fit(helm: Helm) -> None:
    assert "the operator makes RayJobs; install KubeRay" in helm.refusal(ON, kuberay=False)
    assert "the operator makes RayJobs" in helm.refusal(ON | {"learner": {"mode": "job"}})
    wrong = ON | {"learner": {"workers": {"replicas": 2, "gpus": 8}}}
    assert "are not the recipe's learner.ranks 1" in helm.refusal(wrong)


def test_a_release_that_gets_it_later_is_told_how_to_get_the_crd(helm: Helm) -> None:
    """Helm installs CRDs with a release, never with its upgrade."""
    words = ["template", "demo", str(chart()), "--is-upgrade", "--set", "operator.enabled=true"]
    refused = helm.run(*words, "--api-versions", "ray.io/v1/RayJob")
    assert refused.returncode != 0
    (path,) = re.findall(r"--server-side -f charts/golongrl/(\S+)", refused.stderr)
    assert (chart() / path).is_file()
    both = ["--api-versions", "ray.io/v1/RayJob,golongrl.io/v1alpha1/TrainingRun"]
    assert helm.run(*words, *both).returncode == 0


def test_notes_say_how_to_watch_it(helm4: Helm) -> None:
    done = helm4.run(
        "install", "demo", str(chart()), "--dry-run=client",
        "--set", "operator.enabled=true", "--set", "learner.mode=rayjob",
    )  # fmt: skip
    notes = done.stdout.partition("NOTES:")[2]
    assert "get trainingruns" in notes, done.stderr
    assert "--for=condition=Complete" in notes
    # What the operator makes for itself is no object of the release, so `helm uninstall` leaves it.
    assert f"kubectl delete lease {lease_name('demo')} -n " in notes
