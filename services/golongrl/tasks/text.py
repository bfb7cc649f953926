"""Finding the answer in a response: the think gate, the answer area, its lines.

A response is `<think>reasoning</think>answer`, where the chat template may already have written the opening tag.
`compat` does not normalise Unicode: two strings are the same answer only if they are equal after lower-casing and
collapsing white space. `strict` compares texts in one form (`one_form`), and its lines also lose list bullets and other
marks, only where that is needed to match.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping

OPEN, CLOSE = "<think>", "</think>"
TAGS = ("[Answer]", "[答案]")  # in order of precedence

# What may stand before an item of a list: one to three signs and a space ("- ", "> ", "- [ ] "), a bullet, or a number,
# letter or numeral with the sign that ends it ("1. ", "(b) ", "[3]", "4、", "（五）", "⑥"). A sign without a space
# belongs to the item: "-17" is a number.
_COUNT = r"(?:\d{1,3}|[ivx]{1,4}|[a-z]|[一二三四五六七八九十]{1,3})"
_BULLET = re.compile(
    r"^(?:<li>|[^\w\s]{1,3}\s+|[•·‣▪■●○◦►▶✓✔]\s*|[\u2460-\u24ff\u2776-\u2793\u3220-\u3229]\s*|\d\ufe0f?\u20e3\s*|"
    rf"[#(\[]?{_COUNT}\s?(?:[.:)\]]{{1,2}}|[-–—])[*_]{{0,3}}\s+|"  # a space behind the sign
    rf"[(（\[【](?:\d{{1,3}}|{_COUNT})[)）\]】]\s*|(?:\d{{1,3}}|[一二三四五六七八九十]{{1,3}})[、．.)](?!\d)\s*|"
    r"第[一二三四五六七八九十\d]{1,3}[,，、：:]\s*|(?:step|item|rank) \d{1,3}\s?[.:)]\s+|"
    r"(?:the )?(?:final |correct )?answer(?: is)?:\s*|(?:the )?(?:final |correct )?answer is\s+|答案[是为:：]\s*)(?=\S)"
)


# Full-width and half-width forms and Latin ligatures ("ﬁ"), which differ from the usual letters in nothing but width.
_WIDTHS = {
    code: unicodedata.normalize("NFKC", chr(code))
    for code in (0x3000, *range(0xFB00, 0xFB07), *range(0xFF00, 0xFFF0))
    if unicodedata.decomposition(chr(code)).startswith(("<wide>", "<narrow>", "<compat>"))
}
_SPACES = dict.fromkeys((0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F), " ")
# Without a width or a meaning: zero-width space, byte order mark, word joiner, soft hyphen. The joiners of Persian and
# of emoji stay.
_INVISIBLE = dict.fromkeys((0x200B, 0xFEFF, 0x2060, 0xAD), "")
_ONE_FORM = {**_WIDTHS, **_SPACES, **_INVISIBLE}


def one_form(text: str) -> str:
    """The text with every character that looks the same encoded the same way: accents composed (NFC), one width of
    letters, digits and punctuation, one kind of space, "\\n" for a line end, nothing invisible.
    """
    if text.isascii() and "\r" not in text:
        return text
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").translate(_ONE_FORM))


# A comment, a phantom, what is struck out.
_HIDDEN = re.compile(
    r"^[ \t]*%[^\n]*|<!--.*?(?:-->|\Z)|~~(?=\S)[^\n~]+~~|<(?P<tag>del|s|strike)>.{0,500}?</(?P=tag)>|"
    r"\\(?:[hv]?phantom|[bx]?cancel|sout)\s*\{(?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*\}",
    re.MULTILINE | re.DOTALL,
)


# "<answer>", "</b>", "<br />", "<|im_end|>", "[/Answer]"; a capital alone is an option in brackets ("<B>"), and what
# opens behind a word belongs to it ("vector<int>").
_NAME = r"(?:[a-z]|[A-Za-z]\w{1,8}) ?"
_HTML = re.compile(rf"</{_NAME}>|(?<!\w)<{_NAME}/?>|<br ?/?>|<\|\w{{1,20}}\|>|\[/(?:[Aa]nswer|答案)\]")


def seen(text: str) -> str:
    """The text without tags and without what its reader would not see, or see struck out."""
    return _HTML.sub(" ", _HIDDEN.sub("", text))


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


# A tag that opens a line, in whatever marks: "**[Answer]**:", "### [答案]", "> `[Answer]`", "$\\textbf{[Answer]}$".
# Runs are bounded: two of them side by side cost quadratic time on a line of spaces.
_TAG_TEXT = r"\\?[\[【［][ *_`\t]{0,9}(?:(?P<answer>(?:final )?answer)|答案)[ *_`\t]{0,9}\\?[\]】］]"
_TAG_LINE = re.compile(
    r"(?:^|\n)[ \t>#*_`~|$\u200b\ufeff-]{0,40}(?:\d{1,2}[.)][ *_]{1,9})?"
    r"(?:(?:<[a-z]\w{0,9}>|\\[a-z]{2,9}\{|\\[\[(])[ \t]{0,9}){0,3}" + _TAG_TEXT,
    re.IGNORECASE,
)
_TAG = re.compile(_TAG_TEXT, re.IGNORECASE)
_BEHIND_TAG = re.compile(
    r"(?:[ \t]*(?:[*_`~}$]+(?=\s|[:：\\]|$)|[:：]|\\[\])](?=\s|$)|</[a-z]\w{0,9}>|&nbsp;))+|(?<=[\]】］])\*\*(?=\S)",
    re.IGNORECASE,
)
# A code fence, a rule, a tag.
_NO_ITEM = re.compile(rf"(?:```|~~~)\w*|[-=*_~]{{3,}}|{_HTML.pattern}")
_MARKS = "*_`|\"'“”‘’„«»‹›「」『』《》() "  # of emphasis, code, tables, quotation and brackets
_ENDS = ".,;。，；、"
_EMPHASIS = re.compile(r"(\*{1,3}|__|`|==)(?=\S)(.{1,200}?)(?<=\S)\1|\$([^$]{1,200})\$")
_COMMAND = re.compile(r"\\(?:boxed|text(?:bf|it|rm)?|math(?:bf|rm))\s?\{([^{}]{1,500})\}")
_ESCAPE = re.compile(r"\\(?=[.()*_#+>-])")  # Markdown's, of a sign that would be a mark: "1\\. Paris"
_MOST_MARKS = 5  # around one item: "> - [x] **1.** item"


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
    """The items of a strict area: its lines without blank ones, rules and code fences, and, where a line is not itself
    a gold, the gold that it is but for the marks around either (`_gold_of`).
    """
    lines = (line for line in lines_of(area) if line and (line in golds or not _NO_ITEM.fullmatch(line)))
    forms = {bare: gold for gold in golds if (bare := _bare(gold))} | {gold: gold for gold in golds}
    return [line if line in golds else _gold_of(line, forms) for line in lines]


def _bare(item: str) -> str:
    return item.strip(_MARKS).rstrip(_ENDS).rstrip(_MARKS)


def _gold_of(line: str, forms: Mapping[str, str]) -> str:
    """The gold one of whose forms is left when marks are taken off the line one by one; else the line."""
    plain = [_without_commands(text) for text in (line, _EMPHASIS.sub(r"\2\3", line), _ESCAPE.sub("", line))]
    for rest in dict.fromkeys((line, *plain)):
        for _ in range(_MOST_MARKS):
            inner = rest.strip(_MARKS)
            bare = _bare(rest)
            for candidate in (rest, inner, rest.rstrip(_ENDS), bare, bare.strip("[]")):
                if candidate in forms:
                    return forms[candidate]
            shorter = _BULLET.sub("", inner or rest, count=1)
            if shorter == rest:
                break
            rest = shorter
    return line


def _without_commands(line: str) -> str:
    line = _HTML.sub("", line)
    for _ in range(_MOST_MARKS if "\\" in line else 0):
        line = _COMMAND.sub(r"\1", line)
    return line
