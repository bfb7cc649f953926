"""What a target names, the engines that are started for it, and the check of their rope."""

import json
import shutil
import socket
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig
from golongrl.errors import InputError
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.report import results
from golongrl.evaluation.run import endpoint, engines, pool
from golongrl.evaluation.run.execute import EvalRequest, execute
from golongrl.evaluation.run.points import chosen, subject
from golongrl.evaluation.store import claim
from golongrl.evaluation.suite import TargetSection, load
from support.engine_process import SGLANG
from support.eval_data import write_eval_data
from support.processes import below
from support.tiny_model import CONTEXT


def weights(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    (folder / "config.json").touch()
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with checkpoints of steps 2, 4 and published weights of 4, 5."""
    folder = tmp_path / "runs" / "mine"
    for step in (2, 4):
        (folder / f"checkpoints/global_step_{step}/actor").mkdir(parents=True)
    (folder / "checkpoints/global_step_6.ab12.tmp").mkdir()
    weights(folder / "weights/v4")
    weights(folder / "weights/v5")
    weights(folder / "hf")
    (folder / "weights/v6.tmp").mkdir()
    (folder / "recipe.yaml").write_text(load_quickstart())
    return folder


def load_quickstart() -> str:
    from golongrl.recipe import source

    return source("quickstart")


def test_a_run_is_all_steps_that_have_weights(run) -> None:
    found = subject(str(run))
    assert [(point.step, point.shards) for point in found.points] == [(2, True), (4, False), (5, False)]
    assert found.points[1].folder == run / "weights/v4", "published weights need no merging"
    assert (found.label, found.answer_tokens) == ("mine", 48)
    assert [point.step for point in chosen(found.points, [5, 2, 5])] == [5, 2]
    with pytest.raises(InputError, match="--step 3: the target has no weights of it; it has 2, 4, 5"):
        chosen(found.points, [3])


def test_other_targets(run, tmp_path) -> None:
    (checkpoint,) = subject(str(run / "checkpoints/global_step_2")).points
    assert (checkpoint.step, checkpoint.shards) == (2, True)
    (model,) = subject(str(run / "hf")).points
    assert (model.name, model.step, model.folder) == ("model", None, run / "hf")
    both = subject("http://a:1/v1/, http://b:2")
    assert both.points[0].urls == ("http://a:1/v1", "http://b:2/v1")
    shutil.rmtree(run / "weights")
    shutil.rmtree(run / "checkpoints")
    assert [point.name for point in subject(str(run)).points] == ["final"]
    shutil.rmtree(run / "hf")
    for place, said in (
        (str(run), "has no weights yet"),
        (str(tmp_path / "none"), "neither a URL, release:NAME, nor a folder"),
        ("release:Mine", "expected release:NAME or release:NAMESPACE/NAME"),
        ("release:", "expected release:NAME"),
        ("release:rl/mine", "not inside the cluster.*render evaljob.*-n rl.*port-forward"),
        (str(tmp_path), "no model in this folder"),
        ("http://a b/", "give endpoints as"),
    ):
        with pytest.raises(InputError, match=said):
            subject(place)


def test_a_releases_pool_is_found_by_its_name_inside_the_cluster(monkeypatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    here = {"mine-golongrl-engines", "mine-golongrl-engines.rl.svc", "other-engines", "golongrl-engines"}
    monkeypatch.setattr(pool, "_resolves", here.__contains__)
    for place, url in (("release:mine", "http://mine-golongrl-engines:30000/v1"),
                       ("release:rl/mine", "http://mine-golongrl-engines.rl.svc:30000/v1"),
                       ("release:other", "http://other-engines:30000/v1"),
                       ("release:golongrl", "http://golongrl-engines:30000/v1")):  # fmt: skip
        found = subject(place)
        (point,) = found.points
        assert (point.urls, point.shared) == ((url,), True)
        assert found.label == place.replace(":", "-").replace("/", "-")
    with pytest.raises(InputError, match="no Service gone-golongrl-engines or gone-engines; the chart makes it"):
        subject("release:gone")


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ({}, None),
        ({"enable_priority_scheduling": True}, None),
        ({"enable_priority_scheduling": False, "default_priority_value": 0}, None),
        ({"enable_priority_scheduling": True, "default_priority_value": 0}, -1),
        (
            {
                "enable_priority_scheduling": True,
                "default_priority_value": 5,
                "schedule_low_priority_values_first": True,
            },
            6,
        ),
    ],
)
def test_a_priority_below_that_of_requests_without_one(server, expected) -> None:
    assert pool.priority(server) == expected


def test_what_waits_is_read_from_both_engines_metrics() -> None:
    sglang = 'sglang:num_queue_reqs{model_name="m",tp_rank="0"} 3.0\nsglang:num_queue_reqs{model_name="m"} 1.0\n'
    assert pool.waiting("# HELP sglang:num_queue_reqs x\n" + sglang) == 4.0
    assert pool.waiting("sglang:num_queue_reqs 0.0\n") == 0.0
    assert pool.waiting("sglang:num_running_reqs 2.0\n") is None


@given(st.lists(st.integers(1, 1000), min_size=1), st.integers(1, 1000))
def test_one_engine_serves_all_that_fits_the_native_context(wanted, native) -> None:
    found = engines.contexts(wanted, native)
    inside = [context for context in wanted if context <= native]
    assert [context for context, scaled in found.items() if not scaled] == ([max(inside)] if inside else [])
    assert {context for context, scaled in found.items() if scaled} == {c for c in wanted if c > native}


def test_a_steps_samples_are_of_one_set_of_weights(tmp_path) -> None:
    folder = weights(tmp_path / "v1")
    (folder / "model.safetensors").write_bytes(b"a" * 100)
    claim.keep_weights(tmp_path, "step-1", folder)
    claim.keep_weights(tmp_path, "step-1", folder)
    (folder / "config.json").write_text("{}")
    claim.keep_weights(tmp_path, "step-1", folder)
    (folder / "model.safetensors").write_bytes(b"a" * 99 + b"b")
    with pytest.raises(InputError, match="step-1 has samples of other weights"):
        claim.keep_weights(tmp_path, "step-1", folder)


QWEN = {
    "max_position_embeddings": 262_144,
    "head_dim": 128,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5_000_000},
}


def test_sglang_is_told_rope_theta_and_both_lengths(tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    settings = TargetSection(engine="sglang", sglang_venv=str(tmp_path / "venv"), engine_arguments=("--dp-size", "8"))
    launch = engines.Weights.read(tmp_path).launch(1_048_576, scaled=True)
    words, _ = engines.command(launch, settings, 1234, tmp_path)
    override = json.loads(words[words.index("--json-model-override-args") + 1])
    assert override == {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5_000_000,
            "factor": 4.0,
            "original_max_position_embeddings": 262_144,
        },
        "max_position_embeddings": 1_048_576,
    }
    assert words[words.index("--context-length") + 1] == "1048576"
    assert words[-2:] == ("--dp-size", "8")
    plain, _ = engines.command(engines.Weights.read(tmp_path).launch(182_272, scaled=False), settings, 1, tmp_path)
    assert "--json-model-override-args" not in plain
    with pytest.raises(InputError, match="SGLang is not installed"):
        engines.command(launch, settings.model_copy(update={"sglang_venv": "none"}), 1, tmp_path)


@pytest.mark.parametrize("factor", [1, 2, 4])
async def test_the_embedded_engine_turns_by_the_profile(tiny_model, tmp_path, factor) -> None:
    scaled = factor > 1
    launch = engines.Weights.read(tiny_model).launch(CONTEXT * factor, scaled=scaled)
    words, _ = engines.command(launch, TargetSection(engine="embedded"), 1, tmp_path)
    folder = Path(words[words.index("--model-path") + 1])
    assert (folder == tiny_model) == (not scaled)
    app = create_app(EngineConfig(model_path=folder, context_length=launch.context))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client,
    ):
        assert await engines.check_rope("http://engine/v1", client, launch)
        other = engines.Weights.read(tiny_model).launch(CONTEXT * 8, scaled=True)
        with pytest.raises(InputError, match=r"rotary frequency|attention factor"):
            await engines.check_rope("http://engine/v1", client, other)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            '{"rope_parameters":{"rope_type":"yarn","factor":4.0,"original_max_position_embeddings":262144}}',
            "rope_theta",
        ),
        (
            '{"rope_parameters":{"rope_type":"yarn","rope_theta":5000000,"factor":4.0,'
            '"original_max_position_embeddings":32768}}',
            "rotary frequency",
        ),
        ("{}", "rotary frequency"),
    ],
)
async def test_a_server_with_another_rope_is_refused(tmp_path, override, said) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN))
    launch = engines.Weights.read(tmp_path).launch(1_048_576, scaled=True)

    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"json_model_override_args": override})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        with pytest.raises(InputError, match=said):
            await engines.check_rope("http://sglang/v1", client, launch)


@pytest.mark.full
@pytest.mark.parametrize("engine", ["embedded", "sglang"])
def test_a_real_engine_answers_a_suite_and_is_ended(tiny_model, tmp_path, engine) -> None:
    sets = ["sampling.max_tokens=16", "limits.concurrency=4", "sampling.repeats=2", f"target.engine={engine}"]
    if engine == "sglang":
        if not SGLANG.is_dir():
            pytest.skip("no SGLang; see `make sglang`")
        sets.append(f"target.sglang_venv='{SGLANG}'")
    data = write_eval_data(tmp_path / "data")
    words = [f"target.place='{tiny_model}'", f"data='{data}'", "benchmarks=[longbench-v2, aime24, mrcr-128k, frames]"]
    out = execute(EvalRequest(load("paper", [*words, *sets]), tmp_path / "out"), lambda _: None)
    (point,) = results.read(out)["points"]
    for name in ("longbench-v2", "aime24"):
        found = point["benchmarks"][name]
        assert found["asked"] == found["expected"] == found["rows"][0]["scored"]
        assert found["cost"]["completion_tokens"] > 0
    assert point["benchmarks"]["frames"]["asked"] == point["benchmarks"]["frames"]["expected"]
    assert not [one for one in below() if "golongrl" in one.command.split()]


async def test_a_wait_for_a_silent_list_of_models_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation said nothing for half a minute."""
    monkeypatch.setattr(endpoint, "_SAY_S", 0.0)
    monkeypatch.setattr(endpoint, "_DEADLINE_S", 0.5)
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        with pytest.raises(EvaluationError, match="does not answer"):
            await endpoint.served(url, None, "NO_KEY", "--model", said.append)
    assert said == [f"waiting for an answer from {url}/models, up to 0.5 s"]
