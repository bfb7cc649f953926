"""Errors of `golongrl operator` before it reaches a cluster."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from golongrl.errors import GolongrlError
from golongrl.kubernetes.cluster_errors import ClusterAccessError
from golongrl.kubernetes.rayjob.site import RayJobError
from golongrl_operator.command import operator

app = typer.Typer()
app.command()(operator)


def refusal(*words: str) -> GolongrlError:
    error = CliRunner().invoke(app, ["--release", "demo", *words]).exception
    assert isinstance(error, GolongrlError)
    assert "\n" not in str(error)
    return error


SITE = {
    "release": "demo", "run": "demo", "redisUrl": "redis://r", "gpuResource": "nvidia.com/gpu", "recipe": {},
    "rayJob": {}, "evaluation": {}, "gpuBudget": 0, "store": "/store",
    "pool": {"workload": {"metadata": {"name": "demo-rollout"}}, "replicas": 1, "autoscaled": False, "gpus": 0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "Invalid JSON"),
        (json.dumps(SITE | {"run": 1}), "run: "),
        (json.dumps({key: SITE[key] for key in SITE if key != "rayJob"}), "missing key rayJob"),
        (json.dumps(SITE | {"release": "prod"}), "it is of the release 'prod', not of 'demo'"),
    ],
)
def test_a_site_that_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "release.json"
    path.write_text(text)
    error = refusal("--site", str(path))
    assert isinstance(error, RayJobError)
    assert str(error).startswith(f"--site {path}: ")
    assert message in str(error)


def test_a_site_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert "cannot be read: " in str(refusal("--site", str(tmp_path / "none")))


def test_without_a_cluster_it_says_what_it_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    path = tmp_path / "release.json"
    path.write_text(json.dumps(SITE))
    error = refusal("--site", str(path))
    assert isinstance(error, ClusterAccessError)
    assert "kubeconfig" in str(error)
