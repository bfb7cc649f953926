"""How groups are cut into parts, micro-batches and shards: every response once, every prompt as rarely as possible."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.learner.batch.parts import Part, at_least, micro_batches, parts_of
from golongrl.learner.batch.samples import BatchError, Samples
from golongrl.learner.batch.shared_prefix import packed_row, shard_groups
from golongrl.learner.flops import group_flops, pairs_per_token
from golongrl.learner.memory import shape
from golongrl.recipe import load
from golongrl.recipe.prefix_support import plain_reason

RATIO = 96.0

QWEN3_4B = {
    "model_type": "qwen3", "hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 9728, "vocab_size": 151936,
    "tie_word_embeddings": True,
}  # fmt: skip


def _samples(groups: list[tuple[int, list[int]]], unscored: frozenset[int] = frozenset()) -> Samples:
    """Groups as (prompt length, response lengths); token ids tell prompts and responses apart."""
    lengths = [length for _, responses in groups for length in responses]
    rewards = np.array([np.nan if i in unscored else 1.0 for i in range(len(lengths))], np.float32)
    return Samples(
        prompts=[np.full(prompt, 100 + i, np.int32) for i, (prompt, _) in enumerate(groups)],
        uids=[f"0-{i}" for i in range(len(groups))],
        group=np.repeat(np.arange(len(groups)), [len(responses) for _, responses in groups]),
        tasks=["EM"] * len(lengths),
        responses=[np.full(length, i, np.int32) for i, length in enumerate(lengths)],
        logprobs=[np.full(length, -1.0, np.float32) for length in lengths],
        rewards=rewards,
        finished=np.ones(len(lengths), dtype=bool),
    )


groups = st.lists(
    st.tuples(st.integers(1, 40), st.lists(st.integers(0, 20), min_size=1, max_size=6)), min_size=1, max_size=6
)


@given(groups, st.integers(1, 5), st.integers(60, 200), st.sampled_from([None, 1, 2]))
def test_every_trainable_response_is_in_one_shard(
    made: list[tuple[int, list[int]]], ranks: int, longest: int, mini: int | None
) -> None:
    samples = _samples(made, frozenset({1}))
    advantages = np.arange(len(samples), dtype=np.float32)
    minis = shard_groups(
        samples, advantages, ranks=ranks, mini_batch_groups=mini, longest=longest, pairs_per_token=RATIO
    )
    seen: Counter[int] = Counter()
    for shards in minis:
        assert len(shards) == ranks
        for shard in shards:
            assert len(shard) >= 1, "no rank is without work"
            assert len({prompt[0] for prompt in shard.prompts}) == len(shard.prompts)
            for i in range(len(shard)):
                ids = shard.responses[shard.offsets[i] : shard.offsets[i + 1]]
                assert shard.prompts[shard.prompt[i]][0] == 100 + samples.group[ids[0]]
                assert shard.advantages[i] == advantages[ids[0]]
                seen[int(ids[0])] += int(shard.weights[i])
    trained = {i for i, length in enumerate(samples.lengths) if length and i != 1}
    assert seen == Counter(dict.fromkeys(trained, 1)) + Counter()


@given(groups, st.integers(60, 120))
def test_parts_fit_and_a_group_is_one_where_it_fits(made: list[tuple[int, list[int]]], limit: int) -> None:
    samples = _samples(made)
    members = np.flatnonzero(samples.lengths > 0)
    parts = parts_of([prompt for prompt, _ in made], samples.group, samples.lengths, members, limit)
    assert sorted(i for part in parts for i in part.members) == members.tolist()
    for index, count in Counter(part.group for part in parts).items():
        whole = made[index][0] - 1 + sum(made[index][1])
        assert (count == 1) == (whole <= limit)
    batches = micro_batches(parts, limit)
    assert all(sum(part.tokens for part in batch) <= limit for batch in batches)
    assert sorted(part for batch in batches for part in map(id, batch)) == sorted(map(id, parts))


@given(groups, st.integers(1, 12))
def test_work_is_divided_while_there_are_responses(made: list[tuple[int, list[int]]], count: int) -> None:
    samples = _samples(made)
    members = np.flatnonzero(samples.lengths > 0)
    parts = parts_of([prompt for prompt, _ in made], samples.group, samples.lengths, members, 1000)
    batches = at_least([[part] for part in parts], count, RATIO)
    assert len(batches) == max(len(parts), min(count, len(members)))
    assert sorted(i for batch in batches for part in batch for i in part.members) == members.tolist()


def test_the_fewest_parts_of_a_group_that_does_not_fit() -> None:
    lengths = np.array([50, 30, 20, 50, 30, 20])
    parts = parts_of([101], np.zeros(6, np.int64), lengths, np.arange(6), 200)
    assert [part.tokens for part in parts] == [200, 200]


@pytest.mark.parametrize(
    ("lengths", "room", "count"),
    [
        ([31, 28, 28, 23, 23, 23, 7, 7], 58, 3),  # first fit needs four
        ([3, 3, 2, 2, 2], 6, 2),  # and here three
        ([12, 3, 3], 10, 2),  # longer than the room: a part of its own
    ],
)
def test_the_fewest_parts_where_first_fit_needs_more(lengths: list[int], room: int, count: int) -> None:
    parts = parts_of([1], np.zeros(len(lengths), np.int64), np.array(lengths), np.arange(len(lengths)), room)
    assert len(parts) == count
    assert all(part.tokens <= room for part in parts if len(part.members) > 1)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(12, 24))
def test_no_partition_into_fewer_parts_exists(lengths: list[int], room: int) -> None:
    parts = parts_of([1], np.zeros(len(lengths), np.int64), np.array(lengths), np.arange(len(lengths)), room)
    fewer = product(range(len(parts) - 1), repeat=len(lengths))
    loads = (np.bincount(bins, weights=lengths) for bins in fewer)
    assert not any(load.max() <= room for load in loads)


def test_ranks_are_balanced_by_work_not_by_count() -> None:
    """One long prompt weighs as much as many short ones."""
    samples = _samples([(400, [10] * 4), *[(40, [10] * 4)] * 10])
    (shards,) = shard_groups(
        samples, np.zeros(len(samples), np.float32), ranks=2, mini_batch_groups=None, longest=1000, pairs_per_token=1e9
    )
    tokens = [sum(len(p) - 1 for p in shard.prompts) + len(shard.responses) for shard in shards]
    assert max(tokens) / min(tokens) < 1.2
    assert sorted(len(shard) for shard in shards) != [22, 22]


def test_a_sequence_too_long_is_named() -> None:
    with pytest.raises(BatchError, match="group 0-1 has a sequence of 45 tokens, more than the 44"):
        shard_groups(
            _samples([(3, [4]), (40, [5])]), np.zeros(2, np.float32), ranks=1, mini_batch_groups=None, longest=44,
            pairs_per_token=RATIO,
        )  # fmt: skip


def test_a_packed_row() -> None:
    """Segments begin with the prompt's last token, at its position; labels are the responses themselves."""
    row = packed_row(
        [np.array([1, 2, 3]), np.array([9])],
        [np.array([10, 11]), np.array([20]), np.array([30, 31, 32])],
        np.array([0, 0, 1]),
    )
    assert row.ids.tolist() == [1, 2, 3, 10, 3, 9, 30, 31]
    assert row.positions.tolist() == [0, 1, 2, 3, 2, 0, 1, 2]
    assert row.segment_rows.tolist() == [2, 3, 4, 5, 6, 7]
    assert [(part.start, part.prefix_end, part.segments) for part in row.parts] == [
        (0, 2, ((2, 4), (4, 5))),
        (5, 5, ((5, 8),)),
    ]


