"""ROUGE-L of a summary against references, summary level, as the common `rouge` package computes it.

The numbers are that package's: sentences end at "." only, words are split at single spaces, precision and recall count
DISTINCT words, and the matched words are the union over all sentence pairs (see lcs.py). Chinese is cut into words
first.
"""

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from golongrl.tasks import lcs
from golongrl.tasks.outcome import UnscorableError
from golongrl.tasks.text import collapse

# A run without Chinese, and the pieces that jieba cuts it into.
_JOINED = re.compile(r"(?=.*[-_+#&%.])[a-zA-Z0-9+#&._%-]{2,}")
_LATIN = re.compile(r"([a-zA-Z0-9]+(?:\.\d+)?%?)")

EPSILON = 1e-8  # the package's guard against 0/0, part of the number


def _cut(text: str) -> str:
    """Jieba's words joined by spaces. A lone surrogate, which no word can hold, is cut as "?".

    rjieba keeps runs such as "2019-07-14" and "model_v2.3" whole where jieba cuts at "-", "_", "+", "#" and "&",
    unless the dictionary has them.
    """
    import rjieba  # heavy: a dictionary is read on first use

    words: list[str] = rjieba.cut(text.encode("utf-8", "replace").decode("utf-8"), True)
    pieces: list[str] = []
    for word in words:
        if _JOINED.fullmatch(word) and not rjieba.has_word(word):
            pieces += filter(None, _LATIN.split(word))
        else:
            pieces.append(word)
    return " ".join(pieces)


def _sentences(text: str, *, chinese: bool) -> list[list[str]]:
    text = collapse(text.lower())
    if chinese:
        text = _cut(text)
    return [collapse(piece).split(" ") for piece in text.split(".") if piece]


@lru_cache(maxsize=256)  # a group's responses share their references
def _reference(text: str, *, chinese: bool) -> tuple[tuple[tuple[str, ...], ...], frozenset[str]]:
    sentences = tuple(map(tuple, _sentences(text, chinese=chinese)))
    return sentences, frozenset(word for sentence in sentences for word in sentence)


def rouge_l(references: Sequence[str], text: str, *, chinese: bool) -> float:
    """The best F over the references; 0 if the text or any of the references has no sentence.

    With c the number of distinct words in any common subsequence: R = c / |distinct reference words|,
    P = c / |distinct text words|, F = 2PR / (P + R + 1e-8).
    """
    sentences = _sentences(text, chinese=chinese)
    indexed = [_reference(reference, chinese=chinese) for reference in dict.fromkeys(references)]
    if not sentences or not all(pieces for pieces, _ in indexed):
        return 0.0
    distinct = len({word for sentence in sentences for word in sentence})
    best = 0.0
    for pieces, vocabulary in indexed:
        laid = lcs.index(sentences, vocabulary)
        found: set[str] = set()
        for piece in pieces:
            lcs.add_common_words(piece, laid, found)
        recall, precision = len(found) / len(vocabulary), len(found) / distinct
        best = max(best, 2 * precision * recall / (precision + recall + EPSILON))
    return best


def rouge_l_strict(references: Sequence[str], text: str, *, chinese: bool) -> float:
    """ROUGE-L of Lin (2004), section 3.2, with words counted and the text taken as one sentence.

    Per reference sentence the words of its LCS with the whole text are hits, a word at most as often as it stands in
    the text; R = hits / reference words, P = hits / text words. `rouge_l` is open to two tricks of a text that
    consists of the right words in no order: a full stop behind each makes every word a sentence, so that order no
    longer counts, and repeating them all does the same for free, as repeats cost no precision. A reference equal to
    the text is worth 1 in both. Raises UnscorableError for a reference without a word.
    """
    words = [word for sentence in _sentences(text, chinese=chinese) for word in sentence if word]
    standing = Counter(words)
    best = 0.0
    for reference in dict.fromkeys(references):
        pieces, vocabulary = _reference(reference, chinese=chinese)
        counted = sum(len(piece) for piece in pieces)
        if not vocabulary - {""}:
            raise UnscorableError(f"invalid ground truth: a reference has no word: {reference[:80]!r}")
        laid = lcs.index([words], vocabulary)
        hits = Counter(word for piece in pieces for word in lcs.common_words(piece, laid)) & standing
        recall, precision = hits.total() / counted, hits.total() / max(1, len(words))
        best = max(best, 2 * precision * recall / (precision + recall + EPSILON))
    return best
