"""Counts and what follows from them: T4 a number, T5 rows of a table, T7 a ranking. The gold is a query in SQL.

The schema: `sections(id, label)` and `mentions(section, word, times)`; a table of the text is its own schema. Every
query is written so that its answer is unique; ties are refused.
"""

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any

from golongrl.data.construct.generators.desk import Desk
from golongrl.data.construct.generators.retrieval import unequal
from golongrl.data.construct.generators.sample import MadeSample, NoSampleError
from golongrl.data.construct.generators.terms import Term, evidence

MATH = ("math_longcot_math_verify", "math_longcot_math_verify")
TABLE = ("multitableqa_pretraining", "multitableqa")
RANKING = ("longbench_pro", "T1.1 Global Cohesive Retrieval")
# Counts that a person would still count; the small ones are too easy to guess.
_COUNTED = (4, 40)
ROWS = (2, 12)
_RANKED = (3, 6)
# Words of which the first few are asked for: any order of words that are all asked for earns most of an NDCG.
_CANDIDATES = (8, 10)
_FIRST = 3
# Draws of words until their counts give a ranking without ties.
_TRIED = 60
_SCHEMA = """
CREATE TABLE sections (id INTEGER PRIMARY KEY, label TEXT);
CREATE TABLE mentions (section INTEGER, word TEXT, times INTEGER);
"""


