"""Whether Ulysses sequence parallelism does what its degree says: asked of the running model, not of its settings.

Two things go wrong in silence. A model whose attention is not the one that verl patches is given slices and attends
within each alone; an engine that ignores the degree computes every sequence whole on every rank. So one short sequence
is run twice: each rank must be given its slice of it, and a change in the first slice must reach the last one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golongrl.errors import InputError
from golongrl.learner.batch.samples import Shard

# Tokens a rank has of the sequence: some to attend to, and nothing worth measuring.
_SLICE = 8
# First of the token ids used; every vocabulary has what follows, and special tokens come before or far behind.
_FIRST_ID = 16


class SplitError(InputError):
    """Ulysses does not split sequences, or splits them and loses what is in the other slices."""


def check_split(module: torch.nn.Module, log_probs: Callable[[Shard], Tensor], degree: int) -> None:
    """Run the two probes. Collective.

    Args:
        module: the model as the engine calls it, whose input is looked at.
        log_probs: log-probabilities of a shard's response tokens, flat, through the engine.
        degree: learner.ulysses, at least 2.

    Raises:
        SplitError: what was promised does not happen.
    """
    with _inputs(module) as lengths:
        one, other = (log_probs(_probe(degree, first)) for first in (_FIRST_ID, _FIRST_ID + _SLICE))
    if set(lengths) != {_SLICE}:
        raise SplitError(
            f"learner.ulysses {degree}: of {_SLICE * degree} tokens a rank was given {lengths[0]} instead of {_SLICE}; "
            "sequences are not split"
        )
    # The first token of the last slice is predicted from the slice before.
    inside = slice(1 - _SLICE, None)
    if torch.equal(one[inside], other[inside]):
        raise SplitError(
            f"learner.ulysses {degree}: the last part of a sequence does not see the first; this model's attention is "
            "not the one that is split over ranks (use model.attn_implementation flash_attention_2)"
        )


def _probe(degree: int, first: int) -> Shard:
    """One sequence of `degree` slices; the prompt is the first, with ids from `first` on."""
    ids = np.arange(_FIRST_ID, _FIRST_ID + _SLICE, dtype=np.int32)
    response = np.tile(ids, degree - 1)
    return Shard(
        prompts=[np.arange(first, first + _SLICE, dtype=np.int32)],
        prompt=np.zeros(1, np.int64),
        responses=response,
        offsets=np.array([0, len(response)], np.int64),
        logprobs=np.zeros(len(response), np.float32),
        advantages=np.zeros(1, np.float32),
        weights=np.ones(1, np.float32),
        sequences=1,
    )


@contextmanager
def _inputs(module: torch.nn.Module) -> Iterator[list[int]]:
    """How many tokens each call of the module was given, meanwhile."""
    lengths: list[int] = []

    def note(_: torch.nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids = named["input_ids"] if "input_ids" in named else arguments[0]
        lengths.append(int(ids.shape[-1]))

    handle = module.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield lengths
    finally:
        handle.remove()
