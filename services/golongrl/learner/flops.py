"""Operations of a training step: arithmetic over a model's shape and lengths, no torch.

Counted are the matrix products: a token's pass through the linear layers of the experts it takes, attention's pairs of
query and key, and the output head. A backward pass costs twice its forward pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from golongrl.learner.batch.parts import parts_of
from golongrl.learner.memory import Shape, shape
from golongrl.recipe import Recipe
from golongrl.recipe.prefix_support import plain_reason

_BACKWARD = 3  # forward and backward, in forward passes


def linear(model: Shape) -> int:
    """Weights of a layer's matrices that a token meets."""
    return model.attention + 3 * model.hidden * model.intermediate


def pairs_per_token(model: Shape) -> float:
    """How many pairs of query and key cost as much as a token in the linear layers."""
    return linear(model) / (2 * model.heads * model.head)


def group_flops(model: Shape, prompt: int, responses: Sequence[int], *, shared: bool) -> float:
    """Operations of a forward and a backward pass over a group.

    Args:
        prompt: tokens of the prompt; `responses` those of each response.
        shared: whether the prompt is computed once, as golongrl.learner.batch.shared_prefix lays it out, and the output
            head sees responses alone; else every response is a sequence of its own.
    """
    answers, count = sum(responses), len(responses)
    own = sum(length * (length + 1) / 2 for length in responses)
    if shared:
        prefix = prompt - 1
        tokens, scored = prefix + answers, answers
        pairs = prefix * (prefix + 1) / 2 + prefix * answers + own
    else:
        tokens = scored = count * prompt + answers
        pairs = sum((prompt + length) * (prompt + length + 1) / 2 for length in responses)
    layers = 2 * linear(model) * tokens + 4 * model.heads * model.head * pairs
    return _BACKWARD * (model.layers * layers + 2 * model.embedding * scored)


@dataclass(frozen=True)
class SpeedGauge:
    """How fast groups of one model are trained on one kind of device.

    Args:
        peak: operations a second of a rank's device, where that is known.
        pairs_per_token: of the model (see there) where prompts are computed once; None where they are not.
    """

    model: Shape
    peak: float | None
    pairs_per_token: float | None

    def read(self, groups: Iterable[tuple[int, Sequence[int]]], seconds: float, ranks: int) -> dict[str, float]:
        """Under the names of metrics.jsonl: TFLOP/s a rank, and the share of the device's peak where that is known
        (model FLOPs utilisation: what is computed again for lack of memory does not count). Nothing without `seconds`.

        Args:
            groups: tokens of the prompt and of each response.
            seconds: of the update.
        """
        if seconds <= 0:
            return {}
        shared = self.pairs_per_token is not None
        operations = sum(group_flops(self.model, prompt, lengths, shared=shared) for prompt, lengths in groups)
        rate = operations / seconds / ranks
        return {"perf/tflops": rate / 1e12} | ({} if self.peak is None else {"perf/mfu": rate / self.peak})


def group_line(recipe: Recipe, model_config: Mapping[str, Any]) -> str:
    """For people: what the longest group costs, and what its shared prompt saves."""
    model, n = shape(model_config), recipe.rollout.n
    prompt, answers = recipe.data.max_prompt_tokens, [recipe.rollout.max_response_tokens] * n
    group = f"the longest group, {prompt:,} + {n} x {answers[0]:,} tokens:"
    plain = group_flops(model, prompt, answers, shared=False)
    reason = plain_reason(model_config, recipe, on_cpu=recipe.model.dtype == "float32")
    if reason is not None:
        return f"{group} {_told(plain)}; its prompt is computed {n} times, because {reason}"
    degree = recipe.learner.ulysses
    parts = parts_of(
        [prompt], np.zeros(n, np.int64), np.array(answers), np.arange(n), recipe.learner.max_tokens_per_rank * degree
    )
    shared = sum(group_flops(model, part.prompt, part.lengths, shared=True) for part in parts)
    times = f"its prompt is computed {len(parts)} times" if len(parts) > 1 else "its prompt is computed once"
    more = ""
    if len(parts) > 1:
        once = -(-(prompt - 1 + sum(answers)) // degree)
        more = f" (once with learner.max_tokens_per_rank {once:,})"
    return f"{group} {_told(shared)}, {plain / shared:.1f} times less than plain; {times}{more}"


def _told(operations: float) -> str:
    return f"{operations / 1e15:.3g} PFLOP forward and backward"
