"""What every generator works with: the outline, its words, a random generator, and the wording of both languages."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

from golongrl.data.construct.generators.outline import ContextPart, Outline
from golongrl.data.construct.generators.sample import MadeSample, NoSampleError
from golongrl.data.construct.generators.terms import Term, terms
from golongrl.recipe import TaskType

T = TypeVar("T")

# Quoted sentences: long enough to say something, short enough to be read.
_SENTENCE = {"English": (40, 240), "Chinese": (14, 100)}


@dataclass
class Desk:
    """The material of one sample."""

    outline: Outline
    rng: random.Random
    _texts: dict[str, int] = field(default_factory=dict)

    @property
    def chinese(self) -> bool:
        return self.outline.lang == "Chinese"

    def say(self, english: str, chinese: str) -> str:
        """The wording in the language of the documents."""
        return chinese if self.chinese else english

    @cached_property
    def terms(self) -> list[Term]:
        return terms(self.outline)

    @property
    def sections(self) -> tuple[ContextPart, ...]:
        return self.outline.sections

    def label(self, number: int) -> str:
        return self.outline.sections[number].label

    def name(self, number: int) -> str:
        """A section as a question names it."""
        label = self.label(number)
        return label if self.outline.numbered else self.quoted(label)

    @property
    def where(self) -> str:
        """What the parts of the context are, as a question calls them."""
        if self.outline.numbered:
            return self.say(
                "The text is divided into passages with numbers in brackets.", "文本分为若干段落，编号写在方括号中。"
            )
        return self.say("The text is divided into sections with headings.", "文本分为若干小节，每节有标题。")

    @property
    def part(self) -> str:
        return self.say("passage" if self.outline.numbered else "section", "段落" if self.outline.numbered else "小节")

    @property
    def naming(self) -> str:
        """How an answer names a part."""
        if self.outline.numbered:
            return self.say(
                "Name a passage by its number in brackets, such as [3]", "用方括号中的编号表示段落，例如 [3]"
            )
        return self.say("Name a section by its heading, word for word", "用标题原文表示小节")

    @property
    def matching(self) -> str:
        """What counts as a mention."""
        return self.say(
            "Count only the word exactly as written here, in upper or lower case, headings included; "
            "plurals and other forms do not count.",
            "凡出现这几个字的地方都算，包括标题。",
        )

    def quoted(self, text: str) -> str:
        return self.say(f"`{text}`", f"“{text}”")

    def listed(self, texts: Iterable[str]) -> str:
        """Texts one after the other."""
        return self.say(", ", "、").join(texts)

    def sample(
        self, task: TaskType, kind: tuple[str, str], question: str, generator: str, **gold: object
    ) -> MadeSample:
        """A sample about the whole context; `kind` is its data_source and reward_mode."""
        return MadeSample(
            task,
            self.outline.lang,
            kind[0],
            kind[1],
            self.outline.context,
            question,
            generator,
            **gold,  # type: ignore[arg-type]
        )

    def some(self, found: Sequence[T], count: int, reason: str) -> list[T]:
        """So many of what was found, in random order.

        Raises:
            NoSampleError: there are fewer.
        """
        if len(found) < count:
            raise NoSampleError(reason, f"{len(found)} where {count} are needed")
        return self.rng.sample(list(found), count)

    def one(self, found: Sequence[T], reason: str) -> T:
        """One of what was found. Raises NoSampleError."""
        return self.some(found, 1, reason)[0]

    def one_of_each(self, found: Sequence[T], value: Callable[[T], int], reason: str) -> T:
        """One of what was found, every value equally likely: few words are frequent, and a guess of a rare word's count
        would be right too often.

        Raises:
            NoSampleError: nothing was found.
        """
        by_value: dict[int, list[T]] = {}
        for each in found:
            by_value.setdefault(value(each), []).append(each)
        return self.rng.choice(by_value[self.one(sorted(by_value), reason)])

    @cached_property
    def quotable(self) -> list[tuple[int, str]]:
        """(section, sentence) of the sentences that can be quoted: of a good length, standing in the context once."""
        least, most = _SENTENCE[self.outline.lang]
        context = self.outline.context
        return [
            (number, sentence)
            for number, sentence in self.outline.sentences
            if least <= len(sentence) <= most
            and sentence[-1] in ".!?。！？"
            and "`" not in sentence
            and context.count(sentence) == 1
        ]

    @cached_property
    def neighbours(self) -> list[tuple[int, str, str]]:
        """(section, sentence, the next sentence), both quotable, in one section."""
        allowed = set(self.quotable)
        context, between = self.outline.context, self.say(" ", "")
        return [
            (number, before, after)
            for (number, before), (other, after) in pairwise(self.outline.sentences)
            if number == other
            and {(number, before), (number, after)} <= allowed
            # In one paragraph: what follows a paragraph may be a table or a list, which is no sentence here.
            and f"{before}{between}{after}" in context
        ]

    def distinct_totals(self, count: int, least: int) -> list[Term]:
        """Terms of which no two are mentioned equally often, each at least so often; in random order."""
        by_total: dict[int, list[Term]] = {}
        for term in self.terms:
            if term.total >= least:
                by_total.setdefault(term.total, []).append(term)
        totals = self.some(sorted(by_total), count, "too few words with different counts")
        return [self.rng.choice(by_total[total]) for total in totals]


Generator = Callable[[Desk], MadeSample]
