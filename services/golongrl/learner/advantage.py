"""Advantage estimators: rewards of a whole batch in, one advantage per response out. Pure torch, no verl, no I/O.

Invariants:
- statistics are over the WHOLE batch that is passed: compute advantages once, before a batch is split over ranks or
  micro-batches; the order of the responses does not matter;
- an unscored response (NaN) is in no statistic and gets advantage 0; it is never a reward of 0;
- variances are two-pass, in float64: a tiny spread on a large mean is a tiny spread, not cancellation noise.

Notation (TMN-GRPO, arXiv 2605.19577): r_i the reward of response i, u its prompt (a *group*), t the task type of u,
Var_u the unbiased variance of u's rewards, S_t = sqrt(mean over the prompts u of type t of Var_u).
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

# Two rewards closer than this (relative to the larger of 1 and their size) are one reward: float64 sums of a constant
# group may differ from the constant in the last bits, and such a difference must not decide who is above average.
_SAME = 1e-12

# The prompt, or the task type, of each response.
Ids = Sequence[Hashable] | Tensor


@dataclass(frozen=True)
class Advantages:
    """Advantages of a batch: `values` float [N] in the scores' dtype, and scalar metrics by their logged name."""

    values: Tensor
    metrics: dict[str, float] = field(default_factory=dict)


def tmn_grpo(
    scores: Tensor,
    groups: Ids,
    tasks: Ids,
    *,
    normalize: bool = True,
    reweight: bool = False,
    alpha: float = 0.5,
    gamma: float = 1.0,
    epsilon: float = 1e-6,
) -> Advantages:
    """Task-level mean normalisation, optionally reweighted by difficulty (TMN-Reweight).

    A_i = (r_i - mean_u) / (S_t + epsilon). A prompt with one response has mean 0 and variance 1, as in the original:
    its reward is its advantage, and it enters S_t as 1.

    Reweighting multiplies A_i by exp(gamma (0.5 - p_u)) where r_i > mean_u and by exp(gamma (p_u - 0.5)) elsewhere,
    where the pass rate p_u is the share of u's responses above alpha * mean_u + (1 - alpha) * (mean over the prompts of
    type t of mean_u); with one response (mean_u = 0 there too) the type's mean alone is the threshold.

    Args:
        scores: float [N]; NaN marks an unscored response.
        groups: prompt of each response, [N]; like `tasks`, a sequence, an array or a tensor.
        tasks: task type of each response, [N]; all responses of a prompt have the same.
        normalize: divide by S_t; otherwise advantages are centred rewards.
        reweight: apply the difficulty weight.
        alpha: share of the prompt's own mean in the pass threshold.
        gamma: strength of the difficulty weight.
        epsilon: added to S_t.

    Raises:
        ValueError: scores are no floats, lengths differ, a score is infinite, or a prompt has two task types.
    """
    batch = _AdvantageBatch.of(scores, groups, tasks)
    spread = torch.ones_like(batch.rewards)
    if normalize:
        variance_of_type = _mean(batch.variance, batch.type_of_group, batch.types)
        spread = variance_of_type.sqrt()[batch.type_of_group][batch.group] + epsilon
    advantages = (batch.rewards - batch.baseline[batch.group]) / spread
    metrics = batch.metrics()
    if reweight:
        weights, difficulty = _difficulty(batch, alpha, gamma)
        advantages = advantages * weights
        metrics |= difficulty
    return Advantages(batch.spread_out(advantages, scores), metrics)


def grpo(scores: Tensor, groups: Ids, *, normalize: bool = True, epsilon: float = 1e-6) -> Advantages:
    """Group-relative advantages: A_i = (r_i - mean_u) / (std_u + epsilon), or r_i - mean_u without normalisation.

    Args and errors are those of `tmn_grpo`; a prompt with one response has mean 0 and deviation 1.
    """
    batch = _AdvantageBatch.of(scores, groups, [0] * len(groups))
    advantages = batch.rewards - batch.baseline[batch.group]
    if normalize:
        advantages = advantages / (batch.variance.sqrt()[batch.group] + epsilon)
    return Advantages(batch.spread_out(advantages, scores), batch.metrics(per_task=False))


