"""The estimators under their names in verl's registry, for code that works through verl's interface.

verl's own `compute_advantage` passes no task types: call `get_adv_estimator_fn("tmn_grpo")(..., task_type=...)` on the
whole batch, before it is split over ranks. `grpo` replaces verl's estimator of that name: the same formula, with a
stable variance and unscored responses (a NaN reward) left out.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY, register_adv_est

from golongrl.learner.advantage import Advantages, grpo, qwenlong_grpo, tmn_grpo


def _verl(name: str, estimate: Callable[[Tensor, Sequence[Hashable], Sequence[Hashable], Any], Advantages]) -> None:
    """Register `estimate(scores, groups, tasks, config)` as a verl estimator over token-level rewards."""

    def estimator(
        token_level_rewards: Tensor,
        response_mask: Tensor,
        index: np.ndarray,
        config: Any = None,
        task_type: Sequence[Hashable] | None = None,
        **_: Any,
    ) -> tuple[Tensor, Tensor]:
        """Advantages and returns [N, L]; `token_level_rewards` [N, L], `index` the prompt of each response, [N]."""
        tasks = [0] * len(index) if task_type is None else list(task_type)
        with torch.no_grad():
            values = estimate(token_level_rewards.sum(dim=-1), list(index), tasks, config).values
            advantages = values.unsqueeze(-1) * response_mask
        return advantages, advantages

    ADV_ESTIMATOR_REGISTRY.pop(name, None)
    register_adv_est(name)(estimator)


def register() -> None:
    """Put `tmn_grpo`, `grpo` and `qwenlong_grpo` into verl's registry. verl's `algorithm` config may carry `alpha`,
    `gamma`, `difficulty_reweight` and `norm_adv_by_std_in_grpo`."""

    def option(config: Any, key: str, default: Any) -> Any:
        return default if config is None else config.get(key, default)

    _verl(
        "tmn_grpo",
        lambda scores, groups, tasks, config: tmn_grpo(
            scores,
            groups,
            tasks,
            normalize=option(config, "norm_adv_by_std_in_grpo", True),
            reweight=option(config, "difficulty_reweight", False),
            alpha=option(config, "alpha", 0.5),
            gamma=option(config, "gamma", 1.0),
        ),
    )
    _verl(
        "grpo",
        lambda scores, groups, _, config: grpo(
            scores, groups, normalize=option(config, "norm_adv_by_std_in_grpo", True)
        ),
    )
    _verl("qwenlong_grpo", lambda scores, _, tasks, __: qwenlong_grpo(scores, tasks))
