"""Real helm of both majors, and what they render: one cached `helm template` for each set of switches."""

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "golongrl"
CRDS = ROOT / "tests" / "recordings" / "kuberay-1.7"
KUBERAY = "ray.io/v1/RayJob"
TIMEOUT_S = 240
# The older major renders the same (test_templates); installing, upgrading and removing with it is for `make test-full`.
MAJORS = (pytest.param("helm3", marks=pytest.mark.full), "helm4")


# The pure-Python parser takes a second for one release.
class YAML(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as kubectl and Helm read it, to whom `n` and `y` are booleans too; PyYAML leaves these two out."""


YAML.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^[yYnN]$"), list("yYnN"))
# PyYAML looks the word up to make a boolean of it.
YAML.bool_values = {**yaml.SafeLoader.bool_values, "y": True, "n": False}

# To kubectl the values `=` and `<<` are texts.
for _tag in ("value", "merge"):
    YAML.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: loader.construct_scalar(node))

Manifest = dict[str, Any]


def load_script(name: str) -> Any:
    """A module of scripts/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def _tools() -> tuple[dict[str, Path], dict[str, str]]:
    return load_script("fetch_test_tools").tools()  # type: ignore[no-any-return]


def tool(name: str) -> Path:
    """A real tool; a test that needs one that cannot be had is skipped with the reason."""
    found, missing = _tools()
    if name not in found:
        pytest.skip(missing[name])
    return found[name]


class Rendered:
    """Objects of one `helm template`, by kind and name."""

    def __init__(self, objects: list[Manifest]) -> None:
        self.objects = objects

    def of(self, kind: str) -> list[Manifest]:
        return [item for item in self.objects if item["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Manifest:
        """The only object of a kind whose name ends in `suffix`."""
        (found,) = [item for item in self.of(kind) if item["metadata"]["name"].endswith(suffix)]
        return found

    def __iter__(self) -> Iterator[Manifest]:
        return iter(self.objects)


class Helm:
    """One helm binary."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(self.binary), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )

    def template(
        self,
        values: Mapping[str, Any] | None = None,
        *,
        files: tuple[str, ...] = (),
        release: str = "demo",
        namespace: str = "rl",
        kuberay: bool = True,
    ) -> Rendered:
        return Rendered(
            json.loads(
                _template(self.binary, json.dumps(values or {}, sort_keys=True), files, release, namespace, kuberay)
            )
        )

    def refusal(self, values: Mapping[str, Any], **options: Any) -> str:
        """What helm says when it refuses these values."""
        done = self._run_template(
            json.dumps(values), (), options.get("release", "demo"), "rl", options.get("kuberay", True)
        )
        assert done.returncode != 0, "helm accepted the values"
        return done.stderr

    def _run_template(
        self, values: str, files: tuple[str, ...], release: str, namespace: str, kuberay: bool
    ) -> "subprocess.CompletedProcess[str]":
        extra = ["--api-versions", "monitoring.coreos.com/v1", *(("--api-versions", KUBERAY) if kuberay else ())]
        for name in files:
            extra += ["-f", str(CHART / name)]
        return subprocess.run(
            [str(self.binary), "template", release, str(CHART), "-n", namespace, *extra, "-f", "-"],
            input=values, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip


@cache
def _template(binary: Path, values: str, files: tuple[str, ...], release: str, namespace: str, kuberay: bool) -> str:
    done = Helm(binary)._run_template(values, files, release, namespace, kuberay)
    assert done.returncode == 0, done.stderr
    return json.dumps([item for item in yaml.load_all(done.stdout, Loader=YAML) if item])


def pod_specs(objects: Rendered | list[Manifest]) -> Iterator[tuple[str, Manifest, Manifest]]:
    """Every pod template of the objects: a readable name, its metadata, its spec."""
    for item in objects:
        name = f"{item['kind']}/{item['metadata']['name']}"
        spec = item.get("spec", {})
        match item["kind"]:
            case "Pod":
                yield name, item["metadata"], spec
            case "Deployment" | "StatefulSet" | "Job":
                yield name, spec["template"]["metadata"], spec["template"]["spec"]
            case "LeaderWorkerSet":
                for role in ("leaderTemplate", "workerTemplate"):
                    template = spec["leaderWorkerTemplate"][role]
                    yield f"{name}:{role}", template["metadata"], template["spec"]
            case "RayJob":
                templates = {"submitter": spec.get("submitterPodTemplate")}
                cluster = spec.get("rayClusterSpec", {})
                if cluster:
                    templates["head"] = cluster["headGroupSpec"]["template"]
                for group in cluster.get("workerGroupSpecs", []):
                    templates[group["groupName"]] = group["template"]
                for role, template in templates.items():
                    if template:
                        yield f"{name}:{role}", template["metadata"], template["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", []), *spec["containers"]]
