"""The stratified shuffle."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.data.order import lease_order, weighted_order

TASKS = st.lists(st.sampled_from(["EM", "F1", "IoU", "NDCG"]), max_size=200)


@given(TASKS, st.integers(1, 40), st.integers(0, 9), st.integers(0, 9))
def test_it_is_a_permutation(tasks, size, seed, epoch):
    order = lease_order(tasks, size, seed, epoch)
    assert order.dtype == np.int32
    assert sorted(order.tolist()) == list(range(len(tasks)))


@given(TASKS, st.integers(1, 40), st.integers(0, 9))
def test_every_full_block_has_its_even_share_of_each_task(tasks, size, seed):
    order = lease_order(tasks, size, seed, 0)
    blocks = [order[i : i + size] for i in range(0, len(order) - size + 1, size)]
    placed = Counter(tasks[row] for block in blocks for row in block)
    for task, total in placed.items():
        counts = [sum(tasks[row] == task for row in block) for block in blocks]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) == total


def test_all_nine_tasks_are_in_every_step_of_the_quickstart():
    tasks = [f"T{1 + i % 9}" for i in range(720)]
    order = lease_order(tasks, 18, 3, 0)
    for step in range(40):
        counts = Counter(tasks[row] for row in order[step * 18 : (step + 1) * 18])
        assert set(counts.values()) == {2}
        assert len(counts) == 9


def test_a_task_with_a_row_per_block_is_in_every_block():
    tasks = ["rare"] * 10 + ["common"] * 97
    order = lease_order(tasks, 10, 0, 0)
    for block in range(10):
        assert sum(tasks[row] == "rare" for row in order[block * 10 : block * 10 + 10]) == 1


def test_seed_and_epoch_alone_decide():
    tasks = ["a", "b"] * 50
    same = lease_order(tasks, 7, 1, 0)
    assert np.array_equal(same, lease_order(tasks, 7, 1, 0))
    assert not np.array_equal(same, lease_order(tasks, 7, 1, 1))
    assert not np.array_equal(same, lease_order(tasks, 7, 2, 0))


def test_a_block_of_none_is_refused():
    with pytest.raises(ValueError, match="groups_per_step"):
        lease_order(["a"], 0, 0, 0)


WEIGHTS = st.dictionaries(st.sampled_from(["EM", "F1", "IoU"]), st.sampled_from([0.5, 1.0, 3.0]), min_size=1)


@given(TASKS, st.integers(1, 20), st.integers(0, 9), WEIGHTS)
def test_weighted_batches_have_their_shares(tasks, size, seed, weights):
    order = weighted_order(tasks, size, seed, 0, weights)
    assert order.dtype == np.int32
    assert len(set(order.tolist())) == len(order)
    assert len(order) % size == 0
    total = sum(weights.values())
    for end in range(size, len(order) + 1, size):
        counts = Counter(tasks[row] for row in order[:end])
        assert set(counts) <= set(weights)
        for task, weight in weights.items():
            assert abs(counts[task] - weight / total * end) < 1 + 1e-9
    # It ends because the next batch could not be filled.
    left = Counter(tasks) - Counter(tasks[row] for row in order)
    assert any(left[task] < -(-weight * size // total) + 1 for task, weight in weights.items())


def test_another_epoch_draws_other_rows():
    tasks = ["rare"] * 10 + ["common"] * 100
    first, second = (weighted_order(tasks, 4, 0, epoch, {"rare": 1, "common": 1}) for epoch in (0, 1))
    assert len(first) == len(second) == 20
    assert set(first.tolist()) != set(second.tolist())
    assert np.array_equal(first, weighted_order(tasks, 4, 0, 0, {"common": 2, "rare": 2}))


def test_a_type_without_rows_fills_no_batch():
    assert len(weighted_order(["a"] * 9, 3, 0, 0, {"a": 1, "b": 1})) == 0
