"""Words that a context can be asked about, and where they stand. Pure.

A mention of an English word is the whole word in any case; of a Chinese one every place where its characters stand. So
a count is what a person finds with a search for whole words.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from itertools import pairwise

from golongrl.data.construct.generators.outline import Outline
from golongrl.data.construct.generators.sample import Language

# A shorter word is a particle, a longer run a path or a hash.
_ENGLISH = re.compile(r"[A-Za-z][a-z]{4,15}")
_ENGLISH_WORD = re.compile(r"(?<!\w)[A-Za-z]+(?!\w)")
# Whether `keeper` stands in "keeper's" and "co-keeper" is a matter of taste: such words are not asked about.
_COMPOUND = re.compile(r"\w+(?:['’-]\w+)+")
# A longer English word may say something; its first letters say what.
_PARTICLE = 3
_STEM = 6
# Each is counted in the whole text: enough to choose from.
_MOST_CHINESE = 400
_CHINESE = re.compile(r"[\u4e00-\u9fff]{2,6}")


@cache
def _stop_words(lang: Language) -> frozenset[str]:
    """Words that say nothing about a text."""
    file = resources.files("golongrl.data.construct.generators") / f"stop_words_{lang.lower()}.txt"
    return frozenset(file.read_text("utf-8").split())


@dataclass(frozen=True)
class Term:
    """A word of the context and how often each section mentions it, by section number."""

    word: str
    counts: tuple[int, ...]

    @cached_property
    def total(self) -> int:
        return sum(self.counts)

    @cached_property
    def places(self) -> tuple[int, ...]:
        """The sections that mention it."""
        return tuple(number for number, count in enumerate(self.counts) if count)


def mentions(outline: Outline, word: str) -> Term:
    """How often each section, with its label, mentions a word."""
    form = pattern(word)
    return Term(word, tuple(len(form.findall(outline.show(section))) for section in outline.sections))


def pattern(word: str) -> re.Pattern[str]:
    """What a mention of the word looks like."""
    if word.isascii():
        return re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.IGNORECASE)
    return re.compile(re.escape(word))


def terms(outline: Outline) -> list[Term]:
    """The words of the context that can be asked about, in order of their first mention."""
    return _chinese(outline) if outline.lang == "Chinese" else _english(outline)


def _english(outline: Outline) -> list[Term]:
    """In one pass over the text, because a long one has thousands of words."""
    shown: dict[str, Counter[str]] = {}
    counts: list[Counter[str]] = []
    for section in outline.sections:
        words = _ENGLISH_WORD.findall(outline.show(section))
        counts.append(Counter(word.lower() for word in words))
        for word in words:
            shown.setdefault(word.lower(), Counter())[word] += 1
    compounds = {
        piece for run in _COMPOUND.findall(outline.context) for piece in re.split(r"['’-]", run.lower()) if piece
    }
    empty = _stop_words("English") | compounds
    usable = [word for word in shown if word not in empty and _ENGLISH.fullmatch(shown[word].most_common(1)[0][0])]
    return [Term(shown[word].most_common(1)[0][0], tuple(some[word] for some in counts)) for word in usable]


def _chinese(outline: Outline) -> list[Term]:
    import rjieba  # heavy: a dictionary is read on first use

    cut = rjieba.cut(outline.context, False)
    times = Counter(word for word in cut if _CHINESE.fullmatch(word))
    # A word inside a longer one of the text would be counted there, too: a reader might not.
    empty = _stop_words("Chinese")
    within = {part for word in times for part in _parts(word)} | _halves(cut, times)
    usable = [word for word in times if word not in empty and word not in within and word[0] != word[-1]]
    every = max(1, len(usable) // _MOST_CHINESE)
    # Where its characters stand more often, they are the end of one word and the beginning of the next.
    return [mentions(outline, word) for word in usable[::every] if outline.context.count(word) == times[word]]


def _halves(cut: Sequence[str], times: Mapping[str, int]) -> set[str]:
    """Words that stand beside one and the same other word most of the time: the dictionary lacks the longer word that
    they are a half of, such as 环境 and 变量 in 环境变量."""
    found = set()
    beside = Counter((one, other) for one, other in pairwise(cut) if one in times and other in times)
    for (one, other), count in beside.items():
        if count > 1:
            found |= {word for word in (one, other) if 2 * count > times[word]}
    return found


def content_words(text: str, lang: Language) -> set[str]:
    """The words of a text that say something, English ones without their endings."""
    if lang == "English":
        found = {word.lower() for word in _ENGLISH_WORD.findall(text) if len(word) > _PARTICLE}
        return {word[:_STEM] for word in found - _stop_words("English")}
    import rjieba

    return {word for word in rjieba.cut(text, False) if _CHINESE.fullmatch(word)} - _stop_words("Chinese")


def _parts(word: str) -> list[str]:
    """The shorter runs of two or more characters inside a word."""
    return [word[a:b] for a in range(len(word)) for b in range(a + 2, len(word) + 1) if b - a < len(word)]


def evidence(outline: Outline, word: str, sections: Sequence[int]) -> tuple[str, ...]:
    """For each of these sections the first line that mentions the word, with the lines around it where the line alone
    stands in the text elsewhere, too: so a passage has one place in the context."""
    form = pattern(word)
    found = []
    for number in sections:
        lines = outline.show(outline.sections[number]).split("\n")
        first = next(place for place, line in enumerate(lines) if form.search(line))
        found.append(_unique(outline.context, lines, first))
    return tuple(found)


def _unique(context: str, lines: Sequence[str], place: int) -> str:
    """The line, and as many lines around it as make it occur once in the context (all of them, if none do)."""
    for reach in range(len(lines)):
        passage = "\n".join(lines[max(0, place - reach) : place + reach + 1])
        if context.count(passage) == 1:
            return passage
    return "\n".join(lines)
