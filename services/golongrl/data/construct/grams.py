"""Hashes of all n-grams of a text, by polars, by the definition of `golongrl.data.overlap`.

Equal n-grams have equal hashes, within one version of polars; different ones may share a hash, so a hit that matters is
confirmed by text.
"""

from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from golongrl.data.overlap import CJK, LEAST_DIFFERENT, normalise

# The same classes as Python's \w but `_`, which are not Rust's: letters and numbers.
_TOKEN: Final = rf"[{CJK}]|[[\p{{L}}\p{{N}}]--[{CJK}]]+".replace(r"\U00020000-\U0003134f", r"\x{20000}-\x{3134f}")
# Odd, so that multiplying by it loses nothing modulo 2**64.
_BASE: Final = 0x9E3779B97F4A7C15
# Of the words and of their hashes.
VERSION: Final = f"3, polars {pl.__version__}"

Hashes = NDArray[np.uint64]


def token_hashes(text: str) -> Hashes:
    """One hash for each token, in order."""
    found = pl.Series([normalise(text)]).str.extract_all(_TOKEN).explode()
    return found.drop_nulls().hash().to_numpy().astype(np.uint64, copy=False)


def gram_hashes(tokens: Hashes, n: int) -> tuple[NDArray[np.int64], Hashes]:
    """The place and the hash of every run of n tokens of which enough differ."""
    count = len(tokens) - n + 1
    if count <= 0:
        return np.empty(0, np.int64), np.empty(0, np.uint64)
    total = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for offset in range(n):
            total *= np.uint64(_BASE)
            total += tokens[offset : offset + count]
        # The sum is linear in its tokens; mixing its bits spreads them.
        total ^= total >> np.uint64(32)
        total *= np.uint64(_BASE)
    places = np.flatnonzero(_varied(tokens, n, count))
    return places, total[places]


def _varied(tokens: Hashes, n: int, count: int) -> NDArray[np.bool_]:
    """Which runs have enough different tokens: a token counts where it is the first of its kind in the run."""
    least = min(LEAST_DIFFERENT, n)
    # How far back the same token stands; a token that is new in the run has it before the run's start.
    order = np.argsort(tokens, kind="stable")
    same = tokens[order][1:] == tokens[order][:-1]
    back = np.full(len(tokens), n, np.int64)
    back[order[1:][same]] = np.minimum(n, (order[1:] - order[:-1])[same])
    different = np.zeros(count, np.int64)
    for offset in range(n):
        different += back[offset : offset + count] > offset
    return different >= least
