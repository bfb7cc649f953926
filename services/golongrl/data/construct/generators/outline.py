"""Documents as a context of named sections, so that a question can point at a place and an answer can name one.

A context whose sections all have headings of their own is asked about by heading; any other gets numbers in brackets.
Invariants: a label occurs as a label once; a section's text is the documents' own, only hard line ends of prose are
undone, so that a sentence stands on one line.
"""

import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from golongrl.data.construct.generators.sample import Document, Language, NoSampleError
from golongrl.data.corpus import document_sections, estimate_tokens

Measure = Callable[[str], int]

# With fewer sections a question that asks for some of them can be guessed.
LEAST_SECTIONS = 4
# A numbered section has about this share of the context, so that there are enough to choose from, within bounds: a
# section is a few paragraphs.
_SECTIONS_WANTED = 24
_SECTION_TOKENS = (60, 600)
# The rest is for labels and line ends.
_TEXT_SHARE = 0.95
# A paragraph has at most this part of the context.
_PIECES = 8
# A longer heading is prose.
_LONGEST_HEADING = 80
# Lines of at least this width that end without a mark were broken by an editor.
_WRAPPED_WIDTH = 40

_LIST = re.compile(r"^\s*(?:[-*•+|>#=~_`]|\d+[.)、]|[(（]\d+[)）]|\.\. )")
_HAN = re.compile(r"[\u4e00-\u9fff，。！？；：、]")
# Of a paragraph in a Chinese document; one with fewer Chinese characters is code or a table.
_HAN_SHARE = 0.4
_SPACES = re.compile(r"[ \t\u3000]+")
_ENGLISH_END = re.compile(r"(?<=[.!?])[\"')\]”’]*\s+(?=[\"'(“‘]?[A-Z])")
_CHINESE_END = re.compile(r"(?<=[。！？])[”’」』）]*")


@dataclass(frozen=True)
class ContextPart:
    """A stretch of the context under one label."""

    label: str
    paragraphs: tuple[str, ...]

    @cached_property
    def text(self) -> str:
        """What stands under the label."""
        return "\n\n".join(self.paragraphs)


@dataclass(frozen=True)
class Outline:
    """A context as its sections."""

    sections: tuple[ContextPart, ...]
    lang: Language
    numbered: bool
    # The paragraph with which the document begins, if the context is one document from its beginning.
    opening: str = ""

    def show(self, section: ContextPart) -> str:
        """A section as it stands in the context."""
        return f"{section.label}\n{section.text}" if self.numbered else f"## {section.label}\n\n{section.text}"

    @cached_property
    def context(self) -> str:
        return "\n\n".join(map(self.show, self.sections))

    @cached_property
    def sentences(self) -> tuple[tuple[int, str], ...]:
        """(number of the section, sentence) of the prose, in order."""
        return tuple(
            (number, sentence)
            for number, section in enumerate(self.sections)
            for paragraph in section.paragraphs
            if is_prose(paragraph)
            for sentence in sentences_of(paragraph, self.lang)
        )