def qwenlong_grpo(scores: Tensor, tasks: Ids, *, epsilon: float = 1e-6) -> Advantages:
    """QwenLong's task-level baseline: A_i = (r_i - mean of type t) / (unbiased deviation of type t + epsilon).

    A task type with a single response gets advantage 0. Args and errors are those of `tmn_grpo`.
    """
    # One "group" per task type: its mean and variance are the type's.
    batch = _AdvantageBatch.of(scores, tasks, tasks)
    centred = batch.rewards - batch.mean[batch.group]
    advantages = centred / (batch.variance.sqrt()[batch.group] + epsilon)
    return Advantages(batch.spread_out(advantages, scores), batch.metrics())


def dr_grpo(scores: Tensor, groups: Ids) -> Advantages:
    """Dr. GRPO (arXiv 2503.20783): A_i = r_i - mean_u, without a spread that favours easy and hard prompts.

    Its other half is a loss that does not divide by a response's length: `loss_agg_mode: seq-mean-token-sum-norm`.
    Args and errors are those of `tmn_grpo`.
    """
    return grpo(scores, groups, normalize=False)


def rloo(scores: Tensor, groups: Ids) -> Advantages:
    """Leave-one-out baseline (arXiv 2402.14740): A_i = r_i - mean of the prompt's other responses.

    A prompt with one response has baseline 0. Args and errors are those of `tmn_grpo`.
    """
    batch = _AdvantageBatch.of(scores, groups, [0] * len(groups))
    count = batch.count[batch.group]
    # r_i - (n mean - r_i) / (n - 1) = (r_i - mean) n / (n - 1)
    others = torch.where(count > 1, count / (count - 1).clamp(min=1), 1.0)
    advantages = (batch.rewards - batch.baseline[batch.group]) * others
    return Advantages(batch.spread_out(advantages, scores), batch.metrics(per_task=False))


def reinforce_plus_plus_baseline(scores: Tensor, groups: Ids, lengths: Sequence[int] | Tensor) -> Advantages:
    """REINFORCE++ with a baseline (arXiv 2501.03262): r_i - mean_u, whitened over the batch's tokens.

    A_i = (c_i - m) / sqrt(v + 1e-8) for c_i = r_i - mean_u; m and the unbiased v count a response once for each of its
    tokens, as verl's `masked_whiten` does. Fewer than two tokens have v = 0.

    Args:
        lengths: tokens of each response, [N]. The other args and errors are those of `tmn_grpo`.
    """
    batch = _AdvantageBatch.of(scores, groups, [0] * len(groups))
    tokens = torch.as_tensor(lengths, dtype=torch.float64, device=scores.device)
    if tokens.shape != scores.shape:
        raise ValueError(f"lengths must be [N] like scores, got {tuple(tokens.shape)} and {tuple(scores.shape)}")
    tokens = tokens[batch.scored]
    centred = batch.rewards - batch.baseline[batch.group]
    total = tokens.sum().clamp(min=1)
    mean = (centred * tokens).sum() / total
    variance = ((centred - mean).square() * tokens).sum() / (total - 1).clamp(min=1)
    advantages = (centred - mean) / (variance + 1e-8).sqrt()
    return Advantages(batch.spread_out(advantages, scores), batch.metrics(per_task=False))


def aepo(scores: Tensor, groups: Ids, tasks: Ids, *, mask_negatives: bool, epsilon: float = 1e-6) -> Advantages:
    """QwenLong-L1.5's advantage (arXiv 2512.12967): A_i = (r_i - mean_u) / (unbiased deviation of type t + epsilon).

    With `mask_negatives` advantages below 0 become 0: what is wrong then raises the entropy no further.
    `masks_negatives` says when. Args and errors are those of `tmn_grpo`.
    """
    batch = _AdvantageBatch.of(scores, groups, tasks)
    of_type = _AdvantageBatch.of(scores, tasks, tasks)
    deviation = of_type.variance.sqrt()[of_type.group]
    advantages = (batch.rewards - batch.baseline[batch.group]) / (deviation + epsilon)
    if mask_negatives:
        advantages = advantages.clamp(min=0.0)
    return Advantages(
        batch.spread_out(advantages, scores), batch.metrics() | {"aepo/negatives_masked": float(mask_negatives)}
    )


