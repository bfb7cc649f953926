"""Which experts each token was sent to, in SGLang's shape: base64 of int32 [tokens computed, layers, top k].

Layers are all of the model's; a dense one has zeros. The last token of a response was never computed, so a request of P
prompt and T output tokens has P + T - 1 rows. A token keeps the experts of its first computation, with which it was
sampled or which the tokens after it were sampled from: where a retracted request is computed again, only what is new
counts. (SGLang answers with the experts of the last computation.)
"""

import base64
from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel

from golongrl.routes.model import routing_of


class RouteRecorder:
    """Sees what the routers of a model choose, while `wanted`."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.routing = routing_of(model.config.to_dict())
        self.wanted = False
        self._chosen: list[torch.Tensor] = []
        for layer in self.routing.layers if self.routing is not None else ():
            model.model.layers[layer].mlp.gate.register_forward_hook(self._see)

    def _see(self, _module: Any, _given: Any, answer: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
        if self.wanted:
            self._chosen.append(answer[2])

    def take(self) -> torch.Tensor | None:
        """The last forward's experts, int32 [tokens, layers, top k]; None if nobody asked or the model has none."""
        chosen, self._chosen = self._chosen, []
        if not chosen or self.routing is None:
            return None
        routes = torch.zeros(len(chosen[0]), self.routing.hidden_layers, self.routing.top_k, dtype=torch.int32)
        for layer, experts in zip(self.routing.layers, chosen, strict=True):
            routes[:, layer] = experts
        return routes


class RouteLog:
    """The routes of one request so far; `start` is the first token that was asked for."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._parts: list[torch.Tensor] = []
        self._tokens = 0

    def add(self, rows: torch.Tensor, first: int) -> None:
        """Rows of the tokens from `first` on were computed, perhaps not for the first time."""
        new = rows[self._tokens - first :]
        if len(new):
            self._parts.append(new)
            self._tokens += len(new)

    def encoded(self) -> str | None:
        """As an answer has it; None if nothing was computed."""
        if not self._parts:
            return None
        rows = torch.cat(self._parts)[self.start :].contiguous()
        return base64.b64encode(rows.numpy().tobytes()).decode("ascii")


def of_prompts(routes: torch.Tensor, prompts: Sequence[tuple[int, ...]]) -> list[torch.Tensor]:
    """Rows of each prompt of a padded prefill."""
    by_prompt = routes.view(len(prompts), -1, *routes.shape[1:])
    return [rows[: len(tokens)] for rows, tokens in zip(by_prompt, prompts, strict=True)]
