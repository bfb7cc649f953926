"""A batch and its step in numbers, under verl's names: rewards, lengths, staleness, the rollout side, speed. Pure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from golongrl.learner.batch.samples import Float32, Samples
from golongrl.queue import Batch, QueueStats
from golongrl.telemetry.history import GENERATING


def batch_metrics(
    batch: Batch, samples: Samples, rewards: Float32, advantages: torch.Tensor, max_response_tokens: int
) -> dict[str, float]:
    """Metrics of a batch before it is trained on.

    `critic/score` is what the reward service gave, `critic/rewards` what is trained on (overlong penalty included),
    both over scored responses only. Staleness of a group: the version trained from minus the lowest of its tokens.
    """
    scored = ~np.isnan(samples.rewards)
    lengths = samples.lengths
    prompts = np.array([len(ids) for ids in samples.prompts])
    staleness = np.array([batch.step - 1 - group.lowest_version for group in batch.groups])
    metrics: dict[str, float] = {
        **_spread("critic/score", samples.rewards[scored]),
        **_spread("critic/rewards", rewards[scored]),
        **_spread("critic/advantages", advantages.numpy()[scored]),
        **_spread("response_length", lengths),
        **_spread("prompt_length", prompts),
        "response_length/clip_ratio": float(np.mean(~samples.finished)),
        "response_length/limit": float(max_response_tokens),
        "staleness/mean": float(staleness.mean()),
        "staleness/max": float(staleness.max()),
        **count_metrics(batch),
        "batch/responses": float(len(samples)),
        "batch/tasks": float(len(set(samples.tasks))),
        # What the update computes: prompt and response of every response.
        "perf/total_num_tokens": float(samples.sequence_lengths.sum()),
    }
    by_type: dict[str, list[float]] = {}
    for group in batch.groups:
        by_type.setdefault(group.task, []).extend(r.reward for r in group.responses if r.reward is not None)
    metrics |= {f"reward_by_type/{task}": float(np.mean(values)) for task, values in sorted(by_type.items()) if values}
    for group in batch.groups:
        key = f"groups_from/{group.worker}"
        metrics[key] = metrics.get(key, 0.0) + 1
    timings: dict[str, list[float]] = {}
    for group in batch.groups:
        for name, seconds in group.timings.items():
            timings.setdefault(name, []).append(seconds)
    metrics |= {f"rollout_s/{name}": float(np.mean(values)) for name, values in timings.items()}
    return metrics


def count_metrics(batch: Batch) -> dict[str, float]:
    """How many groups are trained and how many were set aside instead; whether the step is a replay."""
    return {
        "batch/groups": float(len(batch.groups)),
        "batch/set_aside": float(len(batch.set_aside)),
        "batch/replayed": float(batch.replayed),
    }


def step_metrics(
    metrics: Mapping[str, float], clock: Mapping[str, float], stats: QueueStats, ranks: int, version: int
) -> dict[str, float]:
    """The record of a step: its batch's and update's metrics, its phases, and the queue and policy version after it.

    Args:
        clock: seconds by phase, `timing_s/step` the whole.

    `perf/throughput` is tokens a second and rank.
    """
    seconds = clock["timing_s/step"]
    return {
        # Where the step's batch was waited for, its metrics have the mean of that time: by now engines may wait for
        # the new version, and hold none.
        GENERATING: float(stats.leased),
        **metrics,
        **clock,
        "perf/time_per_step": seconds,
        "perf/throughput": metrics.get("perf/total_num_tokens", 0.0) / seconds / ranks,
        "queue/ready": float(stats.ready),
        "queue/in_batches": float(stats.in_batches),
        "queue/rejected": float(stats.rejected),
        "queue/bytes": float(stats.bytes),
        "policy/version": float(version),
    }


def _spread(name: str, values: NDArray[np.floating[Any]] | NDArray[np.integer[Any]]) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        f"{name}/mean": float(np.mean(values)),
        f"{name}/max": float(np.max(values)),
        f"{name}/min": float(np.min(values)),
    }