def masks_negatives(before: bool, entropy: float, *, low: float, high: float) -> bool:
    """Whether AEPO masks negative advantages in a batch of this entropy: from above `high` on until it is below `low`.

    Args:
        before: whether the batch before was masked.
        entropy: nats a token, NaN (no tokens) leaves it as it was.
    """
    if entropy > high:
        return True
    if entropy < low:
        return False
    return before


def _numbered(responses: list[tuple[Hashable, Hashable]]) -> tuple[list[int], list[int], list[str]]:
    """The number of each response's group, the number of each group's task type, and the types' names.

    Args:
        responses: the group and the task of each.

    Raises:
        ValueError: a group has two tasks.
    """
    groups: dict[Hashable, int] = {}
    types: dict[Hashable, int] = {}
    index: list[int] = []
    type_of_group: list[int] = []
    for group, task in responses:
        number, kind = groups.setdefault(group, len(groups)), types.setdefault(task, len(types))
        if number == len(type_of_group):
            type_of_group.append(kind)
        elif type_of_group[number] != kind:
            raise ValueError(f"prompt {group!r} has two task types, one of them {task!r}")
        index.append(number)
    return index, type_of_group, [str(task) for task in types]


@dataclass(frozen=True)
class _AdvantageBatch:
    """The scored responses of a batch with the statistics of its prompts, all float64.

    M responses, G prompts, T task types: `rewards` and `group` are [M]; `mean`, `baseline`, `variance`, `count` and
    `type_of_group` are [G].
    """

    scored: Tensor  # bool [N], over the caller's responses
    rewards: Tensor
    group: Tensor
    type_of_group: Tensor
    names: list[str]  # of the task types
    count: Tensor
    mean: Tensor
    baseline: Tensor  # the mean; 0 for a prompt with one response
    variance: Tensor  # unbiased; 1 for a prompt with one response

    @property
    def types(self) -> int:
        return len(self.names)

    @classmethod
    def of(cls, scores: Tensor, groups: Ids, tasks: Ids) -> "_AdvantageBatch":
        # Elements of a tensor are tensors, each equal to itself alone.
        groups, tasks = (ids.tolist() if isinstance(ids, Tensor) else ids for ids in (groups, tasks))
        if not scores.is_floating_point():
            raise ValueError(f"scores must be floats, got {scores.dtype}: advantages have their dtype")
        if scores.dim() != 1 or not len(groups) == len(tasks) == scores.numel():
            raise ValueError(
                f"scores must be [N] with N groups and N tasks, got {tuple(scores.shape)}, {len(groups)}, {len(tasks)}"
            )
        if bool(torch.isinf(scores).any()):
            raise ValueError(f"score of response {int(torch.isinf(scores).nonzero()[0])} is infinite")
        device = scores.device
        scored = ~torch.isnan(scores)
        kept: list[int] = scored.nonzero().flatten().tolist()
        index, type_of_group, names = _numbered([(groups[i], tasks[i]) for i in kept])
        rewards = scores.detach()[scored].to(torch.float64)
        group_of = torch.tensor(index, dtype=torch.long, device=device)
        total = len(type_of_group)
        count = torch.bincount(group_of, minlength=total).to(torch.float64)
        mean = _mean(rewards, group_of, total)
        # Second pass: a constant group's mean becomes exactly its constant, and with it the variance exactly 0.
        mean = mean + _mean(rewards - mean[group_of], group_of, total)
        centred = rewards - mean[group_of]
        single = count == 1
        variance = _sum(centred.square(), group_of, total) / (count - 1).clamp(min=1)
        return cls(
            scored=scored,
            rewards=rewards,
            group=group_of,
            type_of_group=torch.tensor(type_of_group, dtype=torch.long, device=device),
            names=names,
            count=count,
            mean=mean,
            baseline=mean.masked_fill(single, 0.0),
            variance=variance.masked_fill(single, 1.0),
        )

    def spread_out(self, values: Tensor, like: Tensor) -> Tensor:
        """Values of the scored responses at their places among all of them, 0 elsewhere, in `like`'s dtype."""
        result = torch.zeros_like(like)
        result[self.scored] = values.to(like.dtype)
        return result

    def metrics(self, per_task: bool = True) -> dict[str, float]:
        """Reward statistics per task type, under the original's names (`task_metrics/<type>/mean_reward` ...).

        `std_reward` is the population deviation over the type's responses; `rate_adv` the type's share of the summed
        population deviations of all prompts (the norm of the centred rewards stands for the gradient's); `rate_num`
        its share of the prompts. Unscored responses count nowhere.
        """
        unscored = {"rewards/unscored_ratio": _ratio(int((~self.scored).sum()), self.scored.numel())}
        if not per_task:
            return unscored
        type_of = self.type_of_group[self.group]
        mean = _mean(self.rewards, type_of, self.types)
        deviation = _mean((self.rewards - mean[type_of]).square(), type_of, self.types).sqrt()
        # Population deviation of each prompt; a single response has none.
        centred = self.rewards - self.mean[self.group]
        prompt_deviation = _mean(centred.square(), self.group, len(self.count)).sqrt()
        norm = _sum(prompt_deviation, self.type_of_group, self.types)
        prompts = torch.bincount(self.type_of_group, minlength=self.types)
        responses = torch.bincount(type_of, minlength=self.types)
        result = unscored
        for kind, name in enumerate(self.names):
            prefix = f"task_metrics/{metric_name(name)}"
            result[f"{prefix}/mean_reward"] = float(mean[kind])
            result[f"{prefix}/std_reward"] = float(deviation[kind])
            result[f"{prefix}/mean_std_reward"] = float(norm[kind] / prompts[kind])
            result[f"{prefix}/rate_adv"] = _ratio(float(norm[kind]), float(norm.sum()))
            result[f"{prefix}/rate_num"] = _ratio(int(prompts[kind]), len(self.count))
            result[f"{prefix}/num_queries"] = float(prompts[kind])
            result[f"{prefix}/num_rollouts"] = float(responses[kind])
        return result


