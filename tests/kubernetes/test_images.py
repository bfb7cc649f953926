"""Images, skaffold and the end-to-end script: what they name exists, and each image installs only what it needs."""

import difflib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from golongrl.kubernetes.rayjob.load import load_values, recipe_of
from golongrl.learner.memory import check_kernel
from support.helm import CHART, ROOT, Helm, tool

IMAGES = ("reward", "rollout", "learner", "operator")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def dockerfile(name: str) -> str:
    return (ROOT / "images" / name / "Dockerfile").read_text()


@pytest.mark.parametrize("name", IMAGES)
def test_hadolint_is_content(name: str) -> None:
    binary = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [binary, ROOT / "images" / name / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_small_plain_and_not_root(name: str) -> None:
    text = dockerfile(name)
    # One base, which a build may pin by digest: --build-arg BASE=...@sha256:...
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["${BASE}", "${BASE}"]
    assert re.search(r"^ARG BASE=\S+:3\.11\.\d+-\S+$", text, re.M)
    assert "\nUSER 1000:1000\n" in text
    assert "HEALTHCHECK" not in text
    assert f'org.opencontainers.image.title="golongrl-{name}"' in text
    assert f'org.opencontainers.image.version="{PROJECT["version"]}"' in text
    (extras,) = re.findall(r"pip install '\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    for source in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M):
        assert all((ROOT / path).exists() for path in source.split())


def test_the_learners_torch_and_the_charts_versions_are_the_projects() -> None:
    (torch,) = re.findall(r"(torch==[\d.]+)", dockerfile("learner"))
    assert torch in PROJECT["optional-dependencies"]["learner"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == PROJECT["version"]
    (ray,) = [need for need in PROJECT["optional-dependencies"]["learner"] if need.startswith("ray")]
    cluster = Helm(tool("helm4")).template().one("RayJob")["spec"]["rayClusterSpec"]
    assert cluster["rayVersion"].rpartition(".")[0] == ray.partition(">=")[2]


@pytest.mark.parametrize("preset", sorted(path.name for path in CHART.glob("values-*.yaml")))
def test_ranks_on_gpus_have_an_image_with_cuda(preset: str) -> None:
    """The image is built for CPUs unless a build says otherwise; its torch would see no GPU."""
    assert re.search(r"^ARG TORCH_INDEX=\S+/cpu$", dockerfile("learner"), re.M)
    learner = yaml.safe_load((CHART / preset).read_text()).get("learner")
    if learner is not None:  # an overlay of the network has none
        assert learner["image"]["tag"] == f"{PROJECT['version']}-cuda"


# Extra -> the command that its image runs, and what must not be inside.
ENTRY = {
    "reward": (["golongrl", "reward", "serve", "--help"], ("torch", "transformers", "ray", "pyarrow")),
    "rollout": (["golongrl", "rollout", "--help"], ("torch", "transformers", "ray", "fastapi")),
    "operator": (["golongrl", "operator", "--help"], ("torch", "transformers", "ray", "fastapi", "pyarrow")),
}


@pytest.mark.full
@pytest.mark.parametrize("name", ENTRY)
def test_an_image_installs_only_its_own_and_its_command_starts(name: str, tmp_path: Path) -> None:
    """The requirement set in a fresh environment: that the reward image needs no torch is a fact."""
    command, absent = ENTRY[name]
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    binaries = tmp_path / "venv" / "bin"
    subprocess.run([binaries / "pip", "install", "-q", f"{ROOT}[{name}]"], check=True, timeout=600, capture_output=True)
    done = subprocess.run(
        [binaries / command[0], *command[1:]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        [binaries / "pip", "list", "--format", "json"], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {item["name"] for item in json.loads(listed.stdout)} & set(absent)


@pytest.mark.full
def test_the_learner_images_requirements_resolve() -> None:
    """Resolved, not installed: torch alone is gigabytes."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--report",
        "-",
        f"{ROOT}[learner,engine]",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    names = {item["metadata"]["name"].lower() for item in json.loads(done.stdout)["install"]}
    assert {"torch", "verl", "ray", "transformers"} <= names


@pytest.fixture
def skaffold() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    return config


def test_skaffold_names_only_what_exists(skaffold: dict[str, Any]) -> None:
    built = {artifact["image"] for artifact in skaffold["build"]["artifacts"]}
    for artifact in skaffold["build"]["artifacts"]:
        assert (ROOT / artifact["context"] / artifact["docker"]["dockerfile"]).is_file()
    (release,) = skaffold["deploy"]["helm"]["releases"]
    assert (ROOT / release["chartPath"] / "Chart.yaml").is_file()
    used = {
        re.sub(r".*IMAGE_(?:REPO|TAG)_(\w+)}}", r"\1", text).replace("_", "-")
        for text in release["setValueTemplates"].values()
    }
    assert used == built
    assert {profile["name"] for profile in skaffold["profiles"]} == {"cpu", "gpu"}


def patched(config: dict[str, Any], profile: str) -> dict[str, Any]:
    """The configuration under a profile: its JSON patches applied as skaffold does."""
    (found,) = [item for item in config["profiles"] if item["name"] == profile]
    for patch in found.get("patches", []):
        *parents, last = [part.replace("~1", "/") for part in patch["path"].strip("/").split("/")]
        node: Any = config
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        if patch["op"] == "remove":
            del node[last]
        else:
            assert patch["op"] == "add" or last in node
            node[last] = patch["value"]
    return config


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
def test_what_skaffold_would_install_renders_with_its_images(skaffold: dict[str, Any], profile: str) -> None:
    (release,) = patched(skaffold, profile)["deploy"]["helm"]["releases"]
    arguments: list[str] = []
    for name in release.get("valuesFiles", []):
        assert (ROOT / name).is_file()
        arguments += ["-f", str(ROOT / name)]
    for key, value in release["setValues"].items():
        arguments += ["--set", f"{key}={value}"]
    for key, template in release["setValueTemplates"].items():
        arguments += [
            "--set",
            f"{key}={'built' if key.endswith('tag') else template.partition('REPO_')[2].strip('}').replace('_', '-')}",
        ]
    done = Helm(tool("helm4")).run("template", "golongrl", str(CHART), "--api-versions", "ray.io/v1/RayJob", *arguments)
    assert done.returncode == 0, done.stderr
    images = set(re.findall(r"image: (\S+)", done.stdout))
    engine = {"golongrl-learner:built"} if profile == "cpu" else {"docker.io/lmsysorg/sglang:v0.5.23"}
    assert (
        images
        == {
            "golongrl-reward:built",
            "golongrl-rollout:built",
            "golongrl-learner:built",
            "docker.io/valkey/valkey:8.1.4-alpine",
        }
        | engine
    )


def test_what_skaffold_builds_for_gpus_has_the_attention_of_its_recipe(skaffold: dict[str, Any]) -> None:
    """Its learner image gets torch with CUDA and no flash-attn, which the learner would miss at its start."""
    config = patched(skaffold, "gpu")
    (image,) = [item["docker"] for item in config["build"]["artifacts"] if item["image"] == "golongrl-learner"]
    assert image["buildArgs"] == {"TORCH_INDEX": ""}
    (release,) = config["deploy"]["helm"]["releases"]
    recipe = recipe_of(load_values([ROOT / name for name in release["valuesFiles"]]))
    check_kernel(recipe, lambda _: False)
    assert recipe.learner.ulysses == 1


# What tells the images apart: its name and words, what it installs and runs. The learner's adds torch and tools.
OWN = re.compile(
    r"docker build -f|image\.(title|description)|pip install '\.\[|^EXPOSE |^CMD |"
    r"^# (The operator|The reward|The rollout|The learner)"
)


def common(name: str) -> list[str]:
    return [line for line in dockerfile(name).splitlines() if not OWN.search(line)]


def test_the_images_are_built_the_same_way() -> None:
    """Four files, because a Dockerfile includes no other: a base, user or setting changed in one is changed in all."""
    assert common("rollout") == common("reward") == common("operator")
    assert len(common("reward")) > 25
    changes = [line for line in difflib.ndiff(common("reward"), common("learner")) if line[0] in "-+"]
    assert not [line for line in changes if line[0] == "-"]
    added = "\n".join(line[2:] for line in changes)
    assert not re.search(r"^(FROM|COPY|ENV|USER|WORKDIR|ENTRYPOINT|LABEL|SHELL)\b", added, re.M)
    assert re.findall(r"^ARG (\w+)", added, re.M) == ["TORCH_INDEX", "FLASH_ATTN_WHEEL"]


def test_the_end_to_end_script_is_a_script_and_uses_what_exists() -> None:
    path = ROOT / "scripts" / "e2e.sh"
    assert subprocess.run(["bash", "-n", path], check=False, timeout=20).returncode == 0
    text = path.read_text()
    for name in IMAGES:
        assert (ROOT / "images" / name).is_dir()
    assert "set -euo pipefail" in text
    assert path.stat().st_mode & 0o100
