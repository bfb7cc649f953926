"""Near-duplicates: MinHash signatures, and which documents repeat an earlier one. Deterministic: the first stays."""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import rensa
from numpy.typing import NDArray

from golongrl.data.construct.grams import Hashes, gram_hashes

# Words in a row that documents are compared by: fewer make all documents of one subject alike.
_SHINGLE: Final = 5
# The error of an estimated similarity is about 1 / sqrt(_PERMUTATIONS): 0.09.
_PERMUTATIONS: Final = 128
# Documents that share one band are compared: with 4 rows a pair of similarity 0.5 is found with 87 %, of 0.8 always.
_BAND: Final = 4
_SEED: Final = 1


def signature(tokens: Hashes) -> bytes:
    """The MinHash of a document's shingles; empty where it has none."""
    _, hashes = gram_hashes(tokens, min(_SHINGLE, len(tokens))) if len(tokens) else (None, tokens)
    if not len(hashes):
        return b""
    flat = np.unique(hashes)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
        flat, [0, len(flat)], num_perm=_PERMUTATIONS, seed=_SEED
    )
    return np.asarray(matrix.to_rows()[0], np.uint32).tobytes()


def duplicates(signatures: Iterable[tuple[int, bytes]], threshold: float) -> Iterator[tuple[int, int, float]]:
    """(number, number of the kept document that it repeats, similarity) of every near-duplicate."""
    kept: dict[int, NDArray[np.uint32]] = {}
    bands: dict[tuple[int, bytes], list[int]] = {}
    for number, packed in signatures:
        if not packed:
            continue
        mine = np.frombuffer(packed, np.uint32)
        keys = [(at, mine[at : at + _BAND].tobytes()) for at in range(0, len(mine), _BAND)]
        candidates = sorted({other for key in keys for other in bands.get(key, ())})
        best = max(((float(np.mean(mine == kept[other])), -other) for other in candidates), default=(0.0, 0))
        if best[0] >= threshold:
            yield number, -best[1], best[0]
            continue
        kept[number] = mine
        for key in keys:
            bands.setdefault(key, []).append(number)
