"""Rollout correction by name: weights within bounds, and rejection of what is far from the engine's policy."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
import torch
from verl.trainer.ppo.rollout_corr_helper import compute_rollout_correction_weights

from golongrl.learner.batch.samples import Shard
from golongrl.learner.ranks.tensors import Correction, correct, normalised
from golongrl.recipe import RecipeError, load

# Learner over engine probability of the tokens of three responses; the last is a filler.
RATIOS = [[1.0, 6.0, 0.3], [1.1, 0.9], [5.0]]
FLAT = np.array([ratio for response in RATIOS for ratio in response])
OWNER = np.array([0, 0, 0, 1, 1, 2])
REAL = OWNER < 2


def _correct(*overrides: str, **more: Any) -> Correction:
    """`more` is what a recipe refuses, and a rank with few responses meets all the same."""
    algorithm = load("quickstart", ["algorithm.rollout_token_veto=null", *overrides]).algorithm.model_copy(update=more)
    behaviour = np.full(len(FLAT), -3.0, np.float32)
    shard = Shard(
        prompts=[np.array([5], np.int32)],
        prompt=np.zeros(3, np.int64),
        responses=np.full(len(FLAT), 7, np.int32),
        offsets=np.array([0, 3, 5, 6]),
        logprobs=behaviour,
        advantages=np.ones(3, np.float32),
        weights=np.array([1, 1, 0], np.float32),
        sequences=2,
    )
    correction = correct(torch.from_numpy((behaviour + np.log(FLAT)).astype(np.float32)), shard, algorithm)
    if algorithm.rollout_is is not None and algorithm.rollout_is_batch_normalize:
        [correction] = normalised([correction], [shard], algorithm.rollout_is)
    return correction


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("clip", [1.0, 5.0, 0.5, 1.1, 0.9]),
        ("truncate", [1.0, 5.0, 0.3, 1.1, 0.9]),
        ("mask", [1.0, 0.0, 0.0, 1.1, 0.9]),
    ],
)
def test_a_weight_out_of_bounds(mode: str, expected: list[float]) -> None:
    correction = _correct("algorithm.rollout_is=token", f"algorithm.rollout_is_mode={mode}")
    assert correction.weights is not None
    np.testing.assert_allclose(correction.weights[REAL], expected, rtol=1e-5)
    assert correction.mask.tolist() == REAL.tolist()


def test_a_sequence_has_one_weight() -> None:
    weights = _correct("algorithm.rollout_is=sequence").weights
    assert weights is not None
    np.testing.assert_allclose(weights[REAL], [1.8] * 3 + [0.99] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("level", "mode", "bounded"),
    [
        ("token", "clip", [1.0, 5.0, 0.5, 1.1, 0.9]),
        ("token", "truncate", [1.0, 5.0, 0.3, 1.1, 0.9]),
        ("token", "mask", [1.0, 0.0, 0.0, 1.1, 0.9]),
        ("sequence", "clip", [1.8, 1.8, 1.8, 0.99, 0.99]),
    ],
)
def test_normalised_weights_have_mean_one(level: str, mode: str, bounded: list[float]) -> None:
    """Of tokens, or of responses whatever their lengths: 1.8 and 0.99 are two; the filler's 5 is in neither."""
    overrides = [f"algorithm.rollout_is={level}", f"algorithm.rollout_is_mode={mode}"]
    # Rejected afterwards, and in the mean all the same.
    rejected = "algorithm.rollout_rs.token_k1=[0.2, 100]"
    correction = _correct(*overrides, "algorithm.rollout_is_batch_normalize=true", rejected)
    mean = np.mean(bounded if level == "token" else [1.8, 0.99])
    assert correction.weights is not None
    np.testing.assert_allclose(correction.weights[REAL], bounded / mean, rtol=1e-5)
    assert correction.metrics["rollout_corr/rollout_is_batch_norm_factor"] == pytest.approx(mean, rel=1e-5)
    assert 0 < correction.mask.sum() < REAL.sum()


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_normalised_weights_are_verls(level: str) -> None:
    """Where verl has the bound too: from above alone."""
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    ratios = torch.tensor([[1.0, 6.0, 0.3], [1.1, 0.9, 1.0]])
    theirs, metrics = compute_rollout_correction_weights(
        ratios.log(), mask, rollout_is=level, rollout_is_threshold=5.0, rollout_is_batch_normalize=True
    )
    overrides = [f"algorithm.rollout_is={level}", "algorithm.rollout_is_mode=truncate"]
    ours = _correct(*overrides, "algorithm.rollout_is_batch_normalize=true")
    assert ours.weights is not None
    np.testing.assert_allclose(ours.weights[REAL], theirs[mask.bool()], rtol=1e-5)
    factor = ours.metrics["rollout_corr/rollout_is_batch_norm_factor"]
    assert factor == pytest.approx(metrics["rollout_is_batch_norm_factor"], rel=1e-5)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights_that_are_all_masked_stay_zero(level: str) -> None:
    """A rank may hold few responses, and a long one's weight is seldom within bounds."""
    overrides = [f"algorithm.rollout_is={level}", "algorithm.rollout_is_batch_normalize=true"]
    correction = _correct("algorithm.rollout_is_mode=mask", *overrides, rollout_is_clip=(20.0, 30.0))
    assert correction.weights is not None
    assert not correction.weights[REAL].any()
    assert correction.metrics["rollout_corr/rollout_is_batch_norm_factor"] == 1


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_the_mean_is_of_all_mini_batches_of_a_step(level: Literal["token", "sequence"]) -> None:
    """Cut into mini-batches or not, a step has the same weights."""

    def shard(offsets: list[int]) -> Shard:
        n = len(offsets) - 1
        return Shard(
            prompts=[np.array([5], np.int32)],
            prompt=np.zeros(n, np.int64),
            responses=np.full(offsets[-1], 7, np.int32),
            offsets=np.array(offsets),
            logprobs=np.zeros(offsets[-1], np.float32),
            advantages=np.ones(n, np.float32),
            weights=np.ones(n, np.float32),
            sequences=n,
        )

    weights = torch.tensor([1.0, 1.0, 5.0, 2.0, 2.0, 2.0])
    parts = [(weights[:2], shard([0, 2])), (weights[2:], shard([0, 1, 4]))]
    corrections = [Correction(part, torch.ones(len(part)), {}) for part, _ in parts]
    cut = normalised(corrections, [each for _, each in parts], level)
    [whole] = normalised([Correction(weights, torch.ones(6), {})], [shard([0, 2, 3, 6])], level)
    assert whole.weights is not None
    mean = 13 / 6 if level == "token" else 8 / 3
    torch.testing.assert_close(whole.weights, weights / mean)
    torch.testing.assert_close(torch.cat([each.weights for each in cut if each.weights is not None]), whole.weights)
    assert [each.metrics["rollout_corr/rollout_is_batch_norm_factor"] for each in cut] == [pytest.approx(mean)] * 2


