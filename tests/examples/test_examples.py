"""examples/: what its README says works, run as a person runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from support.crd import broken_rules, close
from support.helm import CHART, ROOT, YAML, load_script

EXAMPLES = ROOT / "examples"
README = (EXAMPLES / "README.md").read_text()


def run(*command: str, folder: Path = ROOT, seconds: float = 600) -> str:
    """A command that has to succeed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        env=os.environ | {"PATH": path},
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def golongrl(*arguments: str, **more: Any) -> str:
    return run(sys.executable, "-m", "golongrl", *arguments, **more)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "rows.parquet"
    run(sys.executable, str(EXAMPLES / "own-rows" / "make_rows.py"), str(file))
    return file


def test_the_readme_names_every_example_and_each_is_there() -> None:
    named = set(re.findall(r"\]\(([^)]+)\)", README))
    assert all((EXAMPLES / name).is_file() for name in named)
    assert {str(path.parent.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.*") if path.parent != EXAMPLES} == {
        str(Path(name).parent) for name in named
    }


def test_rows_of_ones_own_are_accepted_and_prepared(rows: Path, tmp_path: Path) -> None:
    assert "64 rows" in golongrl("data", "check", str(rows))
    recipe = str(EXAMPLES / "own-rows" / "recipe.yaml")
    golongrl("data", "prepare", recipe, "--set", f"data.train={rows}", "--out", str(tmp_path / "data"))


def test_prompts_are_built_from_a_corpus_of_ones_own(tmp_path: Path) -> None:
    golongrl("data", "prepare", str(EXAMPLES / "own-corpus" / "recipe.yaml"), "--out", str(tmp_path / "data"))


def test_the_training_run_is_one_that_the_api_server_accepts() -> None:
    definition = yaml.load((CHART / load_script("generate").CRD).read_text(), Loader=YAML)
    (version,) = definition["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    made = yaml.load((EXAMPLES / "kubernetes" / "trainingrun.yaml").read_text(), Loader=YAML)
    closed = close(schema)
    closed["properties"]["metadata"] = {"type": "object"}
    jsonschema.Draft7Validator(closed).validate(made)
    assert list(broken_rules(schema, made)) == []


def test_the_rayjob_script_reaches_kubectl_with_what_was_rendered(tmp_path: Path) -> None:
    """With a kubectl that keeps what it is given; helm is the real one."""
    from support.helm import tool

    for name, text in {
        "kubectl": f'#!/bin/sh\ncase "$*" in *apply*) cat > {tmp_path}/applied.yaml;; esac\n',
        "golongrl": f'#!/bin/sh\nexec {sys.executable} -m golongrl "$@"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (tmp_path / "helm").symlink_to(tool("helm4"))
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    subprocess.run(
        [str(EXAMPLES / "kubernetes" / "rayjob.sh"), "qwen3-4b-grpo", "rl"],
        check=True, timeout=600, env=os.environ | {"PATH": path}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    kinds = [item["kind"] for item in yaml.load_all((tmp_path / "applied.yaml").read_text(), Loader=YAML) if item]
    assert "RayJob" in kinds


@pytest.mark.full
@pytest.mark.parametrize("example", ["own-corpus", "own-rows"])
def test_an_example_trains(example: str, rows: Path, tmp_path: Path) -> None:
    more = ["--set", f"data.train={rows}"] if example == "own-rows" else []
    out = golongrl(
        "train", str(EXAMPLES / example / "recipe.yaml"), "--set", "learner.steps=2", *more, "--name", "mine",
        "--out", str(tmp_path), seconds=1200,
    )  # fmt: skip
    assert "step 2/2" in out
