"""Which files a pipeline's inputs name, and how they are cut into pieces of work."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from golongrl import files
from golongrl.data import keys_once
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.keys import digest
from golongrl.data.construct.models import SourceInput
from golongrl.data.construct.sources.readers import SUFFIXES, format_of
from golongrl.data.construct.stage import Input
from golongrl.data.corpus import PYTHON_REFERENCE
from golongrl.errors import InputError, brief
from golongrl.reading import file_sha256, refuse_special

# Rows of a data set that are read together.
BLOCK = 64
# The kind of a file that cannot be read, with why as `detail`.
UNREAD = "unread"


def pieces(place: SourceInput) -> Iterator[Input]:
    """The files of an input, or blocks of rows of one, each with an id that covers its content.

    Raises:
        PipelineError: there is no such file or folder, or nothing in it is of a format that is read.
    """
    how = place.model_dump(mode="json", exclude={"path", "name"})
    name = place.name or place.path.rstrip("/").rpartition("/")[2]
    for piece in _pieces(place):
        content = piece.pop("content")
        row = {**piece, "source": name, "place": place.model_dump(mode="json")}
        yield Input(digest(how, name, piece["origin"], piece.get("start"), content), row)


def _pieces(place: SourceInput) -> Iterator[dict[str, Any]]:
    if place.path == PYTHON_REFERENCE:
        yield from _reference()
    elif place.format == "hub":
        yield from _hub(place)
    else:
        for path, origin in _files(place):
            yield from _file(path, origin, place)


def _files(place: SourceInput) -> list[tuple[Path, str]]:
    root = Path(place.path)
    if root.exists() and not root.is_dir():
        try:
            refuse_special(root)
        except InputError as error:
            raise PipelineError(f"sources: {error}") from error
        if format_of(root, place.format) is None:
            raise PipelineError(f"sources: {root}: suffix {root.suffix or '(none)'} is not read; say `format`")
        return [(root, root.name)]
    if not root.is_dir():
        hint = "; for a data set of the hub say `format: hub`" if place.path.count("/") == 1 else ""
        raise PipelineError(f"sources: {place.path}: no such file or folder{hint}")
    found = sorted(path for path in root.rglob("*") if path.is_file() and format_of(path, place.format) is not None)
    found = files.outside_outputs(root, found)
    hidden = [path for path in found if any(part.startswith(".") for part in path.relative_to(root).parts)]
    found = [path for path in found if path not in set(hidden)]
    if not found:
        raise PipelineError(f"sources: {root}: no file in this folder is one of {', '.join(SUFFIXES)}")
    return [(path, path.relative_to(root).as_posix()) for path in found]


def _file(path: Path, origin: str, place: SourceInput) -> Iterator[dict[str, Any]]:
    kind = format_of(path, place.format)
    piece = {"path": str(path), "kind": kind, "origin": origin}
    try:
        if kind == "jsonl":
            yield from _lines(path, piece)
        elif kind == "parquet":
            yield from _groups(path, piece)
        else:
            yield {**piece, "content": file_sha256(path)}
    except OSError as error:
        yield _unread(piece, str(error.strerror or error))


def _unread(piece: dict[str, Any], why: str) -> dict[str, Any]:
    return {**piece, "kind": UNREAD, "detail": why, "content": why}


def _lines(path: Path, piece: dict[str, Any]) -> Iterator[dict[str, Any]]:
    start = end = 0
    first = number = 1
    content = hashlib.sha256()
    with path.open("rb") as lines:
        for line in lines:
            content.update(line)
            end += len(line)
            number += 1
            if number - first == BLOCK:
                yield {**piece, "start": start, "end": end, "first": first, "content": content.hexdigest()}
                start, first, content = end, number, hashlib.sha256()
    if end > start:
        yield {**piece, "start": start, "end": end, "first": first, "content": content.hexdigest()}


def _groups(path: Path, piece: dict[str, Any]) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = file_sha256(path)
    try:
        with pq.ParquetFile(path) as reader:
            keys_once.refuse_columns(reader.schema_arrow)
            rows = reader.metadata.num_rows
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = brief(error)
        yield _unread(piece, f"not readable as parquet: {reason}")
        return
    for start in range(0, rows, BLOCK):
        end = min(rows, start + BLOCK)
        yield {**piece, "start": start, "end": end, "first": start + 1, "content": content}


def _hub(place: SourceInput) -> Iterator[dict[str, Any]]:
    data = hub_rows(place)
    for start in range(0, len(data), BLOCK):
        piece = {"path": place.path, "kind": "hub", "origin": f"{place.path}/{place.split}"}
        end = min(len(data), start + BLOCK)
        # The fingerprint changes with revision, files and split.
        yield {**piece, "start": start, "end": end, "first": start + 1, "content": data._fingerprint}


def hub_rows(place: SourceInput) -> Any:
    """A split of a data set of the hub, or of a folder in its layout; fetched once, then read from the cache.

    Raises:
        PipelineError: it cannot be downloaded.
    """
    try:
        import datasets
    except ImportError as error:
        raise PipelineError("sources: `format: hub` needs the package datasets: pip install datasets") from error
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return datasets.load_dataset(place.path, split=place.split, revision=place.revision)
    except (HfHubHTTPError, OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        first = str(error).strip().split("\n")[0]
        raise PipelineError(f"sources: {place.path}: not on the hub, or not readable: {first}") from error


def _reference() -> Iterator[dict[str, Any]]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield {"path": name, "kind": "reference", "origin": name, "content": digest(text)}
