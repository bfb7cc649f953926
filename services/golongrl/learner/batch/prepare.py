"""A batch made ready for the ranks: rewards, advantages over the whole batch, balanced shards, metrics. No I/O."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golongrl.learner.batch.batch_metrics import batch_metrics, count_metrics
from golongrl.learner.batch.check import longest_sequence
from golongrl.learner.batch.estimate import estimate
from golongrl.learner.batch.samples import Shard, collect, penalise_overlong, shard, shuffled
from golongrl.learner.batch.shared_prefix import shard_groups
from golongrl.queue import Batch
from golongrl.recipe import Recipe
from golongrl.routes.model import MoeRouting


@dataclass
class PreparedBatch:
    """A step's batch, ready for the ranks: `minis[mini][data-parallel rank]`, and its metrics so far."""

    step: int
    rows: NDArray[np.int32]  # (epoch, row) of its groups: [groups, 2]
    minis: list[list[Shard]]
    metrics: dict[str, float]
    negatives_masked: bool = False
    """By `aepo`; the next batch's estimate depends on it."""
    advantages: Sequence[float] = ()
    """Of every scored response."""
    samples: Sequence[Mapping[str, Any]] = ()
    """What `samples.jsonl` keeps of it."""
    lengths: Sequence[tuple[int, Sequence[int]]] = ()
    """Of every group, in tokens: the prompt, and each response."""
    taken: float = 0.0
    """When it was taken: seconds since 1970."""
    moments: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By uid, when a group was leased and submitted; without those of older workers."""


def prepare(
    batch: Batch,
    recipe: Recipe,
    *,
    pairs_per_token: float | None,
    masked_before: bool = False,
    routing: MoeRouting | None = None,
) -> PreparedBatch:
    """Depends on its arguments alone, so a replayed batch gives the same result. A batch whose groups were all set
    aside gives no mini-batches.

    Args:
        pairs_per_token: of the model (golongrl.learner.flops) where prompts are computed once; None where they are not.
        masked_before: `negatives_masked` of the batch before.
        routing: of the model, where recorded routes are replayed.

    Raises:
        BatchError: a group cannot be trained (`check.untrainable` names all of them).
    """
    started = time.perf_counter()
    rows = np.array([(group.epoch, group.row) for group in batch.groups], np.int32).reshape(-1, 2)
    if not batch.groups:
        return PreparedBatch(batch.step, rows, [], count_metrics(batch), masked_before)
    algorithm, learner = recipe.algorithm, recipe.learner
    samples = collect(batch.groups, routing)
    rewards = penalise_overlong(
        samples.rewards,
        samples.lengths,
        recipe.rollout.max_response_tokens,
        algorithm.overlong_buffer,
        algorithm.overlong_penalty,
    )
    advantages, masked = estimate(samples, rewards, algorithm, masked_before=masked_before)
    values = advantages.values
    if algorithm.shuffle_advantages:
        values = shuffled(values, ~np.isnan(rewards), recipe.seed, batch.step)
    cut = shard if pairs_per_token is None else partial(shard_groups, pairs_per_token=pairs_per_token)
    minis = cut(
        samples,
        values.numpy(),
        ranks=learner.ranks // learner.ulysses,
        mini_batch_groups=learner.mini_batch_groups,
        longest=longest_sequence(recipe),
    )
    metrics = batch_metrics(batch, samples, rewards, values, recipe.rollout.max_response_tokens)
    metrics |= advantages.metrics
    # Overlaps the previous step, so it is no phase of this one (timing_s/take is the time that the step waited).
    metrics["perf/prepare_s"] = time.perf_counter() - started
    return PreparedBatch(batch.step, rows, minis, metrics, masked, values.numpy()[~np.isnan(rewards)].tolist())
