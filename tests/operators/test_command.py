"""What `golongrl operator` says of itself and of what is wrong, before it reaches a cluster."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from golongrl.errors import GolongrlError
from golongrl.kubernetes.rayjob.builder import ValuesError
from golongrl_operator.command import operator
from golongrl_operator.kube import KubeError

app = typer.Typer()
app.command()(operator)


def test_help_has_an_example() -> None:
    assert "golongrl operator --release" in " ".join(CliRunner().invoke(app, ["--help"]).output.split())


def refusal(*words: str) -> GolongrlError:
    error = CliRunner().invoke(app, ["--release", "demo", *words]).exception
    assert isinstance(error, GolongrlError)
    assert "\n" not in str(error)
    return error


def test_values_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("learner: {backoffLimits: 1}")
    error = refusal("--values", str(path))
    assert isinstance(error, ValuesError)
    assert "learner.backoffLimits" in str(error)


def test_without_a_cluster_it_says_what_it_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    error = refusal()
    assert isinstance(error, KubeError)
    assert "kubeconfig" in str(error)
