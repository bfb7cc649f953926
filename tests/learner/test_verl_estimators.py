"""The estimators as verl sees them."""

import json
from pathlib import Path

import numpy as np
import torch
from verl.trainer.ppo.core_algos import get_adv_estimator_fn

from golongrl.learner.advantage import tmn_grpo
from golongrl.learner.ranks.verl_estimators import register

BATCHES = json.loads((Path(__file__).parent / "golden" / "advantages.json").read_text())["batches"]


def test_registered_with_verl_and_equal_to_the_original() -> None:
    """Token-level rewards in, as verl lays them out: the reward on the last token, the mask over the response."""
    register()
    register()  # twice is once
    batch = next(b for b in BATCHES if b["kind"] == "balanced" and len(b["scores"]) > 30)
    rows, width = len(batch["scores"]), batch["L"]
    lengths = torch.tensor(batch["lengths"])
    mask = (torch.arange(width)[None] < lengths[:, None]).float()
    rewards = torch.zeros(rows, width)
    rewards[torch.arange(rows), lengths - 1] = torch.tensor(batch["scores"], dtype=torch.float32)
    index, tasks = np.array(batch["uids"]), np.array(batch["reward_mode"])
    for case in batch["cases"]:
        config = {"norm_adv_by_std_in_grpo": case.get("norm", True), "difficulty_reweight": case.get("reweight", False)}
        config |= {key: case[key] for key in ("alpha", "gamma") if key in case}
        estimate = get_adv_estimator_fn(case["fn"])
        advantages, returns = estimate(rewards, mask, index=index, config=config, task_type=tasks)
        expected = torch.tensor(case["adv"])[:, None] * mask
        torch.testing.assert_close(advantages, expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(returns, advantages)


def test_verl_and_the_function_agree() -> None:
    register()
    rewards = torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.5, 0.0]])
    advantages, _ = get_adv_estimator_fn("tmn_grpo")(
        rewards, torch.ones(3, 2), index=np.array(["a", "a", "b"]), task_type=["x", "x", "y"]
    )
    expected = tmn_grpo(rewards.sum(1), ["a", "a", "b"], ["x", "x", "y"]).values
    assert torch.equal(advantages[:, 0], expected)
