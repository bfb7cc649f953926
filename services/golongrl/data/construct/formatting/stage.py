"""The stage `format`: the dataset's columns, and the check that the gold answer earns full marks by strict rules."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from golongrl.data.construct import schemas
from golongrl.data.construct.dataset_row import ability_of, prompt_text, truth_of
from golongrl.data.construct.keys import digest
from golongrl.data.construct.models import Format, Pipeline
from golongrl.data.construct.stage import CpuStage, Executor, Input, Made, Row, StageName, Work, refused
from golongrl.data.construct.table import Lookup
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.tokens import Measure, measure_of
from golongrl.tasks import UnknownTaskError, task_of
from golongrl.tasks.gold import earns_full_marks, own_score

_RANKINGS = ("NDCG", "Pairwise")


class FormatStage(CpuStage):
    """Samples in, rows of the dataset out."""

    name: ClassVar[StageName] = "format"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = schemas.FORMAT
    shard_rows: ClassVar[int] = 16

    def __init__(self, pipeline: Pipeline, tables: Tables, executor: Executor) -> None:
        super().__init__(executor)
        self._pipeline = pipeline
        self._settings = pipeline.format
        self._tables = tables
        self.row_deadline_s = pipeline.format.gold_deadline_s

    def settings(self) -> Mapping[str, object]:
        settings = self._settings.model_dump(mode="json", exclude={"gold_deadline_s"})
        return {**settings, "tokenizer": self._pipeline.tokenizer}

    def inputs(self) -> Iterator[Input]:
        for sample in self._tables.samples(["id"], before="format"):
            row = {key: sample.get(key) for key in ("id", "table", "band", "mean_reward")}
            yield Input(digest(row), row)

    def work(self) -> Work:
        return _Dress(self._tables.out, self._settings, measure_of(self._pipeline.tokenizer))


@dataclass(frozen=True, slots=True)
class _Dress:
    """Puts a sample's parts together as the dataset has them."""

    out: Path
    settings: Format
    measure: Measure

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]:
        return [[self._row(row)] for row in rows]

    def _row(self, known: Row) -> dict[str, Any]:
        sample = Lookup.of(self.out / known["table"], "id").get(known["id"])
        base = {"sample_id": known["id"], "origin": known["table"], "data_source": sample["data_source"]}
        truth = truth_of(sample)
        if problem := gold_fault(sample["data_source"], sample["reward_mode"], truth):
            return refused(*problem, **base)
        if not (sample["question"] or "").strip():
            return refused("no question", "the question is empty", **base)
        content = prompt_text(self.out, sample, self.settings.instructions)
        (n_tokens,) = self.measure.count([content])
        if n_tokens > self.settings.max_prompt_tokens:
            most = self.settings.max_prompt_tokens
            return refused("too long", f"{n_tokens} tokens, format.max_prompt_tokens is {most}", **base)
        task = task_of(sample["data_source"], sample["reward_mode"]).type
        extra = {
            key: sample[key]
            for key in ("reward_mode", "question", "length_bin", "lang", "source", "doc_ids", "evidence", "generator")
        }
        found = {key: known[key] for key in ("band", "mean_reward")}
        return {
            **base,
            "prompt": [{"role": "user", "content": content}],
            "ability": ability_of(sample),
            "reward_model": {"ground_truth": truth},
            "extra_info": {**extra, **found, "task": task, "n_tokens": n_tokens, "sample_id": known["id"]},
        }


def gold_fault(data_source: str, reward_mode: str, truth: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why the gold answer cannot be trained on, as reason and detail."""
    try:
        task = task_of(data_source, reward_mode)
    except UnknownTaskError as error:
        return "unknown task", str(error)
    golds = [" ".join(gold.lower().split()) for gold in truth["doc_ids"]]
    if task.metric in _RANKINGS and len(set(golds)) < len(golds):
        return "tie in a ranking", "two items of the gold order are the same"
    outcome = own_score(data_source, truth, {"reward_mode": reward_mode}, "strict")
    if earns_full_marks(outcome, "strict"):
        return None
    earned = "cannot be scored" if outcome.score is None else f"earns {outcome.score:.3g} of 1"
    return "gold does not score 1.0", f"{earned} by {task.metric} {outcome.reason}".rstrip()
