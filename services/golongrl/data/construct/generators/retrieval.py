"""Finding a place: T1 one place, T2 a choice of four, T3 every place.

Each asks for something that only the text tells: which section, which neighbour, which of four.
"""

import re

from golongrl.data.construct.generators.desk import Desk
from golongrl.data.construct.generators.sample import MadeSample, NoSampleError
from golongrl.data.construct.generators.terms import Term, evidence

EM = ("EM", "EM")
SELECTION = ("selection", "selection")
EXHAUSTIVE = ("longbench_pro", "T6.2 Targeted Subset Cluster Identification")
LETTERS = "ABCD"
# Words that are tried for a pair.
_TRIED = 20
# Sections that an exhaustive answer lists; more would be copying.
_LISTED = (2, 10)
# With at least two digits, and not the section of a manual page as in `gs(1)`.
_NUMBER = re.compile(r"(?<![A-Za-z0-9_.,(（-])(?:\d{1,3}(?:,\d{3})+|\d+\.\d+|\d{2,})(?![.,]?\d)(?![A-Za-z_)）-])")


def place_of_sentence(desk: Desk) -> MadeSample:
    """T1: in which section a sentence stands."""
    number, sentence = desk.one(desk.quotable, "no sentence to quote")
    question = desk.say(
        f"{desk.where} In which {desk.part} does this sentence stand?\n{sentence}\n"
        f"{desk.naming}, and write nothing else.",
        f"{desk.where}下面这句话出现在哪个{desk.part}？\n{sentence}\n{desk.naming}，不要写其他内容。",
    )
    return desk.sample("T1", EM, question, "place-of-sentence", answer=desk.label(number), evidence=(sentence,))


def next_sentence(desk: Desk) -> MadeSample:
    """T1: the sentence that follows a quoted one."""
    _, before, after = desk.one(desk.neighbours, "no two sentences to quote")
    question = desk.say(
        f"Which sentence of the text comes directly after this one?\n{before}\nGive it word for word and nothing else.",
        f"文中紧接在下面这句话之后的是哪一句？\n{before}\n请原样写出那一句，不要写其他内容。",
    )
    return desk.sample("T1", EM, question, "next-sentence", answer=after, evidence=(before, after))


def missing_number(desk: Desk) -> MadeSample:
    """T1: the number that a sentence of the text has in the place of a gap."""
    found = []
    for _, sentence in desk.quotable:
        numbers = list(_NUMBER.finditer(sentence))
        if len(numbers) == 1:
            found.append((sentence, numbers[0]))
    sentence, number = desk.one(found, "no sentence with one number")
    gap = sentence[: number.start()] + "____" + sentence[number.end() :]
    _unique_gap(desk, sentence[: number.start()], sentence[number.end() :])
    question = desk.say(
        f"A sentence of the text is given here with its number left out. Which number stands in the gap?\n{gap}\n"
        "Give the number as it is written in the text and nothing else.",
        f"下面是文中的一句话，其中的数字被去掉了。空缺处是什么数字？\n{gap}\n只按原文的写法写出这个数字。",
    )
    return desk.sample("T1", EM, question, "missing-number", answer=number[0], evidence=(sentence,))


def _unique_gap(desk: Desk, before: str, after: str) -> None:
    if len(re.findall(re.escape(before) + r"[^\n]{1,30}?" + re.escape(after), desk.outline.context)) != 1:
        raise NoSampleError("gold not unique", "another sentence fits the gap")


def sentence_of_section(desk: Desk) -> MadeSample:
    """T2: which of four sentences of the text stands in a named section."""
    by_section: dict[int, list[str]] = {}
    for number, sentence in desk.quotable:
        by_section.setdefault(number, []).append(sentence)
    chosen = desk.some(sorted(by_section), len(LETTERS), "too few sections with sentences to quote")
    right = chosen[0]
    question = desk.say(
        f"{desk.where} Which of these sentences stands in the {desk.part} {desk.name(right)}?",
        f"{desk.where}下列哪一句话出现在{desk.part}{desk.name(right)}中？",
    )
    options = [desk.rng.choice(by_section[number]) for number in chosen]
    return _choice(desk, question, options, options[0], "sentence-of-section", (options[0],))


