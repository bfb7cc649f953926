"""Which documents a slot gets. Pure and stable: another document more changes few slots.

Every slot ranks the documents by a hash of both, weighed by preference (rendezvous hashing), takes the best as its main
one, and fills its context with the next ones until it is long enough.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from golongrl.data.construct.models import LengthBin
from golongrl.data.construct.select.criteria import Candidate
from golongrl.data.construct.select.quotas import Cell

# Documents in one context at most; a bin that needs more of them has too short documents.
_MOST_DOCUMENTS = 200
_ONE = float(1 << 64)


@dataclass(frozen=True, slots=True)
class Slot:
    """One prompt that shall be made."""

    cell: Cell
    number: int
    doc_ids: tuple[str, ...]
    n_tokens: int
    target_tokens: int
    seed: int


class Picker:
    """Picks the documents of one language and task for slot after slot."""

    def __init__(self, candidates: Sequence[tuple[Candidate, float]], fillers: Sequence[Candidate], most: int) -> None:
        self._mains = _Ranking([one for one, _ in candidates], [weight for _, weight in candidates])
        self._fillers = _Ranking(list(fillers), [1.0] * len(fillers))
        self._most = most

    def pick(self, cell: Cell, number: int, span: LengthBin, seed: int, used: Counter[str]) -> Slot | None:
        """The slot's documents; None where there are too few, too short, or all used as often as allowed."""
        draw = _hash(f"{seed} {cell} {number}")
        target = span.min_tokens + draw % (span.max_tokens - span.min_tokens) + 1
        main = next((one for one in self._mains.order(draw) if used[one.doc_id] < self._most), None)
        if main is None:
            return None
        chosen = [main]
        length = main.n_tokens
        if length < target:
            for other in self._fillers.order(draw):
                if other.doc_id != main.doc_id:
                    chosen.append(other)
                    length += other.n_tokens
                if length >= target or len(chosen) == _MOST_DOCUMENTS:
                    break
        if length < max(1, span.min_tokens):
            return None
        used[main.doc_id] += 1
        doc_ids = tuple(one.doc_id for one in chosen)
        return Slot(cell, number, doc_ids, length, min(target, length), draw % (1 << 31))


class _Ranking:
    def __init__(self, candidates: Sequence[Candidate], weights: Sequence[float]) -> None:
        self._candidates = candidates
        self._hashes = np.array([_hash(one.doc_id) for one in candidates], np.uint64)
        self._weights = np.array(weights, np.float64)

    def order(self, draw: int) -> list[Candidate]:
        """The candidates, best first for this draw."""
        if not len(self._hashes):
            return []
        # A uniform number in (0, 1] for each pair; weight / -log of it makes the first place proportional to weight.
        uniform = (_mix(self._hashes ^ np.uint64(draw)).astype(np.float64) + 1.0) / _ONE
        scores = -np.log(np.minimum(uniform, 1.0 - 1e-16)) / self._weights
        best = np.argsort(scores, kind="stable")[: _MOST_DOCUMENTS * 2]
        return [self._candidates[at] for at in best]


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """splitmix64: neighbouring values become independent ones."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
