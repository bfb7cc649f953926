"""Which layers of a model route tokens to experts, from its config.json. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Architectures whose router the learner can replay and whose configuration is read here.
ARCHITECTURES = ("qwen3_moe",)


@dataclass(frozen=True)
class MoeRouting:
    """How a mixture of experts routes: `layers` are its MoE layers among all `hidden_layers`, in model order."""

    hidden_layers: int
    layers: tuple[int, ...]
    top_k: int
    experts: int

    @property
    def itemsize(self) -> int:
        """Bytes that hold the number of an expert: 1 or 2."""
        return 1 if self.experts <= 1 << 8 else 2

    @property
    def token_bytes(self) -> int:
        """Bytes of one token's routes, not compressed."""
        return len(self.layers) * self.top_k * self.itemsize


def experts_of(config: Mapping[str, Any]) -> Any:
    """The number of experts by either of its keys, unchecked; None where none of them has a value.

    transformers before version 5 writes `num_experts`, later ones `num_local_experts`, which counts where both stand.
    """
    local = config.get("num_local_experts")
    return config.get("num_experts") if local is None else local


def routing_of(config: Mapping[str, Any]) -> MoeRouting | None:
    """How the model of this config.json routes; None for a model whose routes cannot be replayed."""
    if config.get("model_type") not in ARCHITECTURES:
        return None
    # The defaults are transformers' own for this architecture.
    hidden, experts = config.get("num_hidden_layers", 24), experts_of(config)
    experts = 128 if experts is None else experts
    top_k, every = config.get("num_experts_per_tok", 8), config.get("decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or []
    if not all(isinstance(value, int) and value > 0 for value in (hidden, experts, top_k, every)):
        return None
    layers = tuple(layer for layer in range(hidden) if layer not in dense and (layer + 1) % every == 0)
    if not layers or top_k > experts or experts > 1 << 16:
        return None
    return MoeRouting(hidden, layers, top_k, experts)
