"""How two data sets, or two constructions, differ."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golongrl import yaml_text
from golongrl.data.construct.contamination.stage import TRAIN
from golongrl.data.construct.diagnosis.facts import RowFacts, facts
from golongrl.data.construct.diagnosis.summary import percentiles
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.load import load
from golongrl.data.construct.tables import PIPELINE
from golongrl.data.errors import DataError
from golongrl.data.row_files import read_records
from golongrl.data.rows import parse_row

# Settings listed; more say that these are two different pipelines.
_MOST_LISTED = 20


@dataclass(frozen=True, slots=True)
class DataSet:
    """What is compared: the rows' facts, and the rows that cannot be read."""

    place: Path
    rows: Sequence[RowFacts]
    bad: int


def read(place: Path) -> DataSet:
    """The data set in a file or folder, or the result of a construction.

    Raises:
        DataError: there is none, or no row of it can be read.
    """
    path = place / TRAIN if (place / PIPELINE).is_file() else place
    if path.name == TRAIN and not path.is_file():
        raise PipelineError(f"data {place}: this construction has not made {TRAIN} yet")
    found: list[RowFacts] = []
    bad = 0
    for where, record in read_records(path):
        try:
            row = parse_row(record, where)
        except DataError:
            bad += 1
            continue
        found.append(facts(row.model_dump()))
    if not found:
        bad_rows = f"; {bad} cannot be read, `golongrl data check {path}` says why" if bad else ""
        raise DataError(f"data {path}: no rows to compare{bad_rows}")
    return DataSet(place, found, bad)


def compare(a: DataSet, b: DataSet) -> Iterator[tuple[str, str, str]]:
    """(what, in A, in B) of every count that is worth a look."""
    ours, theirs = Counter(row.digest for row in a.rows), Counter(row.digest for row in b.rows)
    yield "rows", str(len(a.rows)), str(len(b.rows))
    yield "rows that cannot be read", str(a.bad), str(b.bad)
    yield "rows that only this one has", str((ours - theirs).total()), str((theirs - ours).total())
    yield "rows that repeat another", str(len(a.rows) - len(ours)), str(len(b.rows) - len(theirs))
    for name in ("task", "band", "length_bin", "lang", "source", "generator"):
        mine = Counter(getattr(row, name) for row in a.rows)
        other = Counter(getattr(row, name) for row in b.rows)
        if set(mine) | set(other) != {"-"}:
            for kind in sorted(set(mine) | set(other)):
                yield f"{name.replace('_', ' ')} {kind}", str(mine[kind]), str(other[kind])
    for name, title in (("n_tokens", "prompt tokens"), ("gold_tokens", "gold tokens")):
        mine_p = percentiles([getattr(row, name) for row in a.rows])
        other_p = percentiles([getattr(row, name) for row in b.rows])
        for which in ("median", "p90", "most"):
            yield f"{title}, {which}", str(mine_p.get(which, "-")), str(other_p.get(which, "-"))


def settings(a: Path, b: Path) -> Iterator[tuple[str, str, str]]:
    """(key, in A, in B) of the settings in which two constructions differ; none where one is just a file."""
    if not ((a / PIPELINE).is_file() and (b / PIPELINE).is_file()):
        return
    mine = dict(_leaves(load(str(a / PIPELINE)).model_dump(mode="json"), ""))
    other = dict(_leaves(load(str(b / PIPELINE)).model_dump(mode="json"), ""))
    different = [key for key in dict.fromkeys([*mine, *other]) if mine.get(key) != other.get(key)]
    for key in different[:_MOST_LISTED]:
        yield key, _short(mine.get(key)), _short(other.get(key))
    if len(different) > _MOST_LISTED:
        yield f"and {len(different) - _MOST_LISTED} more settings", "", ""


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path, tree


def _short(value: object) -> str:
    return "null" if value is None else yaml_text.dump(value, flow=True).removesuffix("...\n").strip()
