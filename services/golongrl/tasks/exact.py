"""Metrics of one short answer: exact match and multiple choice."""

import re

from golongrl.tasks.outcome import UnscorableError

_PARENTHESISED = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")
# A bare letter must stand alone: neither "Apple" nor "A-level" nor "A's" names option A.
_STRICT = re.compile(r"The correct answer is\s+(?:\(([A-Z])\)|([A-Z])(?![\w'’-]))")
# Another option named in the same breath: "A or B", "(A)/(B)", "(A) (B)". "A, I think" names one.
_HEDGE = re.compile(
    r"\s*(?:(?:[,/&;|+、或和]|\bor\b|\band\b)[\s,/]*(?:(?:or|and)\s+)?(?:\([A-Z]\)|[A-HJ-Z](?![\w'’-]))|\([A-Z]\))"
)
_LABEL = re.compile(r"\s*\(?([A-Za-z])\)?\.?\s*")


def exact_match(label: str, answer: str) -> float:
    """1 if answer and label are equal but for white space at their ends."""
    return float(answer.strip() == label.strip())


def _letter(text: str) -> str | None:
    text = text.replace("*", "")
    found = _PARENTHESISED.search(text) or _BARE.search(text)
    return found[1] if found else None


def selection(label: str, answer: str) -> float:
    """1 if the first "The correct answer is (X)", X in A-D, names the label or the letter the label's sentence names.

    The form in parentheses wins over a bare letter wherever it stands, and a bare letter may begin a word.
    """
    letter = _letter(answer)
    return float(letter is not None and letter in (label, _letter(label)))


def _strict_letter(text: str) -> str | None:
    """The last option named; None if there is none, or if that sentence names another one, too."""
    text = text.replace("*", "")
    named = list(_STRICT.finditer(text))
    if not named or _HEDGE.match(text, named[-1].end()):
        return None
    return str(named[-1][1] or named[-1][2])


def selection_strict(label: str, answer: str) -> float:
    """1 if the last "The correct answer is (X)" or "... is X", X in A-Z and standing alone, names the label and no
    other option with it ("A or B").

    The label is a letter ("B", "(B)") or the sentence itself. Raises UnscorableError for any other label.
    """
    plain = _LABEL.fullmatch(label)
    wanted = plain[1].upper() if plain else _strict_letter(label)
    if wanted is None:
        raise UnscorableError(f"invalid ground truth: golden_label names no option: {label[:80]!r}")
    return float(_strict_letter(answer) == wanted)
