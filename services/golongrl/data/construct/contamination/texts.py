"""The texts of benchmarks: questions, answers and options as items, documents as contexts.

A field is a context by its name (`context`, `paragraphs`, ...) or by its length: nobody asks a question of a thousand
words. All other text of a row counts as an item, options one by one. Every text is taken whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.keys import digest
from golongrl.data.construct.models import Decontaminate
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.registry import selected
from golongrl.evaluation.sources import EvalSource, located
from golongrl.evaluation.tables import SUFFIXES, open_table
from golongrl.reading import file_sha256

_TEXT_SUFFIXES: Final = (".txt", ".md", ".rst")
_CONTEXTS: Final = frozenset(
    {"context", "contexts", "document", "documents", "doc", "docs", "paragraph", "paragraphs", "passage", "passages",
     "article", "articles", "wiki_items", "haystack_sessions", "corpus", "text"}
)  # fmt: skip
# Characters from which a text is a context whatever its field is called: about a thousand words.
_LONG: Final = 6_000
_DEEPEST: Final = 12


@dataclass(frozen=True, slots=True)
class BenchmarkText:
    """One text of one row."""

    benchmark: str
    item: str
    field: str
    text: str
    kind: Literal["item", "context"]


@dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """A file of a benchmark; `content` is a hash of its bytes."""

    benchmark: str
    path: Path
    content: str


def benchmark_files(settings: Decontaminate) -> list[BenchmarkFile]:
    """All files that the settings name.

    Raises:
        PipelineError: one is not there, or none can be read.
    """
    found = [one for place in settings.benchmarks for one in _place(Path(place))]
    if settings.suite is not None:
        found += _suite(Path(settings.suite), settings.suite_name, settings.suite_missing)
    return found


def index_digest(files: Sequence[BenchmarkFile], settings: Decontaminate) -> str:
    """What an index of these files depends on."""
    return digest(settings.n, sorted((one.benchmark, one.path.name, one.content) for one in files))


def texts(file: BenchmarkFile) -> Iterator[BenchmarkText]:
    """Every text of a file, one row in memory at a time.

    Raises:
        PipelineError: the file is damaged.
    """
    if file.path.suffix in _TEXT_SUFFIXES:
        text = file.path.read_text("utf-8", "replace")
        yield BenchmarkText(file.benchmark, file.path.name, "text", text, "context")
        return
    try:
        table = open_table(file.path)
        for number in range(1, len(table) + 1):
            for field, text in _strings(table.row(number), ""):
                context = len(text) >= _LONG or not _CONTEXTS.isdisjoint(field.split("."))
                kind: Literal["item", "context"] = "context" if context else "item"
                yield BenchmarkText(file.benchmark, f"{file.path.name} row {number}", field, text, kind)
    except EvaluationError as error:
        raise PipelineError(f"decontaminate: {error}") from error


def _strings(value: object, path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        if value.strip():
            yield path, value
    elif isinstance(value, Mapping) and depth < _DEEPEST:
        for key, item in value.items():
            yield from _strings(item, f"{path}.{key}" if path else str(key).lower(), depth + 1)
    elif isinstance(value, list | tuple) and depth < _DEEPEST:
        for item in value:
            yield from _strings(item, path, depth + 1)


def _place(root: Path) -> list[BenchmarkFile]:
    if root.is_file():
        return [_file(root.stem, root)]
    if not root.is_dir():
        raise PipelineError(f"decontaminate.benchmarks: {root}: no such file or folder")
    known = (*SUFFIXES, *_TEXT_SUFFIXES)
    paths = sorted(path for path in root.rglob("*") if path.is_file() and path.suffix in known)
    if not paths:
        raise PipelineError(f"decontaminate.benchmarks: {root}: no file in this folder is one of {', '.join(known)}")
    return [_file(path.relative_to(root).with_suffix("").as_posix(), path) for path in paths]


def _suite(folder: Path, name: str, missing: Literal["error", "note"]) -> list[BenchmarkFile]:
    try:
        return [
            _file(benchmark.name, path)
            for benchmark in selected(name)
            for source in benchmark.sources
            for path in _located(folder, source, missing)
        ]
    except EvaluationError as error:
        hint = "fetch it with `golongrl eval fetch`, or go without it by decontaminate.suite_missing: note"
        raise PipelineError(f"decontaminate.suite: {error}; {hint}") from error


def _located(folder: Path, source: EvalSource, missing: Literal["error", "note"]) -> tuple[Path, ...]:
    try:
        return tuple(located(folder, source))
    except EvaluationError:
        if missing == "error":
            raise
        return ()


def absent(settings: Decontaminate) -> list[str]:
    """Benchmarks of the suite that are not there and so are not looked for."""
    if settings.suite is None:
        return []
    there = {one.benchmark for one in _suite(Path(settings.suite), settings.suite_name, "note")}
    return [benchmark.name for benchmark in selected(settings.suite_name) if benchmark.name not in there]


def _file(benchmark: str, path: Path) -> BenchmarkFile:
    try:
        return BenchmarkFile(benchmark, path, file_sha256(path))
    except OSError as error:
        raise PipelineError(f"decontaminate: {path}: {error.strerror or error}") from error
