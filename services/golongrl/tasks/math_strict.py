"""A math answer judged by what it says, before math-verify is asked what it evaluates to.

math-verify drops units and scale words, rounds to six decimals, evaluates dates and ranges, multiplies the letters of
words, and cannot read text outside ASCII. So the final answer is first read as people write answers: the same text
(notation.py), a date, time, range or code (dates.py), a number with scale and unit (quantity.py). Only what none of
these decides goes to math-verify, with exact numbers compared to full precision (precise.py).

Of what math_final.py finds to be the answer, only a sentence that marks nothing is no answer, whatever is in it. An
answer that names several numbers side by side names none.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

from golongrl.tasks import algebra, dates, math_answer, quantity
from golongrl.tasks.math_around import offers_two, standing
from golongrl.tasks.math_boxes import boxes_in, text_of
from golongrl.tasks.math_final import answers_in, leads_to
from golongrl.tasks.notation import RELATION, is_prose, is_words, plain, same_text
from golongrl.tasks.spelling import one_spelling

LONGEST_GOLD = 500  # characters; a longer gold is for math-verify alone


def equal(golds: Sequence[str], text: str) -> float:
    """1 if the final answer of `text` says what any of `golds` says. Raises as `math_answer.equal`."""
    tail = standing(text[-math_answer.TAIL :])
    if offers_two(tail):
        return 0.0
    answers = answers_in(tail)
    sentence = not boxes_in(tail)
    open_golds = []
    for gold in golds:
        verdict = _verdict(gold, answers, sentence=sentence) if len(gold) <= LONGEST_GOLD else None
        if verdict:
            return 1.0
        if verdict is None:
            open_golds.append(_as_latex(gold))
    if not open_golds:
        return 0.0
    if answers and (sentence or _is_respelled(boxes_in(tail)[-1][2])):
        tail = f"\\boxed{{{answers[0]}}}"
    return math_answer.equal(open_golds, tail, strict=True)


def _is_respelled(text: str) -> bool:
    """Whether one spelling is another than the written one, which math-verify may not know: "√2", "2²", "1.2e3"."""
    written = plain(text)
    return _RAISED.search(text) is not None or one_spelling(written) != written


_RAISED = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]")


def _as_latex(gold: str) -> str:
    return _plain_gold(gold) if _is_respelled(gold) else gold


@lru_cache(maxsize=1024)
def _plain_gold(gold: str) -> str:
    boxes = boxes_in(gold)
    return text_of(boxes[-1][2] if boxes else gold)


def _verdict(gold: str, answers: list[str], *, sentence: bool) -> bool | None:
    """Whether the answer, perhaps a sentence, says what the gold says; None where only math-verify can tell."""
    golden = _plain_gold(gold)
    if not answers:
        # Without a text to compare, what math-verify would evaluate must not be a date or a word.
        judged = dates.read(golden) is not None or is_words(golden)
        number = quantity.read(golden)
        return False if judged and number is None else None
    verdict = _says(golden, answers[0])
    return False if verdict is None and sentence and is_prose(answers[0]) else verdict


def says_nothing(gold: str) -> bool:
    """Whether a gold answer is empty once its marks are set aside, so that an empty box would be right."""
    return not (gold.strip() if len(gold) > LONGEST_GOLD else _plain_gold(gold))


# What math-verify drops in front of a number, or of whose two sides it keeps one: "at most 12" is not 12.
_RELATION = re.compile(RELATION + r"|[→⇒¬]|\\(?:neg|lnot|to|rightarrow|Rightarrow|implies|mapsto|[bp]?mod)(?![a-zA-Z])")
# An extreme of one number without its set, which math-verify reads as the number.
_EXTREME = re.compile(r"\\(?:max|min|sup|inf)\s*\{?\s*[-+]?\d+(?:\.\d+)?\s*\}?")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
# How far two sides of an equation may be from each other relative to their size: "1/3 = 0.33" is rounded.
_ROUNDED = Fraction(1, 50)
# Letters and digits with a capital among them are a name or a code, in which the order counts; small ones are algebra.
_CODE = re.compile(r"(?=[^A-Z]*[A-Z])[A-Za-z0-9]+(?:\.\d+)?")


def _untrue(answer: str) -> bool:
    """Whether it is an equation of numbers that differ, of which math-verify takes the last: "13 = 12", "6+7 = 12"."""
    numbers = [algebra.number(side.strip()) for side in answer.split("=")]
    known = [number for number in numbers if number is not None]
    if len(known) < len(numbers):
        *firsts, last = answer.split("=")
        exact = [side for side in firsts if _FACTORIAL.fullmatch(side.strip())]
        return any(not math_answer.equal([last.strip()], f"\\boxed{{{side}}}", strict=True) for side in exact)
    return max(known) - min(known) > _ROUNDED * max(map(abs, known))


_FACTORIAL = re.compile(r"(?=.*(?:!|binom))(?:[\d!+*/^(){}\s-]|\\(?:d?binom|times|cdot|d?frac)(?![a-z]))+")
_BOUND = re.compile(r"(?:[<>]|\\[gl]eq\s)")  # without the letter that it bounds
_BASE = re.compile(r"\d\s?_\s?\{?\s?\w")  # a number of another base
_OPEN_END = re.compile(r"\?|\.\.\.|…|\\[lcd]?dots(?![a-z])")  # a question, or a value that goes on
_WITH_INFINITY = re.compile(r"\\infty\s*\]|\[\s*[-+]?\s*\\infty")  # no interval is closed there


# What a value is the value of, or where it stands: "Total: 42", "page 42", "x = 5 cm".
_LABEL = re.compile(
    r"(?:[^\W\d_][^\d:：=,;$\\]{1,40}[:：]\s*(?=[^\s:])|"
    r"(?:FY|(?:page|line|chapter|section|table|figure|paragraph|article|clause|question|volume|version|rank|position)s?)"
    r"\s?(?=\d)|(?:option|choice)\s(?=\(?[A-Z]\)?$)|[A-Z](?:_\{?\w{1,9}\}?)?\s?=\s?(?=[^=,;]*\Z))",
    re.IGNORECASE,
)
_DEGREES = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?°(?![CF])")
_TRUTHS = ("yes", "no", "true", "false")
# What the answer is told apart from: "42, not 43".
_CONTRAST = re.compile(
    r"(?:,\s(?:and\s)?not|\s\(not(?!\s(?:sure|certain))|,?\s(?:rather than|instead of|as opposed to))"
    r"\s[^,;()]{1,60}\)?$",
    re.IGNORECASE,
)
_NUMBERED = re.compile(
    r"(?:section|chapter|figure|table|article|clause|paragraph|version)s?\s\d+\.\d|v\d+\.\d", re.IGNORECASE
)
# A sentence that names a number and does not give it as the answer: "Not enough data: 42".
_REFUSES = re.compile(
    r"\D*(?:\b(?:not|no|none|never|neither|nor|cannot|unknown|unclear|unsure|insufficient|impossible|maybe|perhaps|"
    r"possibly|if|unless|could|might|may(?!,?\s\d)|doubt|wrong)\b|n['’]t\b|不|没|无法)|"
    r".*\b(?:is|are|was|were)(?:n['’]t|\s(?:not|wrong|unknown|unclear|impossible))\b",
    re.IGNORECASE,
)
_MIL = re.compile(r"(?<=\d)\s?mil\b")  # a million in English, a thousand in Spanish: either is right
_JOINS = re.compile(r"\s(?:and|or|to)\s|\\(?:lor|land|vee|wedge)(?![a-z])|[,;|&、和或与及]|\bfor\b")
_REMARK = re.compile(r"([^()\[\],;]*[^()\[\],;\s])\s*(?:[(\[]([^()\[\]]+)[)\]]|[,;]\s([^(),;]+))")
_DOUBT = r"maybe|perhaps|possibly|probably|unsure|not sure|i think|i guess|(?:wrong|incorrect)$"
# Words behind a number that are no unit: they bound it, doubt it or offer another.
_QUALIFIER = re.compile(rf"(?:or|and|at least|at most|minimum|maximum|plus?|if|{_DOUBT})\b", re.IGNORECASE)
_NO_NUMBER = re.compile(
    rf"(?!(?:or|and|{_DOUBT})\b)\D+|"
    r"(?:see|cf|per|in|of|out of|p|page)\b.+|[\d\s.]+(?:(?:[+*/×÷=-]|\\times|\\cdot)[\d\s.]+)+",
    re.IGNORECASE,
)


def _says(golden: str, answer: str) -> bool | None:
    """The verdict of the first rule that has one; None where only math-verify can tell."""
    if same_text(golden, answer):
        return True
    if golden.casefold() in _TRUTHS:
        return re.match(rf"{golden}\s?[,.;:–—]\s?(?!yes|no|or)", answer, re.IGNORECASE) is not None
    if not _CONTRAST.search(golden):
        answer = _CONTRAST.sub("", answer)
    if is_prose(answer) and not is_prose(golden) and quantity.read(answer) is None and _REFUSES.match(answer):
        return False
    if _NUMBERED.match(golden) and _NUMBERED.match(answer):  # 3.2 and 3.20 are two sections
        return False
    for reduced in _reduced(golden, answer):
        return _says(*reduced)
    if any(_MIL.search(text) for text in (golden, answer)) and _says(
        *(_MIL.sub(" million", text) for text in (golden, answer))
    ):
        return True
    gold_mark, answer_mark = dates.pair(golden, answer)
    if gold_mark is not None or answer_mark is not None:
        return gold_mark is not None and answer_mark is not None and dates.same(gold_mark, answer_mark)
    numbers = [quantity.read(text) or _with_remark(text) for text in (golden, answer)]
    if numbers[1] is not None and numbers[1].unit is not None and _QUALIFIER.match(numbers[1].unit.word):
        return False
    if numbers[0] is not None and numbers[1] is not None:
        return quantity.same(numbers[0], numbers[1])
    if (lists := _same_lists(golden, answer)) is not None:
        return lists
    if "\\pi" in golden + answer and "°" in golden + answer:
        radians, others = (_DEGREES.sub(r"\\frac{\1\\pi}{180}", text) for text in (golden, answer))
        return bool(math_answer.equal([radians], f"\\boxed{{{others}}}", strict=True))
    if _misread(golden, answer, *numbers):
        return False
    if is_words(golden) and numbers[0] is not None and not is_words(answer):
        return None  # a gold with a unit may meet a formula with one ("2^3 cm"): math-verify compares their numbers
    return _formulas(golden, answer)


def _reduced(golden: str, answer: str) -> Iterator[tuple[str, str]]:
    """The two without what says nothing of the value: a label, or the sentence around it."""
    labels = [found[0].lower().strip(" s:：") for text in (golden, answer) if (found := _LABEL.match(text))]
    if labels and labels[0] == labels[-1]:  # on one side alone, or the same
        yield _LABEL.sub("", golden, count=1), _LABEL.sub("", answer, count=1)
    if is_prose(answer) and not leads_to(golden) and (ending := leads_to(answer)):
        yield golden, one_spelling(ending)


def _misread(golden: str, answer: str, number: quantity.Quantity | None, other: quantity.Quantity | None) -> bool:
    """Whether math-verify would find equal what is not: it drops relations and reads one number of several."""
    bounds = [found[0].strip() for text in (golden, answer) if (found := _BOUND.match(text)) is not None]
    if len(set(bounds)) > 1:
        return True
    if _OPEN_END.search(answer) and not _OPEN_END.search(golden):
        return True
    if _WITH_INFINITY.search(answer) and not _WITH_INFINITY.search(golden):
        return True  # math-verify opens it
    if number is not None and other is None and (_with_another(answer) or _BASE.search(answer)):
        return True
    if number is not None and (_names_several(answer) or _EXTREME.fullmatch(answer) or _untrue(answer)):
        return True
    related = (number is not None and _RELATION.search(answer)) or (other is not None and _RELATION.search(golden))
    return bool(related or (_CODE.fullmatch(golden) and _CODE.fullmatch(answer)))


_LIST = re.compile(r"\s*[,;]\s+|\s*[，、；]\s*|,?\s+and\s+|\s*[和与及]\s*")
_NO_BRACKETS = re.compile(r"[^][(){}]")


def _same_lists(golden: str, answer: str) -> bool | None:
    """Whether two lists of numbers, some with a unit or a scale, say the same; None for others, and in another order.
    math-verify drops the units.
    """
    read = ([quantity.read(part) for part in _LIST.split(text.strip("()[]{} "))] for text in (golden, answer))
    wanted, named = ([one for one in parts if one is not None] if None not in parts else [] for parts in read)
    if min(len(wanted), len(named)) < 2 or not any(one.unit or one.scale != 1 for one in wanted + named):
        return None
    if len(wanted) == len(named) and all(map(quantity.same, wanted, named)):
        return _NO_BRACKETS.sub("", golden) == _NO_BRACKETS.sub("", answer) or None
    for one in wanted:
        found = next((i for i, other in enumerate(named) if quantity.same(one, other) is not False), None)
        if found is None:
            return False
        del named[found]
    return False if named else None


def _remarked(answer: str) -> tuple[quantity.Quantity, re.Match[str]] | None:
    """A number with a remark behind it."""
    found = _REMARK.fullmatch(answer)
    number = quantity.read(found[1].strip()) if found is not None else None
    return None if found is None or number is None else (number, found)


def _is_factor(answer: str, found: re.Match[str]) -> bool:
    """Whether the bracket of a remark stands right behind the number: "2(2)"."""
    return answer[found.end(1)] in "(["


def _with_remark(answer: str) -> quantity.Quantity | None:
    """The number with a remark behind it that names no other: "42 (17 + 25)", "0.5 (50%)", "3.14, rounded"."""
    if (read := _remarked(answer)) is None:
        return None
    number, found = read
    remark = (found[2] or found[3]).strip()
    second = quantity.read(remark)
    if second is None:
        return number if _NO_NUMBER.fullmatch(remark) else None
    return number if not _is_factor(answer, found) and quantity.same(number, second) else None


def _with_another(answer: str) -> bool:
    """Whether it is a number with a bracket behind it that names another, or doubts it: "5 (or 6)", "5 (wrong)"."""
    read = _remarked(answer)
    return read is not None and read[1][2] is not None and not _is_factor(answer, read[1])


def _names_several(answer: str) -> bool:
    """Whether it names different numbers side by side or in a sentence: "42 apples and 43 pears"."""
    if is_words(answer) and len(set(_NUMBER.findall(answer))) > 1:
        return True
    parts = [quantity.read(part.strip()) for part in _JOINS.split(answer)]
    found = [part for part in parts if part is not None]
    return any(quantity.same(found[0], one) is False for one in found)


_TRAILING = re.compile(r"(?P<core>.*[\d})!])\s*(?P<word>[^\W\d_][^\\{}]*|%)", re.DOTALL)


def _split(text: str) -> tuple[str, quantity.Quantity | None]:
    """A formula and the scale and unit behind it, as a quantity of 1."""
    found = _TRAILING.fullmatch(text)
    mark = quantity.read(f"1 {found['word']}") if found is not None else None
    if found is None or mark is None or (mark.unit is not None and not mark.unit.known):
        return text, None
    if mark.unit is not None and len(found["word"]) < 2 and found["word"] != "%":
        return text, None  # one letter may be a variable
    return found["core"], mark


def _formulas(golden: str, answer: str) -> bool | None:
    """Formulas with scale words or units behind them; None where math-verify's reading drops nothing that counts."""
    (core, mark), (other_core, other_mark) = _split(golden), _split(answer)
    if mark is None and other_mark is None:
        return False if is_words(golden) else None
    one = quantity.read("1")
    assert one is not None
    mark, other_mark = mark or one, other_mark or one
    if mark.unit is not None and other_mark.unit is not None and mark.unit.ratio(other_mark.unit) is None:
        return False
    if mark.scale == other_mark.scale and (mark.unit == other_mark.unit or None in (mark.unit, other_mark.unit)):
        return None
    size, other_size = (
        part.scale * (part.unit.factor if part.unit is not None and None not in (mark.unit, other_mark.unit) else 1)
        for part in (mark, other_mark)
    )
    ratio = other_size / size
    scaled = rf"\boxed{{({other_core})\cdot \frac{{{ratio.numerator}}}{{{ratio.denominator}}}}}"
    return bool(math_answer.equal([core], scaled, strict=True))
