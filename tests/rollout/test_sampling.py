"""Seeds and sampling parameters."""

from golongrl.recipe import load
from golongrl.rollout.sglang.sampling import SamplingParams, response_seed


def test_a_seed_depends_on_run_group_and_index_alone() -> None:
    seeds = [response_seed(run, uid, index) for run in (0, 1) for uid in ("0-1", "0-11", "1-1") for index in range(16)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert response_seed(3, "0-7", 2) == response_seed(3, "0-7", 2)


def test_training_samples_from_the_policy_itself_and_validation_does_not() -> None:
    rollout = load("quickstart").rollout
    training = SamplingParams.training(rollout).seeded(5).as_params()
    assert training == {
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "max_new_tokens": rollout.max_response_tokens,
        "sampling_seed": 5,
    }
    validation = SamplingParams.validation(rollout).as_params()
    assert (validation["temperature"], validation["top_p"]) == (0.6, 0.95)
    assert "sampling_seed" not in validation
