"""A model folder's JSON files against what a model can have: every value below would end in a traceback later."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.data.errors import DataError
from golongrl.data.model_check import check_local_model, model_of
from golongrl.data.model_config import CONFIG, check_folder, checked_file, read_config
from golongrl.engine.config import ModelFolderError, check_model_folder
from golongrl.learner.known_models import model_config
from golongrl.recipe import load

HUGE = 10**30
NO_SIZES = (0, -1, "x", HUGE, 1.5, True, [], {}, float("inf"), "512")
WRONG: list[tuple[str, str, Any]] = [
    *((CONFIG, key, value) for key in ("vocab_size", "hidden_size", "num_hidden_layers") for value in NO_SIZES),
    *((CONFIG, "num_attention_heads", value) for value in NO_SIZES),
    *((CONFIG, "num_key_value_heads", value) for value in (*NO_SIZES, 3, 8)),
    *((CONFIG, "max_position_embeddings", value) for value in NO_SIZES),
    *((CONFIG, "intermediate_size", value) for value in (0, -3, "x", HUGE)),
    *((CONFIG, "moe_intermediate_size", value) for value in (0, "x", HUGE)),
    *((CONFIG, "head_dim", value) for value in (0, 7, -8, "x", HUGE)),
    *((CONFIG, "num_experts", value) for value in (-1, "x", HUGE)),
    *((CONFIG, "model_type", value) for value in (5, "", [], {}, True)),
    *((CONFIG, "architectures", value) for value in (5, "Qwen3ForCausalLM", {}, [5], [None])),
    *((CONFIG, key, value) for key in ("torch_dtype", "dtype") for value in ("nonsense", 5, [], {"": 3}, "bf16", "")),
    *((CONFIG, "layer_types", value) for value in (5, "full_attention", [], ["full_attention"] * 9, [5, 5])),
    *((CONFIG, "pad_token_id", value) for value in ("x", -7, 512, HUGE, [1], 1.5)),
    *((CONFIG, "eos_token_id", value) for value in ("x", -7, HUGE, ["x"], {}, 1.5)),
    *((CONFIG, "tie_word_embeddings", value) for value in ("yes", 1, [])),
    *((CONFIG, "rms_norm_eps", value) for value in (-1, "x", float("nan"), 3)),
    *((CONFIG, "attention_dropout", value) for value in (-0.1, 1, "x")),
    *((CONFIG, "sliding_window", value) for value in (0, -4, "x")),
    *((CONFIG, "rope_theta", value) for value in (0, -1, "x", float("inf"))),
    *((CONFIG, "quantization_config", value) for value in (5, [])),
    *((CONFIG, "text_config", value) for value in (5, [], {"vocab_size": 0}, {"num_attention_heads": 0})),
    *(
        (CONFIG, key, value)
        for key in ("rope_scaling", "rope_parameters")
        for value in (
            5, "yarn", [], {"rope_type": 5}, {"rope_type": "yarn"}, {"rope_type": "yarn", "factor": "x"},
            {"rope_type": "linear", "factor": 0}, {"type": "dynamic"}, {"rope_type": "yarn", "factor": float("inf")},
            {"rope_type": "llama3", "factor": 8.0}, {"rope_type": "longrope", "short_factor": 5, "long_factor": []},
            {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 0}, {"rope_theta": "x"},
            {"full_attention": {"rope_type": "yarn"}},
        )
    ),
    *(("generation_config.json", "temperature", value) for value in ("hot", -1, float("nan"))),
    *(("generation_config.json", "eos_token_id", value) for value in ("x", {}, [None])),
    *(("generation_config.json", "top_p", value) for value in ("x", 2)),
    *(("generation_config.json", "max_new_tokens", value) for value in (0, "x")),
    *(("tokenizer_config.json", "model_max_length", value) for value in ("long", -1, [])),
    *(("tokenizer_config.json", "added_tokens_decoder", value) for value in (5, [], {"1": 5}, {"1": {}})),
    *(("tokenizer_config.json", "eos_token", value) for value in (5, [], {}, {"content": 5}, True)),
    *(("tokenizer_config.json", "chat_template", value) for value in (5, [5])),
    *(("tokenizer_config.json", "padding_side", value) for value in (5, "up")),
    *(("special_tokens_map.json", "eos_token", value) for value in (5, [], {}, {"content": None})),
    *(("special_tokens_map.json", "additional_special_tokens", value) for value in (5, "x", [5])),
]  # fmt: skip


@pytest.fixture(scope="module")
def copied(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config") / "model"
    shutil.copytree(tiny_model, folder)
    return folder


@pytest.fixture
def model(copied: Path) -> Iterator[Path]:
    kept = {file: file.read_bytes() for file in copied.glob("*.json")}
    yield copied
    for file in copied.glob("*.json"):
        if file not in kept:
            file.unlink()
    for file, content in kept.items():
        file.write_bytes(content)


def edit(path: Path, **change: Any) -> None:
    content = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    path.write_text(json.dumps(content | change), "utf-8")


@pytest.mark.parametrize(("name", "key", "value"), WRONG)
def test_a_value_that_no_model_has_names_file_and_key(model: Path, name: str, key: str, value: Any) -> None:
    edit(model / name, **{key: value})
    with pytest.raises(DataError, match=f"model file {re.escape(str(model / name))}: ") as caught:
        check_local_model(load("quickstart", [f"model.path={model}"]))
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 1000
    assert key in line or key == "text_config"
    # The preflight, an engine and the learner's memory say the same.
    with pytest.raises(DataError, match=re.escape(line)):
        model_of(load("quickstart", [f"model.path={model}"]), to_train=True)
    with pytest.raises(ModelFolderError, match=re.escape(line)):
        check_model_folder(model)
    if name == CONFIG:
        with pytest.raises(DataError, match=re.escape(line)):
            model_config(str(model))


@pytest.mark.parametrize("content", ["[]", "5", "null", '"x"', "{", "", "[" * 100_000, '{"a": 1, "a": 1}'])
@pytest.mark.parametrize("name", [CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json"])
def test_a_file_that_is_no_object_is_named(model: Path, name: str, content: str) -> None:
    (model / name).write_text(content)
    with pytest.raises(DataError, match=re.escape(f"model file {model / name}: ")) as caught:
        check_folder(model)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_size_that_every_part_needs_is_missed(model: Path, key: str) -> None:
    content = json.loads((model / CONFIG).read_text())
    del content[key]
    (model / CONFIG).write_text(json.dumps(content))
    with pytest.raises(DataError, match=f"config.json: it has no {key}; only models"):
        check_local_model(load("quickstart", [f"model.path={model}"]))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"vocab_size": 513}, "vocab_size 513 and hidden_size 32 do not fit model.embed_tokens.weight"),
        ({"vocab_size": 511, "pad_token_id": 0}, "vocab_size 511 and hidden_size 32 do not fit"),
        ({"hidden_size": 64}, "hidden_size 64 do not fit"),
        ({"num_hidden_layers": 3, "layer_types": None}, "num_hidden_layers 3 exceeds the 2 layers of the weights"),
        ({"num_experts": 4, "num_local_experts": 8}, "num_experts 4 and num_local_experts 8 differ"),
    ],
)
def test_a_config_of_other_weights_is_refused(model: Path, change: dict[str, Any], line: str) -> None:
    edit(model / CONFIG, **change)
    with pytest.raises(DataError, match=f"config.json: .*{line}"):
        check_local_model(load("quickstart", [f"model.path={model}"]))


def test_all_faults_of_a_config_are_in_one_line(model: Path) -> None:
    edit(model / CONFIG, vocab_size=0, hidden_size=HUGE, model_type=5, rope_scaling=5)
    with pytest.raises(DataError) as caught:
        check_folder(model)
    assert all(key in str(caught.value) for key in ("vocab_size", "hidden_size", "model_type", "rope_scaling: 5 is no"))


# As they are published.
REAL: list[dict[str, Any]] = [
    {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 16384, "num_attention_heads": 128,
        "num_key_value_heads": 8, "num_hidden_layers": 126, "vocab_size": 128256, "intermediate_size": 53248,
        "max_position_embeddings": 131072, "eos_token_id": [128001, 128008, 128009], "bos_token_id": 128000,
        "rope_theta": 500000.0, "torch_dtype": "bfloat16", "pretraining_tp": 1, "rms_norm_eps": 1e-05,
        "rope_scaling": {
            "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_type": "llama3",
            "original_max_position_embeddings": 8192,
        },
    },
    {
        "model_type": "qwen3_moe", "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4,
        "head_dim": 128, "num_hidden_layers": 48, "vocab_size": 151936, "num_experts": 128, "num_experts_per_tok": 8,
        "moe_intermediate_size": 768, "decoder_sparse_step": 1, "mlp_only_layers": [], "sliding_window": None,
        "rope_theta": 10000000, "rope_scaling": None, "max_position_embeddings": 262144, "attention_dropout": 0.0,
    },
    {
        "model_type": "llama", "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3,
        "num_hidden_layers": 30, "vocab_size": 49152, "rope_interleaved": False, "pad_token_id": -1, "rope_scaling": {},
    },
    {
        "model_type": "gemma3", "dtype": {"": "bfloat16", "text_config": "float32"},
        "text_config": {
            "model_type": "gemma3_text", "hidden_size": 2560, "num_attention_heads": 8, "num_key_value_heads": 4,
            "head_dim": 256, "num_hidden_layers": 34, "vocab_size": 262208, "sliding_window": 1024,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000},
            },
        },
    },
]  # fmt: skip


@pytest.mark.parametrize("config", REAL)
def test_what_is_published_is_taken(config: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(json.dumps(config))
    assert read_config(tmp_path / CONFIG) == config


def test_no_limit_on_a_models_length_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer_config.json"
    path.write_text(
        '{"model_max_length": 1000000000000000019884624838656, "bos_token": null, "eos_token": {"content": "a"}, '
        '"added_tokens_decoder": {"0": {"content": "a", "special": true}}, "additional_special_tokens": ["a"], '
        '"chat_template": [{"name": "default", "template": "x"}]}'
    )
    assert checked_file(path, path.name)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = sorted({name for name, _, _ in WRONG})
_KEYS = st.sampled_from(sorted({key for _, key, _ in WRONG}))


@settings(max_examples=300, deadline=None)
@given(content=st.dictionaries(_KEYS | st.just("type"), _JSON, max_size=6), name=st.sampled_from(NAMES))
def test_any_json_is_taken_or_refused_in_one_line(
    content: dict[str, Any], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(content))
    line = ""
    try:
        checked_file(path, name)
    except DataError as error:
        line = str(error)
    assert "\n" not in line
