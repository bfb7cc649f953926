"""YaRN: the frequencies of transformers itself, launch flags, and what is refused."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from golongrl.evaluation import yarn
from golongrl.evaluation.command import app
from golongrl.evaluation.errors import EvaluationError

CONFIG: dict[str, Any] = {
    "max_position_embeddings": 262_144,
    "rope_theta": 5_000_000,
    "head_dim": 128,
    "hidden_size": 2560,
    "num_attention_heads": 32,
}
PARAMETERS: list[dict[str, Any]] = [
    {"rope_type": "default", "rope_theta": 5e6},
    {"rope_type": "yarn", "rope_theta": 5e6, "factor": 4.0, "original_max_position_embeddings": 262_144},
    {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32_768},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 1.5, "original_max_position_embeddings": 4_096,
     "truncate": False},
    {"rope_type": "yarn", "rope_theta": 1e4, "factor": 8.0, "original_max_position_embeddings": 4_096, "beta_fast": 64,
     "beta_slow": 2, "mscale": 0.7, "mscale_all_dim": 1.2},
    {"rope_type": "yarn", "rope_theta": 5e6, "factor": 2.0, "original_max_position_embeddings": 262_144,
     "attention_factor": 1.5, "partial_rotary_factor": 0.5},
    {"rope_type": "yarn", "rope_theta": 5e6, "factor": 4.0},
]  # fmt: skip


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_frequencies_are_those_of_transformers(parameters: dict[str, Any]) -> None:
    from transformers import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3RotaryEmbedding

    config = Qwen3Config(**{**CONFIG, "rope_theta": None, "rope_parameters": dict(parameters)})
    theirs = Qwen3RotaryEmbedding(config)
    ours = yarn.rotary(parameters, 128, 262_144)
    yarn.check(ours, yarn.Rotary(tuple(theirs.inv_freq.tolist()), theirs.attention_scaling), "the same model")


@pytest.mark.parametrize(("context", "factor"), [(524_288, 2.0), (1_048_576, 4.0)])
def test_a_profile_carries_the_models_own_theta(context: int, factor: float) -> None:
    profile = yarn.profile(CONFIG, context)
    assert profile is not None
    assert profile.factor == factor
    flag, override, length_flag, length = profile.sglang_flags()
    assert (flag, length_flag, length) == ("--json-model-override-args", "--context-length", str(context))
    assert json.loads(override) == {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 5e6,
            "factor": factor,
            "original_max_position_embeddings": 262_144,
        },
        "max_position_embeddings": context,
    }
    assert profile.vllm_flags()[0] == "--hf-overrides"


def test_the_native_context_needs_no_profile() -> None:
    assert yarn.profile(CONFIG, 182_272) is None
    assert yarn.profile(CONFIG, 262_144) is None


def test_theta_may_stand_in_either_place() -> None:
    nested = {**CONFIG, "rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6}}
    assert yarn.profile(nested, 524_288) == yarn.profile(CONFIG, 524_288)
    assert yarn.rotary_of(nested, "a") == yarn.rotary_of(CONFIG, "a")


def test_a_profile_checks_out_against_the_config_with_its_override() -> None:
    profile = yarn.profile(CONFIG, 524_288)
    assert profile is not None
    found = yarn.rotary_of({**CONFIG, **profile.override}, "a")
    yarn.check(yarn.rotary(profile.rope_parameters, 128, 262_144), found, "the engine")
    with pytest.raises(EvaluationError, match="the engine: rotary frequency"):
        yarn.check(yarn.rotary_of(CONFIG, "a"), found, "the engine")
    with pytest.raises(EvaluationError, match="another head_dim"):
        yarn.check(yarn.rotary(profile.rope_parameters, 64, 262_144), found, "the engine")
    with pytest.raises(EvaluationError, match="attention factor"):
        yarn.check(yarn.Rotary(found.inv_freq, 1.0), found, "the engine")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({**CONFIG, "rope_theta": None}, "no rope_theta"),
    ({**CONFIG, "max_position_embeddings": None}, "max_position_embeddings must be a positive integer"),
    ({**CONFIG, "rope_parameters": {"rope_type": "llama3"}}, "type 'llama3'"),
]


@pytest.mark.parametrize(("config", "message"), REFUSED)
def test_a_config_that_cannot_be_scaled_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        yarn.profile(config, 524_288)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"rope_theta": None}, "rope_theta missing"), ({"factor": -1}, "factor must be a positive number"),
     ({"rope_type": "dynamic"}, "rope_type must be yarn or default"), ({"rope_theta": True}, "rope_theta must be")],
)  # fmt: skip
def test_wrong_parameters_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        yarn.rotary({**PARAMETERS[1], **change}, 128, 262_144)


def _printed(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["yarn", *words])
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_flags_that_a_shell_takes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG), "utf-8")
    profile = yarn.profile(CONFIG, 1_048_576)
    assert profile is not None
    code, flags, _ = _printed(str(tmp_path), "--context", "1048576")
    assert (code, shlex.split(flags)) == (0, profile.sglang_flags())
    code, flags, _ = _printed(str(tmp_path / "config.json"), "--context", "1048576", "--engine", "vllm")
    assert (code, shlex.split(flags)) == (0, profile.vllm_flags())
    code, text, _ = _printed(str(tmp_path), "--context", "1048576", "--engine", "huggingface")
    assert (code, json.loads(text)) == (0, profile.override)
    code, text, told = _printed(str(tmp_path), "--context", "131072")
    assert (code, text) == (0, "")
    assert "start it without YaRN" in told
