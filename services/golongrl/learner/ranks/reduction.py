"""Metrics of mini-batches and ranks, as one number each."""

import math
from typing import Any

import numpy as np
import torch.distributed as dist
from verl.utils.metric import Metric

from golongrl.learner.ranks.routing_replay import ReplayCounts


def note(metrics: dict[str, list[tuple[float, float]]], name: str, value: float, weight: float) -> None:
    """Add a mini-batch's value of a metric; `weight` is its tokens."""
    metrics.setdefault(name, []).append((value, weight))


def reduce_over_ranks(metrics: dict[str, list[tuple[float, float]]], group: Any) -> dict[str, float]:
    """Token-weighted means over mini-batches and data-parallel ranks; extremes by name."""
    gathered: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(gathered, metrics, group=group)
    result = {}
    for name in {name for part in gathered for name in part}:
        pairs = [pair for part in gathered for pair in part.get(name, [])]
        values = [value for value, _ in pairs]
        weight = sum(weight for _, weight in pairs)
        if name.endswith("_max"):
            result[name] = max(values)
        elif name.endswith("_min"):
            result[name] = min(values)
        else:
            result[name] = sum(v * w for v, w in pairs) / weight if weight else float(np.mean(values))
    return result


def over_all_ranks(counts: ReplayCounts) -> ReplayCounts:
    """Sums: the ranks of a Ulysses group have a part of every row each."""
    gathered: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, counts)
    return ReplayCounts(
        sum(each.all for each in gathered),
        sum(each.replayed for each in gathered),
        sum(each.changed for each in gathered),
    )


def reduced(metrics: dict[str, Any]) -> dict[str, float]:
    """One number a metric from what verl gathers: a `Metric` or a list for each data-parallel rank."""
    result = {}
    for name, value in metrics.items():
        if isinstance(value, list) and value and isinstance(value[0], Metric):
            value = Metric.aggregate_dp(value)
        elif isinstance(value, Metric):
            value = value.aggregate()
        elif isinstance(value, list):
            flat = [x for part in value for x in (part if isinstance(part, list) else [part])]
            value = float(np.mean(flat))
        key = {"grad_norm": "actor/grad_norm", "lr": "actor/lr", "loss": "actor/loss", "kl_loss": "actor/kl_loss"}
        result[key.get(name, name)] = float(value)
    return result


def mean_of(outputs: list[dict[str, float]]) -> dict[str, float]:
    """Mean over mini-batches, of the numbers that are finite; the learning rate is the one the last left behind."""
    values: dict[str, list[float]] = {}
    for name, value in (item for output in outputs for item in output.items()):
        if math.isfinite(value):
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(values[name])) for name in sorted(values)}
