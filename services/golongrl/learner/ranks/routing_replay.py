"""Routing replay (R3): a mixture's forward pass with the experts that the engine chose while it sampled.

The recorded experts take the place of the router's own; their weights are what the current router's softmax gives them,
normalised as the model does, so its gradient is that of the experts that were sampled. A token without a record keeps
the router's choice; so does one whose record names an expert twice, as the zeros do that an engine leaves where it
recorded nothing.

The routes travel as a keyword argument of the decoder layers, as the layout of shared prompts does: a layer that is
computed again for the backward pass (gradient checkpointing) gets the ones of its own first pass, whatever other
micro-batches were computed since. Hooks hand a layer's routes to its router; there is no state between two passes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeTopKRouter

from golongrl.errors import GolongrlError
from golongrl.learner.batch.routes import RowRoutes

# The layers' keyword argument.
_ARGUMENT = "routing_replay"


@dataclass(frozen=True)
class Replay:
    """The routes of one forward pass, on its device."""

    experts: Tensor  # [T, layers, k]
    recorded: Tensor  # [T]
    # Each layer writes its own: [layers] tokens that were replayed, and for which the router would have chosen others.
    replayed: Tensor
    changed: Tensor

    @classmethod
    def of(cls, row: RowRoutes, device: torch.device | str) -> "Replay":
        experts = row.experts
        if experts.dtype == np.uint16:
            experts = experts.view(np.int16)  # torch can do little with its own uint16; no model has 32768 experts
        counts = torch.zeros(2, experts.shape[1], dtype=torch.int64, device=device)
        return cls(torch.from_numpy(experts).to(device), torch.from_numpy(row.recorded).to(device), *counts)


@dataclass(frozen=True)
class ReplayCounts:
    """Token-layers of an update's passes, added up."""

    all: int
    replayed: int
    changed: int

    def shares(self) -> dict[str, float]:
        """Metrics; without a replayed token-layer nothing is known about changes."""
        shares = {"routing/replayed_share": self.replayed / self.all} if self.all else {}
        return shares | ({"routing/changed_share": self.changed / self.replayed} if self.replayed else {})


def install(model: nn.Module) -> None:
    """Make the layers of a decoder replay what `handed_down` gives them.

    Raises:
        GolongrlError: its routers are not known.
    """
    layers: Any = model.layers
    index = 0
    for layer in layers:
        gate = getattr(layer.mlp, "gate", None)
        if gate is not None and not isinstance(gate, Qwen3MoeTopKRouter):
            raise GolongrlError(
                f"learner.routing_replay: the router {type(gate).__name__} is not one whose choice can be replayed"
            )
        _Handover(index, gate).install(layer)
        index += gate is not None
    if not index:
        raise GolongrlError("learner.routing_replay: the model has no routers; false works")


@contextmanager
def handed_down(model: nn.Module, replay: Replay | None) -> Iterator[None]:
    """Passes of the decoder inside it replay these routes.

    verl's forward function for its fused cross-entropy drops arguments that it does not know, so they join here.
    """
    if replay is None:
        yield
        return
    hook = model.register_forward_pre_hook(
        lambda _, arguments, named: (arguments, {**named, _ARGUMENT: replay}), with_kwargs=True
    )
    try:
        yield
    finally:
        hook.remove()


class _Handover:
    """Takes a layer's routes out of its arguments, and gives them to its router."""

    def __init__(self, index: int, gate: Any) -> None:
        self._index = index  # among the layers with a router
        self._gate = gate
        self._replay: Replay | None = None

    def install(self, layer: nn.Module) -> None:
        layer.register_forward_pre_hook(self._enter, with_kwargs=True)
        # Called also where a recomputed layer is left early.
        layer.register_forward_hook(self._leave, always_call=True)
        if self._gate is not None:
            self._gate.register_forward_hook(self._choose)

    def _enter(self, _: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        self._replay = named.get(_ARGUMENT)
        return arguments, {name: value for name, value in named.items() if name != _ARGUMENT}

    def _leave(self, *_: Any) -> None:
        self._replay = None

    def _choose(self, gate: Any, _: Any, chosen: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor] | None:
        if self._replay is None:
            return None
        logits, weights, own = chosen
        experts = self._replay.experts[:, self._index].long()
        ordered = experts.sort(dim=-1).values
        recorded = self._replay.recorded & (ordered.diff(dim=-1) > 0).all(dim=-1)
        others = recorded & (ordered != own.sort(dim=-1).values).any(dim=-1)
        self._replay.replayed[self._index], self._replay.changed[self._index] = recorded.sum(), others.sum()
        experts = torch.where(recorded[:, None], experts, own)
        found = torch.softmax(logits, dim=-1, dtype=torch.float32).gather(1, experts)
        if gate.norm_topk_prob:
            found = found / found.sum(dim=-1, keepdim=True)
        return logits, found.to(weights.dtype), experts
