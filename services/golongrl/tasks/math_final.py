r"""Finding the final answer of a math response, and the plain text that it is.

It is the last \boxed{...}, else what follows the last "answer is" on its line, else what the last line marks: its one
bold part or formula, or what its last "is" leads to. What stands without a box is judged as if it stood in one, so that
"42 or 41" is a choice and no number.

What stands around the last box counts: what takes it back before or behind it leaves the text before it (`standing`),
what changes its value belongs to it, and another answer that is offered or corrects it voids it (`offers_two`).
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from golongrl.tasks import quantity, units
from golongrl.tasks.notation import plain
from golongrl.tasks.spelling import one_spelling
from golongrl.tasks.words import ANSWER, IS

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_STATED = re.compile(
    rf"(?:answer|result|{ANSWER}|答案?|结果)(?:\s*(?:{IS})|\s*[为是:：→]|\s+[-–](?=\s))"
    r"\s*[:：]?\s*(?P<answer>[^\n]+)",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"[\s$*]*(?:(?P<word>%|\\%|‰|[^\W\d_]+)|"
    r"(?:\\[,;: ]|~)?\\(?:text|mathrm|textrm|mbox)\s?\{\s*(?P<whole>[^{}]{1,40})\})"
)
_HEDGE = re.compile(r"[\s$,，、/]*(?:or|and|或|或者|和|及)?[\s$,，、/]*", re.IGNORECASE)
_NOT = re.compile(  # before a box
    r"(?:(?:\bnot|\bcannot|\bnever|n['’]t)(?: (?:be|say|accept|answer|think it is))?|\brather than|\binstead of|不是|"
    r"\b(?:any|every)(?:thing| \w+)? (?:but|except)|\bother than|\bexcept|"
    r"\b(?:some|they|others) (?:\w+ )?(?:say|think|claim)|"
    r"\b(?:wrong|incorrect|false|mistaken)\b[^.,;:\n]{0,20}\s(?:is|was|be|say))[\s$]*\Z",
    re.IGNORECASE,
)
_WRONG = r"(?:wrong|incorrect|false|mistaken|untrue|(?:my|a) (?:\w+ )?guess)"
_TAKEN_BACK = re.compile(  # behind one
    r"[\s$*.,;!()\[\]—–-]*(?:\?(?!\s*Yes)|[✗✘❌]|"
    rf"(?:(?:but|though|however),?\s)?(?:(?:which|that|this|it)\b(?: (?:answer|value|number|result))?\s?)?"
    rf"(?:(?:is|was|seems|['’]s)\s(?:\w+ly )?{_WRONG}|{_WRONG}(?=[)\].!\s]*\Z)|"
    r"(?:(?:is|was|does|ca)n['’]t|(?:is|was|does|can)\s?not)\s(?:be )?(?:the )?"
    r"(?:right|correct|answer|true|work|fit))\b|"
    r"(?:i (?:retract|withdraw|take)|(?:please )?(?:ignore|disregard|scratch|strike|forget)) "
    r"(?:that|this|it|my|the above)\b|"
    r"never ?mind|[^\n.]{0,9}\bor (?:not|something|some|any|another|else|none|neither|both)\b|是错)",
    re.IGNORECASE,
)
# Between two boxes that are both offered: no word but one that joins or weighs. "=", arrows and dots lead to the last.
_OFFERS = re.compile(
    r"(?!\s*:\s*\Z)(?:[^\w=→⇒>.…]|\b[a-z\d]\b[.]?|answer)*|"
    r"(?!.*\b(?:so|thus|hence|therefore|but|not|wrong|actually|instead)\b)"
    r"[^.!?。\n=→⇒>]*\b(?:or|vs|versus|another|the other|less likely|alternatively|otherwise|else|unless|if|possibly|"
    r"perhaps|maybe|\d+\s?%)[^\w][^.!?。\n=→⇒>]*|.*\bsecond (?:guess|choice|option)\W*",
    re.IGNORECASE | re.DOTALL,
)


_VALUE = r"\$?(?P<number>-?(?:\\[a-z]{2,5}\{?)?[^\s\w,;:()$=-]{0,2}\d[^\s,;()$=]{0,20}?)(?P<unit>(?:\s[^\W\d_]{1,15})?)"
_CORRECTS = (
    r"\b(?:wait|actually|correction|edit|update|p\.?s\.?|sorry|kidding|oops|hmm|scratch that|on second thoughts?|"
    r"i (?:mean|meant|believe|think)|make (?:that|it)|it should be|"
    r"(?:the|my|final|correct|real|true) answer|truth|no)\b|"
    r"更正|不对|等等|应该是|答案"
)
_ENDS = r"(?=[^\S\n]*(?:[.,;!?)\]$*|]|\n|\Z))"
# Behind a box, another number: one that is offered ("\\boxed{42}, or maybe 43", "(43 if the header counts)"), or one
# that a correction or a later statement ends with.
_ELSE = tuple(
    re.compile(form + _VALUE + behind, re.IGNORECASE | re.DOTALL)
    for form, behind in (
        (r"[^\S\n]*\$?(?:[,;/|&]|and\b)?[^\S\n]*(?:\[(?=\S+\?))?", _ENDS + r"(?![.,]\d)"),
        (
            r"[\s$]*(?:[,;.(\[]?\s?\b(?:or|alternatively|otherwise|runner-up|或者?|可能)\b[,:]?\s?"
            r"(?:(?:maybe|perhaps|possibly|even|else|it is|是|if \w+,)\s)*|"
            r"[^\d\n]{0,60}\b(?:maybe|perhaps|possibly|(?:could|may|might)(?: also)? be|probably|"
            r"second (?:guess|choice)[:,]?|(?:runner|back)-?up[:,]?|fallback[:,]?)\s|\((?=\S+ if\b))",
            r"(?![^\W\d_]|[.,]?\d| ?[=+*/×-])",
        ),
        (
            rf".*(?:{_CORRECTS})"
            r"(?:[\s,:;.—–-]*|.*(?:\b(?:so|is|are|(?<!would )be|to|it|that|answer|no)[,:]?\s|[:=：是]\s?))",
            r"[.!$)*\s。]*\Z",
        ),
        (r"[^\n]*\s", r" (?:is|was) (?:also |more )?(?:right|correct|better|the (?:right |correct )?answer)\b"),
    )
)
_OR_NO_NUMBER = re.compile(
    r"[\s$*,()]*(?:or|或者?)\s(?!in (?:other|words)|equivalently|simply|just|more|less|rather)|"
    r"[\s$*.…,;—–-]*(?:wait|actually|no|sorry|correction|oops|edit)\b,?(?: no\b)?\s?[,:]\s?(?!yes)",
    re.IGNORECASE,
)
_CASE = re.compile(r"\b(?:if|unless|otherwise|in case)\b|如果|若", re.IGNORECASE)
_LEAD = re.compile(r"(?:\A|[\n.!?。;])\s*(?!step|then)(?P<lead>[^\n.!?。;$]*\w[^\n.!?。;$]*?)[\s$*]*\Z", re.IGNORECASE)
# What stands so close to a box that it belongs to its value: "-\\boxed{42}", "\\boxed{42}^2", "\\boxed{42}k".
_GLUED_BEFORE = re.compile(
    r"(?:(?<![\w)}\]!]\s)|(?<=[a-z]{2}\s))(?<![\w)}\]!])(?P<sign>-|−|\d+)\Z|"
    r"(?P<bound>\b(?:(?:no )?(?:more|less|fewer|greater|larger|smaller|higher|lower) than|at (?:least|most)|"
    r"up to)\s)\$?\Z",
    re.IGNORECASE,
)
# A formula of numbers around a box and of no sides: "$\\sqrt{\\boxed{42}}$", "$\\boxed{42}\\pm 1$".
_ARITHMETIC = re.compile(
    r"(?:[\d.+*/^!(){} |<>≤≥≠±√-]|\\(?:[dt]?frac|sqrt|cdot|times|div|pm|mp|lnot|neg|pi|left|right|leq?|geq?|neq?|sim)"
    r"(?![a-z]))*"
)
_OPERATOR = re.compile(r"[\d+*/^!|<>≤≥≠±√-]|\\(?!left|right)[a-z]")
_GLUED_BEHIND = re.compile(  # possessive: "111...=" would be tried in every division
    r"(?P<more>(?:\s?\^\s?(?:\{[^{}]{1,30}\}|\\circ|\w)|!(?=[\s$.,;!]|\Z)|[.,]?\d[\d.,]*\d|[.,]?\d|\\pi(?![a-z])|"
    r"\\sqrt\s?\{[^{}]{1,30}\}|"
    r"\s?(?:\\times|\\cdot|[*/])\s?\d[\d.]*(?:\s?\^\s?(?:\{[^{}]{1,30}\}|\d))?|[+-]\d[\d.]*|[a-zA-Z]{1,2}(?![^\W_]))++)"
    r"(?![^$\n=]*=)"
)


def standing(tail: str) -> str:
    """The text as it is to be judged: up to a box that was cut off or a last one that is taken back ("\\boxed{12}, not
    \\boxed{13}"), and with what changes the last box's value inside it.

    A box without its end was cut off with the response: "\\boxed{4" may be the beginning of 42. math-verify, and so
    compat, finds no answer in it either.
    """
    boxes = boxes_in(tail)
    for cut in _BOX.finditer(tail, boxes[-1][1] if boxes else 0):
        if _closing(tail, cut.end()) is None:
            tail = tail[: cut.start()]
            break
    if not boxes:
        return tail
    start, end, inner = boxes[-1]
    if _NOT.search(tail, 0, start):
        return tail[:start]
    if _TAKEN_BACK.match(tail, end):
        return tail[:start] if len(boxes) > 1 else ""
    left, right = tail.rfind("$", 0, start) + 1, tail.find("$", end)
    around = tail[left:start], tail[end:right]
    if left and right > 0 and all(map(_ARITHMETIC.fullmatch, around)) and any(map(_OPERATOR.search, around)):
        return f"{tail[:left]}\\boxed{{{around[0]}{_operand(inner)}{around[1]}}}{tail[right:]}"
    before, behind = _GLUED_BEFORE.search(tail, max(0, start - 20), start), _GLUED_BEHIND.match(tail, end)
    sign, more = "".join(filter(None, before.groups())) if before is not None else "", behind["more"] if behind else ""
    if not sign and not more:
        return tail
    start = before.start() if before is not None else start
    return f"{tail[:start]}\\boxed{{{sign}{_operand(inner)}{more}}}{tail[end + len(more) :]}"


def _operand(inner: str) -> str:
    return inner if re.fullmatch(r"[\d.,]+", inner) else f"({inner})"


def offers_two(tail: str) -> bool:
    """Whether the last two boxes differ and are both offered, in another way than math-verify reads as a set, or
    another number is offered behind the last box or corrects it.
    """
    (_, end, one), (start, last, other) = [(0, 0, ""), (0, 0, ""), *boxes_in(tail)][-2:]
    between = tail[end:start]
    differ = bool(one) and text_of(one) != text_of(other)
    if differ and not _HEDGE.fullmatch(between) and _OFFERS.fullmatch(between):
        return True
    first = boxes_in(tail)[-2][0] if one else 0
    found_leads = [found["lead"] for found in (_LEAD.search(tail[:first]), _LEAD.search(between)) if found]
    leads = [re.sub(r"\d+|\b[a-z]\b", "", lead) for lead in found_leads]
    if differ and len(leads) == 2 and leads[0] == leads[1]:
        return True  # "Candidate 1: ... Candidate 2: ..."
    sentences = re.split(r"[.!?。;；\n]", tail[:start]), re.split(r"[.!?。;；\n]", tail[last:])
    if differ and all(map(_CASE.search, (between, sentences[0][-1] + sentences[1][0]))):
        return True
    number = quantity.read(text_of(other)) if other else None
    if other and number is None:
        return _OR_NO_NUMBER.match(tail, last) is not None
    for form in _ELSE if number is not None else ():
        found = form.match(tail, last)
        if found is not None and number is not None:
            others = [quantity.read(text_of(text)) for text in (found["number"], found["number"] + found["unit"])]
            if others[0] is not None and all(two is None or not quantity.same(number, two) for two in others):
                return True
    return False


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


def boxes_in(tail: str) -> Sequence[tuple[int, int, str]]:
    """(start, end, content) of the innermost boxes with balanced braces; "\\boxed{}" and "\\boxed{...}" are none."""
    found = []
    for opening in _BOX.finditer(tail):
        end = _closing(tail, opening.end())
        content = tail[opening.end() : end]
        if end is not None and content.strip(" .…") and not _BOX.search(content):
            found.append((opening.start(), end + 1, content))
    return found


def _closing(text: str, start: int) -> int | None:
    """Where the brace that was opened before `start` is closed."""
    depth = 1
    for i in range(start, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if not depth:
            return i
    return None


@lru_cache(maxsize=1024)  # asked for the same box several times
def text_of(written: str) -> str:
    """What is compared as a text: plain, in one spelling."""
    return one_spelling(plain(written))
