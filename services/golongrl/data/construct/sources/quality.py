"""What a document is like, and whether it is good enough. Pure functions of its text."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from typing import Final

from golongrl.data.construct.models import Language, Sources

_NEWLINES: Final = re.compile(r"\r\n?|\u2028|\u2029")
_MANY_BLANKS: Final = re.compile(r"\n{3,}")
# Control characters, but for tab and new line.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]")
_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_KANA: Final = re.compile(r"[\u3041-\u30ff]")
_WORD: Final = re.compile(r"[^\W\d_]+")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_DATE: Final = re.compile(r"\b(?:1[5-9]|20)\d\d\b|\d+月\d+日")
_SPEECH: Final = re.compile(r"[\"“「『][^\"”」』\n]{8,}[\"”」』]|^\s*[A-Z][\w .]{1,20}:\s", re.MULTILINE)
_HEADING: Final = re.compile(
    r"^(?:#{1,6}\s+\S|[*=\-~^\"]{3,}\s*$|第[一二三四五六七八九十百0-9]+[章节回])", re.MULTILINE
)
_TABLE: Final = re.compile(r"^\s*\|.*\|.*\|\s*$", re.MULTILINE)
_LIST: Final = re.compile(r"^\s*(?:[-*+•]|\d+[.)、])\s+\S", re.MULTILINE)
# Words that every page of English has: about a third of running text, a tenth of a reference.
_ENGLISH: Final = frozenset(
    "the of and to in is a that it for as be are with on this by or an not from which at".split()  # noqa: SIM905
)
# Share of these among the words of an English text.
_LEAST_ENGLISH: Final = 0.12
# German "in", "an", "so" and French "a", "on" are in the list, too: this many different ones are needed.
_LEAST_DIFFERENT: Final = 6
_LEAST_HAN: Final = 0.3
_MOST_KANA: Final = 0.05
# Characters of a paragraph of about three sentences; Chinese says the same in fewer.
_LONG: Final = 200
_LONG_HAN: Final = 60
# Broken encodings leave this sign.
_REPLACED: Final = "\ufffd"
_MOST_REPLACED: Final = 0.001


def normalise(text: str) -> str:
    """NFC, one kind of line end and of blank, no control characters, no more than one blank line in a row."""
    text = unicodedata.normalize("NFC", _NEWLINES.sub("\n", text)).replace("\u00a0", " ")
    # Line by line: a pattern for blanks before a line's end takes the square of the length of a run of blanks.
    text = "\n".join(line.rstrip(" \t") for line in _CONTROL.sub("", text).split("\n"))
    return _MANY_BLANKS.sub("\n\n", text).strip()


def language(text: str) -> Language | None:
    """English, Chinese, or None for another one."""
    han = len(_HAN.findall(text))
    words = _WORD.findall(text)
    letters = sum(map(len, words))
    if not letters:
        return None
    if han >= _LEAST_HAN * letters:
        return None if len(_KANA.findall(text)) > _MOST_KANA * letters else "Chinese"
    common = Counter(word for word in map(str.lower, words) if word in _ENGLISH)
    enough = sum(common.values()) >= _LEAST_ENGLISH * len(words) and len(common) >= min(_LEAST_DIFFERENT, len(words))
    return "English" if enough else None


def fault(text: str, n_tokens: int, settings: Sources) -> tuple[str, str] | None:
    """Why a document is not good enough, as reason and detail."""
    if n_tokens < settings.min_tokens:
        return "too short", f"{n_tokens} tokens, sources.min_tokens is {settings.min_tokens}"
    visible = sum(not character.isspace() for character in text)
    letters = sum(map(len, _WORD.findall(text)))
    if letters < settings.min_letters * visible:
        return "few letters", f"{letters / max(1, visible):.0%} of the characters are letters"
    if text.count(_REPLACED) > _MOST_REPLACED * len(text):
        return "broken encoding", f"{text.count(_REPLACED)} signs could not be decoded where the file was made"
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    repeated = len(lines) - len(set(lines))
    if repeated > settings.max_repeated_lines * len(lines):
        return "repeated lines", f"{repeated} of {len(lines)} lines repeat another"
    return None


def features(text: str) -> dict[str, int]:
    """Counts that say which tasks a document suits."""
    paragraphs = [paragraph for paragraph in text.split("\n\n") if paragraph.strip()]
    return {
        "paragraphs": len(paragraphs),
        "long_paragraphs": sum(_is_long(paragraph) for paragraph in paragraphs),
        "numbers": len(_NUMBER.findall(text)),
        "dates": len(_DATE.findall(text)),
        "speech": len(_SPEECH.findall(text)),
        "headings": len(_HEADING.findall(text)),
        "table_lines": len(_TABLE.findall(text)),
        "list_lines": len(_LIST.findall(text)),
    }


def _is_long(paragraph: str) -> bool:
    return len(paragraph) >= _LONG or (not paragraph.isascii() and len(_HAN.findall(paragraph)) >= _LONG_HAN)


def parts(text: str, most: int) -> Iterator[str]:
    """The text in pieces of at most `most` characters, cut between paragraphs, else lines, else anywhere."""
    start = 0
    while len(text) - start > most:
        end = start + most
        cut = max(text.rfind("\n\n", start + most // 2, end), -1)
        cut = cut if cut > start else text.rfind("\n", start + most // 2, end)
        cut = cut if cut > start else end
        yield text[start:cut].strip()
        start = cut
    yield text[start:].strip()
