"""The order in which prompts are leased: a shuffle in which every batch has its share of every task type."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def lease_order(tasks: Sequence[str], groups_per_step: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """A permutation of the rows for one epoch, drawn from (seed, epoch) alone.

    Cut into blocks of `groups_per_step`, every full block holds either the floor or the ceiling of its even share of
    each task (so all tasks are in it whenever each has a row per block), as TMN's statistics per task want. Rows that
    fill no whole block come last, taken from the tasks with the most rows.

    Args:
        tasks: the task key of each row.
        groups_per_step: B, at least 1.

    Returns:
        int32 of shape [len(tasks)].

    Raises:
        ValueError: groups_per_step is below 1.
    """
    if groups_per_step < 1:
        raise ValueError(f"groups_per_step must be at least 1, got {groups_per_step}")
    rng = np.random.default_rng([seed, epoch])
    names, keys = np.unique(np.asarray(tasks, dtype=str), return_inverse=True)
    piles = [rng.permutation(np.flatnonzero(keys == key)).astype(np.int32) for key in range(len(names))]
    blocks, left_over = divmod(len(keys), groups_per_step)
    tail = []
    for _ in range(left_over):
        largest = max(range(len(piles)), key=lambda key: len(piles[key]))
        tail.append(piles[largest][-1:])
        piles[largest] = piles[largest][:-1]
    # Dealt round in one go, a task's rows fall on consecutive blocks: none gets two more than another.
    dealt = np.concatenate([piles[key] for key in rng.permutation(len(piles))]) if piles else np.empty(0, np.int32)
    ordered = [rng.permutation(dealt[block::blocks]) for block in rng.permutation(blocks)] if blocks else []
    rest = [rng.permutation(np.concatenate(tail))] if tail else []
    return np.concatenate([*ordered, *rest]).astype(np.int32) if ordered or rest else np.empty(0, np.int32)


def weighted_order(
    types: Sequence[str], groups_per_step: int, seed: int, epoch: int, weights: Mapping[str, float]
) -> NDArray[np.int32]:
    """Rows for one epoch in which every batch has each type's share by weight (task-balanced sampling, as in
    QwenLong-L1.5, arXiv 2512.12967), drawn from (seed, epoch) alone.

    Each row occurs once at most. The epoch ends with the last whole batch before a type has no rows left; which of the
    other types' rows it left out differs from epoch to epoch. After every batch the counts so far are as near to the
    shares as whole rows allow.

    Args:
        types: the task type of each row.
        groups_per_step: B, at least 1.
        weights: of each type, above 0; types without one are left out.

    Returns:
        int32 of shape [k * groups_per_step]; empty if no whole batch can be filled.

    Raises:
        ValueError: groups_per_step is below 1.
    """
    if groups_per_step < 1:
        raise ValueError(f"groups_per_step must be at least 1, got {groups_per_step}")
    rng = np.random.default_rng([seed, epoch])
    names = sorted(weights)
    rows = np.asarray(types, dtype=str)
    piles = {name: rng.permutation(np.flatnonzero(rows == name)).astype(np.int32) for name in names}
    shares = np.array([weights[name] for name in names]) / sum(weights.values())
    given = np.zeros(len(names), dtype=np.int64)
    blocks: list[NDArray[np.int32]] = []
    while True:
        due = _dealt(shares * groups_per_step * (len(blocks) + 1), given, groups_per_step)
        if any(due[i] > len(piles[name]) for i, name in enumerate(names)):
            break
        block = np.concatenate([piles[name][given[i] : due[i]] for i, name in enumerate(names)])
        blocks.append(rng.permutation(block))
        given = due
    return np.concatenate(blocks).astype(np.int32) if blocks else np.empty(0, np.int32)


def _dealt(exact: NDArray[np.float64], given: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """`given` with `rows` more, one after another to the type that is furthest below `exact`."""
    counts = given.copy()
    for _ in range(rows):
        counts[np.argmax(exact - counts)] += 1
    return counts
