"""How a model's tensors are cut into buckets, and under which names engines hold them. Pure."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# What an engine needs in addition to its weights while it takes one bucket. Large enough that one call per bucket costs
# nothing.
BUCKET_BYTES = 512 << 20


@dataclass(frozen=True)
class TensorInfo:
    """A tensor as it is sent. `dtype` is torch's name without the prefix."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int


def cut(tensors: Iterable[TensorInfo], limit: int = BUCKET_BYTES) -> list[list[TensorInfo]]:
    """Buckets of at most `limit` bytes in the given order; a larger tensor has one to itself."""
    buckets: list[list[TensorInfo]] = []
    filled = 0
    for tensor in tensors:
        if not buckets or filled + tensor.bytes > limit:
            buckets.append([])
            filled = 0
        buckets[-1].append(tensor)
        filled += tensor.bytes
    return buckets


# An engine's fused tensor is the bytes of these, one after another.
_FUSED = (
    (
        r"(.*\.self_attn)\.q_proj\.(weight|bias)",
        "{0}.qkv_proj.{1}",
        ("{0}.q_proj.{1}", "{0}.k_proj.{1}", "{0}.v_proj.{1}"),
    ),
    (r"(.*\.mlp)\.gate_proj\.(weight|bias)", "{0}.gate_up_proj.{1}", ("{0}.gate_proj.{1}", "{0}.up_proj.{1}")),
)
_EXPERT = re.compile(r"(.*\.mlp\.experts)\.0\.gate_proj\.weight")


def engine_names(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every name an engine may show for these Hugging Face tensors, with the tensors whose bytes it holds in order.

    Transformers keeps the names; SGLang fuses query, key and value, gate and up, and the experts of a layer. An output
    head that is not among `names` is the embedding.
    """
    known = set(names)
    shown: dict[str, tuple[str, ...]] = {name: (name,) for name in names}
    for name in names:
        for pattern, fused, parts in _FUSED:
            if match := re.fullmatch(pattern, name):
                members = tuple(part.format(*match.groups()) for part in parts)
                if known.issuperset(members):
                    shown[fused.format(*match.groups())] = members
        if match := _EXPERT.fullmatch(name):
            shown.update(_experts(match.group(1), known))
    if "lm_head.weight" not in known and "model.embed_tokens.weight" in known:
        shown["lm_head.weight"] = ("model.embed_tokens.weight",)
    return shown


def _experts(prefix: str, known: set[str]) -> Mapping[str, tuple[str, ...]]:
    count = 0
    while f"{prefix}.{count}.gate_proj.weight" in known:
        count += 1
    first = [f"{prefix}.{i}.{part}_proj.weight" for i in range(count) for part in ("gate", "up")]
    second = [f"{prefix}.{i}.down_proj.weight" for i in range(count)]
    fused = {f"{prefix}.w13_weight": tuple(first), f"{prefix}.w2_weight": tuple(second)}
    return {name: parts for name, parts in fused.items() if known.issuperset(parts)}
