"""Advantages of a whole batch by the recipe's estimator: one of golongrl.learner.advantage, or the user's own."""

from math import nan
from typing import NamedTuple

import numpy as np
import torch

from golongrl.learner.advantage import (
    Advantages,
    aepo,
    dr_grpo,
    grpo,
    masks_negatives,
    qwenlong_grpo,
    reinforce_plus_plus_baseline,
    rloo,
    tmn_grpo,
)
from golongrl.learner.batch.samples import Float32, Samples
from golongrl.recipe import Algorithm
from golongrl.recipe.functions import ESTIMATOR_ARGUMENTS, FunctionError, own_function


class BatchAdvantages(NamedTuple):
    """Advantages, and what the next batch's estimate depends on."""

    advantages: Advantages
    negatives_masked: bool  # by aepo


def estimate(
    samples: Samples, rewards: Float32, algorithm: Algorithm, *, masked_before: bool = False
) -> BatchAdvantages:
    """Advantages of the whole batch by the recipe's estimator; a group is identified by its index, not its text.

    Args:
        masked_before: whether `aepo` masked negative advantages in the batch before.

    Raises:
        FunctionError: the user's own estimator is not there or returned something else than advantages.
    """
    scores, groups, tasks = torch.from_numpy(rewards), samples.group.tolist(), samples.tasks
    masked = False
    match algorithm.estimator:
        case "tmn_grpo":
            found = tmn_grpo(
                scores,
                groups,
                tasks,
                normalize=algorithm.normalize,
                reweight=algorithm.reweight,
                alpha=algorithm.alpha,
                gamma=algorithm.gamma,
                epsilon=algorithm.epsilon,
            )
        case "grpo":
            found = grpo(scores, groups, normalize=algorithm.normalize, epsilon=algorithm.epsilon)
        case "dr_grpo":
            found = dr_grpo(scores, groups)
        case "qwenlong_grpo":
            found = qwenlong_grpo(scores, tasks, epsilon=algorithm.epsilon)
        case "rloo":
            found = rloo(scores, groups)
        case "reinforce_plus_plus_baseline":
            found = reinforce_plus_plus_baseline(scores, groups, samples.lengths.tolist())
        case "aepo":
            entropy = sampled_entropy(samples)
            masked = masks_negatives(masked_before, entropy, low=algorithm.entropy_low, high=algorithm.entropy_high)
            found = aepo(scores, groups, tasks, mask_negatives=masked, epsilon=algorithm.epsilon)
            found.metrics["aepo/entropy"] = entropy
        case place:
            found = Advantages(_own_estimate(place, scores, groups, samples))
    return BatchAdvantages(found, masked)


def sampled_entropy(samples: Samples) -> float:
    """The batch's entropy in nats a token, from the sampled tokens' own log-probs: the mean of -log p.

    That is unbiased for the policy that sampled, and needs no pass of the model. NaN without tokens.
    """
    total = sum(len(logprobs) for logprobs in samples.logprobs)
    return -float(sum(np.sum(logprobs, dtype=np.float64) for logprobs in samples.logprobs)) / total if total else nan


def _own_estimate(place: str, scores: torch.Tensor, groups: list[int], samples: Samples) -> torch.Tensor:
    """Advantages by a user's function; an unscored response gets 0 whatever it says."""
    key = "algorithm.estimator"
    function = own_function(key, place, ESTIMATOR_ARGUMENTS)
    found = function(scores=scores.clone(), groups=groups, tasks=list(samples.tasks), lengths=samples.lengths.tolist())
    scored = ~torch.isnan(scores)
    if not isinstance(found, torch.Tensor) or found.shape != scores.shape:
        got = f"a tensor of {tuple(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise FunctionError(f"{key} {place} must return a tensor of shape {tuple(scores.shape)}, returned {got}")
    if not bool(torch.isfinite(found[scored]).all()):
        raise FunctionError(f"{key} {place} returned an advantage that is not finite for a scored response")
    return torch.where(scored, found.detach().to(scores), 0.0)
