"""Tables of a construction as earlier stages would have left them, for the tests of one stage."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from golongrl.data.construct.load import load
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.run import run_stage
from golongrl.data.construct.stage import PipelineStage, StageName
from golongrl.data.construct.table import StageManifest, StageTable
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.workers import Here
from golongrl.data.corpus import estimate_tokens
from support.documents import documents

HERE = Here()
BIN = "short"
_PIPELINE = {
    "name": "small",
    "sources": {"inputs": [{"path": "docs"}]},
    "select": {"tasks": {"T1": 1}, "bins": [{"name": BIN, "max_tokens": 3000}]},
}


def pipeline(folder: Path, **sections: object) -> Pipeline:
    """A small pipeline with these sections."""
    file = folder / "pipeline-under-test.yaml"
    file.write_text(json.dumps({**_PIPELINE, **sections}), "utf-8")
    return load(str(file))


def write_table(out: Path, stage: StageName, rows: Sequence[Mapping[str, Any]]) -> None:
    """A finished stage's table with these rows."""
    table = Tables(out, load("laptop")).table(stage)
    table.folder.mkdir(parents=True, exist_ok=True)
    framed = [{"id": f"{stage}-{number}", "key": f"k{number}", **row} for number, row in enumerate(rows)]
    table.write_shard("00000-all.parquet", framed)
    refused = [row["reason"] for row in framed if row.get("reason")]
    counts = {reason: refused.count(reason) for reason in refused}
    kept = len(framed) - len(refused)
    table.write_verdicts("d", [])
    table.write_manifest(
        StageManifest(stage, 1, {}, "d", len(framed), len(framed), kept, counts, ["00000-all.parquet"])
    )


def write_sources_and_slots(out: Path, tasks: Sequence[str], per_task: int = 1, lang: str = "English") -> None:
    """Documents of our own, and slots that ask for these task types."""
    found = []
    for seed in range(4):
        (document,) = documents(lang, seed)  # type: ignore[arg-type]
        doc_id = hashlib.sha256(document.text.encode()).hexdigest()[:32]
        found.append(
            {
                "doc_id": doc_id, "text": document.text, "title": f"{document.title} {seed}", "lang": lang,
                "licence": "own", "source": "harbour", "origin": f"doc {seed}",
                "n_tokens": estimate_tokens(document.text), "sha256": doc_id, "features": "{}", "signature": b"",
            }
        )  # fmt: skip
    write_table(out, "sources", found)
    slots = [
        {
            "slot": number, "task": task, "length_bin": BIN, "lang": lang,
            "doc_ids": [found[number % len(found)]["doc_id"]], "target_tokens": 3000, "n_tokens": 1500,
            "seed": 100 * index + number,
        }
        for index, task in enumerate(tasks)
        for number in range(per_task)
    ]  # fmt: skip
    write_table(out, "select", slots)


def run_alone(stage: PipelineStage, tables: Tables) -> tuple[StageManifest, list[dict[str, Any]]]:
    """Run one stage; its manifest and all of its rows, refused ones too."""
    table: StageTable = tables.table(stage.name)
    manifest = run_stage(stage, table, lambda line: None)
    return manifest, list(table.rows(kept=False))
