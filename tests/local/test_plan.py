"""Command lines of a run, from the recipe and the options."""

import os
import subprocess
from pathlib import Path

import pytest

from golongrl import __version__
from golongrl.local import plan
from golongrl.local.plan import Options, Ports, RunFolder
from golongrl.recipe import load
from golongrl.telemetry.tracing import ENDPOINT

RECIPE = load("quickstart")


def options(**changes: object) -> Options:
    return Options("demo", RunFolder(Path("runs/demo")), Ports.from_base(7000, 2), Path("/models/m"), **changes)  # type: ignore[arg-type]


def value(argv: tuple[str, ...], flag: str) -> str:
    return argv[argv.index(flag) + 1]


def test_ports_follow_the_base_without_overlap() -> None:
    ports = Ports.from_base(7000, 2).named()
    assert list(ports.values()) == list(range(7000, 7007))


def test_every_service_is_told_where_the_others_are() -> None:
    worker = plan.rollout(options(), 1)
    assert value(worker, "--engine-url") == "http://127.0.0.1:7003"
    assert value(worker, "--reward-url") == "http://127.0.0.1:7001"
    assert value(worker, "--redis-url") == value(plan.learner(options()), "--redis-url") == "redis://127.0.0.1:7000/0"
    assert value(plan.engine(options(), RECIPE, 1), "--port") == "7003"


def test_no_process_of_a_run_picks_a_port_that_another_one_is_about_to_bind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray and its ranks look for free ports while engines still load."""
    chosen = options()
    monkeypatch.setenv("GOLONGRL_PORTS_GIVEN", "7100")
    given = plan.environment(chosen, 1)["GOLONGRL_PORTS_GIVEN"].split(",")
    assert given == ["7100", *(str(port) for port in chosen.ports.named().values())]


def test_a_users_files_do_not_take_the_place_of_modules(tmp_path: Path) -> None:
    """In the folder where a run is started: each service ended at its first import."""
    (tmp_path / "random.py").write_text("raise SystemExit('mine')")
    (tmp_path / "typer.py").write_text("raise SystemExit('mine')")
    command, environment = plan.golongrl("--version"), os.environ | plan.environment(options(), 1)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{__version__}\n")


def test_an_outside_redis_replaces_the_runs_own() -> None:
    assert value(plan.learner(options(redis_url="redis://elsewhere:1/2")), "--redis-url") == "redis://elsewhere:1/2"


def test_no_command_line_has_a_password() -> None:
    chosen = options(redis_url="redis://user@elsewhere:1/2", password="secret-word")
    commands = (
        plan.learner(chosen),
        plan.rollout(chosen, 0),
        plan.reward(chosen, RECIPE),
        plan.engine(chosen, RECIPE, 0),
    )
    assert "secret-word" not in " ".join(word for command in commands for word in command)
    assert "secret-word" not in plan.environment(chosen, 1).values()
    assert plan.queue_environment(chosen) == {"GOLONGRL_REDIS_PASSWORD": "secret-word"}


def test_the_recipes_collector_reaches_every_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    sglang = options(engine="sglang", sglang_venv=tmp_path)
    assert plan.traces_environment(RECIPE) == {}
    assert "--enable-trace" not in plan.engine(sglang, RECIPE, 0)
    traced = load("quickstart", ["telemetry.otlp_endpoint=http://c:4318"])
    assert plan.traces_environment(traced) == {ENDPOINT: "http://c:4318"}
    assert "--enable-trace" not in plan.engine(sglang, traced, 0)  # it lacks what it would send them with
    for kind in ("grpc", "http"):
        folder = tmp_path / "lib/python3.11/site-packages/opentelemetry/exporter/otlp/proto" / kind
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    argv = plan.engine(sglang, traced, 0)
    assert "--enable-trace" in argv
    assert value(argv, "--otlp-traces-endpoint") == "http://c:4318/v1/traces"
    monkeypatch.setenv(ENDPOINT, "http://mine:4318")
    assert plan.traces_environment(RECIPE) == {ENDPOINT: "http://mine:4318"}


def test_engines_sample_with_different_seeds() -> None:
    seeds = {value(plan.engine(options(), RECIPE, index), "--seed") for index in range(2)}
    assert len(seeds) == 2


def test_the_real_sglang_runs_in_its_own_environment() -> None:
    argv = plan.engine(options(engine="sglang", sglang_venv=Path("venv")), RECIPE, 0)
    assert argv[0] == "venv/bin/python"
    assert value(argv, "--context-length") == str(RECIPE.model.context_length)


def test_threads_never_outnumber_the_cores() -> None:
    assert plan.threads(RECIPE, engines=2, cores=2) == 1
    assert plan.threads(RECIPE, engines=2, cores=16) == 5
