"""What the workflows and hooks call exists: a name that has moved would fail only after a push."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.helm import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["jobs"]
    return found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_what_exists(path: Path) -> None:
    text = path.read_text()
    targets = re.findall(r"^\s*(?:run: |- run: )?make ([a-z][\w-]*)", text, re.M)
    assert set(targets) <= TARGETS
    for name in re.findall(r"(?:^|\s)((?:scripts|tests|images|charts|services)/[\w./-]+)", text):
        assert (ROOT / name).exists(), name
    for job in jobs(path).values():
        assert job["timeout-minutes"] <= 90
        assert set(job.get("permissions", {})) <= {"contents", "packages", "id-token"}


def test_a_release_pushes_and_signs_every_image_and_the_chart() -> None:
    release = jobs(ROOT / ".github" / "workflows" / "release.yml")
    built = {entry["target"] for entry in release["images"]["strategy"]["matrix"]["include"]}
    assert built == {"reward", "rollout", "operator", "learner"}
    build = next(step["with"] for step in release["images"]["steps"] if "build-push" in step.get("uses", ""))
    assert build["sbom"] is True
    assert (ROOT / build["file"]).is_file()
    for job in ("images", "chart"):
        assert any("cosign sign" in step.get("run", "") for step in release[job]["steps"])


def test_each_hook_runs_a_tool_of_the_environment() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in local["hooks"]:
        program, *arguments = hook["entry"].split()
        assert (ROOT / program).exists(), f"{program}: `make lint` installs it"
        for argument in arguments:
            assert argument.startswith("--") or (ROOT / argument).exists() or argument in ("format", "check")
