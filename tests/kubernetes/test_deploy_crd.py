"""`golongrl deploy` and the CRD: of another version, applied by kubectl, missing at an upgrade, or not writable."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from golongrl.kubernetes.cluster_errors import ClusterError
from golongrl.kubernetes.deploy import crd
from golongrl.kubernetes.deploy.helm import Deployment
from support.api_http import serving
from support.api_server import ApiServer
from support.helm import CHART, MAJORS, YAML, Helm, load_script, tool

ON = {"operator": {"enabled": True}}
CRD: dict[str, Any] = yaml.load((CHART / load_script("generate").CRD).read_text(), Loader=YAML)


def older() -> dict[str, Any]:
    """The CRD of an earlier version of the chart."""
    item = copy.deepcopy(CRD)
    del item["spec"]["versions"][0]["additionalPrinterColumns"]
    return item


@pytest.fixture(params=MAJORS)
def either_helm(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PATH."""
    (tmp_path / "helm").symlink_to(tool(request.param))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("KUBECACHEDIR", str(tmp_path / "cache"))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    with serving(ApiServer()) as server:
        server.create_namespace("rl")
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig")))
        yield server


def columns(server: ApiServer) -> list[str]:
    return [item["name"] for item in server.one(CRD["kind"])["spec"]["versions"][0].get("additionalPrinterColumns", [])]


WANTED = [item["name"] for item in CRD["spec"]["versions"][0]["additionalPrinterColumns"]]


def test_plain_helm_4_stops_at_a_crd_that_kubectl_applied(tmp_path: Path) -> None:
    """What the others are about, as the API server of these tests reproduces it."""
    with serving(ApiServer()) as server:
        server.create_namespace("rl")
        server.put(older(), manager="kubectl")
        where = ["--kubeconfig", str(server.kubeconfig(tmp_path / "kubeconfig")), "-n", "rl"]
        done = Helm(tool("helm4")).run("install", "demo", str(CHART), "--set", "operator.enabled=true", *where)
        assert done.returncode != 0
        assert 'conflict with "kubectl": .spec.versions' in done.stderr


@pytest.mark.usefixtures("either_helm")
def test_deploy_installs_over_a_crd_that_kubectl_applied_and_keeps_it_current(api: ApiServer) -> None:
    api.put(older(), manager="kubectl")
    deployment = Deployment("demo", "rl", timeout="5m")
    notes = deployment.apply(ON)
    assert "was not updated" not in notes
    assert columns(api) == WANTED
    assert api.of("TrainingRun")
    # An upgrade of the chart brings its CRD too, which Helm does not.
    api.put(older())
    deployment.apply(ON)
    assert columns(api) == WANTED


@pytest.mark.usefixtures("either_helm")
def test_the_operator_can_be_switched_on_in_an_existing_release(api: ApiServer) -> None:
    deployment = Deployment("demo", "rl", timeout="5m")
    deployment.apply({})
    assert not api.of(CRD["kind"])
    deployment.apply(ON)
    assert columns(api) == WANTED
    assert api.of("TrainingRun")


@pytest.mark.usefixtures("either_helm")
def test_a_newer_definition_is_left_as_it_is(api: ApiServer) -> None:
    """Another release's operator needs its keys: the API server would drop them at each write of a run."""
    newer = copy.deepcopy(CRD)
    schema = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["later"] = {"type": "string"}
    api.put(newer, manager="helm")
    told = Deployment("demo", "rl", timeout="5m").apply(ON)
    assert told.startswith("the CustomResourceDefinition is newer than this chart's, and was left as it is: it has ")
    assert "v1alpha1.spec.later\n" in told
    (version,) = api.one(CRD["kind"])["spec"]["versions"]
    assert "later" in version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert api.of("TrainingRun")


def test_without_the_right_to_write_it_the_crd_that_is_there_is_used(api: ApiServer) -> None:
    api.put(CRD)
    api.refuse["customresourcedefinitions", "patch"] = 403
    told = crd.keep_definition(CHART, "rl", None)
    assert told.startswith("the CustomResourceDefinition was not updated: API server")
    assert "403" in told


def test_a_definition_that_is_never_served_is_one_line(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crd, "_LOOKS", 2)
    monkeypatch.setattr("support.api_server._with_defaults", lambda item: item)
    with pytest.raises(ClusterError, match=r"CustomResourceDefinition trainingruns\.golongrl\.io is not served after"):
        crd.keep_definition(CHART, "rl", None)
