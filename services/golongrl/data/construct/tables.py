"""The folders of a construction, and the tables that several stages are read from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from golongrl.data.construct import schemas
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.stage import StageName
from golongrl.data.construct.table import Lookup, StageTable

# The pipeline as it was run last; shows that a folder is a construction's.
PIPELINE: Final = "pipeline.yaml"
# In the order in which they run.
ORDER: Final[tuple[StageName, ...]] = (
    "sources", "select", "generate", "convert", "verify", "passrate", "format", "decontaminate", "diagnose",
)  # fmt: skip
_SCHEMAS: Final[dict[StageName, pa.Schema]] = {
    "sources": schemas.SOURCES, "select": schemas.SELECT, "generate": schemas.GENERATE, "convert": schemas.CONVERT,
    "verify": schemas.VERIFY, "passrate": schemas.PASSRATE, "format": schemas.FORMAT,
    "decontaminate": schemas.DECONTAMINATE, "diagnose": schemas.DIAGNOSE,
}  # fmt: skip
# What verification and pass-rate say of a sample, in the samples' rows.
_FINDINGS: Final[dict[StageName, tuple[str, ...]]] = {"verify": (), "passrate": ("band", "mean_reward")}


class Tables:
    """`out/STAGE` for each stage of a pipeline."""

    def __init__(self, out: Path, pipeline: Pipeline) -> None:
        self.out = out
        self._pipeline = pipeline

    def table(self, stage: StageName) -> StageTable:
        """A stage's table."""
        return StageTable(self.out / stage, _SCHEMAS[stage])

    def has(self, stage: StageName) -> bool:
        """Whether the pipeline has the stage."""
        return getattr(self._pipeline, stage, None) is not None

    def documents(self) -> Lookup:
        """The kept documents, by `doc_id`."""
        return Lookup.of(self.out / "sources", "doc_id")

    def samples(self, columns: Sequence[str], *, before: StageName) -> Iterator[dict[str, Any]]:
        """The samples that every stage before `before` has kept, generated ones first, then converted ones.

        `columns` are of `schemas.GENERATE`; `band` and `mean_reward` come with them where they are known. `table` says
        which stage made the sample: its long columns are got by `sample(table, id)`.
        """
        passed = [self._findings(stage) for stage in ("verify", "passrate") if self._judges(stage, before)]
        for origin in ("generate", "convert"):
            if not self.has(origin):
                continue
            for row in self.table(origin).rows(["id", *columns]):
                # Public sets are verified by those who made them; they go through the pass rate.
                judged = passed[1:] if origin == "convert" and self._judges("verify", before) else passed
                if all(row["id"] in found for found in judged):
                    found = {key: value for one in judged for key, value in one[row["id"]].items()}
                    yield {**row, **found, "table": origin}

    def sample(self, origin: StageName, sample_id: str) -> dict[str, Any]:
        """All columns of a sample."""
        return Lookup.of(self.out / origin, "id").get(sample_id)

    def _judges(self, stage: StageName, before: StageName) -> bool:
        return self.has(stage) and ORDER.index(stage) < ORDER.index(before)

    def _findings(self, stage: StageName) -> dict[str, dict[str, Any]]:
        wanted = _FINDINGS[stage]
        rows = self.table(stage).rows(["sample_id", *wanted])
        return {row["sample_id"]: {key: row[key] for key in wanted} for row in rows}


def context_of(out: Path, sample: dict[str, Any]) -> str:
    """The context of a sample: its own, or the text of its documents one after the other."""
    if sample["context"] is not None:
        return str(sample["context"])
    documents = Lookup.of(out / "sources", "doc_id")
    return DOCUMENT_GAP.join(documents.get(doc_id)["text"] for doc_id in sample["doc_ids"])


# Between two documents of one context.
DOCUMENT_GAP: Final = "\n\n"
