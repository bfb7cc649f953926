r"""What stands around the last \boxed{...} of a math response and changes what it says.

What takes the box back, before or behind it, leaves the text before it ("\boxed{12}, not \boxed{13}"). What changes
its value belongs to it ("-\boxed{42}", "\boxed{42}^2"): both in `standing`. Another answer that is offered beside it or
corrects it voids it ("\boxed{42}, or maybe 43"): `offers_two`.
"""

import re

from golongrl.tasks import quantity
from golongrl.tasks.math_boxes import BOX, HEDGE, Box, boxes_in, closing, text_of
from golongrl.tasks.notation import RELATION

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
            r"(?![^\W\d_]|[.,]?\d| ?(?:[=+*/×÷·−-]|\\(?:times|cdot|div)))",
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
_SENTENCES = re.compile(r"[.!?。;；\n]")
_NUMBERING = re.compile(r"\d+|\b[a-z]\b")
_CASE = re.compile(r"\b(?:if|unless|otherwise|in case)\b|如果|若", re.IGNORECASE)
_FAR = 3  # sentences between two boxes, so that the second one's condition is no other case of the first
_LEAD = re.compile(r"(?:\A|[\n.!?。;])\s*(?!step|then)(?P<lead>[^\n.!?。;$]*\w[^\n.!?。;$]*?)[\s$*]*\Z", re.IGNORECASE)
# What stands so close to a box that it belongs to its value: "-\\boxed{42}", "\\boxed{42}^2", "\\boxed{42}k".
_GLUED_BEFORE = re.compile(
    r"(?:(?<![\w)}\]!]\s)|(?<=[a-z]{2}\s))(?<![\w)}\]!])(?P<sign>-|−|\d+)\Z|"
    r"(?P<bound>\b(?:(?:no )?(?:more|less|fewer|greater|larger|smaller|higher|lower) than|at (?:least|most)|"
    r"up to)\s)\$?\Z|(?P<relation>" + RELATION + r"\s*)\Z",
    re.IGNORECASE,
)
# A formula of numbers around a box and of no sides: "$\\sqrt{\\boxed{42}}$", "$\\boxed{42}\\pm 1$".
_ARITHMETIC = re.compile(
    r"(?:[\d.+*/^!(){} |<>≤≥≠±√-]|\\(?:[dt]?frac|sqrt|cdot|times|div|pm|mp|lnot|neg|pi|left|right|leq?|geq?|neq?|sim)"
    r"(?![a-z]))*"
)
_EXCLAIMED = re.compile(r"[^\W\d_]{2}[^$\n]*\Z")  # a sentence before "!", which is no factorial then
_OPERATOR = re.compile(r"[\d+*/^!|<>≤≥≠±√-]|\\(?!left|right)[a-z]")
_GLUED_BEHIND = re.compile(  # possessive: "111...=" would be tried in every division
    r"(?P<more>(?:\s?\^\s?(?:\{[^{}]{1,30}\}|\\circ|\w)|!(?=[\s$.,;!]|\Z)|_\{?\w|[.,]?\d[\d.,]*\d|[.,]?\d|\\pi(?![a-z])|"
    r"\\sqrt\s?\{[^{}]{1,30}\}|"
    r"\s?" + RELATION + r"\s?[a-z](?![a-z])|"
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
    for cut in BOX.finditer(tail, boxes[-1][1] if boxes else 0):
        if closing(tail, cut.end()) is None:
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
    if more == "!" and _EXCLAIMED.search(tail, 0, start):
        more = ""
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
    boxes = boxes_in(tail)
    both = len(boxes) > 1 and _offers_both(tail, boxes[-2], boxes[-1])
    return both or (bool(boxes) and _offers_more(tail, boxes[-1]))


def _offers_both(tail: str, one: Box, other: Box) -> bool:
    (start, end, first), (next_start, next_end, second) = one, other
    between = tail[end:next_start]
    if text_of(first) == text_of(second):
        return False
    if not HEDGE.fullmatch(between) and _OFFERS.fullmatch(between):
        return True
    leads = [found["lead"] for found in (_LEAD.search(tail[:start]), _LEAD.search(between)) if found]
    if len(leads) == 2 and len({_NUMBERING.sub("", lead) for lead in leads}) == 1:
        return True  # "Candidate 1: ... Candidate 2: ..."
    sentences = [part for part in _SENTENCES.split(between) if re.search(r"\w", part)] or [""]
    first = _SENTENCES.split(tail[:start])[-1] + (between if len(sentences) < _FAR else sentences[0])
    last = sentences[-1] + _SENTENCES.split(tail[next_end:])[0]
    return bool(_CASE.search(first) and _CASE.search(last))


def _offers_more(tail: str, box: Box) -> bool:
    _, end, inner = box
    number = quantity.read(text_of(inner))
    if number is None:
        return _OR_NO_NUMBER.match(tail, end) is not None
    for found in filter(None, (form.match(tail, end) for form in _ELSE)):
        bare, whole = (quantity.read(text_of(text)) for text in (found["number"], found["number"] + found["unit"]))
        if bare is not None and not any(two is not None and quantity.same(number, two) for two in (bare, whole)):
            return True
    return False
