"""Hashes of runs of letters, so that n-grams are found in texts that have other boundaries between their words.

Any run's hash comes from two prefix sums, so the runs of one length cost one subtraction each. Different runs may share
a hash: a hit is confirmed by text.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from golongrl.data.construct.grams import Hashes
from golongrl.data.overlap import LEAST_LETTERS, boundaries

# Odd, so that it has an inverse modulo 2**64.
_BASE: Final = 0xD1342543DE82EF95
_INVERSE: Final = pow(_BASE, -1, 1 << 64)
_MIX: Final = np.uint64(0x9E3779B97F4A7C15)

Places = NDArray[np.int64]


class Letters:
    """The letters of some tokens, one after the other."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.text = "".join(words)
        codes = np.frombuffer(self.text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        self._sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(codes * _powers(_BASE, len(codes)), out=self._sums[1:])
        self._back = _powers(_INVERSE, len(codes))

    def hashes(self, starts: Places, lengths: Places) -> Hashes:
        """The hashes of the runs that begin at these places."""
        mixed: Hashes = (self._sums[starts + lengths] - self._sums[starts]) * self._back[starts]
        mixed ^= mixed >> np.uint64(32)
        mixed *= _MIX
        return mixed

    def gram_runs(self, places: Places, n: int) -> tuple[Places, Hashes, Places]:
        """Of the n-grams at these places those with enough letters: their places, hashes and numbers of letters."""
        at = np.zeros(len(self.words) + 1, np.int64)
        np.cumsum([len(word) for word in self.words], out=at[1:])
        lengths = at[places + n] - at[places]
        enough = lengths >= LEAST_LETTERS
        places, lengths = places[enough], lengths[enough]
        return places, self.hashes(at[places], lengths), lengths

    def candidates(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Where a run may begin, and before which place it may end."""
        starts, ends = boundaries(self.words)
        return np.array(starts, bool), np.array(ends, bool)


def _powers(base: int, count: int) -> Hashes:
    """1, base, base**2, ..."""
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)
