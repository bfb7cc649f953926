"""Which option of a multiple-choice question a reply names.

The strict rule, for any number of options: the last statement of an answer counts, in any of the usual forms ("The
correct answer is (X)", "Answer: X", "ANSWER: X", "the best option is X", \\boxed{X}, "答案是X"), in any case. A letter
must stand alone ("Apple" and "A-level" name no option), be one of the question's options, and not be offered together
with another one ("A or B"). A reply that is nothing but a letter names it. Nothing is guessed: "I think so" names none.
"""

import re
from collections.abc import Iterable

from golongrl.tasks.exact import hedged

_MARKS = str.maketrans({"*": None, "_": None, "`": None, "$": None, "（": "(", "）": ")", "：": ":"})
# Square brackets: prompts that ask for "ANSWER: [LETTER]" are taken at their word.
_LETTER = r"(?:[(\[]\s*(?P<bracketed>[A-Za-z])\s*[)\]]|(?P<bare>[A-Za-z])(?![\w'’-]))"
_STATED = re.compile(
    r"(?:\b(?i:answer|option|choice)\s*(?:(?i:is|=|would be)\s*:?|:)\s*(?:(?i:option|choice)\s+)?|"
    r"(?:答案|选项)\s*(?:应?为|应?是|选)?\s*:?\s*)"
    r"(?:\\(?:boxed|text)\s*\{\s*)*" + _LETTER
)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{\s*)?" + _LETTER + r"\s*\}")
# Without a statement, what the reply calls right: "Option C is correct", "(C) is the best answer".
_CALLED_RIGHT = re.compile(
    r"(?:(?i:option|choice)\s+\(?|(?<=\())(?P<bracketed>[A-Z])\)?\s+(?i:is)\s+(?:(?i:the)\s+)?"
    r"(?i:correct|right|best)(?P<bare>(?!))?"
)
_ONLY = re.compile(r"\s*\(?(?P<bare>[A-Z])\)?\s*[.。]?\s*")


def letters(choices: int) -> str:
    """The letters of so many options."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:choices]


def first_letter(patterns: Iterable[re.Pattern[str]], text: str) -> str | None:
    """The first group of the first pattern that is found."""
    for pattern in patterns:
        found = pattern.search(text)
        if found is not None:
            return found[1]
    return None


def choice_strict(text: str, choices: int) -> str | None:
    """The option that a reply without its thought names, or None; see the module."""
    plain = text.translate(_MARKS)
    alone = _ONLY.fullmatch(plain)
    if alone is not None:
        return _known(alone["bare"], choices)
    found = [match for pattern in (_STATED, _BOXED) for match in pattern.finditer(plain)]
    stated = [match for match in found if _stands_alone(match, plain)]
    if not stated:
        stated = [match for match in _CALLED_RIGHT.finditer(plain) if _stands_alone(match, plain)]
    if not stated:
        return None
    last = max(stated, key=lambda match: match.end())
    letter = _letter(last)
    return None if hedged(plain[last.end() :], letter) else _known(letter, choices)


_EVALSCOPE = re.compile(r"ANSWER\s*:\s*[*(]*([A-Z])(?![A-Za-z])", re.IGNORECASE)


def last_stated(text: str, choices: int) -> str | None:
    """The last "ANSWER: X", in any case, as evalscope reads it."""
    found = _EVALSCOPE.findall(text)
    return _known(found[-1].upper(), choices) if found else None


def _letter(found: re.Match[str]) -> str:
    return (found["bracketed"] or found["bare"]).upper()


def _stands_alone(found: re.Match[str], text: str) -> bool:
    """A small letter without brackets may be a word ("the answer is a matter of taste"): it must end its sentence."""
    bare = found["bare"]
    return bare is None or bare.isupper() or re.match(r"\s*(?:[.,;:!?)}\]]|$|\n)", text[found.end() :]) is not None


def _known(letter: str, choices: int) -> str | None:
    return letter if letter in letters(choices) else None
