"""Which option of a multiple-choice question a reply names.

The strict rule, for any number of options: the last statement of an answer counts, in any of the usual forms ("The
correct answer is (X)", "Answer: X", "ANSWER: X", "the best option is X", \\boxed{X}, "答案是X"), in any case. A letter
must stand alone ("Apple" and "A-level" name no option), be one of the question's options, and not be offered together
with another one ("A or B"). A reply that is nothing but an option names it. Nothing is guessed: "I think so" names
none.
"""

import re
from collections.abc import Iterable

from golongrl.tasks import options


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
    letter = options.stated(options.plain(text))
    return None if letter is None else _known(letter, choices)


_EVALSCOPE = re.compile(r"ANSWER\s*:\s*[*(]*([A-Z])(?![A-Za-z])", re.IGNORECASE)


def last_stated(text: str, choices: int) -> str | None:
    """The last "ANSWER: X", in any case, as evalscope reads it."""
    found = _EVALSCOPE.findall(text)
    return _known(found[-1].upper(), choices) if found else None


def _known(letter: str, choices: int) -> str | None:
    return letter if letter in letters(choices) else None
