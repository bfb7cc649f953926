"""The images, built: each starts as the chart's pods confine it, has the lock's versions, and is within its budget.

Needs docker or podman. Where the base cannot be pulled, root makes a stand-in of Debian and this machine's Python.
"""

import json
import os
import re
import shutil
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from packaging.requirements import Requirement

from golongrl.ports import unused
from support.helm import ROOT

IMAGES = ("reward", "rollout", "operator", "learner")
BASE = re.findall(r"^ARG BASE=(\S+)$", (ROOT / "images" / "Dockerfile").read_text(), re.M)[0]
TAG = "test"
BUILD_S = 1800
# MB over the base: two thirds of what an image had when it was an installation by pip, bytecode and tests included.
BUDGET_MB = {"reward": 109, "rollout": 189, "operator": 59, "learner": 1517}
# As the chart's security contexts: no root, no capability, nothing to write but /tmp. The limits on files and processes
# are lower than podman's, which a container cannot raise again.
CONFINED = (
    "--rm", "--network=host", "--read-only", "--user=65532:65532", "--cap-drop=all", "--tmpfs=/tmp:size=2g",
    "--shm-size=512m", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096",
)  # fmt: skip

ITEM = {
    "id": "a", "data_source": "EM", "response": "<think>six by seven</think> 42", "extra_info": {},
    "ground_truth": {"doc_ids": [], "golden_label": "42", "summary": "English"},
}  # fmt: skip

pytestmark = [pytest.mark.full, pytest.mark.timeout(BUILD_S + 300)]


@cache
def engine() -> tuple[str, ...]:
    """The command of an engine that builds and runs."""
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return ("docker",)
    if shutil.which("podman"):
        # crun refuses machines with both versions of cgroups.
        return ("podman", "--runtime", "runc") if shutil.which("runc") else ("podman",)
    pytest.skip("neither docker nor podman is here (Debian: podman, runc, debootstrap)")


def run(*command: str, timeout: float = 120) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module", params=IMAGES)
def image(request: pytest.FixtureRequest) -> str:
    """The name of a target, built under TAG."""
    environment = {**os.environ, "ENGINE": engine()[0], "TAG": TAG, "STAND_IN": "1"}
    done = subprocess.run(
        [ROOT / "scripts" / "images.sh", request.param],
        env=environment, capture_output=True, text=True, timeout=BUILD_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return str(request.param)


def confined(image: str, *command: str, timeout: float = 240) -> str:
    """What a command prints in a container of the image."""
    return run(*engine(), "run", *CONFINED, f"golongrl-{image}:{TAG}", *command, timeout=timeout)


def python(image: str, code: str) -> Any:
    """What the code prints as its last line, as JSON."""
    return json.loads(confined(image, "python", "-c", code).splitlines()[-1])


def test_an_image_is_within_its_budget(image: str) -> None:
    sizes = [
        int(run(*engine(), "image", "inspect", "--format", "{{.Size}}", name))
        for name in (f"golongrl-{image}:{TAG}", BASE)
    ]
    over = (sizes[0] - sizes[1]) / 1e6
    print(f"golongrl-{image}: {sizes[0] / 1e6:.0f} MB, {over:.0f} over its base")
    assert over <= BUDGET_MB[image]


def test_its_command_starts_confined(image: str) -> None:
    assert "Usage: golongrl" in confined(image, "golongrl", image, "--help")
    status = confined(image, "sh", "-c", "touch /written 2>&1; id -u; cat /proc/self/status")
    assert "Read-only file system" in status
    assert "65532" in status
    assert re.search(r"^CapEff:\s0+$", status, re.M)


def test_it_has_the_versions_of_the_lock(image: str) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {pin.name: pin for pin in (Requirement(line.partition(" #")[0]) for line in lines if line[0].isalnum())}
    found = python(
        image,
        "import json, re, importlib.metadata as m;"
        "print(json.dumps({re.sub('[-_.]+', '-', d.name).lower(): d.version for d in m.distributions()}))",
    )
    assert "golongrl" in found
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][image]
    wanted = {Requirement(text).name for text in extra if not text.startswith("golongrl[")}
    assert {name.lower() for name in wanted} <= found.keys()
    for name, version in found.items():
        assert name in pins or name == "golongrl", f"{name} is not in the lock"
        assert name == "golongrl" or pins[name].specifier.contains(version), f"{name} {version}: {pins[name]}"
    assert not {"pip", "pytest", "hypothesis"} & found.keys()


@contextmanager
def serving(image: str, *command: str, health: str, port: int) -> Iterator[str]:
    """URL of a service in a container, once it answers at `health`; ended by SIGTERM."""
    name = f"golongrl-test-{image}-{port}"
    process = subprocess.Popen([*engine(), "run", "--name", name, *CONFINED, f"golongrl-{image}:{TAG}", *command])
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 240
        while True:
            try:
                with urllib.request.urlopen(url + health, timeout=5) as answer:
                    assert answer.status == 200
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None, "the container ended"
                assert time.monotonic() < deadline, f"no answer at {health}"
                time.sleep(0.5)
        yield url
        run(*engine(), "stop", "--time", "60", name)
        assert process.wait(60) == 0
    finally:
        subprocess.run([*engine(), "rm", "--force", name], capture_output=True, timeout=60, check=False)


def post(url: str, body: object) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read())


def test_its_service_works(image: str) -> None:
    (port,) = unused(1)
    match image:
        case "reward":
            serve = ("golongrl", "reward", "serve", "--host", "127.0.0.1", "--port", str(port), "--workers", "1")
            with serving("reward", *serve, health="/readyz", port=port) as url:
                (result,) = post(f"{url}/v1/score", {"mode": "strict", "items": [ITEM]})["results"]
                assert (result["status"], result["score"]) == ("scored", 1.0)
        case "rollout":
            # What a worker reads prepared prompts with.
            code = "import json, pyarrow as pa, pyarrow.compute as c; from tokenizers import Tokenizer;"
            assert python("rollout", code + "print(json.dumps(c.sum(pa.array([1, 2])).as_py()))") == 3
        case "operator":
            code = "import json, golongrl_operator.app, sys; print(json.dumps('numpy' in sys.modules))"
            assert python("operator", code) is False
        case "learner":
            model = python(
                "learner",
                "import json, golongrl, pathlib;"
                "print(json.dumps(str(pathlib.Path(golongrl.__file__).parent / 'assets' / 'quickstart')))",
            )
            serve = ("golongrl", "engine", "--model-path", model, "--port", str(port))
            with serving("learner", *serve, health="/health", port=port) as url:
                answer = post(f"{url}/generate", {"input_ids": [1, 2], "sampling_params": {"max_new_tokens": 4}})
                assert 1 <= len(answer["output_ids"]) <= 4
            # Ray's daemons, without their symbols, run a task that does arithmetic on a tensor.
            code = """
import json, ray, torch
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=128 << 20)
print(json.dumps(ray.get(ray.remote(lambda: float(torch.ones(8).sum())).remote())))
"""
            assert python("learner", code) == 8.0
