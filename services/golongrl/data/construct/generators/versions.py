"""Sentences of the text in another version: with a gap that the text fills, or with one word or number changed.

T2 and T3 ask which were changed; T1, T4, T6 and T8 for what stands in gaps, for its sum or its order.
"""

import re
from dataclasses import dataclass

from golongrl.data.construct.generators.counting import MATH
from golongrl.data.construct.generators.desk import Desk
from golongrl.data.construct.generators.retrieval import EM, EXHAUSTIVE, LETTERS, NUMBER, choice
from golongrl.data.construct.generators.sample import MadeSample, NoSampleError
from golongrl.data.construct.generators.sequence import FRAGMENTS, ORDER, mixed
from golongrl.data.construct.generators.terms import pattern

_GAP = "____"
# So many that naming all of them is no good answer.
_STATEMENTS = (9, 12)
_CHANGED = (2, 3)
_ADDED = (2, 3)
_GAPS = (3, 5)
_ORDERED = (4, 7)
# Words that the text has beside each neighbour of a gap, at least, besides the one that was left out.
_LEAST_FITTING = 3
# Other words that are tried in the place of one.
_TRIED = 400
# The word (of Chinese, the character) next to a place, with what stands between.
_NEIGHBOUR_BEFORE = re.compile(r"(?:[A-Za-z]+ |[\u4e00-\u9fff])$")
_NEIGHBOUR_AFTER = re.compile(r" [A-Za-z]+|[\u4e00-\u9fff]")
_DIGITS = "0123456789"
# Days, hours, minutes, degrees; powers of two and round numbers are found by their form.
_USUAL = frozenset({12, 24, 28, 29, 31, 48, 52, 72, 180, 360, 365, 366})
# What an integer before which such a word stands is: a name, which nobody adds up or puts in order.
_NAMING = re.compile(
    r"(?:version|python|pep|rfc|section|chapter|figure|table|page|no\.|第|版|图|表)\W*$", re.IGNORECASE
)
# A word for its opposite, so that the sentence reads as well as before and says something else.
_OPPOSITES = {
    "English": (
        ("must", "may"), ("always", "never"), ("before", "after"), ("first", "last"), ("all", "some"),
        ("with", "without"), ("more", "fewer"), ("above", "below"), ("same", "other"), ("earlier", "later"),
        ("larger", "smaller"), ("higher", "lower"), ("increased", "decreased"), ("left", "right"), ("can", "cannot"),
        ("outer", "inner"), ("explicitly", "implicitly"), ("next", "previous"), ("begin", "end"), ("true", "false"),
    ),
    "Chinese": (
        ("必须", "可以"), ("总是", "从不"), ("之前", "之后"), ("以前", "以后"), ("增加", "减少"), ("所有", "部分"),
        ("大于", "小于"), ("多于", "少于"), ("至少", "至多"), ("相同", "不同"), ("允许", "禁止"), ("提高", "降低"),
        ("开始", "结束"), ("上午", "下午"), ("完全", "部分"), ("成功", "失败"), ("本地", "远程"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Gap:
    """A sentence of the text without one piece of it."""

    sentence: str
    shown: str
    piece: str


def gap_at(desk: Desk, sentence: str, found: re.Match[str]) -> Gap | None:
    """The sentence without what was found in it; None if another sentence of the text fits the gap."""
    before, after = sentence[: found.start()], sentence[found.end() :]
    fitting = re.findall(re.escape(before) + r"[^\n]{1,30}?" + re.escape(after), desk.outline.context)
    return Gap(sentence, f"{before}{_GAP}{after}", found[0]) if len(fitting) == 1 else None


def number_gaps(desk: Desk) -> list[Gap]:
    """The sentences with one number, without it; not one that many people would guess."""
    found = []
    for _, sentence in desk.quotable:
        numbers = list(NUMBER.finditer(sentence))
        if len(numbers) == 1 and not _is_usual(numbers[0][0]) and (gap := gap_at(desk, sentence, numbers[0])):
            found.append(gap)
    return found


def _is_usual(number: str) -> bool:
    """Whether it is a round number, a power of two or one below it, or a number of hours, minutes or days."""
    digits = number.replace(",", "")
    if not digits.isdigit():
        return False
    value = int(digits)
    return value in _USUAL or value & (value - 1) == 0 or value & (value + 1) == 0 or len(digits.rstrip("0")) == 1


def amount_gaps(desk: Desk) -> list[Gap]:
    """Those whose number is an amount or a year, and no version, page or name."""
    return [
        gap for gap in number_gaps(desk) if "." not in gap.piece and not _NAMING.search(gap.shown.split(_GAP, 1)[0])
    ]


def word_gap(desk: Desk, sentence: str) -> Gap | None:
    """The sentence without one of the words that it has once, in a place where the text has other words, too."""
    words = [term.word for term in desk.terms if len(pattern(term.word).findall(sentence)) == 1]
    for word in desk.rng.sample(words, len(words)):
        found = pattern(word).search(sentence)
        if found is not None and _is_open(desk, sentence, found) and (gap := gap_at(desk, sentence, found)):
            return gap
    return None


def _is_open(desk: Desk, sentence: str, found: re.Match[str]) -> bool:
    """Whether the words beside a place do not tell what stands there: in the text several words come after the one
    before it, and several before the one after it."""
    before, after = _NEIGHBOUR_BEFORE.search(sentence[: found.start()]), _NEIGHBOUR_AFTER.match(sentence[found.end() :])
    if before is None or after is None:
        return False
    word = r"[\u4e00-\u9fff]{2}" if desk.chinese else r"[A-Za-z]+"
    left = re.findall(rf"(?<![A-Za-z]){re.escape(before[0])}({word})", desk.outline.context)
    right = re.findall(rf"({word}){re.escape(after[0])}(?![A-Za-z])", desk.outline.context)
    return all(len({one.lower() for one in some}) > _LEAST_FITTING for some in (left, right))


def missing_number(desk: Desk) -> MadeSample:
    """T1: the number that a sentence of the text has in the place of a gap."""
    gap = desk.one(amount_gaps(desk), "no sentence with one number")
    question = desk.say(
        f"A sentence of the text is given here with its number left out. Which number stands in the gap?\n{gap.shown}\n"
        "Give the number as it is written in the text and nothing else.",
        f"下面是文中的一句话，其中的数字被去掉了。空缺处是什么数字？\n{gap.shown}\n只按原文的写法写出这个数字。",
    )
    return desk.sample("T1", EM, question, "missing-number", answer=gap.piece, evidence=(gap.sentence,))


def sum_of_gaps(desk: Desk) -> MadeSample:
    """T4: the sum of the numbers that sentences of the text have in their gaps."""
    gaps = desk.some(amount_gaps(desk), desk.rng.randint(*_ADDED), "too few sentences with one number")
    gold = sum(map(_value, gaps))
    listed = "\n".join(gap.shown for gap in gaps)
    question = desk.say(
        "Each of these sentences of the text is given with its number left out. Find the numbers, and add them up as "
        f"they are written, whatever they count. What is the sum?\n{listed}",
        f"下面是文中的几句话，每句中的数字被去掉了。找出这些数字，不管它们表示什么，直接相加。和是多少？\n{listed}",
    )
    shown = tuple(gap.sentence for gap in gaps)
    return desk.sample("T4", MATH, question, "sum-of-gaps", answer=str(gold), evidence=shown)


def order_of_gaps(desk: Desk) -> MadeSample:
    """T8: sentences in the order of the numbers (years, amounts) that stand in their gaps."""
    by_value = {_value(gap): gap for gap in amount_gaps(desk)}
    count = min(desk.rng.randint(*_ORDERED), max(_ORDERED[0], len(by_value)))
    gaps = [by_value[value] for value in sorted(desk.some(sorted(by_value), count, "too few different numbers"))]
    shuffled = mixed(desk, gaps)
    names = {gap.sentence: f"S{number}" for number, gap in enumerate(shuffled, start=1)}
    listed = "\n".join(f"{names[gap.sentence]}: {gap.shown}" for gap in shuffled)
    question = desk.say(
        "Each of these sentences of the text is given with its number or year left out. Put them in the order of the "
        f"numbers that the text has there, the smallest (earliest) first. List their names (S1 to S{count}), one a "
        f"line.\n{listed}",
        f"下面是文中的几句话，每句中的数字或年份被去掉了。按原文中这些数字从小到大（从早到晚）排列，"
        f"列出编号(S1 到 S{count})，每行一个。\n{listed}",
    )
    golds = tuple(names[gap.sentence] for gap in gaps)
    shown = tuple(gap.sentence for gap in gaps)
    return desk.sample("T8", ORDER, question, "order-of-gaps", golds=golds, evidence=shown)


def _value(gap: Gap) -> int:
    return int(gap.piece.replace(",", ""))


def filled_gaps(desk: Desk) -> MadeSample:
    """T6: what stands in the gaps of several sentences."""
    count = desk.rng.randint(*_GAPS)
    gaps: list[Gap] = []
    for _, sentence in desk.rng.sample(desk.quotable, len(desk.quotable)):
        if len(gaps) == count:
            break
        if (gap := word_gap(desk, sentence)) and gap.piece.lower() not in [one.piece.lower() for one in gaps]:
            gaps.append(gap)
    if len(gaps) < _GAPS[0]:
        raise NoSampleError("too few sentences with a gap", f"{len(gaps)} where {_GAPS[0]} are needed")
    listed = "\n".join(f"G{number}: {gap.shown}" for number, gap in enumerate(gaps, start=1))
    question = desk.say(
        "Each of these sentences of the text is given with one word left out. Write the word that the text has in each "
        f"gap, one line for each sentence, in the form: G1 = word.\n{listed}",
        f"下面是文中的几句话，每句去掉了一个词语。写出原文在每个空缺处的词语，每句一行，格式为：G1 = 词语。\n{listed}",
    )
    golds = tuple(f"G{number} = {gap.piece}" for number, gap in enumerate(gaps, start=1))
    shown = tuple(gap.sentence for gap in gaps)
    return desk.sample("T6", FRAGMENTS, question, "filled-gaps", golds=golds, evidence=shown)


def altered(desk: Desk, sentence: str) -> str | None:
    """The sentence with another digit, with the opposite of a word, or with another word; None if nothing fits."""
    numbers = list(NUMBER.finditer(sentence))
    if numbers:
        number = desk.rng.choice(numbers)
        # Not the first digit: a number of another size might be seen to be wrong.
        places = [place for place in range(number.start() + 1, number.end()) if sentence[place] in _DIGITS]
        place = desk.rng.choice(places)
        other = desk.rng.choice([digit for digit in _DIGITS if digit != sentence[place]])
        changed = sentence[:place] + other + sentence[place + 1 :]
    else:
        told = _opposite(desk, sentence) or _swapped(desk, sentence)
        if told is None:
            return None
        changed = told
    return None if changed in desk.outline.context else changed


def _opposite(desk: Desk, sentence: str) -> str | None:
    found = [
        (match, other)
        for pair in _OPPOSITES[desk.outline.lang]
        for word, other in (pair, pair[::-1])
        if len(matches := list(pattern(word).finditer(sentence))) == 1
        # As it is written here: not at the beginning of the sentence.
        for match in matches
        if match[0] == word
    ]
    if not found:
        return None
    match, other = desk.rng.choice(found)
    return sentence[: match.start()] + other + sentence[match.end() :]


def _swapped(desk: Desk, sentence: str) -> str | None:
    """The sentence with a word of the text in the place of one of its own. The text has that word elsewhere after the
    same word and before the same word, so it fits as far as code can see."""
    own = [term.word for term in desk.terms if len(pattern(term.word).findall(sentence)) == 1]
    others = [term.word for term in desk.terms]
    for word in desk.rng.sample(own, len(own)):
        found = pattern(word).search(sentence)
        assert found is not None  # it has been found once
        before, after = (
            _NEIGHBOUR_BEFORE.search(sentence[: found.start()]),
            _NEIGHBOUR_AFTER.match(sentence[found.end() :]),
        )
        if before is None or after is None:
            continue
        for other in desk.rng.sample(others, min(_TRIED, len(others))):
            if other.lower() == word.lower() or pattern(other).search(sentence):
                continue
            if all(piece in desk.outline.context for piece in (before[0] + other, other + after[0])):
                return sentence[: found.start()] + other + sentence[found.end() :]
    return None


def altered_sentence(desk: Desk) -> MadeSample:
    """T2: which of four sentences is not as the text has it."""
    drawn = _drawn(desk, len(LETTERS), 1)
    options = [told for _, told in drawn]
    right = next(told for sentence, told in drawn if told != sentence)
    question = desk.say(
        "Three of these sentences stand in the text word for word; one was changed in a single word or number. Which "
        "one was changed?",
        "下列句子中有三句与原文完全一致，有一句被改动了一个词语或数字。被改动的是哪一句？",
    )
    return choice(desk, question, options, right, "altered-sentence", tuple(sentence for sentence, _ in drawn))


def altered_statements(desk: Desk) -> MadeSample:
    """T3: all of several sentences that are not as the text has them."""
    count = min(desk.rng.randint(*_STATEMENTS), max(_STATEMENTS[0], len(desk.quotable)))
    drawn = mixed(desk, _drawn(desk, count, desk.rng.randint(*_CHANGED)))
    names = [f"S{number}" for number in range(1, len(drawn) + 1)]
    listed = "\n".join(f"{name}: {told}" for name, (_, told) in zip(names, drawn, strict=True))
    question = desk.say(
        "Some of these sentences stand in the text word for word; the others were changed in a single word or number. "
        f"List the names (S1 to {names[-1]}) of all that were changed, one a line.\n{listed}",
        f"下列句子有的与原文完全一致，有的被改动了一个词语或数字。"
        f"列出所有被改动的句子的编号(S1 到 {names[-1]})，每行一个。\n{listed}",
    )
    golds = tuple(name for name, (sentence, told) in zip(names, drawn, strict=True) if sentence != told)
    shown = tuple(sentence for sentence, _ in drawn)
    return desk.sample("T3", EXHAUSTIVE, question, "altered-statements", golds=golds, evidence=shown)


def _drawn(desk: Desk, count: int, changes: int) -> list[tuple[str, str]]:
    """(sentence of the text, what the question tells): so many, of which so many were changed.

    Raises:
        NoSampleError: there are fewer.
    """
    pool = [sentence for _, sentence in desk.some(desk.quotable, len(desk.quotable), "no sentence to quote")]
    if len(pool) < count:
        raise NoSampleError("no sentence to quote", f"{len(pool)} where {count} are needed")
    changed: list[tuple[str, str]] = []
    for sentence in pool:
        if len(changed) == changes:
            break
        if told := altered(desk, sentence):
            changed.append((sentence, told))
    if len(changed) < changes:
        raise NoSampleError("no sentence to change", f"{len(changed)} where {changes} are needed")
    used = {sentence for sentence, _ in changed}
    whole = [(sentence, sentence) for sentence in pool if sentence not in used][: count - changes]
    return [*changed, *whole]
