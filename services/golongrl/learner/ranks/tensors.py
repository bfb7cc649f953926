"""A rank's side of a batch: shards become the jagged TensorDicts of verl's engine, with importance weights.

Invariants:
- every nested tensor has one row a response; token columns (`old_log_probs`, `advantages`, masks) follow the response;
- a shard's arrays are read-only (they lie in Ray's object store): what torch keeps is a copy;
- what is masked (fillers, vetoed responses) has `loss_mask` 0 and stays in the batch, so all ranks keep equal counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_and_rejection_mask
from verl.utils import tensordict_utils as tu

from golongrl.learner.batch.routes import ShardRoutes
from golongrl.learner.batch.samples import Shard
from golongrl.recipe import Algorithm

# The key of a batch's whole prompts, where they are computed once.
SHARED_PROMPTS = "shared_prompts"

# The keys of a batch's recorded routes (golongrl.learner.batch.routes), where they are replayed, and of the column with
# each row's place in the shard.
ROUTES, ROW = "routes", "row"

# A mean weight below this is that of a batch whose weights were all made 0: verl leaves it as it is, too.
_NO_WEIGHT = 1e-8


@dataclass(frozen=True)
class Correction:
    """Rollout correction of a shard, flat over response tokens: importance weights, and the mask of what counts."""

    weights: Tensor | None
    mask: Tensor
    metrics: dict[str, float]


def assemble(shard: Shard, *, temperature: float, pad_token_id: int) -> TensorDict:
    """The engine's view of a shard, without log-probabilities: ids, positions, masks, advantages per token.

    Returns:
        TensorDict of n rows: `prompts`, `responses`, `input_ids`, `position_ids` (int64), `response_mask`, `loss_mask`
        (int64), `advantages` (float32), all jagged, and ROW.
    """
    prompt_lengths = np.array([len(ids) for ids in shard.prompts], dtype=np.int64)[shard.prompt]
    lengths = np.diff(shard.offsets)
    prompts = np.concatenate([shard.prompts[i] for i in shard.prompt])
    prompt_offsets = _offsets(prompt_lengths)
    total_offsets = prompt_offsets + shard.offsets
    ids = np.empty(total_offsets[-1], dtype=np.int64)
    positions = np.arange(total_offsets[-1], dtype=np.int64) - np.repeat(total_offsets[:-1], prompt_lengths + lengths)
    in_response = positions >= np.repeat(prompt_lengths, prompt_lengths + lengths)
    ids[~in_response] = prompts
    ids[in_response] = shard.responses
    mask = np.repeat(shard.weights, lengths).astype(np.int64)
    return tu.get_tensordict(
        {
            "prompts": _jagged(prompts.astype(np.int64), prompt_offsets),
            "responses": _jagged(shard.responses.astype(np.int64), shard.offsets),
            "input_ids": _jagged(ids, total_offsets),
            "position_ids": _jagged(positions, total_offsets),
            "response_mask": _jagged(mask, shard.offsets),
            "loss_mask": _jagged(mask, shard.offsets),
            "advantages": _jagged(np.repeat(shard.advantages, lengths), shard.offsets),
            ROW: torch.arange(len(shard)),
        },
        {
            "temperature": temperature,
            "pad_token_id": pad_token_id,
            "global_batch_size": shard.sequences,
            **_routes(shard),
        },
    )


def assemble_shared(shard: Shard, *, temperature: float) -> TensorDict:
    """The engine's view of a shard whose prompts are computed once (`verl_engine` makes the packed rows of it).

    verl's loss is told that every prompt is one token, its last: the engine gives a response's log-probabilities as
    those of a sequence that begins there.

    Returns:
        TensorDict of n rows: `prompts` (the last prompt tokens), `responses`, `response_mask`, `loss_mask`,
        `advantages`, all jagged, and `prompt` [n], the index into the whole prompts, which go along as SHARED_PROMPTS,
        and ROW.
    """
    lengths = np.diff(shard.offsets)
    mask = np.repeat(shard.weights, lengths).astype(np.int64)
    last = np.array([shard.prompts[i][-1] for i in shard.prompt], dtype=np.int64)
    return tu.get_tensordict(
        {
            "prompts": _jagged(last, np.arange(len(last) + 1)),
            "responses": _jagged(shard.responses.astype(np.int64), shard.offsets),
            "prompt": torch.from_numpy(shard.prompt.copy()),
            ROW: torch.arange(len(shard)),
            "response_mask": _jagged(mask, shard.offsets),
            "loss_mask": _jagged(mask, shard.offsets),
            "advantages": _jagged(np.repeat(shard.advantages, lengths), shard.offsets),
        },
        {
            "temperature": temperature,
            "global_batch_size": shard.sequences,
            # Copied: what Ray hands out is read-only.
            SHARED_PROMPTS: [ids.copy() for ids in shard.prompts],
            **_routes(shard),
        },
    )


def _routes(shard: Shard) -> dict[str, ShardRoutes]:
    return {} if shard.routes is None else {ROUTES: shard.routes}


def response_tokens(full: Tensor, shard: Shard) -> Tensor:
    """Per-token values the engine gave for whole sequences (position i predicts i + 1), cut to the responses: flat."""
    values = full.values()
    ends = full.offsets()[1:].tolist()  # type: ignore[attr-defined]  # of jagged tensors alone
    lengths = np.diff(shard.offsets).tolist()
    return torch.cat([values[end - length - 1 : end - 1] for end, length in zip(ends, lengths, strict=True)])


def with_columns(batch: TensorDict, shard: Shard, **columns: Tensor) -> TensorDict:
    """The batch with flat response columns added (or replaced) as jagged tensors."""
    offsets = torch.tensor(shard.offsets)
    for name, values in columns.items():
        batch[name] = torch.nested.nested_tensor_from_jagged(values, offsets)
    return batch


def correct(old: Tensor, shard: Shard, algorithm: Algorithm) -> Correction:
    """Importance weights of the proximal over the behaviour policy, within bounds, and what is rejected.

    verl's helper computes, rejects and measures; the paper's clip also lifts what is below its lower bound (verl's own
    two-sided mode, `mask` here, zeroes it instead). A response with a token below `rollout_token_veto` is masked out as
    a whole.

    Args:
        old: proximal log-probabilities, flat over the shard's response tokens.
    """
    behaviour = torch.tensor(shard.logprobs).to(old)
    lengths = np.diff(shard.offsets)
    mask = torch.from_numpy(np.repeat(shard.weights, lengths))
    if algorithm.rollout_is is None and algorithm.rollout_token_veto is None and not algorithm.rollout_rs:
        return Correction(None, mask, {})
    grid = _Grid(lengths)
    padded_mask = grid.pad(mask)
    low, high = algorithm.rollout_is_clip
    weights, metrics = None, {}
    if bool(padded_mask.any()):
        none_left = algorithm.rollout_is_mode == "mask" and _all_outside(
            grid.pad(old - behaviour), padded_mask, algorithm
        )
        proto, kept, metrics = compute_rollout_correction_and_rejection_mask(
            grid.pad(old),
            grid.pad(behaviour),
            padded_mask,
            # Its effective sample size divides by the weights.
            rollout_is=None if none_left else algorithm.rollout_is,
            rollout_is_threshold=f"{low}_{high}" if algorithm.rollout_is_mode == "mask" else high,
            rollout_rs=",".join(algorithm.rollout_rs) or None,
            rollout_rs_threshold=",".join(map(_threshold, algorithm.rollout_rs.values())) or None,
        )
        mask = grid.flatten(kept)
        if none_left:
            weights = torch.zeros_like(old)
        elif proto is not None:
            weights = grid.flatten(proto.batch["rollout_is_weights"])
            if algorithm.rollout_is_mode == "clip":
                weights = weights.clamp(min=low, max=high)
    if algorithm.rollout_token_veto is not None:
        lowest = grid.pad(old - behaviour).amin(dim=1).exp()
        vetoed = (lowest < algorithm.rollout_token_veto) & padded_mask.any(dim=1)
        mask = mask * torch.repeat_interleave(~vetoed, torch.from_numpy(lengths))
        real = int(shard.weights.sum())
        metrics["rollout_corr/veto_ratio"] = int(vetoed.sum()) / real if real else 0.0
    return Correction(weights, mask, metrics)


def normalised(
    corrections: Sequence[Correction], shards: Sequence[Shard], level: Literal["token", "sequence"]
) -> list[Correction]:
    """Importance weights over their mean in the step's batch: all mini-batches of all ranks. Collective.

    Args:
        corrections: this rank's, one a mini-batch.
        level: whether the mean is of tokens or of responses.
    """
    totals = [
        _total(correction.weights, shard, per_response=level == "sequence")
        for correction, shard in zip(corrections, shards, strict=True)
    ]
    factor = _mean_over_ranks(sum(total for total, _ in totals), sum(count for _, count in totals))
    return [
        replace(
            correction,
            weights=None if correction.weights is None else correction.weights / factor,
            metrics={**correction.metrics, "rollout_corr/rollout_is_batch_norm_factor": factor},
        )
        for correction in corrections
    ]


def _all_outside(log_ratio: Tensor, mask: Tensor, algorithm: Algorithm) -> bool:
    """Whether no importance weight of a padded shard lies within the bounds."""
    if algorithm.rollout_is is None:
        return False
    low, high = algorithm.rollout_is_clip
    logs = log_ratio if algorithm.rollout_is == "token" else (log_ratio * mask).sum(dim=1, keepdim=True)
    weights = logs.exp()
    return not bool(((weights >= low) & (weights <= high) & mask.bool()).any())


def _total(weights: Tensor | None, shard: Shard, *, per_response: bool) -> tuple[float, int]:
    """Sum and count of a shard's importance weights: one a token, or one a response; fillers are left out.

    As in verl, what is rejected afterwards counts: the mean is of all that was sampled.
    """
    if weights is None:
        return 0.0, 0
    real, lengths = shard.weights > 0, np.diff(shard.offsets)
    values = weights.double().numpy()
    chosen = values[shard.offsets[:-1][real]] if per_response else values[np.repeat(real, lengths)]
    return float(chosen.sum()), len(chosen)


def _mean_over_ranks(total: float, count: int) -> float:
    """The mean of all ranks' values, the same on each; 1 where it could not be divided by.

    Ranks of one Ulysses group bring the same values: all groups then have the same weight, and the mean is unchanged.
    """
    parts = [(total, count)]
    if dist.is_initialized():
        parts *= dist.get_world_size()
        dist.all_gather_object(parts, (total, count))
    mean = sum(part for part, _ in parts) / max(sum(number for _, number in parts), 1)
    return mean if mean > _NO_WEIGHT else 1.0


def _threshold(bound: float | tuple[float, float]) -> str:
    """verl's spelling of a rejection bound."""
    return "_".join(map(repr, bound)) if isinstance(bound, tuple) else repr(bound)


class _Grid:
    """Between flat jagged values and a right-padded matrix [n, longest]."""

    def __init__(self, lengths: np.ndarray) -> None:
        columns = np.arange(int(lengths.max()))
        self._valid = torch.from_numpy(columns[None, :] < lengths[:, None])

    def pad(self, flat: Tensor) -> Tensor:
        grid = torch.zeros(self._valid.shape, dtype=flat.dtype)
        grid[self._valid] = flat
        return grid

    def flatten(self, grid: Tensor) -> Tensor:
        return grid[self._valid]


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _jagged(values: np.ndarray, offsets: np.ndarray) -> Tensor:
    return torch.nested.nested_tensor_from_jagged(torch.from_numpy(values), torch.tensor(offsets))
