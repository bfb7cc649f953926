r"""Finding the final answer of a math response, and the plain text that it is.

It is the last \boxed{...}, else what follows the last "answer is" on its line, else what the last line marks: its one
bold part or formula, or what its last "is" leads to. What stands without a box is judged as if it stood in one, so that
"42 or 41" is a choice and no number.
"""

import re

from golongrl.tasks import quantity, units
from golongrl.tasks.math_boxes import HEDGE, boxes_in, text_of
from golongrl.tasks.words import ANSWER, IS

_STATED = re.compile(
    rf"(?:answer|result|{ANSWER}|答案?|结果)(?:\s*(?:{IS})|\s*[为是:：→]|\s+[-–](?=\s))"
    r"\s*[:：]?\s*(?P<answer>[^\n]+)",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"[\s$*]*(?:(?P<word>%|\\%|‰|[^\W\d_]+)|"
    r"(?:\\[,;: ]|~)?\\(?:text|mathrm|textrm|mbox)\s?\{\s*(?P<whole>[^{}]{1,40})\})"
)


def answers_in(tail: str) -> list[str]:
    """The texts that may be the final answer, plain: none where several boxes stand side by side."""
    boxes = boxes_in(tail)
    if not boxes:
        stated = [found["answer"] for found in _STATED.finditer(tail)]
        return [text_of(_marked(stated[-1] if stated else _last_line(tail)))]
    start, end, inner = boxes[-1]
    answer = text_of(inner)
    if len(boxes) > 1 and text_of(boxes[-2][2]) != answer and HEDGE.fullmatch(tail[boxes[-2][1] : start]):
        return []
    return [answer + _unit_behind(tail, end)]


def _unit_behind(text: str, end: int) -> str:
    behind = _BEHIND.match(text, end)
    if behind is None:
        return ""
    whole = (behind["whole"] or "").strip()
    word = behind["word"] or whole
    return f" {word.removeprefix(chr(92))}" if _is_scale_or_unit(word, whole=bool(whole)) else ""


_IS = re.compile(
    r".*\b(?:is|are|was|were|equals?|it['’]s|contains?|has|have|totals?)\s+(\S.*)|\D*\s(?:in|by|say|=)\s+(\S+)"
    r"|\D*[是为]\s*(\d.*)",
    re.IGNORECASE,
)
_FORMULA = re.compile(r"\$([^$\n]+)\$|\\\((.+?)\\\)|(?<![\w)])\*\*(?=\S)([^*\n]*[^*\n:：])\*\*(?!\w|\s?[:：])")
_SO = re.compile(r"(?:so|thus|hence|therefore)[,:]?\s+", re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w)])\*\*(?=\S)([^*\n]+)\*\*")


def _last_line(text: str) -> str:
    """The last line with a word or digit, or all lines as a list where each is a number."""
    lines = [line for line in text.splitlines() if re.search(r"\w", line)] or [""]
    numbers = len(lines) > 1 and all(quantity.read(text_of(line)) is not None for line in lines)
    return ", ".join(lines) if numbers else lines[-1]


def _marked(line: str) -> str:
    """Of an unboxed line its one formula or bold part, or what its last "is" leads to; else all of it, so that a choice
    stays one.
    """
    parts = {found[1] or found[2] or found[3]: found.end() for found in _FORMULA.finditer(line)}
    if len(parts) == 1:
        ((part, end),) = parts.items()
        return part + _unit_behind(line, end)
    line = _SO.sub("", _BOLD.sub(r"\1", line).strip(" .*"), count=1)
    return leads_to(line) or line


def leads_to(sentence: str) -> str:
    """What the last "is" of a sentence leads to, or ""."""
    found = _IS.fullmatch(sentence)
    return next(filter(None, found.groups())) if found is not None else ""


def _is_scale_or_unit(word: str, *, whole: bool) -> bool:
    """Whether what stands behind the box belongs to the answer. Short words ("in", "a", "s") are more often English,
    but where they are the `whole` text of a formula.
    """
    if word in ("%", "\\%", "‰"):
        return True
    if len(word) < 4 and word.isascii() and not whole:
        return False
    scale, rest = units.split_scale(word, money=False)
    unit = units.read_unit(word)
    return (scale != 1 and not rest) or (unit is not None and unit.known)
