"""What changes along the text: T6 the last state of several things, T8 their order."""

from collections.abc import Sequence
from itertools import combinations

from golongrl.data.construct.generators.desk import Desk, T
from golongrl.data.construct.generators.sample import MadeSample
from golongrl.data.construct.generators.terms import evidence

STATE = ("longbench_pro", "T8.3 Long-Context Procedural State Tracking")
FRAGMENTS = ("longbench_pro", "T8.2 Single-Source Targeted Aggregation")
ORDER = ("longbench_pro", "T2.1 Global Timeline Reconstruction")
FREQUENCY = ("longbench_pro", "T6.3 Global Frequency Analysis")
# Items to put in order, at least and at most: of three, an order is guessed too often.
_ITEMS = (4, 7)
# Orders that are drawn, of which the most balanced one is shown.
_ORDERS = 40


def last_mentions(desk: Desk) -> MadeSample:
    """T6: for each of some words, the last section that mentions it: the state that a reader has at the end."""
    moving = [term for term in desk.terms if len(term.places) >= 2]
    words = desk.some(moving, desk.rng.randint(3, 5), "too few words in several sections")
    golds = tuple(f"{term.word} = {desk.label(term.places[-1])}" for term in words)
    listed = desk.listed(desk.quoted(term.word) for term in words)
    question = desk.say(
        f"{desk.where} For each of the words {listed}, find the last {desk.part} in which it occurs. {desk.matching} "
        f"Write one line a word, in the form: word = {desk.part}. {desk.naming}.",
        f"{desk.where}对词语{listed}，分别找出最后一个出现该词的{desk.part}。{desk.matching}"
        f"每个词写一行，格式为：词语 = {desk.part}。{desk.naming}。",
    )
    shown = tuple(line for term in words for line in evidence(desk.outline, term.word, term.places[-1:]))
    return desk.sample("T6", STATE, question, "last-mentions", golds=golds, evidence=shown)


