"""Groups cut into parts, prompts with some of their responses, that fit into micro-batches and weigh about the same.

Invariants:
- every response is in exactly one part, and every part in exactly one micro-batch;
- a group is one part unless it does not fit into a micro-batch, or others would be without work;
- the plan depends on lengths and limits alone, so that a replayed step is cut in the same way.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]

# Of a search for fewer parts than first fit found: some milliseconds, where a part less saves a whole prompt's compute.
_PLACEMENTS = 10_000


@dataclass(frozen=True)
class Part:
    """A prompt of `prompt` tokens with some of its responses."""

    group: int
    prompt: int
    members: tuple[int, ...]  # responses, as indices into whatever was planned
    lengths: tuple[int, ...] = field(repr=False)  # of the members, in tokens

    @property
    def tokens(self) -> int:
        """Tokens of the packed row."""
        return self.prompt - 1 + sum(self.lengths)

    def work(self, pairs_per_token: float) -> float:
        """Compute, in tokens (golongrl.learner.flops says how many pairs weigh as much as a token)."""
        return self.tokens + self.pairs / pairs_per_token

    @property
    def pairs(self) -> float:
        """Pairs of query and key that attention computes."""
        prefix = self.prompt - 1
        own = sum(length * (length + 1) / 2 for length in self.lengths)
        return prefix * (prefix + 1) / 2 + prefix * sum(self.lengths) + own


def parts_of(prompts: Sequence[int], group: Int64, lengths: Int64, members: Int64, limit: int) -> list[Part]:
    """Each group as the fewest parts of at most `limit` tokens.

    Args:
        prompts: prompt lengths of the groups.
        group, lengths: [N] group and length of every response; `members` selects those to place, in group order.
    """
    parts = []
    for index in np.unique(group[members]).tolist():
        mine = members[group[members] == index]
        room = limit - (prompts[index] - 1)
        for chosen in _fewest([int(lengths[i]) for i in mine], room):
            parts.append(_part(index, prompts[index], [int(mine[i]) for i in chosen], lengths))
    return parts


def micro_batches(parts: Sequence[Part], limit: int) -> list[list[Part]]:
    """Parts in few micro-batches of at most `limit` tokens (first fit, largest first)."""
    return [[parts[i] for i in chosen] for chosen in _first_fit([part.tokens for part in parts], limit)]


def at_least(batches: list[list[Part]], count: int, pairs_per_token: float) -> list[list[Part]]:
    """The same work in `count` micro-batches, where other ranks have as many: the heaviest is halved again and again.

    Fewer come back if there are fewer responses.
    """
    batches = [list(batch) for batch in batches]
    while len(batches) < count:
        divisible = [i for i, batch in enumerate(batches) if sum(len(part.members) for part in batch) > 1]
        if not divisible:
            return batches
        heaviest = max(divisible, key=lambda i: (sum(part.work(pairs_per_token) for part in batches[i]), -i))
        batches += _halves(batches.pop(heaviest), pairs_per_token)
    return batches


def balanced(parts: list[Part], ranks: int, pairs_per_token: float) -> list[list[Part]]:
    """Heaviest first, each to the rank with the least work."""
    shares: list[list[Part]] = [[] for _ in range(ranks)]
    load = [0.0] * ranks
    for part in sorted(parts, key=lambda part: -part.work(pairs_per_token)):
        rank = min(range(ranks), key=lambda r: (load[r], r))
        shares[rank].append(part)
        load[rank] += part.work(pairs_per_token)
    return shares


def _halves(batch: list[Part], pairs_per_token: float) -> list[list[Part]]:
    if len(batch) > 1:
        return balanced(batch, 2, pairs_per_token)
    (part,) = batch
    lengths = dict(zip(part.members, part.lengths, strict=True))
    halves: list[list[int]] = [[], []]
    for member in sorted(part.members, key=lambda i: -lengths[i]):
        halves[sum(lengths[i] for i in halves[0]) > sum(lengths[i] for i in halves[1])].append(member)
    if not halves[1]:
        halves[1].append(halves[0].pop())
    return [[_part(part.group, part.prompt, half, lengths)] for half in halves]


def _part(group: int, prompt: int, members: list[int], lengths: Mapping[int, int] | Int64) -> Part:
    chosen = sorted(members)
    return Part(group, prompt, tuple(chosen), tuple(int(lengths[i]) for i in chosen))


def _fewest(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Indices of `sizes` in the fewest bins of `room`; what exceeds the room alone gets a bin of its own.

    First fit is nearly always minimal; where a count below it is not excluded, a bounded search looks for that one.
    """
    best = _first_fit(sizes, room)
    fitting = [i for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]) if sizes[i] <= room]
    alone = len(sizes) - len(fitting)
    least = alone + _ceil(sum(sizes[i] for i in fitting), room)
    while len(best) > least:
        found = _Search([sizes[i] for i in fitting], room, len(best) - 1 - alone).bins()
        if found is None:
            break
        longer = [[i] for i in range(len(sizes)) if sizes[i] > room]
        best = longer + [sorted(fitting[i] for i in chosen) for chosen in found]
    return best


class _Search:
    """Depth first for sizes in `count` bins, longest first; gives up after a fixed number of placements."""

    def __init__(self, sizes: Sequence[int], room: int, count: int) -> None:
        self._sizes = sizes  # descending
        self._left = [room] * count
        self._chosen: list[list[int]] = [[] for _ in range(count)]
        self._slack = room * count - sum(sizes)
        self._placements = _PLACEMENTS

    def bins(self) -> list[list[int]] | None:
        """The bins that are used, or None if there is no way or none was found in time."""
        return [chosen for chosen in self._chosen if chosen] if self._slack >= 0 and self._place(0) else None

    def _place(self, index: int) -> bool:
        if index == len(self._sizes):
            return True
        # Room that not even the shortest size can use is lost.
        if sum(left for left in self._left if left < self._sizes[-1]) > self._slack:
            return False
        size, tried = self._sizes[index], set()
        for number, left in enumerate(self._left):
            if left < size or left in tried:
                continue
            if not self._placements:
                return False
            self._placements -= 1
            tried.add(left)
            self._left[number] -= size
            self._chosen[number].append(index)
            if self._place(index + 1):
                return True
            self._left[number] += size
            self._chosen[number].pop()
        return False


def _ceil(tokens: int, room: int) -> int:
    return -(-tokens // room) if tokens else 0


def _first_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """Indices of `sizes` in bins of `room`, longest first; what exceeds the room alone gets a bin of its own."""
    bins: list[list[int]] = []
    left: list[int] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        place = next((i for i, space in enumerate(left) if sizes[index] <= space), None)
        if place is None:
            bins.append([])
            left.append(room)
            place = len(bins) - 1
        bins[place].append(index)
        left[place] -= sizes[index]
    return [sorted(chosen) for chosen in bins]
