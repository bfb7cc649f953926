"""The stage `sources`: documents of all inputs, each kept or with the reason why it is left out."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from golongrl.data.construct import grams, schemas
from golongrl.data.construct.contamination.index import open_index
from golongrl.data.construct.contamination.stage import index_folder
from golongrl.data.construct.contamination.texts import benchmark_files, index_digest
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.models import Pipeline, SourceInput, Sources
from golongrl.data.construct.sources import quality
from golongrl.data.construct.sources.files import UNREAD, hub_rows, pieces
from golongrl.data.construct.sources.readers import FileText, UnreadError, from_record, jsonl_records, read_file
from golongrl.data.construct.sources.similar import duplicates, signature
from golongrl.data.construct.stage import (
    CpuStage,
    Executor,
    Input,
    Made,
    Row,
    StageName,
    Verdict,
    Work,
    refused,
)
from golongrl.data.construct.table import parquet_slice
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.tokens import Measure, measure_of

# A document is cut a little shorter than allowed, because the pieces are cut by characters.
_CUT_SHARE = 0.95


class SourcesStage(CpuStage):
    """Files and rows in, documents out."""

    name: ClassVar[StageName] = "sources"
    version: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = schemas.SOURCES
    # A file may be a book of a megabyte.
    shard_rows: ClassVar[int] = 8

    def __init__(self, pipeline: Pipeline, tables: Tables, executor: Executor) -> None:
        super().__init__(executor)
        self._pipeline = pipeline
        self._tables = tables
        self._settings = pipeline.sources
        self.row_deadline_s = pipeline.sources.deadline_s

    def settings(self) -> Mapping[str, object]:
        settings = self._settings.model_dump(mode="json", exclude={"inputs", "deadline_s"})
        unwanted = self._pipeline.decontaminate
        if found := benchmark_files(unwanted):
            settings |= {"benchmarks": index_digest(found, unwanted), "max_shared": unwanted.max_shared}
        return {**settings, "tokenizer": self._pipeline.tokenizer, "hashes": grams.VERSION}

    def inputs(self) -> Iterator[Input]:
        for place in self._settings.inputs:
            yield from pieces(place)

    def work(self) -> Work:
        unwanted = self._pipeline.decontaminate
        index = index_folder(unwanted, self._tables)
        return _Read(self._settings, measure_of(self._pipeline.tokenizer), index, unwanted.max_shared)

    def identify(self, row: Row) -> str:
        return str(row["doc_id"])

    def settle(self, rows: Callable[[Sequence[str]], Iterator[tuple[int, Row]]]) -> Iterable[Verdict]:
        """Exact and near-duplicates; of documents that repeat each other the first stays."""
        first: dict[str, int] = {}
        origins: dict[int, str] = {}
        signatures: list[tuple[int, bytes]] = []
        for number, row in rows(["doc_id", "origin", "source", "signature"]):
            origins[number] = f"{row['source']}: {row['origin']}"
            same = first.setdefault(row["doc_id"], number)
            if same != number:
                yield Verdict(number, "duplicate", f"the same text as {origins[same]}")
            else:
                signatures.append((number, row["signature"]))
        if self._settings.near_duplicate is None:
            return
        for number, other, similarity in duplicates(signatures, self._settings.near_duplicate):
            yield Verdict(number, "near duplicate", f"{similarity:.0%} similar to {origins[other]}")


@dataclass(frozen=True, slots=True)
class _Read:
    """Reads files and rows, and judges each document by itself."""

    settings: Sources
    measure: Measure
    benchmarks: Path | None
    max_shared: float

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]:
        return [self._piece(row) for row in rows]

    def _piece(self, row: Row) -> Made:
        place = SourceInput.model_validate_json(json.dumps(row["place"]))
        made: Made = []
        for origin, found in _documents(row, place, self.settings):
            if isinstance(found, UnreadError):
                made.append(refused(found.reason, str(found), source=row["source"], origin=origin))
            else:
                made += self._judged(found, origin, str(row["source"]), place)
        if not made:
            made.append(
                refused("no rows", "nothing in this part of the file", source=row["source"], origin=row["origin"])
            )
        return made

    def _judged(self, document: FileText, origin: str, source: str, place: SourceInput) -> Made:
        text = quality.normalise(document.text)
        licence = document.licence or place.licence
        base: dict[str, Any] = {"title": document.title, "licence": licence, "source": source, "origin": origin}
        if problem := _licence_fault(licence, self.settings):
            return [refused(*problem, **base)]
        pieces = list(self._pieces(text))
        if len(pieces) == 1:
            return [self._row(*pieces[0], base, place)]
        return [
            self._row(part, n_tokens, {**base, "origin": f"{origin} part {number}"}, place)
            for number, (part, n_tokens) in enumerate(pieces, start=1)
        ]

    def _pieces(self, text: str) -> Iterator[tuple[str, int]]:
        """The text, or parts of it that are short enough, with their lengths."""
        (n_tokens,) = self.measure.count([text])
        if n_tokens <= self.settings.max_tokens:
            yield text, n_tokens
            return
        most = int(len(text) * self.settings.max_tokens / n_tokens * _CUT_SHARE)
        for part in quality.parts(text, max(1, most)):
            yield from self._pieces(part)

    def _row(self, text: str, n_tokens: int, base: dict[str, Any], place: SourceInput) -> dict[str, Any]:
        sha = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
        language = place.language or quality.language(text)
        known = {**base, "lang": language, "n_tokens": n_tokens, "sha256": sha, "doc_id": sha[:32]}
        if problem := quality.fault(text, n_tokens, self.settings):
            return refused(*problem, **known)
        if language is None:
            return refused("another language", "neither English nor Chinese", **known)
        tokens = grams.token_hashes(text)
        if self.benchmarks is not None:
            share, benchmark = open_index(self.benchmarks).share(tokens)
            if share > self.max_shared:
                return refused("benchmark document", f"{share:.1%} of its n-grams are in {benchmark}", **known)
        features = json.dumps(quality.features(text), sort_keys=True)
        return {**known, "text": text, "features": features, "signature": signature(tokens)}


def _licence_fault(licence: str | None, settings: Sources) -> tuple[str, str] | None:
    if licence is None:
        return None if settings.unknown_licence == "keep" else ("licence unknown", "none is stated; give `licence`")
    if settings.licences is not None and licence.lower() not in {one.lower() for one in settings.licences}:
        return "licence not accepted", f"{licence} is not in sources.licences"
    return None


def _documents(row: Row, place: SourceInput, settings: Sources) -> Iterator[tuple[str, FileText | UnreadError]]:
    """What a piece holds, each with where it stands."""
    kind = row["kind"]
    if kind == UNREAD:
        yield row["origin"], UnreadError("not readable", row["detail"])
    elif kind == "reference":
        from pydoc_data.topics import topics

        yield row["origin"], FileText(topics[row["path"]], row["path"], place.licence or "PSF-2.0")
    elif kind in ("jsonl", "parquet", "hub"):
        for number, record in records(row, place):
            yield f"{row['origin']} row {number}", _document(record, place)
    else:
        yield row["origin"], _whole(Path(row["path"]), kind, settings.max_file_bytes)


def records(row: Row, place: SourceInput) -> Iterator[tuple[int, object]]:
    """The records of a block with their numbers in the file; what cannot be decoded is an `UnreadError`."""
    first = row["first"]
    if row["kind"] == "jsonl":
        with open(row["path"], "rb") as file:
            file.seek(row["start"])
            block = file.read(row["end"] - row["start"])
        for number, record in jsonl_records(block):
            yield first + number, record
    elif row["kind"] == "hub":
        yield from enumerate(hub_rows(place).select(range(row["start"], row["end"])), start=first)
    else:
        number = first - 1
        try:
            for number, record in enumerate(parquet_slice(Path(row["path"]), row["start"], row["end"]), start=first):
                yield number, record
        except PipelineError as error:
            yield number + 1, UnreadError("not readable", f"from here on: {error}")


def _document(record: object, place: SourceInput) -> FileText | UnreadError:
    if isinstance(record, UnreadError):
        return record
    try:
        return from_record(record, place)
    except UnreadError as error:
        return error


def _whole(path: Path, kind: Any, most: int) -> FileText | UnreadError:
    try:
        if path.stat().st_size > most:
            return UnreadError("too large", f"{path.stat().st_size} bytes, sources.max_file_bytes is {most}")
        return read_file(path, kind)
    except UnreadError as error:
        return error
    except OSError as error:
        return UnreadError("not readable", str(error.strerror or error))
