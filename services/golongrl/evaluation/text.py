"""Comparing short answers as texts: normalised equality, token F1, cover exact match.

These are the rules of the question-answering benchmarks. `official` and `compat` follow the published code; `strict`
mends two things: Chinese text is compared without its punctuation, and a Chinese gold needs no word boundary, which
Chinese text does not have.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import Final

from golongrl.evaluation.kinds import Mode
from golongrl.tasks.text import has_chinese

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_ASCII_MARKS: Final = str.maketrans("", "", string.punctuation)
_GROUPED: Final = re.compile(r"(\d),(\d)")


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation and articles, white space collapsed."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ASCII_MARKS)).split())


def same_text(answer: str, golds: Iterable[str]) -> bool:
    """Whether an answer equals a gold after normalising; an answer that vanishes by it equals none."""
    found = _characters(normalise(answer))
    return bool(found) and any(found == _characters(normalise(gold)) for gold in golds)


def _characters(text: str) -> str:
    """Compared without marks of any script."""
    return "".join(one for one in unicodedata.normalize("NFKC", text) if unicodedata.category(one)[0] not in "PZC")


def _tokens(text: str, mode: Mode) -> list[str]:
    if not has_chinese(text) or mode == "official":
        return normalise(text).split()
    if mode == "compat":
        return list(unicodedata.normalize("NFKC", text).lower())
    return list(_characters(text.lower()))


def token_f1(prediction: str, gold: str, mode: Mode = "strict") -> float:
    """F1 over tokens with repeats: words, in Chinese text characters.

    `compat`: a prediction and a gold that both vanish by normalising are equal.
    """
    found, golden = _tokens(prediction, mode), _tokens(gold, mode)
    if not found or not golden:
        return float(mode == "compat" and found == golden)
    common = sum((Counter(found) & Counter(golden)).values())
    if not common:
        return 0.0
    precision, recall = common / len(found), common / len(golden)
    return 2 * precision * recall / (precision + recall)


def cover_exact_match(text: str, gold: str, mode: Mode = "strict") -> bool:
    """Whether the normalised gold stands in the normalised text, at word boundaries; a gold that vanishes never does.

    A known weakness of the rule in all modes: a candidate that the text rejects counts too ("not Paris but Rome").
    """
    golden = _cover_form(gold)
    if not golden:
        return False
    form = _cover_form(text)
    return stands_in(golden, form) if mode == "strict" else re.search(rf"\b{re.escape(golden)}\b", form) is not None


def stands_in(gold: str, text: str) -> bool:
    """Whether a text contains the gold as whole words; Chinese has no word boundaries, and a sign at an edge is one."""
    before, after = ("" if has_chinese(edge) else look for edge, look in ((gold[0], r"(?<!\w)"), (gold[-1], r"(?!\w)")))
    return re.search(before + re.escape(gold) + after, text) is not None


def _cover_form(text: str) -> str:
    lower = unicodedata.normalize("NFKD", text).lower()
    return " ".join(_GROUPED.sub(r"\1\2", _ARTICLES.sub(" ", lower)).translate(_ASCII_MARKS).split())