LOG = np.log(FLAT)
K2, K3 = LOG**2 / 2, FLAT - 1 - LOG


def _over(values: np.ndarray, how: Callable[[np.ndarray], Any]) -> np.ndarray:
    return np.array([how(values[owner == OWNER]) for owner in OWNER])


@pytest.mark.parametrize(
    ("mode", "bound", "kept"),
    [
        ("token_k1", "[0.2, 2]", (1 / FLAT >= 0.2) & (1 / FLAT <= 2)),
        ("token_k1", "4", (1 / FLAT >= 0.25) & (1 / FLAT <= 4)),
        ("token_k2", "1", K2 <= 1),
        ("token_k3", "0.5", K3 <= 0.5),
        ("seq_sum_k1", "[0.6, 2]", np.abs(np.exp(_over(-LOG, np.sum)) - 1.3) <= 0.7),
        ("seq_sum_k2", "1", _over(K2, np.sum) <= 1),
        ("seq_sum_k3", "1", _over(K3, np.sum) <= 1),
        ("seq_mean_k1", "[0.9, 1.1]", np.abs(np.exp(_over(-LOG, np.mean)) - 1) <= 0.1),
        ("seq_mean_k2", "0.5", _over(K2, np.mean) <= 0.5),
        ("seq_mean_k3", "0.5", _over(K3, np.mean) <= 0.5),
        ("seq_max_k2", "1", _over(K2, np.max) <= 1),
        ("seq_max_k3", "1", _over(K3, np.max) <= 1),
    ],
)
def test_what_is_far_from_the_engines_policy_is_rejected(mode: str, bound: str, kept: np.ndarray) -> None:
    correction = _correct("algorithm.rollout_is=null", f"algorithm.rollout_rs.{mode}={bound}")
    assert correction.weights is None
    assert correction.mask.tolist() == (kept & REAL).tolist()
    assert 0 < (kept & REAL).sum() < REAL.sum()
    share = correction.metrics["rollout_corr/rollout_rs_masked_fraction"]
    assert share == pytest.approx(1 - (kept & REAL).sum() / REAL.sum())


def test_all_criteria_must_pass_and_weights_go_with_them() -> None:
    both = _correct("algorithm.rollout_rs.token_k1=[0.2, 100]", "algorithm.rollout_rs.token_k2=0.5")
    assert both.weights is not None
    assert both.mask.tolist() == ((1 / FLAT >= 0.2) & (K2 <= 0.5) & REAL).tolist()
    vetoed = _correct("algorithm.rollout_rs.token_k2=1", "algorithm.rollout_token_veto=0.5")
    assert vetoed.mask.tolist() == (REAL & (OWNER == 1)).tolist()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("algorithm.rollout_rs.token_k9=1", "rollout_rs"),
        ("algorithm.rollout_rs.token_k3=[1, 2]", "token_k3 takes one upper bound"),
        ("algorithm.rollout_rs.token_k1=[2, 1]", "low < high"),
        ("algorithm.rollout_rs.token_k2=-1", "rollout_rs"),
    ],
)
def test_a_wrong_criterion_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load("quickstart", [override])
