r"""Finding the final answer of a math response, and the plain text that it is.

It is the last \boxed{...}, else what follows the last "answer is" on its line, else what the last line marks: its one
bold part or formula, or what its last "is" leads to. What stands without a box is judged as if it stood in one, so that
"42 or 41" is a choice and no number.
"""

import re
from collections.abc import Sequence

from golongrl.tasks import quantity, units
from golongrl.tasks.notation import plain
from golongrl.tasks.spelling import one_spelling

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_STATED = re.compile(
    r"(?:answer|result|答案?|结果)(?:\s+is|\s*[为是:：→]|\s+[-–](?=\s))\s*[:：]?\s*(?P<answer>[^\n]+)", re.IGNORECASE
)
_BEHIND = re.compile(r"[\s$*]*(?P<word>%|\\%|‰|[^\W\d_]+)")
_HEDGE = re.compile(r"[\s$,，、/]*(?:or|and|或|或者|和|及)?[\s$,，、/]*", re.IGNORECASE)
_NOT = re.compile(r"(?:(?:\bnot|\bcannot|n['’]t)(?: be)?|\brather than|\binstead of|不是)[\s$]*\Z")  # before a box
_TAKEN_BACK = re.compile(  # behind one
    r"[\s$]*(?:\?\s*No\b|,?\s?(?:(?:which|that|this)\s)?(?:is|was|seems)"
    r"(?:\s(?:wrong|incorrect|false|mistaken|my first)|(?:n['’]t|\snot)\s(?:the )?(?:right|correct|answer))\b|是错)"
)
# Between two boxes that are both offered: no word but one that joins or weighs. "=", arrows and dots lead to the last.
_OFFERS = re.compile(
    r"(?!\s*:\s*\Z)(?:[^\w=→⇒>.…]|\b[a-z\d]\b[.]?|answer)*|(?!.*\b(?:so|thus|hence|therefore|but|not|wrong|actually|instead)\b)"
    r"[^.!?。\n=→⇒>]*\b(?:or|alternatively|otherwise|else|unless|if|possibly|perhaps|maybe|\d\s?%)[^\w][^.!?。\n=→⇒>]*",
    re.IGNORECASE,
)


# Behind a box, another number: "\\boxed{42}, or maybe 43", "\\boxed{42} (43 if the header counts)".
_OR_ELSE = re.compile(
    r"[\s$]*(?:[,;(]?\s?(?:or|alternatively|或者?)\b,?\s?(?:(?:maybe|perhaps|possibly|even|else)\s)*|(?P<bare>\())\$?"
    r"(?P<number>[^\s,;()$]*\d[^\s,;()$]*)(?P<behind>\s[^\W\d_]+)?",
    re.IGNORECASE,
)


def unnegated(tail: str) -> str:
    """The text up to a last box that is taken back: "\\boxed{12}, not \\boxed{13}", "\\boxed{13} is wrong"."""
    boxes = boxes_in(tail)
    if not boxes:
        return tail
    start, end, _ = boxes[-1]
    return tail[:start] if _NOT.search(tail, 0, start) or _TAKEN_BACK.match(tail, end) else tail


def offers_two(tail: str) -> bool:
    """Whether the last two boxes differ and are both offered, in another way than math-verify reads as a set, or
    another number is offered behind the last box.
    """
    (_, end, one), (start, last, other) = [(0, 0, ""), (0, 0, ""), *boxes_in(tail)][-2:]
    between = tail[end:start]
    if one and text_of(one) != text_of(other) and not _HEDGE.fullmatch(between) and _OFFERS.fullmatch(between):
        return True
    found = _OR_ELSE.match(tail, last) if other else None
    number = quantity.read(text_of(other)) if found is not None else None
    if found is None or number is None or (found["bare"] and (found["behind"] or "").strip() != "if"):
        return False
    others = [quantity.read(text_of(text)) for text in (found["number"], found["number"] + (found["behind"] or ""))]
    return others[0] is not None and all(two is None or not quantity.same(number, two) for two in others)


def answers_in(tail: str) -> list[str]:
    """The texts that may be the final answer, plain: none where several boxes stand side by side."""
    boxes = list(boxes_in(tail))
    if not boxes:
        stated = [found["answer"] for found in _STATED.finditer(tail)]
        return [text_of(_marked(stated[-1] if stated else _last_line(tail)))]
    start, end, inner = boxes[-1]
    answer = text_of(inner)
    if len(boxes) > 1 and text_of(boxes[-2][2]) != answer and _HEDGE.fullmatch(tail[boxes[-2][1] : start]):
        return []
    return [answer + _unit_behind(tail, end)]


def _unit_behind(text: str, end: int) -> str:
    behind = _BEHIND.match(text, end)
    word = behind["word"] if behind is not None else ""
    return f" {word.removeprefix(chr(92))}" if word and _is_scale_or_unit(word) else ""


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


def _is_scale_or_unit(word: str) -> bool:
    """Whether a word behind the box belongs to the answer. Short words ("in", "a", "s") are more often English."""
    if word in ("%", "\\%", "‰"):
        return True
    if len(word) < 4 and word.isascii():
        return False
    scale, rest = units.split_scale(word, money=False)
    unit = units.read_unit(word)
    return (scale != 1 and not rest) or (unit is not None and unit.known)


def boxes_in(tail: str) -> Sequence[tuple[int, int, str]]:
    """(start, end, content) of the innermost boxes with balanced braces; "\\boxed{}" and "\\boxed{...}" are none."""
    found = []
    for opening in _BOX.finditer(tail):
        depth = 1
        for i in range(opening.end(), len(tail)):
            depth += (tail[i] == "{") - (tail[i] == "}")
            if not depth:
                content = tail[opening.end() : i]
                if content.strip(" .…") and not _BOX.search(content):
                    found.append((opening.start(), i + 1, content))
                break
    return found


def text_of(written: str) -> str:
    """What is compared as a text: plain, in one spelling."""
    return one_spelling(plain(written))
