"""operators/config: what `kubectl apply -k` sends is the chart's CRD, and the samples are runs that would train."""

import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from golongrl.kubernetes.rayjob.site import read_site
from golongrl_operator.build import resolve
from golongrl_operator.crd import schema
from support.crd import broken_rules, close
from support.helm import CHART, ROOT, YAML, Helm, load_script, tool

CONFIG = ROOT / "operators" / "config"
SAMPLES = sorted((CONFIG / "samples").glob("*.yaml"))
# What the samples' runs are beside, by the values file that their comment names.
RELEASE = re.compile(r"helm install golongrl charts/golongrl( -f charts/golongrl/(?P<values>\S+))? --set (?P<set>\S+)")
ON = {"operator": {"enabled": True}, "learner": {"enabled": False}}


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.load(path.read_text(), Loader=YAML))


def kustomized(folder: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [str(tool("kubectl")), "kustomize", str(folder)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.load_all(done.stdout, Loader=YAML))


def test_the_crd_of_kustomize_is_the_charts() -> None:
    assert kustomized(CONFIG / "crd") == [read(CHART / load_script("generate").CRD)]


def test_the_operator_of_kustomize_is_the_charts(helm4: Helm) -> None:
    """Beside a release with operator.external, which has everything else."""
    script = load_script("operator_manifests")
    written = script.TARGET.read_text("utf-8")
    assert written == script.text(str(tool("helm4"))), "run scripts/operator_manifests.py"
    found = kustomized(CONFIG / "default")
    kinds = [item["kind"] for item in found]
    assert sorted(kinds) == ["CustomResourceDefinition", "Deployment", "Role", "RoleBinding", "ServiceAccount"]
    assert {item["metadata"].get("namespace") for item in found if item["kind"] != kinds[0]} == {"golongrl"}
    # The release has what its pods name, admits it to Redis, and does not have these objects itself.
    release = helm4.template({"operator": {"external": True}}, release="golongrl", namespace="golongrl")
    (deployment,) = [item for item in found if item["kind"] == "Deployment"]
    spec = deployment["spec"]["template"]["spec"]
    maps = {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
    assert maps == {release.one("ConfigMap", "-operator")["metadata"]["name"]}
    (container,) = spec["containers"]
    secrets = {one["valueFrom"]["secretKeyRef"]["name"] for one in container["env"] if "valueFrom" in one}
    assert secrets <= {item["metadata"]["name"] for item in release.of("Secret")}
    assert not [item for item in release.of("Deployment") if item["metadata"]["name"].endswith("-operator")]
    assert "replicas" not in release.one("Deployment", "-rollout")["spec"]
    allowed = release.one("NetworkPolicy", "-redis")["spec"]["ingress"][0]["from"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert any(peer["podSelector"]["matchLabels"].items() <= labels.items() for peer in allowed)


def test_the_charts_crd_stays_the_only_thing_that_helm_installs_of_its_subchart(helm4: Helm) -> None:
    found = helm4.run("template", "demo", str(CHART / "charts" / "crds"), "--include-crds")
    assert [item["kind"] for item in yaml.load_all(found.stdout, Loader=YAML)] == ["CustomResourceDefinition"]


@pytest.fixture
def helm4() -> Helm:
    return Helm(tool("helm4"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_a_sample_is_a_run_that_its_release_would_train(sample: Path, helm4: Helm) -> None:
    """The CRD accepts it (unknown keys refused, CEL rules asked), and the operator would make its RayJob."""
    run = read(sample)
    closed = close(schema())
    closed["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft7Validator(closed).validate(run)
    assert list(broken_rules(schema(), run)) == []
    told = RELEASE.search(sample.read_text())
    assert told is not None, "the sample's comment does not say how its release is installed"
    assert told["set"] == "operator.enabled=true,learner.enabled=false"
    files = (told["values"],) if told["values"] else ()
    config = helm4.template(ON, files=files, release="golongrl").one("ConfigMap", "-operator")
    site = read_site(config["data"]["release.json"], sample.name, "golongrl", "rl")
    meaning = resolve(site, run)
    assert meaning.differs == ()
    assert meaning.recipe.name == (run["spec"].get("recipePreset") or meaning.recipe.name)


def test_the_samples_show_what_the_readme_lists() -> None:
    readme = (CONFIG.parent / "README.md").read_text()
    assert re.findall(r"\(config/samples/(\S+?)\)", readme) != []
    assert sorted(re.findall(r"\(config/samples/(\S+?)\)", readme)) == [path.name for path in SAMPLES]
    wanted = {path.stem: read(path)["spec"] for path in SAMPLES}
    assert set(wanted["minimal"]) == {"release"}
    assert wanted["longer"]["recipe"]["learner"]["steps"] > 40
    assert wanted["suspended"]["suspend"] is True
    assert wanted["another-preset"]["recipePreset"]
