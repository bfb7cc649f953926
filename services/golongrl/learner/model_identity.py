"""What tells one model from another, so that a checkpoint is not resumed on a model that it does not belong to.

Weights are told apart by a sample of every tensor: reading 60 GB whole would take a minute at each start, and two
models that were trained differ in nearly every value. Moving the folder, or cutting it into other shards, changes
nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from golongrl.data.weight_files import StoredTensor, stored_tensors

# Of a tensor: this many bytes at its beginning and in its middle.
_SAMPLE: Final = 2048
# Of config.json: what the parameters' shapes follow from.
_SHAPE: Final = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "intermediate_size", "moe_intermediate_size", "num_experts", "num_local_experts", "num_experts_per_tok",
    "vocab_size", "tie_word_embeddings",
)  # fmt: skip
WEIGHTS: Final = "weights"
TOKENIZER: Final = "tokenizer.json"


def of(model: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The identity of a model folder: its shape key by key, and one sha256 each of tokenizer and weights' samples.

    Raises:
        DataError: a file cannot be read; the message names it.
    """
    identity = {key: json.dumps(config[key]) for key in _SHAPE if config.get(key) is not None}
    tokenizer = model / TOKENIZER
    if tokenizer.is_file():
        identity[TOKENIZER] = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    tensors = stored_tensors(model)
    if tensors:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(f"{tensor.name} {tensor.dtype} {tensor.shape}\n".encode())
            digest.update(_sample(tensor))
        identity[WEIGHTS] = digest.hexdigest()
    return identity


def differences(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What of a checkpoint's model differs from the recipe's, in words; what either does not record is not compared."""
    found = []
    for key in (*_SHAPE, TOKENIZER, WEIGHTS):
        if key in then and key in now and then[key] != now[key]:
            found.append(
                f"{key} was {then[key]}, is {now[key]}" if key in _SHAPE else f"the {_WORDS[key]} are another model's"
            )
    return found


_WORDS: Final = {TOKENIZER: "tokens (tokenizer.json)", WEIGHTS: "weights"}


def _sample(tensor: StoredTensor) -> bytes:
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        head = file.read(min(_SAMPLE, tensor.end - tensor.start))
        file.seek((tensor.start + tensor.end) // 2)
        return head + file.read(min(_SAMPLE, tensor.end - (tensor.start + tensor.end) // 2))