def first_sentences(desk: Desk) -> MadeSample:
    """T6: the first sentence of each of some sections."""
    quotable = set(desk.quotable)
    firsts: dict[int, str] = {}
    for number, sentence in desk.outline.sentences:
        firsts.setdefault(number, sentence)
    usable = [
        (number, sentence)
        for number, sentence in firsts.items()
        if (number, sentence) in quotable and desk.sections[number].paragraphs[0].startswith(sentence)
    ]
    chosen = sorted(desk.some(usable, min(4, max(2, len(usable) // 2)), "too few sections that begin with a sentence"))
    listed = desk.listed(desk.name(number) for number, _ in chosen)
    question = desk.say(
        f"{desk.where} Give the first sentence of each of these {desk.part}s, word for word, one a line: {listed}",
        f"{desk.where}原样写出下列各{desk.part}的第一句话，每行一句：{listed}",
    )
    golds = tuple(sentence for _, sentence in chosen)
    return desk.sample("T6", FRAGMENTS, question, "first-sentences", golds=golds, evidence=golds)


def sentence_order(desk: Desk) -> MadeSample:
    """T8: sentences of different sections, in the order in which the text has them."""
    by_section: dict[int, list[str]] = {}
    for number, sentence in desk.quotable:
        by_section.setdefault(number, []).append(sentence)
    count = min(desk.rng.randint(*_ITEMS), max(_ITEMS[0], len(by_section)))
    places = sorted(desk.some(sorted(by_section), count, "too few sections with sentences to quote"))
    sentences = [desk.rng.choice(by_section[place]) for place in places]
    shuffled = mixed(desk, sentences)
    names = {sentence: f"S{number}" for number, sentence in enumerate(shuffled, start=1)}
    listed = "\n".join(f"{names[sentence]}: {sentence}" for sentence in shuffled)
    question = desk.say(
        f"These sentences stand in the text. In which order? List their names (S1 to S{count}) as the text has them, "
        f"one a line.\n{listed}",
        f"下列句子都出自原文。按它们在文中出现的先后顺序列出编号(S1 到 S{count})，每行一个。\n{listed}",
    )
    golds = tuple(names[sentence] for sentence in sentences)
    return desk.sample("T8", ORDER, question, "sentence-order", golds=golds, evidence=tuple(sentences))


def first_mention_order(desk: Desk) -> MadeSample:
    """T8: words in the order of their first mention."""
    by_place: dict[int, list[str]] = {}
    for term in desk.terms:
        by_place.setdefault(term.places[0], []).append(term.word)
    count = min(desk.rng.randint(*_ITEMS), max(_ITEMS[0], len(by_place)))
    places = sorted(desk.some(sorted(by_place), count, "too few sections with new words"))
    words = [desk.rng.choice(by_place[place]) for place in places]
    listed = desk.listed(desk.quoted(word) for word in mixed(desk, words))
    question = desk.say(
        f"List these words in the order in which each occurs for the first time in the text: {listed}. {desk.matching} "
        "Write the words alone, one a line.",
        f"按在文中第一次出现的先后顺序列出这些词语：{listed}。{desk.matching}只写词语，每行一个。",
    )
    shown = tuple(
        line for word, place in zip(words, places, strict=True) for line in evidence(desk.outline, word, [place])
    )
    return desk.sample("T8", ORDER, question, "first-mention-order", golds=tuple(words), evidence=shown)


def frequency_order(desk: Desk) -> MadeSample:
    """T8: words by how often the text has them, the rarest first."""
    words = sorted(desk.distinct_totals(desk.rng.randint(4, 6), least=1), key=lambda term: term.total)
    listed = desk.listed(desk.quoted(term.word) for term in mixed(desk, words))
    question = desk.say(
        f"Put these words in order by how often they occur in the whole text, the rarest first: {listed}. "
        f"{desk.matching} Write the words alone, one a line.",
        f"按在全文中出现次数从少到多排列这些词语：{listed}。{desk.matching}只写词语，每行一个。",
    )
    shown = tuple(line for term in words for line in evidence(desk.outline, term.word, term.places[:1]))
    golds = tuple(term.word for term in words)
    return desk.sample("T8", FREQUENCY, question, "frequency-order", golds=golds, evidence=shown)


def last_mention_order(desk: Desk) -> MadeSample:
    """T8: words in the order of their last mention."""
    by_place: dict[int, list[str]] = {}
    for term in desk.terms:
        if len(term.places) > 1:
            by_place.setdefault(term.places[-1], []).append(term.word)
    count = min(desk.rng.randint(*_ITEMS), max(_ITEMS[0], len(by_place)))
    places = sorted(desk.some(sorted(by_place), count, "too few words in several sections"))
    words = [desk.rng.choice(by_place[place]) for place in places]
    listed = desk.listed(desk.quoted(word) for word in mixed(desk, words))
    question = desk.say(
        "List these words in the order in which each occurs for the last time in the text, the one that is mentioned "
        f"last at the end: {listed}. {desk.matching} Write the words alone, one a line.",
        f"按在文中最后一次出现的先后顺序列出这些词语，最晚出现的排在最后：{listed}。{desk.matching}只写词语，每行一个。",
    )
    shown = [line for word, place in zip(words, places, strict=True) for line in evidence(desk.outline, word, [place])]
    return desk.sample(
        "T8", ORDER, question, "last-mention-order", golds=tuple(words), evidence=tuple(dict.fromkeys(shown))
    )


def mixed(desk: Desk, ordered: list[T]) -> list[T]:
    """The same in an order from which nothing follows: about half of its pairs are the other way round, so that neither
    it nor its reverse earns more than half of a reward for pairs."""

    def unbalanced(order: Sequence[int]) -> int:
        turned = sum(one > other for one, other in combinations(order, 2))
        return abs(2 * turned - len(order) * (len(order) - 1) // 2)

    drawn = [desk.rng.sample(range(len(ordered)), len(ordered)) for _ in range(_ORDERS)]
    return [ordered[place] for place in min(drawn, key=unbalanced)]