def query(desk: Desk, words: Sequence[Term], sql: str, *given: object) -> list[tuple[Any, ...]]:
    """The answer of a query over these words' mentions."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(_SCHEMA)
        db.executemany("INSERT INTO sections VALUES (?, ?)", enumerate(section.label for section in desk.sections))
        db.executemany(
            "INSERT INTO mentions VALUES (?, ?, ?)",
            ((place, term.word, term.counts[place]) for term in words for place in term.places),
        )
        return db.execute(sql, given).fetchall()


def sections_with(desk: Desk) -> MadeSample:
    """T4: how many sections mention a word."""
    least, most = _COUNTED
    usable = [term for term in desk.terms if least <= len(term.places) <= min(most, len(desk.sections) - 1)]
    term = desk.one_of_each(usable, lambda term: len(term.places), "no word in some sections")
    ((gold,),) = query(desk, [term], "SELECT count(DISTINCT section) FROM mentions WHERE word = ?", term.word)
    question = desk.say(
        f"{desk.where} In how many of the {desk.part}s does the word {desk.quoted(term.word)} occur at least once? "
        f"{desk.matching}",
        f"{desk.where}有多少个{desk.part}至少出现过一次词语{desk.quoted(term.word)}？{desk.matching}",
    )
    return _number(desk, question, gold, "sections-with", evidence(desk.outline, term.word, term.places))


def times(desk: Desk) -> MadeSample:
    """T4: how often a word occurs."""
    least, most = _COUNTED
    usable = [term for term in desk.terms if least <= term.total <= most and len(term.places) > 1]
    term = desk.one_of_each(usable, lambda term: term.total, "no word of a fit count")
    ((gold,),) = query(desk, [term], "SELECT sum(times) FROM mentions WHERE word = ?", term.word)
    question = desk.say(
        f"How many times does the word {desk.quoted(term.word)} occur in the whole text? {desk.matching}",
        f"词语{desk.quoted(term.word)}在全文中一共出现了多少次？{desk.matching}",
    )
    return _number(desk, question, gold, "times", evidence(desk.outline, term.word, term.places))


def difference(desk: Desk) -> MadeSample:
    """T4: how much more often one word occurs than another."""
    least, most = _COUNTED
    pair = [term for term in desk.distinct_totals(2, least=2) if term.total <= most]
    if len(pair) < 2:
        raise NoSampleError("no word of a fit count", "both have to be countable")
    more, less = sorted(pair, key=lambda term: -term.total)
    if more.total - less.total < least:
        raise NoSampleError("no word of a fit count", f"they differ by less than {least}")
    ((gold,),) = query(desk, pair, "SELECT sum(CASE word WHEN ? THEN times ELSE -times END) FROM mentions", more.word)
    question = desk.say(
        f"In the whole text, how many more times does the word {desk.quoted(more.word)} occur than the word "
        f"{desk.quoted(less.word)}? {desk.matching}",
        f"在全文中，词语{desk.quoted(more.word)}比词语{desk.quoted(less.word)}多出现多少次？{desk.matching}",
    )
    shown = evidence(desk.outline, more.word, more.places) + evidence(desk.outline, less.word, less.places)
    return _number(desk, question, gold, "difference", shown)


def more_often_than(desk: Desk) -> MadeSample:
    """T4: in how many sections one word occurs more often than another."""
    term, other, places = unequal(desk, _COUNTED)
    words = [term, other]
    ((gold,),) = query(
        desk, words,
        "SELECT count(*) FROM mentions a JOIN mentions b ON a.section = b.section "
        "WHERE a.word = ? AND b.word = ? AND a.times > b.times",
        term.word, other.word,
    )  # fmt: skip
    question = desk.say(
        f"{desk.where} In how many of the {desk.part}s do both words occur and the word {desk.quoted(term.word)} more "
        f"often than the word {desk.quoted(other.word)}? {desk.matching}",
        f"{desk.where}有多少个{desk.part}同时出现这两个词，并且{desk.quoted(term.word)}的次数多于{desk.quoted(other.word)}？"
        f"{desk.matching}",
    )
    return _number(desk, question, gold, "more-often-than", evidence(desk.outline, term.word, places))


def _number(desk: Desk, question: str, gold: int, generator: str, shown: tuple[str, ...]) -> MadeSample:
    return desk.sample("T4", MATH, question, generator, answer=str(gold), evidence=shown)


def mention_table(desk: Desk) -> MadeSample:
    """T5: every section that has a word so often, with how often."""
    least, most = ROWS
    usable = []
    for term in desk.terms:
        for bound in (2, 3):
            if least <= sum(count >= bound for count in term.counts) <= most:
                usable.append((term, bound))
    term, bound = desk.one(usable, "no word that some sections repeat")
    rows = query(
        desk, [term],
        "SELECT label, times FROM sections JOIN mentions ON section = id WHERE word = ? AND times >= ? ORDER BY id",
        term.word, bound,
    )  # fmt: skip
    question = desk.say(
        f"{desk.where} For every {desk.part} in which the word {desk.quoted(term.word)} occurs at least {bound} "
        f"times, give one row [{desk.part}, number of times]. {desk.matching} {desk.naming}.",
        f"{desk.where}对每个出现词语{desk.quoted(term.word)}不少于 {bound} 次的{desk.part}，给出一行 "
        f"[{desk.part}, 次数]。{desk.matching}{desk.naming}。",
    )
    places = [place for place in term.places if term.counts[place] >= bound]
    return rows_sample(desk, question, rows, "mention-table", evidence(desk.outline, term.word, places))


def peak_table(desk: Desk) -> MadeSample:
    """T5: for several words the section that has each most often, and how often: a maximum for each group."""
    peaks = [term for term in desk.terms if max(term.counts) > 1 and term.counts.count(max(term.counts)) == 1]
    words = desk.some(peaks, min(desk.rng.randint(*_RANKED), max(_RANKED[0], len(peaks))), "tie in a ranking")
    rows = query(
        desk, words, "SELECT word, label, max(times) FROM sections JOIN mentions ON section = id GROUP BY word"
    )  # fmt: skip
    listed = desk.listed(desk.quoted(term.word) for term in words)
    question = desk.say(
        f"{desk.where} For each of the words {listed}, find the {desk.part} in which it occurs most often, and give "
        f"one row [word, {desk.part}, number of times there]. {desk.matching} {desk.naming}.",
        f"{desk.where}对词语{listed}，分别找出其出现次数最多的{desk.part}，给出一行 [词语, {desk.part}, 在该处的次数]。"
        f"{desk.matching}{desk.naming}。",
    )
    shown = [
        line for term in words for line in evidence(desk.outline, term.word, [term.counts.index(max(term.counts))])
    ]
    return rows_sample(desk, question, rows, "peak-table", tuple(dict.fromkeys(shown)))


def mention_join(desk: Desk) -> MadeSample:
    """T5: every section that has two words, with how often it has each: a join of two tables."""
    least, most = ROWS
    frequent = [term for term in desk.terms if len(term.places) >= least]
    desk.rng.shuffle(frequent)
    for one in frequent[:20]:
        for other in desk.rng.sample(frequent, min(30, len(frequent))):
            if one.word == other.word or not least <= len(set(one.places) & set(other.places)) <= most:
                continue
            rows = query(
                desk, [one, other],
                "SELECT label, a.times, b.times FROM sections JOIN mentions a ON a.section = id AND a.word = ? "
                "JOIN mentions b ON b.section = id AND b.word = ? ORDER BY id",
                one.word, other.word,
            )  # fmt: skip
            question = desk.say(
                f"{desk.where} For every {desk.part} in which both the word {desk.quoted(one.word)} and the word "
                f"{desk.quoted(other.word)} occur, give one row [{desk.part}, times {desk.quoted(one.word)}, times "
                f"{desk.quoted(other.word)}]. {desk.matching} {desk.naming}.",
                f"{desk.where}对每个同时出现词语{desk.quoted(one.word)}和{desk.quoted(other.word)}的{desk.part}，"
                f"给出一行 [{desk.part}, {desk.quoted(one.word)}的次数, {desk.quoted(other.word)}的次数]。"
                f"{desk.matching}{desk.naming}。",
            )
            places = [place for place in one.places if other.counts[place]]
            shown = evidence(desk.outline, one.word, places) + evidence(desk.outline, other.word, places)
            return rows_sample(desk, question, rows, "mention-join", shown)
    raise NoSampleError("no two words", "none that share some sections")


def rows_sample(
    desk: Desk, question: str, rows: Iterable[tuple[Any, ...]], generator: str, shown: tuple[str, ...]
) -> MadeSample:
    """A T5 sample whose gold is these rows."""
    gold = json.dumps({"data": [list(row) for row in rows]}, ensure_ascii=False)
    return desk.sample("T5", TABLE, question, generator, answer=gold, evidence=shown)


def rank_sections(desk: Desk) -> MadeSample:
    """T7: the sections that mention a word most, the most first."""
    least, most = _RANKED
    usable = []
    for term in desk.terms:
        counts = sorted((count for count in term.counts if count), reverse=True)
        top = next((k for k in range(len(counts)) if k + 1 < len(counts) and counts[k] == counts[k + 1]), len(counts))
        if least <= top:
            usable.append((term, min(top, most)))
    term, k = desk.one(usable, "tie in a ranking")
    ranked = query(
        desk, [term],
        "SELECT label, times, id FROM sections JOIN mentions ON section = id WHERE word = ? "
        "ORDER BY times DESC LIMIT ?",
        term.word, k,
    )  # fmt: skip
    question = desk.say(
        f"{desk.where} Which {k} {desk.part}s have the word {desk.quoted(term.word)} most often? List them from "
        f"the most to the fewest occurrences. {desk.matching} {desk.naming}, one a line.",
        f"{desk.where}词语{desk.quoted(term.word)}出现次数最多的 {k} 个{desk.part}是哪些？按次数从多到少列出。"
        f"{desk.matching}{desk.naming}，每行一个。",
    )
    return desk.sample(
        "T7", RANKING, question, "rank-sections", golds=tuple(label for label, _, _ in ranked),
        evidence=evidence(desk.outline, term.word, [number for _, _, number in ranked]),
    )  # fmt: skip


def rank_words(desk: Desk) -> MadeSample:
    """T7: of many words those that the text has most often, the most frequent first."""
    words = _candidates(desk, lambda term: term.total)
    ranked = query(desk, words, f"SELECT word FROM mentions GROUP BY word ORDER BY sum(times) DESC LIMIT {_FIRST}")
    listed = desk.listed(desk.quoted(term.word) for term in words)
    question = desk.say(
        f"Which {_FIRST} of these words occur most often in the whole text: {listed}? List them, the most frequent "
        f"first. {desk.matching} Write the words alone, one a line.",
        f"下列词语中，在全文中出现次数最多的 {_FIRST} 个是哪些：{listed}？按次数从多到少列出。"
        f"{desk.matching}只写词语，每行一个。",
    )
    first = [term for term in words if (term.word,) in ranked]
    shown = tuple(line for term in first for line in evidence(desk.outline, term.word, term.places[:1]))
    return desk.sample("T7", RANKING, question, "rank-words", golds=tuple(word for (word,) in ranked), evidence=shown)


def _candidates(desk: Desk, measure: Callable[[Term], int]) -> list[Term]:
    """Words of which the first few have different measures, above those of all others; in random order.

    Raises:
        NoSampleError: there are too few.
    """
    by_measure: dict[int, list[Term]] = {}
    for term in desk.terms:
        by_measure.setdefault(measure(term), []).append(term)
    most = desk.rng.randint(*_CANDIDATES)
    first = sorted(desk.some([one for one in sorted(by_measure) if one > 1], _FIRST, "tie in a ranking"))
    below = [term for value, some in by_measure.items() if value < first[0] for term in some]
    others = desk.some(below, most - _FIRST, "tie in a ranking")
    words = [desk.rng.choice(by_measure[value]) for value in first] + others
    return desk.rng.sample(words, len(words))


def rank_by_topic(desk: Desk) -> MadeSample:
    """T7: the sections that mention several words most, all of them counted together."""
    frequent = [term for term in desk.terms if len(term.places) > 1]
    least, most = _RANKED
    for _ in range(_TRIED):
        words = desk.some(frequent, desk.rng.randint(3, 4), "too few words in several sections")
        counts = sorted((sum(some) for some in zip(*(term.counts for term in words), strict=True)), reverse=True)
        top = next((k for k, (a, b) in enumerate(pairwise(counts)) if a == b), len(counts))
        top = min(top, sum(map(bool, counts)), most)
        if top >= least:
            break
    else:
        raise NoSampleError("tie in a ranking", "no words whose sections differ in their counts")
    ranked = query(
        desk, words,
        "SELECT label, id FROM sections JOIN mentions ON section = id GROUP BY id ORDER BY sum(times) DESC LIMIT ?",
        top,
    )  # fmt: skip
    listed = desk.listed(desk.quoted(term.word) for term in words)
    question = desk.say(
        f"{desk.where} Count the occurrences of the words {listed} together. Which {top} {desk.part}s have the most? "
        f"List them from the most to the fewest. {desk.matching} {desk.naming}, one a line.",
        f"{desk.where}把词语{listed}的出现次数合在一起计算，次数最多的 {top} 个{desk.part}是哪些？按次数从多到少列出。"
        f"{desk.matching}{desk.naming}，每行一个。",
    )
    shown = [
        line
        for _, place in ranked
        for line in evidence(desk.outline, next(term.word for term in words if term.counts[place]), [place])
    ]
    golds = tuple(label for label, _ in ranked)
    return desk.sample("T7", RANKING, question, "rank-by-topic", golds=golds, evidence=tuple(shown))


def rank_by_spread(desk: Desk) -> MadeSample:
    """T7: of many words those that most sections mention, most first."""
    words = _candidates(desk, lambda term: len(term.places))
    ranked = query(desk, words, f"SELECT word FROM mentions GROUP BY word ORDER BY count(*) DESC LIMIT {_FIRST}")
    listed = desk.listed(desk.quoted(term.word) for term in words)
    question = desk.say(
        f"{desk.where} Which {_FIRST} of these words occur, however often, in most {desk.part}s: {listed}? List them, "
        f"the one in most {desk.part}s first. {desk.matching} Write the words alone, one a line.",
        f"{desk.where}下列词语中，出现过该词的{desk.part}数目（不论次数）最多的 {_FIRST} 个是哪些：{listed}？"
        f"按数目从多到少列出。{desk.matching}只写词语，每行一个。",
    )
    first = [term for term in words if (term.word,) in ranked]
    shown = [line for term in first for line in evidence(desk.outline, term.word, term.places[:1])]
    golds = tuple(word for (word,) in ranked)
    return desk.sample("T7", RANKING, question, "rank-by-spread", golds=golds, evidence=tuple(dict.fromkeys(shown)))
