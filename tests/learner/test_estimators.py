"""The estimators that users know by name: against verl's own functions, and AEPO against its rule."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo import core_algos

from golongrl.learner.advantage import aepo, dr_grpo, masks_negatives, reinforce_plus_plus_baseline, rloo
from golongrl.learner.batch.estimate import estimate, sampled_entropy
from golongrl.learner.batch.samples import Samples
from golongrl.recipe import Algorithm
from golongrl.recipe.functions import POLICY_LOSSES, FunctionError

rows = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.0, 0.25, 1 / 3, 0.9, 1.0]), st.integers(1, 6)),
    min_size=2,
    max_size=24,
)

OWN = {
    "rloo": lambda s, g, _: rloo(s, g),
    "reinforce_plus_plus_baseline": reinforce_plus_plus_baseline,
    "grpo": lambda s, g, _: dr_grpo(s, g),
}


@pytest.mark.parametrize("name", OWN)
@given(made=rows)
def test_equal_to_verl(name: str, made: list[tuple[int, float, int]]) -> None:
    groups, scores, lengths = zip(*made, strict=True)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).double()
    rewards = torch.zeros_like(mask)
    rewards[torch.arange(len(made)), torch.tensor(lengths) - 1] = torch.tensor(scores, dtype=torch.float64)
    verl = {
        "rloo": core_algos.compute_rloo_outcome_advantage,
        "reinforce_plus_plus_baseline": core_algos.compute_reinforce_plus_plus_baseline_outcome_advantage,
        "grpo": core_algos.compute_grpo_outcome_advantage,
    }[name]
    more = {"norm_adv_by_std_in_grpo": False} if name == "grpo" else {}
    expected, _ = verl(rewards.clone(), mask, index=np.array(groups), **more)
    found = OWN[name](torch.tensor(scores, dtype=torch.float64), list(groups), list(lengths)).values
    # verl adds 1e-8 to the number of tokens, and in a batch of equal rewards whitening divides the rest by sqrt(1e-8).
    torch.testing.assert_close(found[:, None] * mask, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_an_unscored_response_is_in_no_statistic(name: str) -> None:
    scores, groups, lengths = [1.0, 0.0, 0.5, 0.25], [0, 0, 1, 1], [3, 1, 2, 2]
    with_nan = OWN[name](torch.tensor([*scores, math.nan]), [*groups, 0], [*lengths, 9]).values
    assert with_nan[4] == 0
    torch.testing.assert_close(with_nan[:4], OWN[name](torch.tensor(scores), groups, lengths).values)


def test_aepo_divides_by_the_types_deviation_and_masks_what_is_negative() -> None:
    scores, groups, tasks = torch.tensor([1.0, 0.0, 0.5, 1.0, 0.0]), [0, 0, 0, 1, 1], ["a", "a", "a", "b", "b"]
    spread = [float(np.std([1.0, 0.0, 0.5], ddof=1))] * 3 + [float(np.std([1.0, 0.0], ddof=1))] * 2
    expected = torch.tensor([c / s for c, s in zip([0.5, -0.5, 0.0, 0.5, -0.5], spread, strict=True)])
    torch.testing.assert_close(aepo(scores, groups, tasks, mask_negatives=False).values, expected, atol=1e-5, rtol=1e-5)
    masked = aepo(scores, groups, tasks, mask_negatives=True)
    torch.testing.assert_close(masked.values, expected.clamp(min=0), atol=1e-5, rtol=1e-5)
    assert masked.metrics["aepo/negatives_masked"] == 1.0


def test_negatives_are_masked_from_the_upper_bound_to_the_lower() -> None:
    states, state = [], False
    for entropy in (0.3, 0.41, 0.3, math.nan, 0.2, 0.19, 0.3, 0.5):
        state = masks_negatives(state, entropy, low=0.2, high=0.4)
        states.append(state)
    assert states == [False, True, True, True, True, False, False, True]


def _samples(rewards: list[float], logprob: float = -1.0) -> Samples:
    count = len(rewards)
    return Samples(
        prompts=[np.zeros(3, np.int32), np.zeros(3, np.int32)],
        uids=["0-0", "0-1"],
        group=np.repeat([0, 1], count // 2),
        tasks=["EM"] * count,
        responses=[np.zeros(2, np.int32)] * count,
        logprobs=[np.full(2, logprob, np.float32)] * count,
        rewards=np.array(rewards, np.float32),
        finished=np.ones(count, bool),
    )


def test_the_recipe_chooses_and_aepo_remembers() -> None:
    samples = _samples([1.0, 0.0, 0.5, 0.25], logprob=-0.3)
    assert sampled_entropy(samples) == pytest.approx(0.3)
    for name, masked_before, expected in (("aepo", True, True), ("aepo", False, False), ("rloo", True, False)):
        found = estimate(samples, samples.rewards, Algorithm(estimator=name), masked_before=masked_before)
        assert found.negatives_masked is expected
        assert (found.advantages.values.min() >= 0) == expected
    high = estimate(_samples([1.0, 0.0] * 2), np.array([1.0, 0.0] * 2, np.float32), Algorithm(estimator="aepo"))
    assert high.negatives_masked
    assert high.advantages.metrics["aepo/entropy"] == pytest.approx(1.0)


def test_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_estimators.py").write_text(
        "import torch\n"
        "def centred(scores, groups, tasks, lengths):\n"
        "    assert (groups, tasks, lengths) == ([0, 0, 1, 1], ['EM'] * 4, [2] * 4)\n"
        "    return scores - 0.5\n"
        "def wide(**_): return torch.zeros(4, 2)\n"
        "def infinite(**_): return torch.full((4,), float('inf'))\n"
        "def nothing(**_): return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_estimators", raising=False)
    samples = _samples([1.0, 0.0, math.nan, 0.25])

    def run(name: str) -> torch.Tensor:
        return estimate(samples, samples.rewards, Algorithm(estimator=f"my_estimators:{name}")).advantages.values

    assert run("centred").tolist() == [0.5, -0.5, 0.0, -0.25]
    for name, said in (
        ("wide", r"must return a tensor of shape \(4,\), returned a tensor of \(4, 2\)"),
        ("nothing", "returned NoneType"),
        ("infinite", "not finite"),
    ):
        with pytest.raises(FunctionError, match=f"algorithm.estimator my_estimators:{name} .*{said}"):
            run(name)


def test_the_losses_are_verls() -> None:
    assert set(POLICY_LOSSES) == set(core_algos.POLICY_LOSS_REGISTRY) - {"bypass_mode"}
