"""Sizes of the models that the packaged recipes name: a recipe is checked without fetching or converting its model.

Each entry has the keys of the model's published config.json that `golongrl.learner.memory.shape` reads, and no others.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from golongrl.data.model_config import read_config
from golongrl.errors import InputError

SHAPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "Qwen/Qwen3-4B-Thinking-2507": {
            "model_type": "qwen3",
            "hidden_size": 2560,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "intermediate_size": 9728,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
        },
        "Qwen/Qwen3-30B-A3B-Thinking-2507": {
            "model_type": "qwen3_moe",
            "hidden_size": 2048,
            "num_hidden_layers": 48,
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "intermediate_size": 6144,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "vocab_size": 151936,
            "tie_word_embeddings": False,
        },
        "builtin:smollm2-135m": {
            "model_type": "llama",
            "hidden_size": 576,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "intermediate_size": 1536,
            "vocab_size": 49152,
            "tie_word_embeddings": True,
        },
    }
)


def model_config(path: str) -> Mapping[str, Any]:
    """What the checks need of `model.path`, from this table, the folder, or the local hub cache; no network.

    Raises:
        InputError: the model's config.json is not on this machine, or is not readable.
    """
    if path in SHAPES:
        return SHAPES[path]
    return read_config(_config_file(path))


def _config_file(path: str) -> Path:
    from golongrl.data.models import resolve

    folder = Path(path)
    if path.startswith("builtin:"):
        return resolve(path) / "config.json"
    if folder.is_dir():
        return folder / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(path, "config.json")
    except HFValidationError:
        cached = None
    if isinstance(cached, str):
        return Path(cached)
    raise InputError(
        f"model {path}: its config.json is not on this machine; fetch it and name the folder, --set model.path=FOLDER"
    )
