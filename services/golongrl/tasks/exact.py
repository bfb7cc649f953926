"""Metrics of one short answer: exact match and multiple choice."""

import re

from golongrl.tasks import options
from golongrl.tasks.outcome import UnscorableError

_PARENTHESISED = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")
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


def selection_strict(label: str, answer: str) -> float:
    """1 if the option that the answer states (options.py) is the label's.

    The label is a letter ("B", "(B)") or the sentence itself. Raises UnscorableError for any other label.
    """
    letter = _LABEL.fullmatch(label)
    wanted = letter[1].upper() if letter else options.stated(options.plain(label))
    if wanted is None:
        raise UnscorableError(f"invalid ground truth: golden_label names no option: {label[:80]!r}")
    return float(options.stated(options.plain(answer)) == wanted)
