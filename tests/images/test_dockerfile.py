"""Images, skaffold and the end-to-end script: what they name exists, and each image installs only what it needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from golongrl import __version__
from golongrl.kubernetes.rayjob.load import load_values, recipe_of
from golongrl.learner.memory import check_kernel
from support.helm import CHART, ROOT, Helm, tool

IMAGES = ("reward", "rollout", "operator", "learner")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCKERFILE = (ROOT / "images" / "Dockerfile").read_text()


def stage(name: str) -> str:
    """The lines of one stage."""
    (found,) = re.findall(rf"^FROM (?:\S+) AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S)
    return str(found)


def test_hadolint_is_content() -> None:
    binary = Path(sys.executable).parent / "hadolint"
    done = subprocess.run(
        [binary, ROOT / "images" / "Dockerfile"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_all_images_have_one_base_and_one_version() -> None:
    # A build may pin the base by digest: --build-arg BASE=...@sha256:...
    assert re.search(r"^ARG BASE=\S+:3\.11\.\d+-\S+$", DOCKERFILE, re.M)
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)) == {"${BASE}", "tools", "runtime"}
    assert f"ARG VERSION={__version__}\n" in stage("runtime")
    assert 'org.opencontainers.image.version="${VERSION}"' in stage("runtime")
    assert "HEALTHCHECK" not in DOCKERFILE


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_its_packages_and_the_project_and_not_root(name: str) -> None:
    text = stage(name)
    assert text.index(f"COPY --from={name}-packages ") < text.index("COPY --from=project ")
    assert "\nUSER 1000:1000\n" in text
    assert f'org.opencontainers.image.title="golongrl-{name}"' in text
    extras = set(re.findall(r"--extra (\w+)", stage(f"{name}-packages")))
    assert name in extras
    assert extras <= set(PROJECT["optional-dependencies"])


def test_an_edit_of_the_code_installs_no_package_again() -> None:
    """Packages come from pyproject.toml and the lock alone; the code is copied in a stage that they do not build on."""
    for name in ("tools", *(f"{name}-packages" for name in IMAGES)):
        copied = re.findall(r"^COPY (.+) \S+$", stage(name), re.M)
        assert {path for line in copied for path in line.split()} <= {
            "constraints.txt",
            "pyproject.toml",
            "images/trim.sh",
        }
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.M):
        assert all((ROOT / path).exists() for path in line.split()), line


def test_the_chart_and_its_images_have_the_projects_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
    crds = yaml.safe_load((CHART / "charts" / "crds" / "Chart.yaml").read_text())
    assert [crds["version"]] == [item["version"] for item in chart["dependencies"]] == [__version__]


@pytest.mark.parametrize("preset", sorted(path.name for path in CHART.glob("values-*.yaml")))
def test_ranks_on_gpus_have_an_image_with_cuda(preset: str) -> None:
    """The image is built for CPUs unless a build says otherwise; its torch would see no GPU."""
    assert re.search(r"^ARG TORCH_INDEX=\S+/cpu$", DOCKERFILE, re.M)
    learner = yaml.safe_load((CHART / preset).read_text()).get("learner")
    if learner is not None:  # an overlay of the network has none
        assert learner["image"]["tag"] == f"{__version__}-cuda"


@pytest.fixture
def skaffold() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / "skaffold.yaml").read_text())
    return config


def test_skaffold_names_only_what_exists(skaffold: dict[str, Any]) -> None:
    built = {artifact["image"] for artifact in skaffold["build"]["artifacts"]}
    for artifact in skaffold["build"]["artifacts"]:
        assert (ROOT / artifact["context"] / artifact["docker"]["dockerfile"]).is_file()
        assert f"golongrl-{artifact['docker']['target']}" == artifact["image"]
    (release,) = skaffold["deploy"]["helm"]["releases"]
    assert (ROOT / release["chartPath"] / "Chart.yaml").is_file()
    used = {
        re.sub(r".*IMAGE_(?:REPO|TAG)_(\w+)}}", r"\1", text).replace("_", "-")
        for text in release["setValueTemplates"].values()
    }
    assert used == built
    assert built == {f"golongrl-{name}" for name in IMAGES}
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
    images = set(re.findall(r'image: "(\S+)"', done.stdout))
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
    check_kernel(recipe, {}, lambda _: False)
    assert recipe.learner.ulysses == 1


def test_the_end_to_end_script_is_a_script_and_uses_what_exists() -> None:
    path = ROOT / "scripts" / "e2e.sh"
    assert subprocess.run(["bash", "-n", path], check=False, timeout=240).returncode == 0
    text = path.read_text()
    assert "set -euo pipefail" in text
    assert path.stat().st_mode & 0o100