def first_mentioned(desk: Desk) -> MadeSample:
    """T2: which of four words comes first in the text."""
    # Not more than two sections may share the first mentions, or the text would have to be read letter by letter.
    by_place: dict[int, list[str]] = {}
    for term in desk.terms:
        by_place.setdefault(term.places[0], []).append(term.word)
    places = sorted(desk.some(sorted(by_place), len(LETTERS), "too few sections with new words"))
    words = [desk.rng.choice(by_place[place]) for place in places]
    question = desk.say(
        f"Which of these words occurs first in the text? {desk.matching}",
        f"下列词语中，哪一个在文中最早出现？{desk.matching}",
    )
    return _choice(desk, question, words, words[0], "first-mentioned", evidence(desk.outline, words[0], places[:1]))


def most_mentioned(desk: Desk) -> MadeSample:
    """T2: which of four words the text has most often."""
    words = sorted(desk.distinct_totals(len(LETTERS), least=1), key=lambda term: -term.total)
    best = words[0]
    question = desk.say(
        f"Which of these words occurs most often in the text? {desk.matching}",
        f"下列词语中，哪一个在文中出现的次数最多？{desk.matching}",
    )
    shown = evidence(desk.outline, best.word, best.places)
    return _choice(desk, question, [term.word for term in words], best.word, "most-mentioned", shown)


def _choice(
    desk: Desk, question: str, options: list[str], right: str, generator: str, shown: tuple[str, ...]
) -> MadeSample:
    if len({option.lower() for option in options}) < len(options):
        raise NoSampleError("gold not unique", "two options are the same")
    mixed = desk.rng.sample(options, len(options))
    listed = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, mixed, strict=True))
    gold = f"The correct answer is ({LETTERS[mixed.index(right)]})"
    return desk.sample("T2", SELECTION, f"{question}\n{listed}", generator, answer=gold, evidence=shown)


def every_place(desk: Desk) -> MadeSample:
    """T3: every section that mentions a word."""
    least, most = _LISTED
    few = [term for term in desk.terms if least <= len(term.places) <= min(most, len(desk.sections) // 2)]
    term = desk.one(few, "no word in some sections")
    question = desk.say(
        f"{desk.where} List every {desk.part} in which the word {desk.quoted(term.word)} occurs. "
        f"{desk.matching} {desk.naming}, one a line.",
        f"{desk.where}列出所有出现词语{desk.quoted(term.word)}的{desk.part}。{desk.matching}{desk.naming}，每行一个。",
    )
    return desk.sample(
        "T3", EXHAUSTIVE, question, "every-place", golds=tuple(map(desk.label, term.places)),
        evidence=evidence(desk.outline, term.word, term.places),
    )  # fmt: skip


def one_without_other(desk: Desk) -> MadeSample:
    """T3: every section that mentions one word and not another."""
    least, most = _LISTED
    frequent = [term for term in desk.terms if least + 1 <= len(term.places) <= most + 4]
    for term in desk.rng.sample(frequent, min(_TRIED, len(frequent))):
        for other in desk.rng.sample(frequent, min(_TRIED, len(frequent))):
            both = set(term.places) & set(other.places)
            left = [place for place in term.places if place not in both]
            if both and least <= len(left) <= most:
                return _without(desk, term, other, left)
    raise NoSampleError("no two words", "none that share some sections and not others")


def _without(desk: Desk, term: Term, other: Term, places: list[int]) -> MadeSample:
    question = desk.say(
        f"{desk.where} List every {desk.part} in which the word {desk.quoted(term.word)} occurs and the word "
        f"{desk.quoted(other.word)} does not. {desk.matching} {desk.naming}, one a line.",
        f"{desk.where}列出所有出现词语{desk.quoted(term.word)}但没有出现{desk.quoted(other.word)}的{desk.part}。"
        f"{desk.matching}{desk.naming}，每行一个。",
    )
    shown = evidence(desk.outline, term.word, places)
    golds = tuple(map(desk.label, places))
    return desk.sample("T3", EXHAUSTIVE, question, "one-without-other", golds=golds, evidence=shown)
