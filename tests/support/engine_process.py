"""An engine as a process of its own, by the command and environment that `golongrl train` starts it with."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from golongrl.errors import InputError
from golongrl.local import plan
from golongrl.local.preflight import check_sglang
from golongrl.recipe import Recipe
from support.redis_server import free_port

# Where `make sglang` installs it.
SGLANG = Path(__file__).parents[2] / ".venv-sglang"
# SGLang takes half a minute alone on two cores.
_START_S = 240


@contextmanager
def engine_process(kind: plan.EngineKind, model: Path, recipe: Recipe, log: Path) -> Iterator[str]:
    """URL of an engine that has loaded `model` and answers; the test is skipped where SGLang is not installed."""
    if kind == "sglang":
        try:
            check_sglang(SGLANG)
        except InputError as error:
            pytest.skip(str(error))
    ports = plan.Ports(redis=0, reward=0, engines=(free_port(),), workers=(), learner=0)
    options = plan.Options("engine", plan.RunFolder(log.parent), ports, model, engine=kind, sglang_venv=SGLANG)
    environment = {**os.environ, **plan.environment(options, 1), **plan.engine_environment(kind, 0)}
    with log.open("wb") as output:
        process = subprocess.Popen(plan.engine(options, recipe, 0), env=environment, stdout=output, stderr=output)
    try:
        _until_ready(process, options.engine_url(0), log)
        yield options.engine_url(0)
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), process] if process.poll() is None else []
        for member in family:
            member.kill()
        process.wait()


def _until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_S
    with httpx.Client(base_url=url, timeout=5, trust_env=False) as client:
        while True:
            try:
                if client.get("/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert process.poll() is None, log.read_text(errors="replace")[-3000:]
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-3000:]
            time.sleep(0.1)
