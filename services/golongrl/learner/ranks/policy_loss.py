"""The loss as a rank computes it: verl's `ppo_loss` with the policy loss that the recipe names.

A step's gradient must not depend on how the step is cut into micro-batches. verl's `geo_mean` alone averages over the
responses of its micro-batch; here it averages over those of the mini-batch, as the other losses do. `clip_cov` and
`kl_cov` still choose their tokens within each micro-batch.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import compute_policy_loss_geo_mean, register_policy_loss
from verl.workers.config import FSDPActorConfig
from verl.workers.utils.losses import ppo_loss

from golongrl.learner.ranks.verl_config import loss_config
from golongrl.recipe import Recipe
from golongrl.recipe.functions import LOSS_ARGUMENTS, is_own, own_function

Loss = Callable[..., tuple[Tensor, dict[str, Any]]]


def policy_loss(recipe: Recipe) -> Loss:
    """What verl's engine calls with a micro-batch's output.

    Raises:
        FunctionError: the user's own loss is not there.
    """
    name = recipe.algorithm.policy_loss
    if is_own(name):
        # verl looks a loss up by its name.
        register_policy_loss(name)(own_function("algorithm.policy_loss", name, LOSS_ARGUMENTS))
    elif name == "geo_mean":
        register_policy_loss(name)(_geo_mean)
    return partial(_ppo_loss, loss_config(recipe))


def _geo_mean(*, response_mask: Tensor, config: FSDPActorConfig, **rest: Any) -> tuple[Tensor, dict[str, Any]]:
    loss, metrics = compute_policy_loss_geo_mean(response_mask=response_mask, config=config, **rest)
    whole = config.global_batch_info
    return loss * len(response_mask) * whole["dp_size"] / whole["global_batch_size"], metrics


def _ppo_loss(
    config: FSDPActorConfig, model_output: dict[str, Tensor], data: TensorDict, dp_group: Any = None
) -> tuple[Tensor, dict[str, Any]]:
    """verl's, by a name that pickles."""
    loss: tuple[Tensor, dict[str, Any]] = ppo_loss(config, model_output, data, dp_group)
    return loss
