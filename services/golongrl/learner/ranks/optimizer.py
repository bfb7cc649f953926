"""A resumed optimizer that does what the recipe says: its moments are the checkpoint's, its settings the recipe's.

Loading replaces both. Invariant: with an unchanged recipe the settings come out equal to the bit, because the learning
rate is computed as the scheduler itself computes it: base rate times the schedule's factor at the checkpoint's step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Of a parameter group: not settings.
_PARAMETERS = "params"


@contextmanager
def recipe_settings(optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LambdaLR) -> Iterator[None]:
    """Around loading a checkpoint into both, which were built from the recipe and have done no step."""
    groups = [{name: value for name, value in group.items() if name != _PARAMETERS} for group in optimizer.param_groups]
    base_lrs = [float(rate) for rate in scheduler.base_lrs]
    yield
    scheduler.base_lrs = list(base_lrs)
    rates = [base * factor(scheduler.last_epoch) for base, factor in zip(base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, settings, rate in zip(optimizer.param_groups, groups, rates, strict=True):
        group.update(settings)
        _set(group, "lr", rate)
    scheduler._last_lr = list(rates)


def _set(group: dict[str, Any], name: str, value: float) -> None:
    if isinstance(group[name], torch.Tensor):
        group[name].fill_(value)
    else:
        group[name] = value
