"""The estimators against the original's outputs, and their promises: whole-batch, order-free, unscored is not zero."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.learner.advantage import Advantages, grpo, qwenlong_grpo, tmn_grpo

BATCHES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "advantages.json").read_text())[
    "batches"
]


def _run(batch: dict[str, Any], case: dict[str, Any]) -> Advantages:
    scores = torch.tensor(batch["scores"], dtype=torch.float32)
    if case["fn"] == "grpo":
        return grpo(scores, batch["uids"], normalize=case["norm"])
    if case["fn"] == "qwenlong_grpo":
        return qwenlong_grpo(scores, batch["reward_mode"])
    options = {"alpha": case["alpha"], "gamma": case["gamma"]} if case["reweight"] else {}
    return tmn_grpo(
        scores, batch["uids"], batch["reward_mode"], normalize=case["norm"], reweight=case["reweight"], **options
    )


@pytest.mark.parametrize("batch", BATCHES, ids=lambda b: f"{b['batch']}-{b['kind']}")
def test_equals_the_original(batch: dict[str, Any]) -> None:
    compared = 0
    for case in batch["cases"]:
        if case["float32_noise"]:
            continue
        result = _run(batch, case)
        values = result.values.clone()
        values[batch["mask_zero_rows"]] = 0.0
        expected = torch.tensor(case["adv"], dtype=torch.float32)
        torch.testing.assert_close(values, expected, atol=1e-4, rtol=1e-4, msg=lambda m, c=case: f"{c['fn']} {c}: {m}")
        # In these kinds rewards equal their threshold, and the original's float32 decides which side they fall on:
        # advantages agree (a constant group has none), the pass rate alone cannot.
        if "mean_pass_rate" in case and batch["kind"] not in {"tiny_spread", "constant_odd"}:
            assert result.metrics["difficulty/mean_pass_rate"] == pytest.approx(case["mean_pass_rate"], abs=1e-4)
        compared += 1
    assert compared


ESTIMATORS = {
    "tmn": lambda s, g, t: tmn_grpo(s, g, t),
    "tmn_reweight": lambda s, g, t: tmn_grpo(s, g, t, reweight=True, alpha=0.8),
    "grpo": lambda s, g, _: grpo(s, g),
    "qwenlong": lambda s, _, t: qwenlong_grpo(s, t),
}

rows = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 0.9, 1.0, math.nan])), min_size=1, max_size=60
)


def _columns(batch: list[tuple[int, float]]) -> tuple[torch.Tensor, list[int], list[str]]:
    return torch.tensor([r for _, r in batch]), [u for u, _ in batch], [f"T{u % 3}" for u, _ in batch]


@pytest.mark.parametrize("name", ESTIMATORS)
@given(batch=rows, seed=st.integers(0, 1000))
@settings(max_examples=60)
def test_order_and_sharding_change_nothing(name: str, batch: list[tuple[int, float]], seed: int) -> None:
    """Gather the shards in any order, estimate once, put the results back: the numbers are equal."""
    estimate = ESTIMATORS[name]
    scores, groups, tasks = _columns(batch)
    whole = estimate(scores, groups, tasks).values
    order = torch.randperm(len(batch), generator=torch.Generator().manual_seed(seed)).tolist()
    gathered = estimate(scores[order], [groups[i] for i in order], [tasks[i] for i in order]).values
    torch.testing.assert_close(gathered, whole[order], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ESTIMATORS)
@given(batch=rows)
@settings(max_examples=60)
def test_unscored_counts_nowhere(name: str, batch: list[tuple[int, float]]) -> None:
    estimate = ESTIMATORS[name]
    scores, groups, tasks = _columns(batch)
    with_unscored = estimate(scores, groups, tasks).values
    kept = [i for i, (_, r) in enumerate(batch) if not math.isnan(r)]
    alone = estimate(scores[kept], [groups[i] for i in kept], [tasks[i] for i in kept]).values
    assert torch.equal(with_unscored[kept], alone)
    assert not with_unscored[torch.isnan(scores)].any()
    assert torch.isfinite(with_unscored).all()


def test_a_shard_alone_gives_other_numbers() -> None:
    """Why advantages are computed before the batch is split: a shard's spread is not the batch's."""
    scores = torch.tensor([0.0, 1.0, 0.4, 0.6])
    whole = tmn_grpo(scores, [0, 0, 1, 1], ["T1"] * 4).values
    shard = tmn_grpo(scores[:2], [0, 0], ["T1"] * 2).values
    assert (whole[:2] - shard).abs().max() > 0.1


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e6])
def test_variance_is_stable_far_from_zero(offset: float) -> None:
    scores = torch.tensor([0.0, 0.25, 0.5, 1.0], dtype=torch.float64) + offset
    values = tmn_grpo(scores, [0] * 4, ["T1"] * 4).values
    expected = tmn_grpo(scores - offset, [0] * 4, ["T1"] * 4).values
    torch.testing.assert_close(values, expected, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7, 1e-9])
@pytest.mark.parametrize("reweight", [False, True])
def test_constant_groups_get_nothing(value: float, reweight: bool) -> None:
    scores = torch.full((7,), value, dtype=torch.float64)
    assert not tmn_grpo(scores, [0] * 7, ["T1"] * 7, reweight=reweight).values.any()


def test_metrics_per_task() -> None:
    scores = torch.tensor([0.0, 1.0, 0.5, 0.5, 1.0, 0.0, math.nan])
    metrics = tmn_grpo(scores, [0, 0, 1, 1, 2, 2, 2], ["F1 Score"] * 4 + ["T1.2"] * 3, reweight=True).metrics
    assert metrics["task_metrics/F1_Score/mean_reward"] == pytest.approx(0.5)
    assert metrics["task_metrics/F1_Score/std_reward"] == pytest.approx(math.sqrt(0.125))
    assert metrics["task_metrics/F1_Score/rate_adv"] == pytest.approx(0.5)
    assert metrics["task_metrics/T1-2/rate_num"] == pytest.approx(1 / 3)
    assert metrics["task_metrics/T1-2/num_rollouts"] == 2
    assert metrics["rewards/unscored_ratio"] == pytest.approx(1 / 7)
    assert metrics["difficulty/weight_min"] <= metrics["difficulty/weight_mean"] <= metrics["difficulty/weight_max"]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_nothing_scored_is_all_zero(name: str) -> None:
    scores = torch.full((3,), math.nan)
    assert not ESTIMATORS[name](scores, [0, 0, 1], ["a", "a", "b"]).values.any()


def test_bad_input_says_what() -> None:
    with pytest.raises(ValueError, match="two task types"):
        tmn_grpo(torch.tensor([0.0, 1.0]), ["u", "u"], ["T1", "T2"])
    with pytest.raises(ValueError, match="N groups and N tasks"):
        tmn_grpo(torch.tensor([0.0, 1.0]), ["u"], ["T1", "T2"])
    with pytest.raises(ValueError, match=r"scores must be floats, got torch\.int64"):
        grpo(torch.tensor([0, 1]), ["u", "u"])
    with pytest.raises(ValueError, match="response 1 is infinite"):
        grpo(torch.tensor([0.0, math.inf]), ["u", "u"])


def test_groups_and_tasks_may_be_tensors_or_arrays() -> None:
    scores, groups, tasks = torch.tensor([0.0, 1.0, 0.5, 0.25]), [0, 0, 1, 1], [3, 3, 4, 4]
    expected = tmn_grpo(scores, groups, tasks, reweight=True)
    for kind in (torch.tensor, np.array):
        found = tmn_grpo(scores, kind(groups), kind(tasks), reweight=True)
        assert (found.values.tolist(), found.metrics) == (expected.values.tolist(), expected.metrics)
