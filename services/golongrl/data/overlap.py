"""What counts as the same words: the definition of n-gram overlap between a text and a benchmark. Pure.

A text becomes NFKC, without invisible format characters and HTML's entities, case-folded; Cyrillic and Greek letters
that look like Latin ones count as these. Its tokens are runs of letters, digits and `_`; each Chinese or Japanese
character is a token of its own, because such text has no spaces. Two texts overlap where they share n tokens in a row
of which at least four differ. A benchmark item that is shorter than n overlaps only with a text that has exactly its
tokens, and only if these are at least five; a shorter one says too little.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final

N: Final = 13
LEAST_DIFFERENT: Final = 4
LEAST_WHOLE: Final = 5
# Han and kana, with the signs that repeat one.
CJK: Final = r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
# Zero-width spaces and joiners, direction marks, the soft hyphen, variation selectors: nobody sees them.
_INVISIBLE: Final = re.compile(r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
# Small letters that nobody can tell from the Latin ones after them, and those whose capitals look so.
_LIKE: Final = str.maketrans(
    "авекмнорстухѕіјԁһԛԝ" + "αβγεζηικνορτυχ", "abekmhopctyxsijdhqw" + "abyezhikvoptyx"
)  # fmt: skip
_LIKELY: Final = re.compile(r"[\u0370-\u03ff\u0400-\u052f]")
_TOKEN: Final = re.compile(rf"[{CJK}]|(?:(?![{CJK}])\w)+")


def normalise(text: str) -> str:
    """The text as it is compared."""
    if "&" in text:
        text = html.unescape(text)
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold())
    return plain.translate(_LIKE) if _LIKELY.search(plain) else plain


def tokens(text: str) -> list[str]:
    """The tokens of a text that is not normalised yet."""
    return _TOKEN.findall(normalise(text))


def grams(words: Sequence[str], n: int = N) -> Iterable[tuple[int, tuple[str, ...]]]:
    """Every run of n tokens that says enough, with its place."""
    for start in range(len(words) - n + 1):
        gram = tuple(words[start : start + n])
        if len(set(gram)) >= min(LEAST_DIFFERENT, n):
            yield start, gram


def hit(benchmark_texts: Iterable[str], text: str, n: int = N) -> bool:
    """Whether `text` overlaps with one of these texts of a benchmark."""
    words = tokens(text)
    mine = {gram for _, gram in grams(words, n)}
    for item in benchmark_texts:
        theirs = tokens(item)
        if len(theirs) < n:
            if len(theirs) >= LEAST_WHOLE and theirs == words:
                return True
        elif any(gram in mine for _, gram in grams(theirs, n)):
            return True
    return False
