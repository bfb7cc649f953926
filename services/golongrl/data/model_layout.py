"""Which tensors the weights of a model need, from its config.json. Pure: no weights are read, torch is not needed.

transformers fills a tensor that is missing with random numbers, leaves out one that the config does not name, and only
warns; one of another shape ends the learner after everything has started. Of the architectures below every tensor is
known by name and shape (a test compares them with transformers' own); of others only the embedding and the layers.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from golongrl.routes.model import experts_of

# As decoder-only models name them.
_EMBEDDING: Final = "model.embed_tokens.weight"
_LAYER: Final = re.compile(r"model\.layers\.(?P<layer>\d{1,9})\.")
_QUERY, _KEY = "num_attention_heads x head_dim", "num_key_value_heads x head_dim"
_DENSE: Final = {
    "mlp.gate_proj": ("intermediate_size", "hidden_size"),
    "mlp.up_proj": ("intermediate_size", "hidden_size"),
    "mlp.down_proj": ("hidden_size", "intermediate_size"),
}
_ATTENTION: Final = {
    "self_attn.q_proj": (_QUERY, "hidden_size"),
    "self_attn.k_proj": (_KEY, "hidden_size"),
    "self_attn.v_proj": (_KEY, "hidden_size"),
    "self_attn.o_proj": ("hidden_size", _QUERY),
}
# transformers' own, where they are numbers; a head has hidden_size / num_attention_heads otherwise, and as many heads
# have keys as there are.
DEFAULTS: Final[Mapping[str, Mapping[str, int]]] = {
    "llama": {"intermediate_size": 11008},
    "mistral": {"intermediate_size": 14336, "num_key_value_heads": 8},
    "qwen2": {"intermediate_size": 22016, "num_key_value_heads": 32},
    "qwen3": {"intermediate_size": 22016, "num_key_value_heads": 32, "head_dim": 128},
    "qwen3_moe": {
        "intermediate_size": 6144, "num_key_value_heads": 4, "num_experts": 128, "decoder_sparse_step": 1,
    },
}  # fmt: skip
# Old checkpoints keep what follows from the config.
_HARMLESS: Final = re.compile(r".*\.rotary_emb\.inv_freq")
# Of a mixture of experts some files have a tensor for each expert, others one for all.
_EXPERTS: Final = re.compile(r"model\.layers\.\d{1,9}\.mlp\.experts\..*")

Shapes = Mapping[str, Sequence[int]]
Needed = dict[str, tuple[str, ...]]


def weights_faults(shapes: Shapes, sizes: Mapping[str, Any]) -> Iterator[str]:
    """Where the weights' names and shapes show another model than its (checked) config says.

    Args:
        sizes: config.json; of a model with a `text_config`, that over the rest.
    """
    vocabulary, hidden, layers = (sizes.get(key) for key in ("vocab_size", "hidden_size", "num_hidden_layers"))
    embedding = shapes.get(_EMBEDDING)
    if embedding is not None and vocabulary and hidden and list(embedding) != [vocabulary, hidden]:
        yield f"vocab_size {vocabulary} and hidden_size {hidden} do not fit {_EMBEDDING}, which is {_by(embedding)}"
        return
    found = [int(match["layer"]) for name in shapes if (match := _LAYER.match(name))]
    if layers and found and layers > (held := max(found) + 1):
        yield f"num_hidden_layers {layers} exceeds the {held} layers of the weights"
        return
    if shapes and sizes.get("model_type") in DEFAULTS and not sizes.get("quantization_config"):
        yield from _differences(shapes, sizes)


def _differences(shapes: Shapes, sizes: Mapping[str, Any]) -> Iterator[str]:
    needed, numbers = needed_tensors(sizes), _numbers(sizes)
    wrong = [
        name for name, names in needed.items() if name in shapes and list(shapes[name]) != [numbers[n] for n in names]
    ]
    if wrong:
        names, more = needed[wrong[0]], f" (and {len(wrong) - 1} more tensors)" if len(wrong) > 1 else ""
        yield (
            f"{' and '.join(names)} {'does' if len(names) == 1 else 'do'} not fit {wrong[0]}, which is "
            f"{_by(shapes[wrong[0]])}: {_by([numbers[n] for n in names])} is needed{more}"
        )
    if missing := [name for name in needed if name not in shapes]:
        # Under the names of another wrapper transformers takes none and only warns. It takes those of the model below
        # the head (`layers.0...`), but engines do not.
        renamed = any(missing[0].endswith(f".{name}") or name.endswith(f".{missing[0]}") for name in shapes)
        hint = "; save the model with AutoModelForCausalLM, which gives tensors their names" if renamed else ""
        yield f"the weights lack {len(missing)} of the tensors that it asks for ({missing[0]} first){hint}"
    others = [name for name in shapes if name not in needed and not _HARMLESS.match(name) and not _EXPERTS.match(name)]
    if sizes.get("tie_word_embeddings") and "lm_head.weight" in others:
        others.remove("lm_head.weight")  # a second copy of the embedding
    if others:
        yield f"the weights have {len(others)} tensors that it does not name, {min(others)} first"


def needed_tensors(sizes: Mapping[str, Any]) -> Needed:
    """Each tensor by name, with what its dimensions are; experts are left out."""
    kind = sizes["model_type"]
    needed: Needed = {_EMBEDDING: ("vocab_size", "hidden_size"), "model.norm.weight": ("hidden_size",)}
    if not sizes.get("tie_word_embeddings"):
        needed["lm_head.weight"] = ("vocab_size", "hidden_size")
    for layer in range(sizes["num_hidden_layers"]):
        for name, names in _layer(kind, layer, sizes).items():
            needed[f"model.layers.{layer}.{name}"] = names
    return needed


def _layer(kind: str, layer: int, sizes: Mapping[str, Any]) -> Needed:
    found: Needed = {"input_layernorm.weight": ("hidden_size",), "post_attention_layernorm.weight": ("hidden_size",)}
    if kind.startswith("qwen3"):
        found |= {"self_attn.q_norm.weight": ("head_dim",), "self_attn.k_norm.weight": ("head_dim",)}
    biased = _ATTENTION.keys() if kind not in ("mistral", "qwen2") and sizes.get("attention_bias") else set()
    if kind == "qwen2":
        biased = _ATTENTION.keys() - {"self_attn.o_proj"}
    for name, names in _ATTENTION.items():
        found[f"{name}.weight"] = names
        if name in biased:
            found[f"{name}.bias"] = names[:1]
    if kind == "qwen3_moe" and _is_sparse(layer, sizes):
        found["mlp.gate.weight"] = ("num_experts", "hidden_size")
        return found
    for name, names in _DENSE.items():
        found[f"{name}.weight"] = names
        if kind == "llama" and sizes.get("mlp_bias"):
            found[f"{name}.bias"] = names[:1]
    return found


def _is_sparse(layer: int, sizes: Mapping[str, Any]) -> bool:
    every, experts = _size(sizes, "decoder_sparse_step") or 0, _experts(sizes)
    return experts > 0 and layer not in (sizes.get("mlp_only_layers") or ()) and (layer + 1) % every == 0


def _size(sizes: Mapping[str, Any], key: str) -> int | None:
    value: int | None = sizes.get(key)
    return DEFAULTS[sizes["model_type"]].get(key) if value is None else value


def _experts(sizes: Mapping[str, Any]) -> int:
    named = experts_of(sizes)
    return DEFAULTS[sizes["model_type"]].get("num_experts", 0) if named is None else int(named)


def _numbers(sizes: Mapping[str, Any]) -> dict[str, int]:
    heads, hidden = sizes["num_attention_heads"], sizes["hidden_size"]
    head = _size(sizes, "head_dim") or hidden // heads
    return {
        "vocab_size": sizes["vocab_size"],
        "hidden_size": hidden,
        "head_dim": head,
        _QUERY: heads * head,
        _KEY: (_size(sizes, "num_key_value_heads") or heads) * head,
        "intermediate_size": _size(sizes, "intermediate_size") or 0,
        "num_experts": _experts(sizes),
    }


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "one number"