@pytest.mark.parametrize(
    ("config", "overrides", "on_cpu", "reason"),
    [
        (QWEN3_4B, [], False, None),
        (QWEN3_4B, ["learner.shared_prefix=false"], False, "learner.shared_prefix is false"),
        ({"model_type": "gemma3"}, [], False, "the architecture 'gemma3' is not one of"),
        (QWEN3_4B | {"sliding_window": 4096, "use_sliding_window": True}, [], False, "a sliding window of 4096"),
        (QWEN3_4B | {"sliding_window": 4096, "use_sliding_window": False}, [], False, None),
        ({"model_type": "mistral", "sliding_window": 4096}, [], False, "a sliding window of 4096"),
        (QWEN3_4B | {"attention_dropout": 0.1}, [], False, "an attention dropout of 0.1"),
        (QWEN3_4B, ["model.dtype=float32"], False, "model.dtype is float32"),
        (QWEN3_4B, ["model.dtype=float32"], True, None),
    ],
)
def test_what_is_trained_in_the_plain_way(
    config: dict[str, object], overrides: list[str], on_cpu: bool, reason: str | None
) -> None:
    found = plain_reason(config, load("qwen3-4b-grpo", overrides), on_cpu=on_cpu)
    assert found is None if reason is None else reason in str(found)


def test_operations_of_a_group_at_the_papers_sizes() -> None:
    """At 160K prompt tokens and 16 full answers of 16K the whole group costs 4.6 times less; with 4K answers more."""
    model = shape(QWEN3_4B)
    ratio = {
        answer: group_flops(model, 163_840, [answer] * 16, shared=False)
        / group_flops(model, 163_840, [answer] * 16, shared=True)
        for answer in (4096, 16_384)
    }
    assert ratio[16_384] == pytest.approx(5.0, abs=0.6)
    assert ratio[4096] > 9
    assert pairs_per_token(model) == pytest.approx(12_300, rel=0.02)


def test_a_part_counts_shared_tokens_and_pairs() -> None:
    part = Part(0, prompt=4, members=(0, 1), lengths=(2, 3))
    assert part.tokens == 8
    assert part.pairs == 6 + 3 * 5 + 3 + 6
    assert part.work(10.0) == 8 + 3.0
