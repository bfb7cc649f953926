"""Words of the longest common subsequences of one reference sentence with many text sentences, in one bit vector.

The table T[i][j] = LCS length of x[:i] and y[:j] grows by 0 or 1 along j, so a row is a vector of bits D_i with D_i[j]
= T[i][j] - T[i][j-1], and the next row follows in four operations on Python integers (Crochemore et al. 2001, Hyyrö
2004). All sentences of the text are in one integer. A separator bit after each of them absorbs the addition's carry.

The back-trace is the usual one, which decides which of several longest subsequences is taken. It starts at the end.
Equal words move it diagonally; otherwise it moves up in the reference if T[i-1][j] > T[i][j-1], and else left in the
text. Where the words differ, T[i][j] is the larger of the two neighbours, so it moves up exactly if D_i[j] = 1. The
next stop of row i is therefore the highest bit at or below j that is set in D_i or matches x_i, which is found without
a step per column. The back-trace also runs for all sentences at once.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from math import isqrt
from typing import NamedTuple

# The back-trace needs every row again, one bit per column. If all rows take more memory than this, they are computed
# again block by block.
MAX_ROW_BYTES = 1 << 26


class Text(NamedTuple):
    """The text's sentences as bit vectors. `size`: bits; `full`: all but separators; `smears`: see `_smears`, None for
    a single sentence, whose highest bit is its bit_length.
    """

    matches: dict[str, int]
    size: int
    full: int
    smears: tuple[tuple[int, int], ...] | None


def _mask(positions: Iterable[int], size: int) -> int:
    bits = bytearray((size >> 3) + 1)
    for position in positions:
        bits[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(bits, "little")


def index(sentences: Sequence[Sequence[str]], vocabulary: Collection[str]) -> Text:
    """Lay the sentences into one vector and find where the words of `vocabulary` stand."""
    places: dict[str, list[int]] = {}
    separators: list[int] = []
    offset = 0
    for sentence in sentences:
        for position, word in enumerate(sentence, offset):
            if word in vocabulary:
                places.setdefault(word, []).append(position)
        offset += len(sentence) + 1
        separators.append(offset - 1)
    full = ((1 << offset) - 1) ^ _mask(separators, offset)
    matches = {word: _mask(positions, offset) for word, positions in places.items()}
    longest = max(map(len, sentences), default=0)
    return Text(matches, offset, full, _smears(full, longest) if len(sentences) > 1 else None)


def _smears(full: int, longest: int) -> tuple[tuple[int, int], ...]:
    """(shift, mask) for shifts 1, 2, 4, ...: the bits whose `shift` next higher bits are of their own sentence."""
    steps = []
    shift, mask = 1, full & (full >> 1)
    while shift < longest:
        steps.append((shift, mask))
        shift, mask = shift * 2, mask & (mask >> shift)
    return tuple(steps)


def _forward(row: int, words: Sequence[str], text: Text) -> Iterable[int]:
    """The complements of D_i (within `full`) for each word, from the complement of D before them."""
    matches, full = text.matches, text.full
    for word in words:
        if word in matches:
            hit = row & matches[word]
            row = ((row + hit) | (row ^ hit)) & full
        yield row


def _rows_backwards(words: Sequence[str], text: Text, max_row_bytes: int) -> Iterable[tuple[str, int]]:
    """(x_i, complement of D_i) from the last i to the first, in bounded memory."""
    if len(words) * (text.size // 8) <= max_row_bytes:
        rows = list(_forward(text.full, words, text))
        yield from zip(reversed(words), reversed(rows), strict=True)
        return
    # Blocks of about the square root of the rows: then as many rows are kept as are computed again at a time.
    block = max(1, isqrt(len(words)))
    marks = []
    row = text.full
    for start in range(0, len(words), block):
        marks.append((start, row))
        *_, row = _forward(row, words[start : start + block], text)
    for start, mark in reversed(marks):
        part = words[start : start + block]
        yield from zip(reversed(part), reversed(list(_forward(mark, part, text))), strict=True)


def add_common_words(
    reference: Sequence[str], text: Text, found: set[str], *, max_row_bytes: int = MAX_ROW_BYTES
) -> None:
    """Add to `found` the words of the reference's back-traced LCS with each of the text's sentences."""
    missing = {word for word in reference if word in text.matches and word not in found}
    if not missing:
        return
    for word in common_words(reference, text, max_row_bytes=max_row_bytes):
        found.add(word)
        missing.discard(word)
        if not missing:
            return


def common_words(reference: Sequence[str], text: Text, *, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[str]:
    """The reference's words, last to first, that are in its back-traced LCS with any of the text's sentences."""
    matches = text.matches
    allowed = text.full  # in each sentence the columns at or below j
    # A word the text lacks keeps its row: the back-trace moves left in it, past columns that match the word before.
    for word, row in _rows_backwards(reference, text, max_row_bytes):
        match = matches.get(word, 0)
        stops = allowed & (match | (row ^ text.full))
        if not stops:
            return
        if text.smears is not None:
            for shift, mask in text.smears:
                stops |= (stops >> shift) & mask
            allowed = stops
            hit = stops & ~(stops >> 1) & match
        else:
            top = stops.bit_length()
            allowed = (1 << top) - 1
            hit = match & (1 << (top - 1))
        if hit:
            allowed ^= hit
            yield word
