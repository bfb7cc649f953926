"""The tensors that a config asks for are transformers' own; weights of another model are told before a run."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from golongrl.data.errors import DataError
from golongrl.data.model_check import check_local_model, types_that_generate
from golongrl.data.model_layout import DEFAULTS, needed_tensors, weights_faults
from golongrl.data.model_values import ACTIVATIONS, LAYER_TYPES, ROPES
from golongrl.recipe import load

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "num_key_value_heads": None, "attention_bias": True, "mlp_bias": True},
        {"model_type": "llama", "head_dim": 16, "tie_word_embeddings": True},
        {"model_type": "mistral"},
        {"model_type": "qwen2"},
        {"model_type": "qwen3"},
        {"model_type": "qwen3", "head_dim": 8, "attention_bias": True},
        {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "mlp_only_layers": [1]},
        {"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2, "decoder_sparse_step": 2},
    ],
)
def test_every_tensor_of_an_architecture_is_known(config: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {**SIZES, **config}
    given = {key: value for key, value in sizes.items() if key != "model_type"}
    model_config = AutoConfig.for_model(sizes["model_type"], **given)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(weights_faults(shapes, sizes)) == []
    as_saved = model_config.to_dict()
    assert list(weights_faults(shapes, as_saved)) == []
    tied = {"lm_head.weight"} if sizes.get("tie_word_embeddings") else set()
    assert needed_tensors(sizes).keys() == {name for name in shapes if ".experts." not in name} - tied


TIED = {**SIZES, "model_type": "llama", "tie_word_embeddings": True}


@pytest.mark.parametrize("prefix", ["base_model.model.", "module.", "_orig_mod.", "language_model."])
def test_weights_below_a_wrapper_s_prefix_are_none_of_the_model(prefix: str) -> None:
    """transformers would fill the whole model with random numbers, and only warn."""
    shapes = dict.fromkeys(needed_tensors(TIED), (1,))
    line, other = weights_faults({prefix + name: shape for name, shape in shapes.items()}, TIED)
    assert f"the weights lack {len(shapes)} of the tensors that it asks for (model.embed_tokens.weight first)" in line
    assert "save the model with AutoModelForCausalLM" in line
    assert f"tensors that it does not name, {prefix}model." in other


def test_weights_of_the_model_below_the_head_are_none_of_an_engine() -> None:
    """transformers adds the prefix by itself, but version 0 is these files."""
    shapes = dict.fromkeys(needed_tensors(TIED), (1,))
    line, _ = weights_faults({name.removeprefix("model."): shape for name, shape in shapes.items()}, TIED)
    assert "(model.embed_tokens.weight first); save the model with AutoModelForCausalLM" in line


def test_the_tables_are_those_of_transformers() -> None:
    from transformers import AutoConfig
    from transformers.activations import ACT2FN
    from transformers.configuration_utils import ALLOWED_LAYER_TYPES
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
    from transformers.models.auto import modeling_auto as auto

    listed = {*auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    assert types_that_generate("none of ours") == listed
    assert set(ACT2FN) <= ACTIVATIONS
    assert set(ALLOWED_LAYER_TYPES) == LAYER_TYPES
    assert set(ROPE_INIT_FUNCTIONS) <= ROPES
    for kind, numbers in DEFAULTS.items():
        default = AutoConfig.for_model(kind)
        for key, number in numbers.items():
            assert getattr(default, key) == number, (kind, key)


@pytest.fixture(scope="module")
def copied(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("layout") / "model"
    shutil.copytree(tiny_model, folder)
    return folder


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "nonsense"}, ["model_type nonsense is none that the installed transformers"]),
        ({"model_type": "Qwen3"}, ["did you mean qwen3?"]),
        ({"model_type": "clip"}, ["model_type clip is none"]),
        ({"model_type": "x", "auto_map": {"AutoConfig": "a.B"}}, ["model.trust_remote_code: true runs the code"]),
        ({"hidden_act": "swoosh"}, ['hidden_act "swoosh" is unknown; did you mean swish?']),
        ({"rope_parameters": {"rope_type": "spiral"}}, ['rope_parameters: rope_type "spiral" is unknown']),
        ({"rope_scaling": {"type": "yarm", "factor": 2.0}}, ["did you mean yarn?"]),
        ({"layer_types": ["full_attention", "foo"]}, ['layer_types "foo" is unknown']),
        ({"architectures": None}, ["it has no architectures"]),
        ({"architectures": ["Qwen3Model"]}, ["architectures: Qwen3Model is not a model that generates text"]),
        ({"quantization_config": {"quant_method": "fp8"}}, ["quantised weights cannot be trained"]),
        ({"intermediate_size": 47}, ["intermediate_size and hidden_size do not fit", "47 x 32 is needed (and 5 more"]),
        ({"head_dim": 64}, ["head_dim does not fit model.layers.0.self_attn.q_norm.weight"]),
        ({"num_key_value_heads": 1}, ["num_key_value_heads x head_dim and hidden_size do not fit"]),
        ({"attention_bias": True}, ["the weights lack 8 of the tensors", "self_attn.q_proj.bias first"]),
        ({"tie_word_embeddings": False}, ["the weights lack 1 of the tensors that it asks for (lm_head.weight first)"]),
        ({"rms_norm_eps": 0}, ["rms_norm_eps: transformers takes no whole number here; write 0.0"]),
        ({"layer_types": ["sliding_attention"] * 2, "sliding_window": None}, ["sliding_window is null"]),
        ({"rope_theta": None, "rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, ["rope_theta is null"]),
        ({"dtype": "float8_e4m3fn"}, ["dtype float8_e4m3fn: such weights cannot be trained"]),
        ({"eos_token_id": [1, 512]}, ["config.json: eos_token_id 512 is none of the 512 ids (vocab_size)"]),
        ({"eos_token_id": -1}, ["config.json: eos_token_id -1 is none of the 512 ids (vocab_size)"]),
        ({"rms_norm_eps": -1}, ["rms_norm_eps: Input should be greater than or equal to 0"]),
        ({"num_hidden_layers": 1, "layer_types": None}, ["tensors that it does not name, model.layers.1."]),
    ],
)
def test_what_the_learner_could_not_build_is_one_line(copied: Path, change: dict[str, Any], words: list[str]) -> None:
    path = copied / "config.json"
    kept = path.read_text("utf-8")
    path.write_text(json.dumps(json.loads(kept) | change), "utf-8")
    try:
        with pytest.raises(DataError) as caught:
            check_local_model(load("quickstart", [f"model.path={copied}"]))
    finally:
        path.write_text(kept, "utf-8")
    line = str(caught.value)
    assert all(word in line for word in words), line
    assert "\n" not in line


def test_config_weights_and_tokenizer_are_told_together(copied: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(copied, folder)
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    (folder / "tokenizer.json").write_text("{", "utf-8")
    (folder / "generation_config.json").write_text('{"top_p": 3}', "utf-8")
    (folder / "config.json").write_text('{"model_type": 5}', "utf-8")
    with pytest.raises(DataError) as caught:
        check_local_model(load("quickstart", [f"model.path={folder}"]))
    lines = str(caught.value).split("\n  ")
    assert [line.partition(":")[0] for line in lines] == [
        f"model file {folder / name}"
        for name in ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json")
    ]


def test_a_pipe_or_a_lost_link_in_a_model_folder_is_named(copied: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(copied, folder)
    os.mkfifo(folder / "added_tokens.json")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    (folder / "chat_template.jinja").symlink_to(folder / "gone")
    with pytest.raises(DataError) as caught:
        check_local_model(load("quickstart", [f"model.path={folder}"]))
    assert f"model file {folder / 'added_tokens.json'} is not a plain file" in str(caught.value)
    assert f"model file {folder / 'chat_template.jinja'} is a link to nothing" in str(caught.value)


def _tokenizer(**change: Any) -> Callable[[Path], None]:
    return lambda folder: _edit(folder / "tokenizer.json", **change)


def _edit(path: Path, **change: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | change), "utf-8")


def _whole_numbers(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F16"', b'"I16"').replace(b'"F32"', b'"I32"'))


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _named_otherwise(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "consolidated.safetensors")


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_tokenizer(decoder=None), "tokenizer.json: it reads 'What is the answer?' back as "),
        (
            lambda folder: _edit(folder / "tokenizer_config.json", eos_token="<nope>"),
            "eos_token '<nope>' is not a token",
        ),
        (
            lambda folder: (folder / "generation_config.json").write_text('{"eos_token_id": 9999}'),
            "eos_token_id 9999",
        ),
        (lambda folder: (folder / "added_tokens.json").write_text("["), "added_tokens.json: not JSON that can be read"),
        (lambda folder: (folder / "config.json").write_text(LFS), "config.json: it is a pointer of git LFS; fetch"),
        (
            lambda folder: (folder / "model.safetensors").write_text(LFS),
            "model.safetensors: it is a pointer",
        ),
        (
            lambda folder: (folder / "model.safetensors").write_text("<!DOCTYPE html>" * 20),
            "model.safetensors: it is a web page; download the file itself",
        ),
        (_whole_numbers, "tensors of its weights are of type I"),
        (_named_otherwise, "neither model.safetensors nor model.safetensors.index.json in this folder"),
        (_pickled, "no weights (*.safetensors) in this folder; pytorch_model*.bin is not read"),
    ],
)
def test_a_file_that_fails_late_is_named(
    copied: Path, tmp_path: Path, damage: Callable[[Path], None], line: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(copied, folder)
    damage(folder)
    with pytest.raises(DataError) as caught:
        check_local_model(load("quickstart", [f"model.path={folder}"]))
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)
