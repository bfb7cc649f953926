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


# A tag that opens a line, in whatever marks: "**[Answer]**:", "### [答案]", "> `[Answer]`", "<b>[answer]</b>".
# Runs are bounded: two of them side by side cost quadratic time on a line of spaces.
_TAG_TEXT = r"\\?[\[【]\s{0,9}(?:(?P<answer>answer)|答案)\s{0,9}\\?[\]】]"
_TAG_LINE = re.compile(r"(?:^|\n)[ \t>#*_`~|-]{0,40}(?:<(?:b|strong|h\d)>[ \t]{0,9})?" + _TAG_TEXT, re.IGNORECASE)
_TAG = re.compile(_TAG_TEXT, re.IGNORECASE)
_BEHIND_TAG = re.compile(r"(?:[ \t]*(?:[*_`~]+(?=\s|[:：]|$)|[:：]|</(?:b|strong|h\d)>))+|(?<=\])\*\*(?=\S)")
_FENCE = re.compile(r"(?:```|~~~)\w*")
_MARKS = "*_` "  # of emphasis and code


def answer_area_strict(text: str) -> str:
    """What follows the last tag that opens a line, else the last tag; without one, the whole text.

    [Answer] wins over [答案], as in compat. Marks around the tag (bold, a heading, a colon) are no part of the answer.
    """
    for form in (_TAG_LINE, _TAG):
        tags = list(form.finditer(text))
        tags = [tag for tag in tags if tag["answer"]] or tags
        if tags:
            end = tags[-1].end()
            behind = _BEHIND_TAG.match(text, end)
            return text[behind.end() if behind else end :].strip()
    return text.strip()


def has_chinese(text: str) -> bool:
    """Whether a Chinese character is in the text."""
    return any("\u4e00" <= character <= "\u9fff" for character in text)


def collapse(text: str) -> str:
    """Runs of white space become one space; none at the ends."""
    return " ".join(text.split())


def lines_of(area: str) -> list[str]:
    """The area's lines, lower-cased and collapsed. Only "\\n" ends a line; inner blank lines stay as ""."""
    return [collapse(line) for line in area.lower().split("\n")]


def items_of(area: str, golds: Collection[str]) -> list[str]:
    """The items of a strict area: its lines without blank ones and code fences, and, where a line is not itself a gold,
    without its list bullet and the emphasis around it.
    """
    lines = (line for line in lines_of(area) if line and (line in golds or not _FENCE.fullmatch(line)))
    return [line if line in golds else _bare_item(line, golds) for line in lines]


def _bare_item(line: str, golds: Collection[str]) -> str:
    bare = _BULLET.sub("", line, count=1)
    unmarked = line.strip(_MARKS)
    for candidate in (bare, bare.strip(_MARKS), unmarked, _BULLET.sub("", unmarked, count=1)):
        if candidate in golds:
            return candidate
    return bare
