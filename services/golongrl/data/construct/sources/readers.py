"""Reading files of every kind as documents. A reader gives what a file holds, or raises `UnreadError`."""

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from golongrl.data import keys_once
from golongrl.data.construct.models import Format_, SourceInput
from golongrl.errors import brief

SUFFIXES: Final[Mapping[str, Format_]] = {
    ".txt": "text", ".rst": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown",
    ".html": "html", ".htm": "html", ".xhtml": "html", ".pdf": "pdf", ".jsonl": "jsonl", ".parquet": "parquet",
}  # fmt: skip
# Where a text names its own licence.
_SPDX: Final = re.compile(r"SPDX-License-Identifier:\s*([^\s*#>-][^\n*]*)")
_FRONT: Final = re.compile(r"\A---[ \t]*\n(.*?)\n---[ \t]*\n", re.DOTALL)
_FRONT_KEY: Final = re.compile(r"^(licen[cs]e|title|language)\s*:\s*(.+?)\s*$", re.MULTILINE)
_MARKDOWN_TITLE: Final = re.compile(r"^#\s+(\S.*)$", re.MULTILINE)
# Parts of a page that are not its text.
_NOT_TEXT: Final = "script, style, noscript, template, svg, nav, header, footer, aside, form, iframe"
_BLOCKS: Final = "p, div, section, article, main, ul, ol, dl, dt, dd, blockquote, br, hr, table, caption, figcaption"
# What the page's own white space leaves between the rows of a table, and after the mark of an item.
_TABLE_ROWS: Final = re.compile(r"\|[ \t]*\n\s*\|")
_ITEM: Final = re.compile(r"^-\s+", re.MULTILINE)


class UnreadError(Exception):
    """A file or record that gives no document; `reason` is short, the message says more."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class FileText:
    """What a file or record holds."""

    text: str
    title: str = ""
    licence: str | None = None


def format_of(path: Path, asked: Format_) -> Format_ | None:
    """How a file is read: as asked, or by its suffix; None where the suffix is not known."""
    return SUFFIXES.get(path.suffix.lower()) if asked == "auto" else asked


def read_file(path: Path, kind: Format_) -> FileText:
    """The document of a text, markdown, HTML or PDF file.

    Raises:
        UnreadError: it gives none.
    """
    found = _FILE_READERS[kind](path.read_bytes())
    _refuse_halves(f"{found.text}{found.title}{found.licence}")
    return found


def from_record(record: object, place: SourceInput) -> FileText:
    """The document of a row of a data set.

    Raises:
        UnreadError: the row has no such text.
    """
    if not isinstance(record, Mapping):
        raise UnreadError("not of the format", f"expected an object, got {type(record).__name__}")
    text = record.get(place.text_key)
    if not isinstance(text, str):
        found = ", ".join(map(str, list(record)[:10]))
        raise UnreadError("not of the format", f"no text under the key {place.text_key} (keys: {found})")
    title = record.get(place.title_key)
    return FileText(text, title if isinstance(title, str) else "", _licence_of(record, place.licence_key))


def _licence_of(record: Mapping[str, Any], key: str) -> str | None:
    for name in (key, "licence", "license"):
        if isinstance(value := record.get(name), str) and value.strip():
            return value.strip()
    return None


def jsonl_records(block: bytes) -> Iterator[tuple[int, object]]:
    """The records of some lines with their numbers from 0; what is no JSON is an `UnreadError`."""
    for number, line in enumerate(block.split(b"\n")):
        text = line.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            continue
        try:
            record = keys_once.loads(text.decode("utf-8"))
            # As an escape it comes through UTF-8.
            if b"\\ud" in text.lower():
                _refuse_halves(json.dumps(record, ensure_ascii=False))
            yield number, record
        except UnreadError as error:
            yield number, error
        except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError
            yield number, UnreadError("not JSON", str(error))


def _refuse_halves(text: str) -> None:
    """Half of a character ends the tokenizer and every table that it is written to."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UnreadError("not Unicode", f"half of a character, {ascii(text[error.start])[1:-1]}") from error


def _decode(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadError("not UTF-8", f"{error.reason} at byte {error.start + 1}") from error


def _text(data: bytes) -> FileText:
    text = _decode(data)
    licence = _SPDX.search(text)
    return FileText(text, licence=licence[1].strip() if licence else None)


def _markdown(data: bytes) -> FileText:
    text = _decode(data).replace("\r\n", "\n")
    found: dict[str, str] = {}
    if front := _FRONT.match(text):
        found = {key.lower().replace("license", "licence"): value for key, value in _FRONT_KEY.findall(front[1])}
        text = text[front.end() :]
    title = found.get("title", "").strip("\"'") or (match[1] if (match := _MARKDOWN_TITLE.search(text)) else "")
    licence = found.get("licence", "").strip("\"'") or (match[1].strip() if (match := _SPDX.search(text)) else None)
    return FileText(text, title, licence or None)


def _html(data: bytes) -> FileText:
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(data)
    title = tree.css_first("title")
    link = tree.css_first('link[rel="license"], a[rel="license"]')
    licence = (link.attributes.get("href") or link.text()).strip() if link is not None else None
    root = tree.css_first("main") or tree.css_first("article") or tree.body
    if root is None:
        raise UnreadError("no text", "the page has no body")
    for node in root.css(_NOT_TEXT):
        node.decompose()
    for row in root.css("tr"):
        cells = [" ".join(cell.text().split()) for cell in row.css("th, td")]
        row.replace_with("\n| " + " | ".join(cells) + " |")
    # Headings and lists as in markdown, so that a page is cut into sections as other documents are.
    for level in range(1, 7):
        for node in root.css(f"h{level}"):
            words = " ".join(node.text().split())
            node.replace_with(f"\n\n{'#' * level} {words}\n\n" if words else "\n\n")
    # Indented as markdown has code: a comment in it, which begins with #, is no heading.
    for node in root.css("pre"):
        node.replace_with("\n\n" + "".join(f"    {line}\n" for line in node.text().split("\n")) + "\n")
    for node in root.css("li"):
        node.insert_before("\n- ")
    for node in root.css(_BLOCKS):
        node.insert_before("\n" if node.tag in ("br", "dt", "dd") else "\n\n")
        if node.tag not in ("br", "hr"):
            node.insert_after("\n")
    text = _ITEM.sub("- ", _TABLE_ROWS.sub("|\n|", root.text()))
    return FileText(text, " ".join(title.text().split()) if title is not None else "", licence)


def _pdf(data: bytes) -> FileText:
    from io import BytesIO

    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    # It reports what it makes of every odd font, in lines for its own developers.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        reader = PdfReader(BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadError("encrypted", "the PDF asks for a password")
        text = "\n\n".join(page.extract_text() for page in reader.pages)
        title = str(reader.metadata.title or "") if reader.metadata else ""
    # pypdf meets damaged files with its own errors and with those of what it computes.
    except (PyPdfError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise UnreadError(
            "not readable", f"not readable as PDF: {type(error).__name__}: {brief(error, 200)}"
        ) from error
    if not text.strip():
        raise UnreadError("no text", "the PDF holds pictures of text; recognise it first")
    return FileText(text, title)


_FILE_READERS: Final[Mapping[Format_, Callable[[bytes], FileText]]] = {
    "text": _text, "markdown": _markdown, "html": _html, "pdf": _pdf,
}  # fmt: skip
