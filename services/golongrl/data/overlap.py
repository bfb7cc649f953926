"""What counts as the same words: the definition of n-gram overlap between a text and a benchmark. Pure.

A text becomes NFKC, without invisible format characters, HTML's entities and tags of emphasis, case-folded; Cyrillic
and Greek letters that look like Latin ones count as these, and traditional Chinese characters as the simplified ones.
Its tokens are runs of letters and digits; each Chinese or Japanese character is a token of its own, because such text
has no spaces. Two texts overlap where they share n tokens in a row of which at least four differ. A benchmark item that
is shorter than n overlaps only with a text that has exactly its tokens, and only if these are at least five; a shorter
one says too little.

Blanks between the letters of a word, or none between words, hide nothing: the letters of n tokens in a row (at least
`LEAST_LETTERS`) may stand in a text with other boundaries, as long as the first and the last of them stand at one, or
in a token that is too long for a word.
"""

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import accumulate
from typing import Final

N: Final = 13
LEAST_DIFFERENT: Final = 4
LEAST_WHOLE: Final = 5
# 13 words have 60 letters on average. Fewer than 30 are lists of numbers or of initials, which other lists contain.
LEAST_LETTERS: Final = 30
# Of a short item that is looked for as a whole: five short numbers must not be found in one long number.
LEAST_WHOLE_LETTERS: Final = 20
# No English word is longer: such a token is words without blanks between them.
LONGEST_WORD: Final = 30
# Han and kana, with the signs that repeat one.
CJK: Final = r"\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
# Zero-width spaces and joiners, direction marks, the soft hyphen, variation selectors: nobody sees them.
_INVISIBLE: Final = re.compile(r"[\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]")
# Small letters that nobody can tell from the Latin ones after them, and those whose capitals look so.
_LIKE: Final = str.maketrans(
    "авекмнорстухѕіјԁһԛԝ" + "αβγεζηικνορτυχ", "abekmhopctyxsijdhqw" + "abyezhikvoptyx"
)  # fmt: skip
_LIKELY: Final = re.compile(r"[\u0370-\u03ff\u0400-\u052f]")
_TAG: Final = re.compile(r"</?(?:b|i|u|s|em|strong|span|mark|font|sub|sup|a|code|small)(?:\s[^<>]*)?>")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_TOKEN: Final = re.compile(rf"[{CJK}]|(?:(?![{CJK}])[^\W_])+")


def normalise(text: str) -> str:
    """The text as it is compared."""
    if "&" in text:
        text = html.unescape(text)
    if text.isascii():
        return _untagged(text.lower())
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).casefold())
    plain = plain.translate(_LIKE) if _LIKELY.search(plain) else plain
    return _untagged(plain.translate(_simplified()) if _HAN.search(plain) else plain)


def _untagged(text: str) -> str:
    return _TAG.sub("", text) if "<" in text else text


@cache
def _simplified() -> dict[int, str]:
    """The simplified character of each traditional one, one by one: what a character means in its word does not count,
    so that both spellings of a text become the same."""
    from opencc import OpenCC  # only Chinese text needs its dictionaries

    characters = [chr(code) for first, end in ((0x3400, 0x4DC0), (0x4E00, 0xA000)) for code in range(first, end)]
    converted = OpenCC("t2s").convert(" ".join(characters)).split(" ")
    return {ord(one): other for one, other in zip(characters, converted, strict=True) if one != other}


def tokens(text: str) -> list[str]:
    """The tokens of a text that is not normalised yet."""
    return _TOKEN.findall(normalise(text))


def grams(words: Sequence[str], n: int = N) -> Iterable[tuple[int, tuple[str, ...]]]:
    """Every run of n tokens that says enough, with its place."""
    for start in range(len(words) - n + 1):
        gram = tuple(words[start : start + n])
        if len(set(gram)) >= min(LEAST_DIFFERENT, n):
            yield start, gram


def boundaries(words: Sequence[str]) -> tuple[list[bool], list[bool]]:
    """For each place in the letters of these tokens, whether a run of letters may begin there, and whether it may end
    before it: between two tokens, and anywhere in a token that is too long for a word."""
    size = sum(map(len, words))
    starts, ends = [False] * (size + 1), [False] * (size + 1)
    for word, end in zip(words, accumulate(map(len, words)), strict=True):
        start = end - len(word)
        if len(word) > LONGEST_WORD:
            starts[start:end] = ends[start + 1 : end + 1] = [True] * len(word)
        else:
            starts[start] = ends[end] = True
    return starts, ends


def hit(benchmark_texts: Iterable[str], text: str, n: int = N) -> bool:
    """Whether `text` overlaps with one of these texts of a benchmark."""
    words = tokens(text)
    mine = {gram for _, gram in grams(words, n)}
    letters = "".join(words)
    starts, ends = boundaries(words)
    for item in benchmark_texts:
        theirs = tokens(item)
        if len(theirs) < n:
            if len(theirs) >= LEAST_WHOLE and (theirs == words or same_letters("".join(theirs), letters)):
                return True
        elif any(gram in mine or _spelt("".join(gram), letters, starts, ends) for _, gram in grams(theirs, n)):
            return True
    return False


def same_letters(item: str, text: str) -> bool:
    """Whether a short item and a text have the same letters, and enough of them."""
    return item == text and len(item) >= LEAST_WHOLE_LETTERS


def _spelt(gram: str, letters: str, starts: Sequence[bool], ends: Sequence[bool]) -> bool:
    if len(gram) < LEAST_LETTERS:
        return False
    at = letters.find(gram)
    while at >= 0 and not (starts[at] and ends[at + len(gram)]):
        at = letters.find(gram, at + 1)
    return at >= 0
