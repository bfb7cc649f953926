"""The stage `decontaminate`: rows that share words with a benchmark's items are removed, with the evidence.

Question, gold and the prompt without its document are looked at, each as a text of its own. What the document shares
with a benchmark's items is counted in the rows, too, and removes nothing: a real document may quote what a benchmark
asks. Documents that are a benchmark's own were refused by `sources`.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from golongrl import files
from golongrl.data.construct import grams, schemas
from golongrl.data.construct.contamination.index import Hit, build, open_index
from golongrl.data.construct.contamination.texts import absent, benchmark_files, index_digest
from golongrl.data.construct.models import Decontaminate, Pipeline
from golongrl.data.construct.stage import CpuStage, Executor, Input, Made, Row, StageName, Verdict, Work, refused
from golongrl.data.construct.table import Lookup, writer
from golongrl.data.construct.tables import Tables, context_of

# Why a good row is left out.
BEYOND = "beyond the quota"
# What is trained on.
TRAIN = "train.parquet"
REPORT = "decontamination.json"
# Rows of the final file in one row group at most.
_GROUP = 64
# Examples in the report.
_MOST_LISTED = 200


class DecontaminateStage(CpuStage):
    """Rows in, verdicts out; then the rows that were kept become the file that is trained on."""

    name: ClassVar[StageName] = "decontaminate"
    version: ClassVar[int] = 2
    schema: ClassVar[pa.Schema] = schemas.DECONTAMINATE
    shard_rows: ClassVar[int] = 16

    def __init__(self, pipeline: Pipeline, tables: Tables, executor: Executor, wanted: Mapping[str, int]) -> None:
        """`wanted` says how many rows are asked for, by `TASK LENGTH_BIN LANGUAGE`."""
        super().__init__(executor)
        self._settings = pipeline.decontaminate
        self._wanted = wanted
        self._tables = tables
        self._files = benchmark_files(self._settings)

    def settings(self) -> Mapping[str, object]:
        return {
            "benchmarks": index_digest(self._files, self._settings),
            "max_shared": self._settings.max_shared,
            "hashes": grams.VERSION,
            "wanted": dict(self._wanted),
        }

    def inputs(self) -> Iterator[Input]:
        for row in self._tables.table("format").rows(["id"]):
            yield Input(row["id"], {"id": row["id"]})

    def work(self) -> Work:
        return _BenchmarkSearch(self._tables.out, index_folder(self._settings, self._tables), self._settings.max_shared)

    def settle(self, rows: Callable[[Sequence[str]], Iterator[tuple[int, Row]]]) -> Iterable[Verdict]:
        """More was made than was asked for; what is left of a cell beyond its quota is not needed."""
        cells: dict[str, str] = {}
        for row in self._tables.table("format").rows(["id", "origin", "extra_info"]):
            extra = row["extra_info"]
            if row["origin"] == "generate":
                cells[row["id"]] = f"{extra['task']} {extra['length_bin']} {extra['lang']}"
        got: Counter[str] = Counter()
        for number, one in rows(["row_id"]):
            cell = cells.get(one["row_id"], "")
            if cell in self._wanted:
                got[cell] += 1
                if got[cell] > self._wanted[cell]:
                    yield Verdict(number, BEYOND, f"{cell}: {self._wanted[cell]} are asked for")

    def finish(self) -> Sequence[str]:
        rows = list(self._tables.table("decontaminate").rows(kept=False))
        _write_report(self._tables.out / REPORT, rows, self._settings, absent(self._settings))
        kept = [row["row_id"] for row in rows if row["reason"] is None]
        path = self._tables.out / TRAIN
        _write_dataset(self._tables.out / "format", kept, path)
        hits = sum(row["context_hits"] > 0 for row in rows if row["reason"] is None)
        lines = [f"  {hits} of them have n-grams of a benchmark's item in their context; see {REPORT}"] if hits else []
        lines += [f"  not looked for, because it is not there: {name}" for name in absent(self._settings)]
        if not self._files:
            lines.append("  nothing was looked for: decontaminate names no benchmarks")
        return [*lines, f"{path}: {len(kept)} rows"]


def index_folder(settings: Decontaminate, tables: Tables) -> Path | None:
    """The folder of the index that the settings ask for, built if it is not there; None without benchmarks."""
    found = benchmark_files(settings)
    return build(found, settings.n, tables.out / "benchmarks") if found else None


@dataclass(frozen=True, slots=True)
class _BenchmarkSearch:
    """Looks for the words of benchmarks in rows."""

    out: Path
    index: Path | None
    max_shared: float

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]:
        return [[self._row(row["id"])] for row in rows]

    def _row(self, row_id: str) -> dict[str, Any]:
        if self.index is None:
            return {"row_id": row_id, "context_hits": 0}
        row = Lookup.of(self.out / "format", "id").get(row_id)
        index = open_index(self.index)
        context = context_of(self.out, Lookup.of(self.out / row["origin"], "id").get(row["sample_id"]))
        for field, text in _fields(row, context):
            for hit in index.hits(text):
                detail = f"{field} shares {len(hit.evidence.split())} words with {hit.benchmark}, {hit.item}"
                return refused("in a benchmark", detail, row_id=row_id, field=field, **_evidence(hit), context_hits=0)
        if row["origin"] == "convert":  # of generated ones `sources` has seen the documents
            share, benchmark = index.share(grams.token_hashes(context))
            if share > self.max_shared:
                detail = f"{share:.1%} of the n-grams of its context are in {benchmark}"
                return refused("benchmark document", detail, row_id=row_id, benchmark=benchmark, context_hits=0)
        count, hits = index.context_hits(context)
        return {"row_id": row_id, "context_hits": count, "context_evidence": _listed(hits)}


def _fields(row: Row, context: str) -> Iterator[tuple[str, str]]:
    truth = row["reward_model"]["ground_truth"]
    yield "question", row["extra_info"]["question"] or ""
    golds = [truth["golden_label"] or "", *(truth["doc_ids"] or [])]
    for gold in golds:
        yield "gold", gold
    yield "gold", "\n".join(golds)
    for message in row["prompt"]:
        bare = message["content"].replace(context, "\n") if context else message["content"]
        yield "prompt", bare
        # A short item may stand in a line of its own.
        for line in bare.split("\n"):
            yield "prompt", line


def _evidence(hit: Hit) -> dict[str, str]:
    return {"benchmark": hit.benchmark, "item": f"{hit.item}, {hit.field}", "evidence": hit.evidence}


def _listed(hits: Sequence[Hit]) -> str | None:
    lines = [f"{hit.benchmark}, {hit.item}, {hit.field}: {hit.evidence}" for hit in hits]
    return "\n".join(lines) or None


def _write_report(path: Path, rows: Sequence[Row], settings: Decontaminate, missing: Sequence[str]) -> None:
    removed = [row for row in rows if row["benchmark"] is not None]
    context = [row for row in rows if row["reason"] is None and row["context_hits"]]
    keys = ("row_id", "benchmark", "item", "field", "evidence", "reason", "detail")
    report = {
        "n": settings.n,
        "rows": len(rows),
        "removed": len(removed),
        "removed_by_benchmark": dict(Counter(row["benchmark"] for row in removed).most_common()),
        "not_looked_for": list(missing),
        "evidence": [{key: row[key] for key in keys} for row in removed[:_MOST_LISTED]],
        "rows_with_hits_in_the_context": len(context),
        "context_evidence": [
            {key: row[key] for key in ("row_id", "context_hits", "context_evidence")} for row in context[:_MOST_LISTED]
        ],
    }
    files.write_text(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")


def _write_dataset(formatted: Path, kept: Sequence[str], path: Path) -> None:
    """The kept rows with the dataset's columns, a row group at a time."""
    lookup = Lookup.of(formatted, "id")
    with files.replacing(path) as staging, writer(staging, schemas.DATASET, _GROUP) as out:
        for row_id in kept:
            row = lookup.get(row_id)
            out.write({name: row[name] for name in schemas.DATASET.names})
