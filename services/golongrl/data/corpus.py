"""Text to build prompts from: a folder of plain text, or the language reference that ships inside CPython.

Invariants: a paragraph occurs once in a corpus (topics of the language reference repeat each other), sections keep the
order of their text, and the two halves of `split` share no paragraph.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from golongrl import files
from golongrl.data.errors import DataError
from golongrl.errors import InputError
from golongrl.reading import utf8
from golongrl.recipe.fit import BUILTIN_CORPUS

PYTHON_REFERENCE = BUILTIN_CORPUS
TEXT_SUFFIXES = (".txt", ".md", ".rst")
# Least text a corpus needs: below this the nine tasks repeat themselves.
LEAST_TOKENS = 2_000
# A section is cut after this many paragraphs, so that a long document can lie on both sides of a split.
LONGEST_SECTION = 24
# Frequent words used as names in records; few, so that a small tokenizer has one token for each.
NAMES = 240

_UNDERLINE = re.compile(r"^(?:\*{3,}|={3,}|-{3,}|~{3,}|\^{3,}|\"{3,})$")
_MARKDOWN = re.compile(r"^#{1,6}\s+(?P<title>\S.*)$")
_BLANK = re.compile(r"\n[ \t]*\n")
_PIECE = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"[^\W\d_]+")
# Chinese and Japanese have no spaces: a run of their characters is one piece, though a tokenizer makes about one token
# of each character.
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")


def estimate_tokens(text: str) -> int:
    """About how many tokens a tokenizer with a large vocabulary makes of `text`: words, marks and line ends."""
    characters = 0 if text.isascii() else len(_CJK.findall(text))
    return len(_PIECE.findall(text)) + text.count("\n") + characters


@dataclass(frozen=True)
class CorpusSection:
    """A stretch of one document under one heading."""

    title: str
    paragraphs: tuple[str, ...]

    @cached_property
    def text(self) -> str:
        """The paragraphs, blank lines between them."""
        return "\n\n".join(self.paragraphs)

    @cached_property
    def tokens(self) -> int:
        """Estimated length in tokens."""
        return estimate_tokens(self.text)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The running words of the section, letters only, in order."""
        return tuple(_WORD.findall(self.text))


@dataclass(frozen=True)
class Corpus:
    """Sections of text and what is derived from them."""

    name: str
    sections: tuple[CorpusSection, ...]

    @cached_property
    def tokens(self) -> int:
        """Estimated length in tokens."""
        return sum(section.tokens for section in self.sections)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Frequent lower-case words of four to eight letters, most frequent first: names for records."""
        counts = Counter(word for section in self.sections for word in section.words)
        usable = [(word, n) for word, n in counts.items() if word.islower() and word.isascii() and 4 <= len(word) <= 8]
        return tuple(word for word, _ in sorted(usable, key=lambda item: (-item[1], item[0]))[:NAMES])

    def split(self, share: float) -> tuple["Corpus", "Corpus"]:
        """(train, held out), about `share` of the tokens in the second; evenly spread over the text."""
        kept: list[CorpusSection] = []
        held: list[CorpusSection] = []
        held_tokens = seen = 0
        for section in self.sections:
            seen += section.tokens
            if held_tokens + section.tokens / 2 < share * seen:
                held.append(section)
                held_tokens += section.tokens
            else:
                kept.append(section)
        return Corpus(self.name, tuple(kept)), Corpus(f"{self.name} (held out)", tuple(held))


def load_corpus(spec: str) -> Corpus:
    """Read `builtin:python-reference` or every .txt, .md and .rst file under a folder (in name order).

    Raises:
        DataError: no such folder, unreadable text, or too little of it.
    """
    seen: set[str] = set()
    documents = _python_reference() if spec == PYTHON_REFERENCE else _folder(spec)
    sections = tuple(section for title, text in documents for section in _sections(title, text, seen))
    corpus = Corpus(spec, sections)
    if corpus.tokens < LEAST_TOKENS:
        raise DataError(f"corpus {spec}: about {corpus.tokens} tokens of text, at least {LEAST_TOKENS} are needed")
    return corpus


def document_sections(title: str, text: str) -> list[tuple[str, tuple[str, ...]]]:
    """(heading, paragraphs) of one document in order; what stands before its first heading is under its title."""
    merged: list[tuple[str, tuple[str, ...]]] = []
    for section in _sections(title, text, set()):
        if merged and merged[-1][0] == section.title:
            merged[-1] = (section.title, merged[-1][1] + section.paragraphs)
        else:
            merged.append((section.title, section.paragraphs))
    return merged


def _python_reference() -> Iterator[tuple[str, str]]:
    from pydoc_data.topics import topics

    yield from sorted(topics.items())


def _folder(spec: str) -> Iterator[tuple[str, str]]:
    for path in text_files(spec):
        try:
            yield path.stem, utf8(path.read_bytes(), path)
        except InputError as error:
            raise DataError(f"corpus file {error}") from error
        except OSError as error:
            raise DataError(f"corpus file {path}: cannot be read: {error.strerror or error}") from error


def text_files(spec: str) -> list[Path]:
    """The files of a corpus's folder, in name order.

    Raises:
        DataError: no such folder, or no text in it.
    """
    root = Path(spec)
    if spec.startswith("builtin:"):
        raise DataError(f"corpus {spec}: unknown; the builtin corpus is {PYTHON_REFERENCE}")
    if not root.is_dir():
        raise DataError(f"corpus {spec}: {'not a folder' if root.exists() else 'no such folder'}")
    texts = (path for path in root.rglob("*") if path.suffix in TEXT_SUFFIXES and path.is_file())
    found = sorted(files.outside_outputs(root, texts))
    if not found:
        raise DataError(f"corpus {spec}: no {', '.join(TEXT_SUFFIXES)} file in this folder")
    return found


def _sections(document: str, text: str, seen: set[str]) -> Iterator[CorpusSection]:
    """Cut a document at its headings; paragraphs already `seen` in the corpus are left out."""
    title = document
    paragraphs: list[str] = []
    for block in _BLANK.split(text.replace("\r\n", "\n")):
        paragraph = block.strip("\n").rstrip()
        if not paragraph.strip():
            continue
        heading = _heading(paragraph)
        if heading or len(paragraphs) == LONGEST_SECTION:
            if paragraphs:
                yield CorpusSection(title, tuple(paragraphs))
            paragraphs = []
            title = heading or title
        if not heading and paragraph not in seen:
            seen.add(paragraph)
            paragraphs.append(paragraph)
    if paragraphs:
        yield CorpusSection(title, tuple(paragraphs))


def _heading(paragraph: str) -> str | None:
    lines = paragraph.split("\n")
    if len(lines) == 2 and _UNDERLINE.match(lines[1].strip()):
        heading = lines[0].strip()
        # Quoted as a whole; not `"pdb" - the debugger`.
        return heading.strip('"') if heading.count('"') == 2 and heading[0] == heading[-1] == '"' else heading
    match = _MARKDOWN.match(lines[0]) if len(lines) == 1 else None
    return match["title"] if match else None
