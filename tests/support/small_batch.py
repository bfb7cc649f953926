"""A batch of four short responses, split over ranks."""

import numpy as np

from golongrl.learner.batch.samples import Samples, Shard, shard


def minis(ranks: int) -> list[list[Shard]]:
    """`[mini][rank]`, one mini-batch; the same every time."""
    rng = np.random.default_rng(5)
    samples = Samples(
        prompts=[rng.integers(3, 500, size=5).astype(np.int32) for _ in range(2)],
        uids=["0-0", "0-1"],
        group=np.repeat(np.arange(2), 2),
        tasks=["EM"] * 4,
        responses=[rng.integers(3, 500, size=6).astype(np.int32) for _ in range(4)],
        logprobs=[np.full(6, -6.0, np.float32)] * 4,
        rewards=np.zeros(4, np.float32),
        finished=np.ones(4, dtype=bool),
    )
    return shard(samples, rng.normal(size=4).astype(np.float32), ranks=ranks, mini_batch_groups=None, longest=4096)
