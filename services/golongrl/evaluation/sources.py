"""Where a benchmark's data lies: its tables on the hub, their files on this machine, and the open tables.

Invariant: every message about data names the file, and the row where there is one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, Self

from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.tables import SUFFIXES, Record, Table, open_table


@dataclass(frozen=True, slots=True)
class EvalSource:
    """One table of a benchmark and where it can be downloaded.

    `files` are patterns of paths inside the hub's repository, matched from the right; the first pattern that has files
    counts, and their rows follow each other in name order. `member` is the file's path inside them where they are zip
    archives. `rows` is the published number of rows. `revision` and `sha256` are empty where they are not known to us:
    fetching then takes the newest and writes down what it got. A `role` other than "problems" is read beside them.
    """

    name: str
    repo: str
    files: tuple[str, ...]
    rows: int
    split: str = ""
    config: str = ""
    revision: str | None = None
    sha256: tuple[str, ...] = ()
    role: Literal["problems", "examples", "golds", "conversations"] = "problems"
    member: str = ""
    hub: Literal["huggingface", "modelscope", "pypi"] = "huggingface"
    gated: bool = False
    note: str = ""

    def chosen(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Those of a repository's paths that hold this source, in name order; none if no pattern has any."""
        for pattern in self.files:
            found = sorted(path for path in paths if PurePosixPath(path).match(pattern))
            if found:
                return tuple(found)
        return ()


class DataFiles:
    """The open tables of a benchmark's sources."""

    def __init__(self, paths: Mapping[str, Sequence[Path]]) -> None:
        self.paths = {name: tuple(files) for name, files in paths.items()}
        self._tables: dict[Path, Table] = {}
        self._small: dict[str, list[Record]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._tables.clear()

    @classmethod
    def find(cls, folder: Path, sources: Sequence[EvalSource]) -> Self:
        """The sources' files below `folder`.

        Either as fetched, FOLDER/REPO/FILE, or one file of any readable kind named after the source, FOLDER/NAME.jsonl.

        Raises:
            EvaluationError: a source has no file there.
        """
        return cls({source.name: located(folder, source) for source in sources})

    def table(self, path: Path) -> Table:
        """The open table of a file."""
        if path not in self._tables:
            self._tables[path] = open_table(path)
        return self._tables[path]

    def rows(self, source: str) -> int:
        """Rows of a source."""
        return sum(len(self.table(path)) for path in self._files(source))

    def light(self, source: str, columns: Sequence[str]) -> Iterator[tuple[Path, int, Record]]:
        """(file, row's number, record) of every row of a source."""
        for path in self._files(source):
            for number, record in self.table(path).light(columns):
                yield path, number, record

    def all_rows(self, source: str) -> list[Record]:
        """Every whole row of a small source (examples, golds, conversations), read once."""
        if source not in self._small:
            self._small[source] = [
                self.table(path).row(number)
                for path in self._files(source)
                for number in range(1, len(self.table(path)) + 1)
            ]
        return self._small[source]

    def row(self, problem: EvalProblem) -> Record:
        """The whole row of a problem."""
        return self.table(Path(problem.file)).row(problem.row)

    def _files(self, source: str) -> tuple[Path, ...]:
        if source not in self.paths:
            raise EvaluationError(f"data: no file given for {source}")
        return self.paths[source]


def located(folder: Path, source: EvalSource) -> tuple[Path, ...]:
    """Where a source's files lie below `folder`; see `DataFiles.find`.

    Raises:
        EvaluationError: they do not.
    """
    root = folder / source.repo
    if source.member:
        fetched = [root / source.member] if (root / source.member).is_file() else []
    else:
        below = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        fetched = [root / path for path in source.chosen(below)]
    if fetched:
        return tuple(fetched)
    for suffix in SUFFIXES:
        plain = folder / f"{source.name}{suffix}"
        if plain.is_file():
            return (plain,)
    expected = root / (source.member or source.files[0])
    raise EvaluationError(
        f"data {folder}: no file for {source.name}: expected {expected} (as `golongrl eval fetch` writes it) "
        f"or {folder / source.name}.parquet, .jsonl, .json or .csv"
    )