def metric_name(task: str) -> str:
    """A task's name as a part of a metric's name: no spaces, no dots."""
    return task.replace(" ", "_").replace(".", "-")


def _difficulty(batch: _AdvantageBatch, alpha: float, gamma: float) -> tuple[Tensor, dict[str, float]]:
    """The difficulty weight of every scored response, [M], and its metrics."""
    type_mean = _mean(batch.baseline, batch.type_of_group, batch.types)[batch.type_of_group]
    own_share = torch.where(batch.count == 1, 0.0, alpha)
    threshold = own_share * batch.mean + (1 - own_share) * type_mean
    passed = _above(batch.rewards, threshold[batch.group]).to(torch.float64)
    pass_rate = _mean(passed, batch.group, len(batch.count))
    easy = pass_rate[batch.group] - 0.5
    above = _above(batch.rewards, batch.baseline[batch.group])
    weights = torch.exp(gamma * torch.where(above, -easy, easy))
    if not len(weights):
        return weights, {}
    return weights, {
        **{
            f"task_metrics/{metric_name(name)}/pass_rate": float(rate)
            for name, rate in zip(batch.names, _mean(pass_rate, batch.type_of_group, batch.types), strict=True)
        },
        "difficulty/mean_pass_rate": float(pass_rate.mean()),
        "difficulty/weight_mean": float(weights.mean()),
        "difficulty/weight_min": float(weights.min()),
        "difficulty/weight_max": float(weights.max()),
    }


def _above(values: Tensor, threshold: Tensor) -> Tensor:
    return values - threshold > _SAME * threshold.abs().clamp(min=1.0)


def _sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    return torch.zeros(size, dtype=values.dtype, device=values.device).index_add_(0, index, values)


def _mean(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Mean of the values of each index, [size]; every index below `size` occurs."""
    return _sum(values, index, size) / torch.bincount(index, minlength=size)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
