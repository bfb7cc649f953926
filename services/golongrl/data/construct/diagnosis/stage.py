"""The stage `diagnose`: facts of every row that is trained on, then report.json and report.html."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from golongrl import files
from golongrl.data.construct import schemas
from golongrl.data.construct.diagnosis.facts import RowFacts, facts, positions
from golongrl.data.construct.diagnosis.page import render
from golongrl.data.construct.diagnosis.summary import summary
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.stage import CpuStage, Executor, Input, Made, Row, StageName, Work
from golongrl.data.construct.table import Lookup
from golongrl.data.construct.tables import ORDER, Tables, context_of

REPORT = "report.json"
PAGE = "report.html"


class DiagnoseStage(CpuStage):
    """Rows that are trained on in, facts out."""

    name: ClassVar[StageName] = "diagnose"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = schemas.DIAGNOSE
    shard_rows: ClassVar[int] = 64

    def __init__(self, pipeline: Pipeline, tables: Tables, executor: Executor) -> None:
        super().__init__(executor)
        self._pipeline = pipeline
        self._tables = tables

    def settings(self) -> Mapping[str, object]:
        return {}

    def inputs(self) -> Iterator[Input]:
        for row in self._tables.table("decontaminate").rows(["row_id"]):
            yield Input(row["row_id"], {"row_id": row["row_id"]})

    def work(self) -> Work:
        return _Look(self._tables.out)

    def finish(self) -> Sequence[str]:
        counted: list[RowFacts] = []
        places: dict[str, list[float]] = defaultdict(list)
        names = [one.name for one in fields(RowFacts)]
        for row in self._tables.table("diagnose").rows():
            one = RowFacts(**{name: row[name] for name in names})
            counted.append(one)
            places[one.task] += row["evidence_at"]
        stages = [
            asdict(self._tables.table(name).needed()) for name in ORDER if name != "diagnose" and self._tables.has(name)
        ]
        found = {**summary(counted, places), "wanted": self._wanted(), "stages": _yields(stages)}
        files.write_text(self._tables.out / REPORT, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        if not self._pipeline.diagnose.plots:
            return [f"{self._tables.out / REPORT}"]
        files.write_text(self._tables.out / PAGE, render(found, self._pipeline.name))
        return [f"{self._tables.out / PAGE}"]

    def _wanted(self) -> dict[str, int]:
        return {task: count for task, count in self._pipeline.select.tasks.items() if count}


def _yields(manifests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{key: one[key] for key in ("stage", "rows_in", "rows", "kept", "refused")} for one in manifests]


@dataclass(frozen=True, slots=True)
class _Look:
    """The facts of rows of the table `format`."""

    out: Path

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]:
        return [[self._row(row["row_id"])] for row in rows]

    def _row(self, row_id: str) -> dict[str, Any]:
        row = Lookup.of(self.out / "format", "id").get(row_id)
        context = context_of(self.out, Lookup.of(self.out / row["origin"], "id").get(row["sample_id"]))
        at = list(positions(context, row["extra_info"]["evidence"] or []))
        return {"row_id": row_id, **asdict(facts(row)), "evidence_at": at}
