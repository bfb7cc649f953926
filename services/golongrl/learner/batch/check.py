"""Which groups of a batch cannot be trained, and why: found before anything is computed from the whole batch. Pure.

What the queue checks as it reads a group (ids, log-probs, rewards, see `golongrl.queue.fault`) is not repeated here.
"""

from typing import TYPE_CHECKING

import numpy as np

from golongrl.learner.batch.samples import BatchError, collect
from golongrl.recipe import Recipe

if TYPE_CHECKING:
    from golongrl.queue import Batch, Group


def longest_sequence(recipe: Recipe) -> int:
    """Most tokens that prompt and response may have together on a rank."""
    return recipe.learner.max_tokens_per_rank * recipe.learner.ulysses


def untrainable(batch: "Batch", recipe: Recipe) -> dict[str, str]:
    """The reason by uid, for every group that cannot be trained. It depends on the group and the recipe alone, so a
    replayed batch gives the same answer."""
    found = ((group.uid, _reason(group, longest_sequence(recipe))) for group in batch.groups)
    return {uid: reason for uid, reason in found if reason is not None}


def _reason(group: "Group", longest: int) -> str | None:
    try:
        samples = collect([group])
        length = int(samples.sequence_lengths.max())
    except (BatchError, TypeError, ValueError, OverflowError) as error:
        return str(error)
    if np.isinf(samples.rewards).any():
        return f"reward {samples.rewards[np.isinf(samples.rewards)][0]} is not finite"
    if length > longest:
        return (
            f"a sequence of {length} tokens is longer than the {longest} that a micro-batch holds: raise "
            "learner.max_tokens_per_rank or learner.ulysses"
        )
    return None