def outline(documents: Sequence[Document], lang: Language, most_tokens: int, measure: Measure, start: float) -> Outline:
    """The documents' sections, up to `most_tokens` of them.

    Args:
        start: where to begin if the first document alone has more: a share of what it may leave out.

    Raises:
        NoSampleError: they have too few sections.
    """
    parts = [part for document in documents for part in document_sections(document.title, document.text)]
    # A long table or listing in one piece would leave room for little else.
    largest = max(1, most_tokens // _PIECES)
    parts = [
        (title, tuple(piece for one in paragraphs for piece in _pieces(unwrapped(one, lang), largest, measure)))
        for title, paragraphs in parts
    ]
    beginning = parts[0][1][0] if len(documents) == 1 and parts else None
    parts = _cut(parts, int(_TEXT_SHARE * most_tokens), measure, start)
    headings = [title.strip() for title, _ in parts]
    named = (
        len(parts) >= LEAST_SECTIONS
        and len({heading.lower() for heading in headings}) == len(headings)
        and all(0 < len(heading) <= _LONGEST_HEADING and "\n" not in heading for heading in headings)
        and not any(heading.startswith("[") for heading in headings)
    )
    if named:
        sections = [ContextPart(_SPACES.sub(" ", title.strip()), paragraphs) for title, paragraphs in parts]
    else:
        sections = list(_numbered(parts))
    if len(sections) < LEAST_SECTIONS:
        raise NoSampleError("too few sections", f"{len(sections)}, at least {LEAST_SECTIONS} are needed")
    opening = beginning if parts[0][1][0] is beginning and beginning is not None else ""
    return Outline(tuple(sections), lang, numbered=not named, opening=opening)


def _pieces(paragraph: str, most: int, measure: Measure) -> list[str]:
    """The paragraph, cut at line ends where it is longer than `most`."""
    if measure(paragraph) <= most:
        return [paragraph]
    pieces: list[list[str]] = [[]]
    filled = 0
    for line in paragraph.split("\n"):
        cost = measure(line) + 1
        if pieces[-1] and filled + cost > most:
            pieces.append([])
            filled = 0
        pieces[-1].append(line)
        filled += cost
    return ["\n".join(piece) for piece in pieces]


_Part = tuple[str, tuple[str, ...]]


def _cut(parts: list[_Part], most: int, measure: Measure, start: float) -> list[_Part]:
    """Whole paragraphs in their order, up to `most` tokens, from the place that `start` names."""
    costs = [[measure(paragraph) + 2 for paragraph in paragraphs] for _, paragraphs in parts]
    spare = sum(map(sum, costs)) - most
    skip = max(0.0, start * spare)
    kept: list[_Part] = []
    left = float(most)
    for (title, paragraphs), prices in zip(parts, costs, strict=True):
        some: list[str] = []
        for paragraph, price in zip(paragraphs, prices, strict=True):
            if skip >= price:
                skip -= price
            elif left >= price:
                skip = 0.0
                left -= price
                some.append(paragraph)
            else:
                left = 0.0
        if some:
            kept.append((title, tuple(some)))
    return kept


def _numbered(parts: Sequence[_Part]) -> Iterator[ContextPart]:
    """Sections of about equal length, labelled [1], [2] and so on; headings stay in their text."""
    flow = [one for title, paragraphs in parts for one in ([title, *paragraphs] if title else paragraphs)]
    total = sum(map(estimate_tokens, flow))
    least, most = _SECTION_TOKENS
    size = min(most, max(least, total // _SECTIONS_WANTED))
    some: list[str] = []
    filled = number = 0
    for paragraph in flow:
        some.append(paragraph)
        filled += estimate_tokens(paragraph)
        if filled >= size:
            number += 1
            yield ContextPart(f"[{number}]", tuple(some))
            some, filled = [], 0
    if some:
        yield ContextPart(f"[{number + 1}]", tuple(some))


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is running text: one line, no list, no table, no code."""
    return "\n" not in paragraph and not paragraph.startswith(" ") and not _LIST.match(paragraph)


def unwrapped(paragraph: str, lang: Language) -> str:
    """Prose on one line; whatever else is left as it is."""
    lines = textwrap.dedent(paragraph.replace("\xa0", " ").replace("\u3000", " ")).split("\n")
    indented = any(line.startswith((" ", "\t")) for line in lines[1:]) or (len(lines) == 1 and paragraph[0] in " \t")
    if lang == "Chinese":
        # The first line of a paragraph is indented, and code has few Chinese characters.
        indented = len(_HAN.findall(paragraph)) < _HAN_SHARE * len("".join(lines).replace(" ", ""))
    wide = lang == "Chinese" or all(len(line) >= _WRAPPED_WIDTH for line in lines[:-1])
    if indented or not wide or any(_LIST.match(line) for line in lines):
        return paragraph.rstrip()
    return _SPACES.sub(" ", _joined([line.strip() for line in lines])).strip()


def _joined(lines: Sequence[str]) -> str:
    """Lines of prose as one: with a space, but for a word that was divided and between Chinese characters."""
    text = lines[0]
    for line in lines[1:]:
        divided = text.endswith("-") and text[-2:-1].isalnum()
        chinese = not (text[-1:].isascii() and line[:1].isascii())
        text += line if divided or chinese else f" {line}"
    return text


def sentences_of(paragraph: str, lang: Language) -> list[str]:
    """The sentences of a paragraph of prose, as they stand in it."""
    end = _CHINESE_END if lang == "Chinese" else _ENGLISH_END
    cuts = [0, *(found.end() for found in end.finditer(paragraph)), len(paragraph)]
    return [piece for a, b in pairwise(cuts) if (piece := paragraph[a:b].strip())]
