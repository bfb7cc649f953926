"""The stage `select`: slots for the quotas, and for every document that got none the reason."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any, ClassVar

import pyarrow as pa

from golongrl.data.construct import schemas
from golongrl.data.construct.keys import digest
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.select.criteria import DEFAULTS, Candidate, suiting
from golongrl.data.construct.select.feedback import failures
from golongrl.data.construct.select.pick import Picker, Slot
from golongrl.data.construct.select.quotas import Cell, cells, need_of_document
from golongrl.data.construct.stage import Done, Input, PipelineStage, StageName, StageShard, refused
from golongrl.data.construct.tables import Tables

_COLUMNS = ("doc_id", "lang", "source", "n_tokens", "features")


class SelectStage(PipelineStage):
    """Documents in, slots out. The choice looks at all documents, so it is made as a whole; it takes seconds."""

    name: ClassVar[StageName] = "select"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = schemas.SELECT
    shard_rows: ClassVar[int] = 4096

    def __init__(self, pipeline: Pipeline, tables: Tables) -> None:
        self._pipeline = pipeline
        self._tables = tables
        self._settings = pipeline.select
        self._failures = failures(self._settings.feedback, self._settings.bins)
        self._quotas = cells(self._settings, self._failures)

    def settings(self) -> Mapping[str, object]:
        settings = self._settings.model_dump(mode="json", exclude={"feedback"})
        quotas = {"/".join(cell): count for cell, count in self._quotas.items()}
        documents = digest(*(row["doc_id"] for row in self._documents()))
        # Which documents it moves to; without it the keys are those of a pipeline that has none.
        told = {"feedback": digest(*map(astuple, self._failures))} if self._failures else {}
        return {**settings, **told, "seed": self._pipeline.seed, "quotas": quotas, "documents": documents}

    def inputs(self) -> Iterator[Input]:
        for row in self._documents():
            yield Input(row["doc_id"], row)

    def run(self, shards: Sequence[StageShard], done: Done) -> None:
        candidates = [_candidate(row) for row in self._documents()]
        slots: dict[str, list[Slot]] = defaultdict(list)
        for slot in self._slots(candidates):
            slots[slot.doc_ids[0]].append(slot)
        spoken: set[str] = {cell.language for cell in self._quotas}
        for shard in shards:
            made = []
            for one in shard.inputs:
                mine = [_row(slot) for slot in slots[one.id]]
                made.append(mine or [_left_out(one.row, spoken)])
            done(shard, made)

    def expected(self, inputs: int) -> int:  # noqa: ARG002 - the quotas say it
        return sum(self._quotas.values())

    def finish(self) -> Sequence[str]:
        """Which quotas were not met."""
        rows = self._tables.table("select").rows(["task", "length_bin", "lang"])
        got = Counter(Cell(row["task"], row["length_bin"], row["lang"]) for row in rows)
        short = {cell: got[cell] for cell, count in self._quotas.items() if got[cell] < count}
        return [
            f"  {' '.join(cell)}: {count} of {self._quotas[cell]} slots: too few documents that suit, or too short ones"
            for cell, count in short.items()
        ]

    def _documents(self) -> Iterator[dict[str, Any]]:
        for row in self._tables.table("sources").rows(_COLUMNS):
            yield {key: row[key] for key in _COLUMNS}

    def _slots(self, candidates: Sequence[Candidate]) -> Iterator[Slot]:
        bins = {one.name: one for one in self._settings.bins}
        used: Counter[str] = Counter()
        pickers: dict[tuple[str, str], Picker] = {}
        for cell, count in self._quotas.items():
            picker = pickers.get((cell.task, cell.language))
            if picker is None:
                picker = pickers[cell.task, cell.language] = self._picker(cell, candidates)
            for number in range(count):
                slot = picker.pick(cell, number, bins[cell.length_bin], self._pipeline.seed, used)
                if slot is None:
                    break
                yield slot

    def _picker(self, cell: Cell, candidates: Sequence[Candidate]) -> Picker:
        same = [one for one in candidates if one.lang == cell.language]
        criterion = self._settings.criteria.get(cell.task, DEFAULTS[cell.task])
        strength = self._settings.feedback_strength
        weighed = [
            (one, weight * need_of_document(cell.task, one.doc_id, one.source, self._failures, strength))
            for one, weight in suiting(same, criterion)
        ]
        return Picker(weighed, same, self._settings.max_per_document)


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate(row["doc_id"], row["lang"], row["source"], row["n_tokens"], json.loads(row["features"]))


def _row(slot: Slot) -> dict[str, Any]:
    return {
        "slot": slot.number,
        "task": slot.cell.task,
        "length_bin": slot.cell.length_bin,
        "lang": slot.cell.language,
        "doc_ids": list(slot.doc_ids),
        "target_tokens": slot.target_tokens,
        "n_tokens": slot.n_tokens,
        "seed": slot.seed,
    }


def _left_out(row: Mapping[str, Any], spoken: set[str]) -> dict[str, Any]:
    known = {"lang": row["lang"], "doc_ids": [row["doc_id"]], "n_tokens": row["n_tokens"]}
    if row["lang"] not in spoken:
        return refused("language not asked for", f"no quota is for {row['lang']}", **known)
    return refused("not needed", "no slot has it as its main document", **known)
