"""Questions of several steps, each of which starts where the one before has led: T1 a place, T2 a word, T6 a list."""

from golongrl.data.construct.generators.desk import Desk
from golongrl.data.construct.generators.retrieval import EM, choice
from golongrl.data.construct.generators.sample import MadeSample, NoSampleError
from golongrl.data.construct.generators.sequence import STATE
from golongrl.data.construct.generators.terms import Term, evidence

# Steps of a chain of words, at least and at most.
_STEPS = (2, 4)
# Draws of words until some meet in one section.
_TRIED = 60
# Words that meet; each alone is in so many sections at least, so that none gives the place away.
_MEETING = 3
_SPREAD = 3
# A word of a list comes and goes so often; more would be tedious and no harder.
_TURNS = (2, 9)
_LISTED = (4, 6)


def chain_of_mentions(desk: Desk) -> MadeSample:
    """T1: from the section of a sentence to the next one with a word, from there to the next one with another."""
    last = len(desk.sections) - _STEPS[0]
    start, sentence = desk.one([(n, one) for n, one in desk.quotable if n < last], "no sentence to start from")
    here = start
    words: list[Term] = []
    stops: list[int] = []
    for _ in range(desk.rng.randint(*_STEPS)):
        # The next section but one at least, so that a step is more than a look at what follows.
        onward = [
            (term, there)
            for term in desk.terms
            if term not in words and (there := next((p for p in term.places if p > here), 0)) > here + 1
        ]
        if not onward:
            break
        term, here = desk.rng.choice(onward)
        words.append(term)
        stops.append(here)
    if len(words) < _STEPS[0]:
        raise NoSampleError("no chain of words", f"{len(words)} steps where {_STEPS[0]} are needed")
    steps = desk.say("; ", "；").join(
        desk.say(
            f"step {number}: go on to the next {desk.part} after it in which the word {desk.quoted(term.word)} occurs",
            f"第{number}步：从该处往后，走到下一个出现词语{desk.quoted(term.word)}的{desk.part}",
        )
        for number, term in enumerate(words, start=1)
    )
    question = desk.say(
        f"{desk.where} Start at the {desk.part} in which this sentence stands:\n{sentence}\nThen {steps}. Which "
        f"{desk.part} do you reach? {desk.matching} {desk.naming}, and write nothing else.",
        f"{desk.where}从下面这句话所在的{desk.part}开始：\n{sentence}\n{steps}。最后到达哪个{desk.part}？"
        f"{desk.matching}{desk.naming}，不要写其他内容。",
    )
    shown = [sentence]
    for term, place in zip(words, stops, strict=True):
        shown += evidence(desk.outline, term.word, [place])
    return desk.sample("T1", EM, question, "chain-of-mentions", answer=desk.label(here), evidence=tuple(shown))


def meeting_place(desk: Desk) -> MadeSample:
    """T1: the only section that has all of three words, each of which several sections have."""
    wide = [term for term in desk.terms if _SPREAD <= len(term.places) < len(desk.sections)]
    if len(wide) < _MEETING:
        raise NoSampleError("no words that meet", "too few words in several sections")
    for _ in range(_TRIED):
        words = desk.rng.sample(wide, _MEETING)
        meeting = set.intersection(*(set(term.places) for term in words))
        if len(meeting) == 1:
            break
    else:
        raise NoSampleError("no words that meet", "no three are together in one section alone")
    (place,) = meeting
    listed = desk.listed(desk.quoted(term.word) for term in words)
    question = desk.say(
        f"{desk.where} Exactly one {desk.part} has all of the words {listed}. Which one? {desk.matching} "
        f"{desk.naming}, and write nothing else.",
        f"{desk.where}只有一个{desk.part}同时出现词语{listed}，是哪一个？{desk.matching}{desk.naming}，"
        "不要写其他内容。",
    )
    shown = tuple(line for term in words for line in evidence(desk.outline, term.word, [place]))
    shown = tuple(dict.fromkeys(shown))
    return desk.sample("T1", EM, question, "meeting-place", answer=desk.label(place), evidence=shown)


def absent_from_peak(desk: Desk) -> MadeSample:
    """T2: which of four words is not in the section that has another word most often."""
    peaks = [(term, peak) for term in desk.terms if (peak := peak_of(term)) is not None and term.counts[peak] > 1]
    term, peak = desk.one(peaks, "tie in a ranking")
    others = [one for one in desk.terms if one is not term]
    there = desk.some([one for one in others if one.counts[peak]], 3, "too few words in one section")
    elsewhere = [one for one in others if not one.counts[peak] and len(one.places) > 1]
    absent = desk.one(elsewhere or [one for one in others if not one.counts[peak]], "no word of another section")
    question = desk.say(
        f"{desk.where} Find the {desk.part} in which the word {desk.quoted(term.word)} occurs most often. Which of "
        f"these words does not occur in that {desk.part}? {desk.matching}",
        f"{desk.where}找到词语{desk.quoted(term.word)}出现次数最多的{desk.part}。下列词语中，哪一个没有在该{desk.part}"
        f"中出现？{desk.matching}",
    )
    words = [one.word for one in (absent, *there)]
    return choice(desk, question, words, absent.word, "absent-from-peak", evidence(desk.outline, term.word, [peak]))


def peak_of(term: Term) -> int | None:
    """The section that mentions a word most often; None if two do."""
    most = max(term.counts)
    return term.counts.index(most) if term.counts.count(most) == 1 else None


def toggled_list(desk: Desk) -> MadeSample:
    """T6: a list at the end of the text, where a word comes onto it or leaves it at every section that mentions it."""
    least, most = _TURNS
    moving = [term for term in desk.terms if least <= len(term.places) <= most]
    for _ in range(_TRIED):
        words = desk.some(moving, desk.rng.randint(*_LISTED), "too few words in several sections")
        left = toggled(words, len(desk.sections))
        if 2 <= len(left) < len(words):
            break
    else:
        raise NoSampleError("no list of some words", "all of them are left, or hardly any")
    listed = desk.listed(desk.quoted(term.word) for term in words)
    question = desk.say(
        f"{desk.where} Keep a list, empty at first, and read the text from its beginning to its end. Whenever a "
        f"{desk.part} mentions one of the words {listed}: if the word is not on the list, put it at the end of the "
        "list; if it is on the list, take it off. How often the same "
        f"{desk.part} mentions it makes no difference, and of several words in one {desk.part} take them in the order "
        f"given here. What is on the list at the end? {desk.matching} Write one line for each place of the list, in "
        "the form: 1 = word.",
        f"{desk.where}准备一个空列表，从头到尾阅读全文。每当一个{desk.part}提到词语{listed}之一：如果该词不在列表中，"
        f"就把它加到列表末尾；如果已在列表中，就把它去掉。同一{desk.part}中提到几次不影响结果；一个{desk.part}提到几个词时，"
        f"按这里给出的顺序处理。最后列表中有什么？{desk.matching}列表的每一位写一行，格式为：1 = 词语。",
    )
    golds = tuple(f"{number} = {term.word}" for number, term in enumerate(left, start=1))
    shown = tuple(line for term in words for line in evidence(desk.outline, term.word, term.places[-1:]))
    return desk.sample("T6", STATE, question, "toggled-list", golds=golds, evidence=tuple(dict.fromkeys(shown)))


def toggled(words: list[Term], sections: int) -> list[Term]:
    """The list after all sections."""
    state: list[Term] = []
    for place in range(sections):
        for term in words:
            if term.counts[place]:
                if term in state:
                    state.remove(term)
                else:
                    state.append(term)
    return state
