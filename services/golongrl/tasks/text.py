"""Finding the answer in a response: the think gate, the answer area, its lines.

A response is `<think>reasoning</think>answer`, where the chat template may already have written the opening tag.
Nothing here normalises Unicode or strips punctuation: two strings are the same answer only if they are equal after
lower-casing and collapsing white space. `strict` lines also lose list bullets, and only where that is needed to match.
"""

import re
from collections.abc import Collection

OPEN, CLOSE = "<think>", "</think>"
TAGS = ("[Answer]", "[答案]")  # in order of precedence

# "- item", "* item", "• item", "1. item", "2) item", "(3) item", "4、item". A dash needs a space behind it:
# "-17" is a number.
_BULLET = re.compile(r"(?:[-*•·‣–—]\s+|\(?\d{1,3}[.)]\s+|\d{1,3}、\s*|（\d{1,3}）\s*)(?=\S)")


def gate(response: str, *, strict: bool) -> str:
    """Why the response is worth 0 before any metric looks at it, or "".

    It must hold exactly one </think> and at most one <think>, case-sensitively; strict also wants them in that order.
    """
    closings, openings = response.count(CLOSE), response.count(OPEN)
    if not closings:
        return f"no {CLOSE}"
    if closings > 1 or openings > 1:
        return "more than one think block"
    if strict and openings and response.index(OPEN) > response.index(CLOSE):
        return f"{OPEN} after {CLOSE}"
    return ""


def after_think(response: str) -> str:
    """The text behind the last </think>."""
    return response.rpartition(CLOSE)[2]


def answer_area(text: str) -> str:
    """What follows the last [Answer]; without one, the last [答案]; without either, the whole text. Stripped."""
    for tag in TAGS:
        _, found, area = text.rpartition(tag)
        if found:
            return area.strip()
    return text.strip()


def collapse(text: str) -> str:
    """Runs of white space become one space; none at the ends."""
    return " ".join(text.split())


def lines_of(area: str) -> list[str]:
    """The area's lines, lower-cased and collapsed. Only "\\n" ends a line; inner blank lines stay as ""."""
    return [collapse(line) for line in area.lower().split("\n")]


def items_of(area: str, golds: Collection[str]) -> list[str]:
    """The lines of a strict area: no blank ones, and no list bullet on a line that is not itself a gold."""
    return [line if line in golds else _BULLET.sub("", line, count=1) for line in lines_of(area) if line]
