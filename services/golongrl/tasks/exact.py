"""Metrics of one short answer: exact match and multiple choice."""

import re
import unicodedata

from golongrl.tasks.outcome import UnscorableError

_PARENTHESISED = re.compile(r"The correct answer is \(([A-D])\)")
_BARE = re.compile(r"The correct answer is ([A-D])")
# A bare letter must stand alone: neither "Apple" nor "A-level" nor "A's" names option A.
_STRICT = re.compile(r"The correct answer is\s+(?:\(\s*([A-Z])\s*\)|([A-Z])(?![\w'’-]))")
_LABEL = re.compile(r"\s*\(?([A-Za-z])\)?\.?\s*")


def exact_match(label: str, answer: str) -> float:
    """1 if answer and label are equal but for white space at their ends."""
    return float(answer.strip() == label.strip())


def exact_match_strict(label: str, answer: str) -> float:
    """As `exact_match`; a letter with its accent composed or apart is the same letter (NFC)."""
    return exact_match(*(unicodedata.normalize("NFC", each) for each in (label, answer)))


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


_OPTION = re.compile(r"\(\s*([A-Z])\s*\)|(?<![\w'’-])([A-HJ-Z])(?![\w'’-])")
_WORD = re.compile(r"[^\W\d_]+")
_WINDOW = 80  # characters behind the chosen option; an alternative stands close
# Words between two options that offer the second: in doubt, in a list, or against the first. Any other word makes it
# another sentence.
_OR = frozenset(
    [
        "or",
        "nor",
        "xor",
        "或",
        "或者",
        "還是",
        "还是",
        "oder",
        "ou",
        "или",
        "または",
        "又は",
        "もしくは",
        "또는",
        "혹은",
    ]
)
_DOUBT = frozenset(
    ["maybe", "possibly", "perhaps", "alternatively", "else", "could", "may", "might", "可能", "可能是", "也可能是"]
)
_FILLING = frozenset(
    [
        "and",
        "also",
        "even",
        "it",
        "be",
        "is",
        "as",
        "well",
        "plus",
        "both",
        "either",
        "option",
        "options",
        "choice",
        "answer",
        "but",
        "though",
        "although",
        "vs",
        "versus",
        "text",
        "to",
        "failing",
        "that",
        "again",
        "the",
        "another",
        "other",
        "correct",
        "right",
        "final",
        "so",
        "along",
        "together",
        "with",
        "in",
        "addition",
        "followed",
        "by",
        "then",
        "next",
        "equally",
        "likewise",
        "sometimes",
        "lesser",
        "extent",
        "same",
        "token",
        "und",
        "sowie",
        "et",
        "y",
        "o",
        "e",
        "и",
        "と",
        "や",
        "와",
        "과",
        "同",
        "跟",
        "和",
        "及",
        "与",
        "选项",
        "是",
        "也",
    ]
)
# Words that take the first option back: "(B), no, (A)", "(B), I mean (A)", "(B)... wait, it is (A)".
_RETRACTION = frozenset(
    [
        "no",
        "wait",
        "hmm",
        "sorry",
        "actually",
        "correction",
        "mean",
        "rather",
        "i",
        "oops",
        "不",
        "不对",
        "等等",
        "应该是",
    ]
)
# What offers the option behind it, to whoever wants it: "(B), but if you insist, (A)".
_IF_YOU = re.compile(
    r"\b(?:if|unless)\s+(?:you\s+(?:\w+\s+)?(?:insist|prefer|want|wish|like|must|disagree)(?:\s+(?:on|upon))?"
    r"|need\s+be|necessary|pressed|forced|not)\b",
    re.IGNORECASE,
)
# The word right before an option that is the answer under some condition: "(B) if x, otherwise (A)".
_OTHERWISE = frozenset(["otherwise", "else", "sonst", "sinon", "否则"])
# What names an option once more; the case of the first letter does not matter here.
_LATER = re.compile(
    r"answer\s*(?:is|[:：])\s*[:：]?\s*(?:option\s+|choice\s+)?(?:\(\s*([A-Z])\s*\)|([A-HJ-Z])(?![\w'’-]))",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"[^\n.!?。！？]*")
_IN_FAVOUR = re.compile(
    r"\b(?:correct|right|true|valid|possible|plausible|acceptable|likely|fits?|appl(?:y|ies)|works?|holds?|both|together|"
    r"equally|too|as well|also)\b|正确|对的|都|也", re.IGNORECASE
)  # fmt: skip
# Behind "though" an option may look plausible without being offered.
_AS_WELL = re.compile(r"\b(?:also|too|as well|equally)\b", re.IGNORECASE)
_AGAINST = re.compile(
    r"\b(?:not|no|never|neither|nor|cannot|wrong|false|incorrect|invalid|impossible|implausible|unlikely|only|fails?|"
    r"contradict\w*|less|rather|instead|too (?:early|late|broad|narrow|vague|small|large|strong|weak))\b|"
    r"n['’]t|不|错|非|没",
    re.IGNORECASE,
)  # fmt: skip


def hedged(rest: str, chosen: str) -> bool:
    """Whether the text behind the chosen option offers another one as well: "A or B", "(A)/(B)", "(A), (B)".

    A clause about another option is not a hedge ("(B), (A) being too early"), unless it speaks for that option
    ("(B), but (A) is also possible").
    """
    if any(_letter_of(found) not in (chosen, chosen.lower()) for found in _LATER.finditer(rest)):
        return True
    other = next((found for found in _OPTION.finditer(rest[:_WINDOW]) if _letter_of(found) != chosen), None)
    if other is None:
        return False
    before = _IF_YOU.sub(" or ", rest[: other.start()])
    words = [word.lower() for word in _WORD.findall(before) if word != chosen]
    between = set(words)
    clause = _CLAUSE.match(rest, _end_of_list(rest, other.end()))
    said = clause[0].strip(" ,;)]") if clause else ""
    if words and words[-1] in _OTHERWISE and not _WORD.search(said):
        return True
    if not between <= _OR | _DOUBT | _FILLING | _RETRACTION:
        return False
    if _AGAINST.search(said):
        return False
    only_listed = not between & {"but", "though", "although"} and not _WORD.search(said)
    favour = _AS_WELL if between & {"though", "although"} else _IN_FAVOUR
    return bool(between & (_OR | _DOUBT)) or only_listed or bool(favour.search(said))


def _end_of_list(rest: str, end: int) -> int:
    """Where the options that follow directly end: behind "(C) and (D)" of "(A), (C) and (D) fail"."""
    while (found := _OPTION.search(rest, end)) is not None:
        if not {word.lower() for word in _WORD.findall(rest[end : found.start()])} <= _OR | _FILLING:
            break
        end = found.end()
    return end


def _letter_of(found: re.Match[str]) -> str:
    return found[1] or found[2]


def _strict_letter(text: str) -> str | None:
    """The last option named; None if there is none, or if another one is offered with it."""
    text = text.translate(_PLAIN)
    named = list(_STRICT.finditer(text))
    if not named:
        return None
    chosen = _letter_of(named[-1])
    return None if hedged(text[named[-1].end() :], chosen) else chosen


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
