"""Metrics of one short answer: exact match and multiple choice."""

import re

from golongrl.tasks.outcome import UnscorableError

_PARENTHESISED = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")
# A bare letter must stand alone: neither "Apple" nor "A-level" nor "A's" names option A.
_STRICT = re.compile(r"The correct answer is\s+(?:\(\s*([A-Z])\s*\)|([A-Z])(?![\w'’-]))")
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


_OPTION = r"(?:(?:option|choice|answer|选项)\s*)?(?:\(\s*(?P<round>[A-Z])\s*\)|(?P<bare>[A-HJ-Z])(?![\w'’-]))"
# Connectives that offer another option whatever follows it.
_OR = re.compile(
    r"[\s,;.(—–-]*"
    r"(?:\b(?:or|and/or)\b|或者?|/|\||\b(?:but|though|although|alternatively|possibly|maybe|perhaps)\b|可能是?)"
    r"(?:[\s,(]*\b(?:or|else|possibly|maybe|perhaps|also|even|alternatively|it|could|might|may|be|both)\b|可能是?)*"
    r"[\s,(]*" + _OPTION,
    re.IGNORECASE,
)
# Connectives of a list, which may as well begin a clause about the other option: "(B), (A) being too early".
_LIST = re.compile(r"(?:[\s,;&+、，；—–-]|\b(?:and|as well as|plus|also|both)\b|和|及|与)*" + _OPTION, re.IGNORECASE)
_CLAUSE = re.compile(r"[^\n.!?。！？]*")
_IN_FAVOUR = re.compile(
    r"\b(?:correct|right|true|valid|possible|plausible|acceptable|likely|fits?|appl(?:y|ies)|works?|holds?|both|together|"
    r"equally|too|as well|also)\b|正确|对的|都|也", re.IGNORECASE
)  # fmt: skip
_AGAINST = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|wrong|false|incorrect|invalid|impossible|implausible|unlikely|only|fails?|"
    r"contradict\w*|less|rather|instead|too (?:early|late|broad|narrow|vague|small|large|strong|weak))\b|"
    r"n['’]t|不|错|非|没",
    re.IGNORECASE,
)  # fmt: skip


def _hedged(rest: str, chosen: str) -> bool:
    """Whether the text behind the chosen option offers another one as well: "A or B", "(A)/(B)", "(A), (B)".

    A clause about another option is not a hedge ("(B), (A) being too early"), unless it speaks for that option
    ("(B), but (A) is also possible").
    """
    rest = rest.lstrip("*_ ")
    found = _OR.match(rest)
    if found is not None and _names_another(found, chosen):
        return not _AGAINST.search(_CLAUSE.match(rest, found.end())[0])  # type: ignore[index]
    end = 0
    others = False
    while (found := _LIST.match(rest, end)) is not None:
        others = others or _names_another(found, chosen)
        end = found.end()
    if not others:
        return _OR.match(rest, end) is not None and _hedged(rest[end:], chosen) if end else False
    if (found := _OR.match(rest, end)) is not None:
        return True
    clause = (_CLAUSE.match(rest, end) or [""])[0].strip(" ,)")
    return not _AGAINST.search(clause) and (not re.search(r"\w", clause) or bool(_IN_FAVOUR.search(clause)))


def _names_another(found: re.Match[str], chosen: str) -> bool:
    named = found["round"] or found["bare"] or ""
    return named.isupper() and named != chosen


def _strict_letter(text: str) -> str | None:
    """The last option named; None if there is none, or if another one is offered with it."""
    text = text.translate(_PLAIN)
    named = list(_STRICT.finditer(text))
    if not named:
        return None
    chosen = str(named[-1][1] or named[-1][2])
    return None if _hedged(text[named[-1].end() :], chosen) else chosen


_PLAIN = str.maketrans({"*": None, "（": "(", "）": ")", "_": None, "`": None, "$": None})


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
