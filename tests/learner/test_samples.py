"""Groups to shards: nothing is lost, doubled or moved to another response, and unscored ones teach nothing."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.learner.batch.samples import BatchError, Samples, Shard, collect, penalise_overlong, shard, shuffled
from golongrl.queue import Group, Response, VersionSpan


def _samples(lengths: list[list[int]], unscored: set[int] | None = None) -> Samples:
    """One group a list, one response a length; token t of response i is 1000 * i + t, and so are the log-probs."""
    flat = [length for group in lengths for length in group]
    ids = [np.arange(1000 * i, 1000 * i + length, dtype=np.int32) for i, length in enumerate(flat)]
    rewards = np.array([np.nan if i in (unscored or set()) else i for i in range(len(flat))], dtype=np.float32)
    return Samples(
        prompts=[np.full(3 + g, g, dtype=np.int32) for g in range(len(lengths))],
        uids=[f"0-{g}" for g in range(len(lengths))],
        group=np.repeat(np.arange(len(lengths)), [len(group) for group in lengths]),
        tasks=["EM"] * len(flat),
        responses=ids,
        logprobs=[array.astype(np.float32) for array in ids],
        rewards=rewards,
        finished=np.ones(len(flat), dtype=bool),
    )


def _rows(part: Shard) -> list[tuple[int, int, float, float]]:
    """(response, prompt, advantage, weight) of each row, checked against each other."""
    rows = []
    for row in range(len(part)):
        ids = part.responses[part.offsets[row] : part.offsets[row + 1]]
        assert np.array_equal(part.logprobs[part.offsets[row] : part.offsets[row + 1]], ids.astype(np.float32))
        prompt = part.prompts[part.prompt[row]]
        rows.append((int(ids[0]) // 1000, int(prompt[0]), float(part.advantages[row]), float(part.weights[row])))
    return rows


@given(
    lengths=st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=5), min_size=1, max_size=6),
    ranks=st.integers(1, 5),
    mini=st.sampled_from([None, 1, 2]),
    seed=st.integers(0, 99),
)
@settings(max_examples=150)
def test_every_response_once_at_its_place(lengths: list[list[int]], ranks: int, mini: int | None, seed: int) -> None:
    total = sum(map(len, lengths))
    unscored = set(np.random.default_rng(seed).choice(total, size=total // 4, replace=False).tolist())
    samples = _samples(lengths, unscored)
    advantages = np.arange(total, dtype=np.float32) / 7
    minis = shard(samples, advantages, ranks=ranks, mini_batch_groups=mini, longest=1000)
    seen = []
    for parts in minis:
        assert len(parts) == ranks
        assert len({len(part) for part in parts}) == 1, "ranks without equal counts would wait for each other"
        rows = [row for part in parts for row in _rows(part)]
        real = [row for row in rows if row[3] == 1]
        assert sum(row[3] == 0 for row in rows) < ranks
        assert all(part.sequences == len(real) for part in parts)
        for response, prompt, advantage, _ in rows:
            assert prompt == samples.group[response]
            assert advantage == advantages[response]
        groups = {samples.group[row[0]] // (mini or len(lengths)) for row in real}
        assert len(groups) == 1, "a mini-batch holds its own groups only"
        seen += [row[0] for row in real]
    usable = [i for i in range(total) if i not in unscored and len(samples.responses[i])]
    assert sorted(seen) == usable


def test_work_is_balanced() -> None:
    rng = np.random.default_rng(0)
    samples = _samples([rng.integers(1, 900, size=16).tolist() for _ in range(16)])
    (parts,) = shard(samples, np.zeros(256, np.float32), ranks=8, mini_batch_groups=None, longest=10_000)
    tokens = [len(part.responses) for part in parts]
    assert max(tokens) < 1.02 * np.mean(tokens)


def test_a_sequence_that_fits_nowhere_names_its_group() -> None:
    with pytest.raises(BatchError, match=r"group 0-1 has a sequence of 54 tokens.*max_tokens_per_rank"):
        shard(_samples([[5], [50]]), np.zeros(2, np.float32), ranks=1, mini_batch_groups=None, longest=40)


def test_overlong_penalty_is_linear_in_the_buffer_and_keeps_unscored() -> None:
    rewards = np.array([1, 1, 1, 1, np.nan], dtype=np.float32)
    lengths = np.array([10, 80, 90, 100, 100])
    result = penalise_overlong(rewards, lengths, limit=100, buffer=20, penalty=0.5)
    np.testing.assert_allclose(result[:4], [1, 1, 0.75, 0.5])
    assert np.isnan(result[4])
    assert penalise_overlong(rewards, lengths, limit=100, buffer=0, penalty=0.5) is rewards


def test_shuffled_control_permutes_scored_advantages_only() -> None:
    advantages = torch.arange(8, dtype=torch.float32)
    scored = np.array([True] * 6 + [False] * 2)
    advantages[6:] = 0
    once, again = shuffled(advantages, scored, seed=1, step=5), shuffled(advantages, scored, seed=1, step=5)
    assert torch.equal(once, again)
    assert sorted(once[:6].tolist()) == sorted(advantages[:6].tolist())
    assert not once[6:].any()
    assert any(not torch.equal(once, shuffled(advantages, scored, seed=1, step=s)) for s in (6, 7, 8))


def test_collect_keeps_unscored_apart_from_zero() -> None:
    def response(reward: float | None) -> Response:
        ids = np.array([1, 2], dtype=np.int32)
        status = "unscored" if reward is None else "scored"
        spans = (VersionSpan(0, 0, 2),)
        return Response(ids, np.zeros(2, np.float32), spans, "length", reward, status)

    group = Group("0-0", 0, 0, "T1", "EM", "EM", "EM", np.array([5], np.int32), (response(0.0), response(None)), "w", 0)
    samples = collect([group])
    assert samples.rewards[0] == 0
    assert np.isnan(samples.rewards[1])
    assert not samples.finished.any()
