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
# What of a heading says something.
_HEADING_WORD = re.compile(r"[A-Za-z]{4,}|(?=([\u4e00-\u9fff]{2}))")
_STEM = 5
# Words that are tried for a pair.
_TRIED = 20
# Sections that an exhaustive answer lists; more would be copying.
_LISTED = (2, 10)
# With at least two digits, and not the section of a manual page as in `gs(1)`.
NUMBER = re.compile(r"(?<![A-Za-z0-9_.,(（-])(?:\d{1,3}(?:,\d{3})+|\d+\.\d+|\d{2,})(?![.,]?\d)(?![A-Za-z_)）-])")


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
    alike = [_shared(desk.label(right), option) for option in options]
    if not desk.outline.numbered and alike[0] and alike[0] >= max(alike[1:]):
        raise NoSampleError("answer in the question", "the heading has words of the right sentence")
    return choice(desk, question, options, options[0], "sentence-of-section", (options[0],))


def _shared(heading: str, sentence: str) -> int:
    """How many words (of Chinese, pairs of characters) of a heading a sentence has, whatever their endings."""
    words = {(found[1] or found[0]).lower()[:_STEM] for found in _HEADING_WORD.finditer(heading)}
    return sum(word in sentence.lower() for word in words)


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
    return choice(desk, question, words, words[0], "first-mentioned", evidence(desk.outline, words[0], places[:1]))


def most_mentioned(desk: Desk) -> MadeSample:
    """T2: which of four words the text has most often."""
    words = sorted(desk.distinct_totals(len(LETTERS), least=1), key=lambda term: -term.total)
    best = words[0]
    question = desk.say(
        f"Which of these words occurs most often in the text? {desk.matching}",
        f"下列词语中，哪一个在文中出现的次数最多？{desk.matching}",
    )
    shown = evidence(desk.outline, best.word, best.places)
    return choice(desk, question, [term.word for term in words], best.word, "most-mentioned", shown)


def choice(
    desk: Desk, question: str, options: list[str], right: str, generator: str, shown: tuple[str, ...]
) -> MadeSample:
    """A T2 sample with these options in random order.

    Raises:
        NoSampleError: two of them are the same.
    """
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


def more_than_other(desk: Desk) -> MadeSample:
    """T3: every section that mentions one word more often than another, both of which it mentions."""
    term, other, places = unequal(desk, _LISTED)
    question = desk.say(
        f"{desk.where} List every {desk.part} in which both words occur and the word {desk.quoted(term.word)} occurs "
        f"more often than the word {desk.quoted(other.word)}. {desk.matching} {desk.naming}, one a line.",
        f"{desk.where}列出所有两个词都出现、并且{desk.quoted(term.word)}的次数多于{desk.quoted(other.word)}的{desk.part}。"
        f"{desk.matching}{desk.naming}，每行一个。",
    )
    shown = evidence(desk.outline, term.word, places)
    golds = tuple(map(desk.label, places))
    return desk.sample("T3", EXHAUSTIVE, question, "more-than-other", golds=golds, evidence=shown)


def unequal(desk: Desk, bounds: tuple[int, int]) -> tuple[Term, Term, list[int]]:
    """Two words, and the sections that mention the first more often than the second, and the second too.

    Other sections with both have it the other way round, so that a look for both words is not enough.

    Raises:
        NoSampleError: no two words have so many such sections.
    """
    least, most = bounds
    frequent = [term for term in desk.terms if len(term.places) > least]
    for term in desk.rng.sample(frequent, min(_TRIED, len(frequent))):
        for other in desk.rng.sample(frequent, min(_TRIED, len(frequent))):
            pairs = [(a, b) for a, b in zip(term.counts, other.counts, strict=True) if a and b]
            places = [place for place, (a, b) in enumerate(zip(term.counts, other.counts, strict=True)) if a > b > 0]
            if least <= len(places) <= most and len(places) < len(pairs):
                return term, other, places
    raise NoSampleError("no two words", "none that share sections unequally")


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
