"""What the builders of all task types share: the draft of a prompt, the text around a puzzle, and how it is worded.

Every builder is a pure function of (corpus, random generator, budget, style). `terse` prompts are a cue word and the
bare material, for models with a tiny vocabulary; `full` prompts say in a sentence what is asked and how to answer.
"""

import random
from dataclasses import dataclass
from typing import Literal

from golongrl.data.corpus import Corpus, estimate_tokens
from golongrl.data.errors import DataError

Style = Literal["terse", "full"]

# Distinct words up to this many are drawn from one place, in so many attempts; more are gathered over sections.
SHORT_RUN = 100
ATTEMPTS = 200
# A running word of the corpus with its share of the line end, in tokens of a small vocabulary.
TERSE_WORD_TOKENS = 1.6


@dataclass(frozen=True, slots=True)
class Draft:
    """A prompt in parts, its gold answer, and one well-formed response.

    `doc_ids` is the gold of LongBench-Pro rows, `golden_label` of the others. `think` and `answer` are what a perfect
    response puts before and after `</think>`; the script that warms up the packaged model learns from them.
    """

    context: str
    question: str
    think: str
    answer: str
    doc_ids: tuple[str, ...] = ()
    golden_label: str = ""


@dataclass(frozen=True, slots=True)
class Material:
    """What a builder may draw from."""

    corpus: Corpus
    rng: random.Random
    tokens: int
    style: Style

    def run(self, tokens: int) -> list[str]:
        """Whole paragraphs of running text of about `tokens` tokens, from a random place, wrapping round at the end.

        Raises:
            DataError: the corpus is shorter than that.
        """
        if self.corpus.tokens < tokens:
            raise DataError(
                f"corpus {self.corpus.name}: about {self.corpus.tokens} tokens, too few for prompts of {tokens}; "
                "lower data.context_tokens or give more text"
            )
        sections = self.corpus.sections
        start = self.rng.randrange(len(sections))
        paragraphs: list[str] = []
        left = tokens
        for offset in range(len(sections)):
            for paragraph in sections[(start + offset) % len(sections)].paragraphs:
                cost = estimate_tokens(paragraph) + 2
                if cost > left and paragraphs:
                    return paragraphs
                paragraphs.append(paragraph)
                left -= cost
        return paragraphs

    def words(self, count: int) -> list[str]:
        """`count` running words from a random place of one section (of several, where sections are short)."""
        sections = self.corpus.sections
        index = self.rng.randrange(len(sections))
        words = sections[index].words
        start = self.rng.randrange(max(1, len(words) - count + 1))
        drawn = list(words[start : start + count])
        while len(drawn) < count:
            index = (index + 1) % len(sections)
            drawn.extend(sections[index].words[: count - len(drawn)])
        return drawn

    def distinct_words(self, count: int) -> list[str]:
        """`count` running words from a random place on, no two the same; a repeated word is passed over.

        Raises:
            DataError: the corpus has fewer different words.
        """
        if count <= SHORT_RUN:
            for _ in range(ATTEMPTS):
                drawn = list(dict.fromkeys(self.words(count * 2)))
                if len(drawn) >= count:
                    return drawn[:count]
        sections = self.corpus.sections
        first = self.rng.randrange(len(sections))
        words = sections[first].words
        start = self.rng.randrange(max(1, len(words) - 2 * count))
        seen = dict.fromkeys(words[start:])
        for offset in range(1, len(sections) + 1):
            if len(seen) >= count:
                return list(seen)[:count]
            seen.update(dict.fromkeys(sections[(first + offset) % len(sections)].words))
        raise self.poor(f"has fewer than {count} different words")

    def word_budget(self, taken: int = 0) -> int:
        """Running words that fit in a terse context beside `taken` tokens."""
        return max(0, int((self.tokens - taken) / TERSE_WORD_TOKENS))

    def poor(self, what: str) -> DataError:
        """The corpus cannot yield what a builder needs."""
        return DataError(f"corpus {self.corpus.name}: {what}; give more text or leave the task out of data.tasks")


def terse_lines(words: list[str], size: int) -> list[str]:
    """Lines of `size` words, each word with a leading space: one spelling, one token, wherever it stands."""
    return ["".join(f" {word}" for word in words[i : i + size]) for i in range(0, len(words) - size + 1, size)]


def scatter(rng: random.Random, lines: list[str], needles: list[str]) -> list[str]:
    """Put `needles` at random places between `lines`, keeping both orders."""
    places = sorted(rng.randrange(len(lines) + 1) for _ in needles)
    merged = list(lines)
    for place, needle in reversed(list(zip(places, needles, strict=True))):
        merged.insert(place, needle)
    return merged


def answer_lines(items: list[str]) -> str:
    """The answer area of LongBench-Pro tasks: a mark, then one item a line."""
    return "[Answer]\n" + "\n".join(items)
