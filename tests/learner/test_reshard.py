"""A checkpoint of one number of ranks resumed by another: the same weights, and the same next step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from golongrl.learner.batch.samples import Samples, shard
from golongrl.recipe import load
from support.rank_process import run_ranks


def _samples() -> tuple[Samples, np.ndarray]:
    rng = np.random.default_rng(3)
    responses = [rng.integers(3, 500, size=6).astype(np.int32) for _ in range(8)]
    samples = Samples(
        prompts=[rng.integers(3, 500, size=5).astype(np.int32) for _ in range(2)],
        uids=["0-0", "0-1"],
        group=np.repeat(np.arange(2), 4),
        tasks=["EM"] * 8,
        responses=responses,
        logprobs=[np.full(6, -6.0, np.float32)] * 8,
        rewards=np.zeros(8, np.float32),
        finished=np.ones(8, dtype=bool),
    )
    return samples, rng.normal(size=8).astype(np.float32)


@pytest.mark.full
@pytest.mark.parametrize(("saved", "resumed"), [(1, 2), (2, 1), (3, 2)])
def test_resumes_with_another_number_of_ranks(saved: int, resumed: int, tiny_model: Path, tmp_path: Path) -> None:
    samples, advantages = _samples()
    override = [f"model.path={tiny_model}", "learner.lr=0.001", "learner.lr_warmup_steps=3"]

    def run(ranks: int, name: str, **more: object) -> tuple[dict[str, torch.Tensor], float]:
        recipe = load("quickstart", [*override, f"learner.ranks={ranks}"])
        minis = shard(samples, advantages, ranks=ranks, mini_batch_groups=None, longest=4096)
        results = run_ranks(ranks, [recipe], [minis], tmp_path / name, **more)
        weights = load_file(tmp_path / name / "0" / "model.safetensors")
        return weights, results[0][0].get("actor/lr", 0.0) if results[0] else 0.0

    folder = str(tmp_path / "checkpoint")
    at_checkpoint, _ = run(saved, "saved", save=folder, updates=2)
    loaded, _ = run(resumed, "loaded", load=folder, updates=0)
    assert all(torch.equal(loaded[name], tensor) for name, tensor in at_checkpoint.items())
    after_saved, lr = run(saved, "same", load=folder, updates=1)
    after_resumed, resumed_lr = run(resumed, "other", load=folder, updates=1)
    assert lr == resumed_lr
    for name, tensor in after_saved.items():
        assert not torch.equal(tensor, at_checkpoint[name])
        torch.testing.assert_close(after_resumed[name], tensor, atol=2e-5, rtol=1e-4, msg=name)
