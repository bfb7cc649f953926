"""The stage: slots in, samples out."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa

from golongrl.data.construct import schemas
from golongrl.data.construct.asking import Job, sheet
from golongrl.data.construct.asking_stage import AskingStage
from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.generate.written import Order
from golongrl.data.construct.generate_models import AskedModel, Generate
from golongrl.data.construct.generators import Document, MadeSample, NoSampleError, generate, outline
from golongrl.data.construct.metrics import DataMetrics
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.stage import (
    Executor,
    Forecast,
    Input,
    Made,
    Row,
    StageName,
    Verdict,
    Work,
    refused,
)
from golongrl.data.construct.table import Lookup
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.tokens import Measure, measure_of
from golongrl.llm import LlmCall, LlmReply, ReplyStore, kept_reply

DEFAULT = "default"
_SLOT = ("task", "length_bin", "lang", "doc_ids", "target_tokens", "seed")


class GenerateStage(AskingStage):
    """One sample for each slot, or the reason why there is none."""

    name: ClassVar[StageName] = "generate"
    version: ClassVar[int] = 3
    schema: ClassVar[pa.Schema] = schemas.GENERATE
    # A sample holds its context, up to a megabyte.
    shard_rows: ClassVar[int] = 16

    def __init__(
        self, pipeline: Pipeline, tables: Tables, executor: Executor, metrics: DataMetrics | None = None
    ) -> None:
        """
        Raises:
            PipelineError: a length bin has no model to write its prompts.
        """
        super().__init__(tables, executor, pipeline.generate, metrics)
        self._settings = pipeline.generate
        self._measure = measure_of(pipeline.tokenizer)
        self._tokenizer = pipeline.tokenizer
        if any(self._settings.by_model.values()):
            for one in pipeline.select.bins:
                model_of(self._settings, one.name)

    def settings(self) -> Mapping[str, object]:
        used = {name: model.asked() for name, model in sorted(self._settings.models.items())}
        by_model = {task: share for task, share in sorted(self._settings.by_model.items()) if share}
        asked = {"models": used, "tries": self._settings.tries, "prompts": sheet("write").sha}
        return {"tokenizer": self._tokenizer, "by_model": by_model, **(asked if by_model else {})}

    def inputs(self) -> Iterator[Input]:
        for row in self._tables.table("select").rows(["id", *_SLOT]):
            yield Input(row["id"], {key: row[key] for key in ("id", *_SLOT)})

    def work(self) -> Work:
        return GenerateWork(self._tables.out, self._settings, self._measure, self._replies)

    def settle(self, rows: Callable[[Sequence[str]], Iterator[tuple[int, Row]]]) -> Iterable[Verdict]:
        """The same question about the same document; the first one stays."""
        first: dict[tuple[str, str], int] = {}
        for number, row in rows(["question", "doc_ids"]):
            same = first.setdefault((row["question"], row["doc_ids"][0]), number)
            if same != number:
                yield Verdict(number, "duplicate question", f"the same as that of row {same + 1}")

    def asks(self, one: Input) -> bool:
        return is_by_model(self._settings, one.row)

    def models(self) -> Sequence[AskedModel]:
        return list(self._settings.models.values())

    def jobs(self, inputs: Iterable[Input]) -> Iterator[Job]:
        for order in self._orders(inputs):
            yield Job(order.model, order.ask)

    def planned_calls(self, inputs: Iterable[Input]) -> Iterator[LlmCall]:
        """Those of the first try."""
        for order in self._orders(inputs):
            yield next(order.calls())

    def most_calls(self, inputs: int) -> tuple[int, StageName]:
        return int(inputs * max(self._settings.by_model.values())), "select"

    def forecast(self, inputs: int, todo: Sequence[Input] | None) -> Forecast:
        if not any(self._settings.by_model.values()):
            return Forecast(["no model is asked"])
        repeats = f"up to {self._settings.tries} times that where answers cannot be used"
        return Forecast([*super().forecast(inputs, todo).lines, repeats])

    def _orders(self, inputs: Iterable[Input]) -> Iterator[Order]:
        for one in inputs:
            try:
                yield order_of(self._tables.out, self._settings, self._measure, one.row)
            except NoSampleError:
                continue  # counted when the row is made


def is_by_model(settings: Generate, row: Row) -> bool:
    """Whether a model writes the sample of a slot: the slot's seed decides."""
    share = settings.by_model.get(row["task"], 0.0)
    return random.Random(f"{row['id']}:writer").random() < share


def model_of(settings: Generate, length_bin: str) -> AskedModel:
    """The model of a length bin.

    Raises:
        PipelineError: there is none.
    """
    model = settings.models.get(length_bin) or settings.models.get(DEFAULT)
    if model is None:
        raise PipelineError(f"generate.models: no model for the length bin {length_bin}, and no `{DEFAULT}`")
    return model


def documents_of(out: Path, doc_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of `sources`."""
    lookup = Lookup.of(out / "sources", "doc_id")
    return [lookup.get(doc_id) for doc_id in doc_ids]


def order_of(out: Path, settings: Generate, measure: Measure, row: Row) -> Order:
    """What a model is asked for a slot. Raises NoSampleError: its documents are too short."""
    documents = [Document(one["title"] or "", one["text"]) for one in documents_of(out, row["doc_ids"])]
    start = random.Random(f"{row['id']}:start").random()
    shown = outline(documents, row["lang"], row["target_tokens"], lambda text: measure.count([text])[0], start)
    return Order(row["task"], shown, model_of(settings, row["length_bin"]), row["seed"], settings.tries)


@dataclass(frozen=True, slots=True)
class GenerateWork:
    """Makes samples; those of models from the store of replies."""

    out: Path
    settings: Generate
    measure: Measure
    replies: Path

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]:
        if not any(is_by_model(self.settings, row) for row in rows):
            return [self._made(row, None) for row in rows]
        with ReplyStore(self.replies) as store:
            return [self._made(row, store) for row in rows]

    def _made(self, row: Row, store: ReplyStore | None) -> Made:
        base = {
            "slot_id": row["id"],
            **{key: row[key] for key in ("task", "length_bin", "lang", "doc_ids")},
        }
        sources = documents_of(self.out, row["doc_ids"])
        base["source"] = sources[0]["source"]
        try:
            if store is not None and is_by_model(self.settings, row):
                order = order_of(self.out, self.settings, self.measure, row)

                def reply_to(call: LlmCall) -> LlmReply | None:
                    return kept_reply(call, store)

                sample, prompt_sha = order.made(reply_to)
                return [{**base, **_columns(sample), "prompt_sha": prompt_sha}]
            documents = [Document(one["title"] or "", one["text"]) for one in sources]
            sample = generate(
                row["task"], documents, row["lang"], f"{row['id']}", row["target_tokens"],
                lambda text: self.measure.count([text])[0],
            )  # fmt: skip
            return [{**base, **_columns(sample), "prompt_sha": None}]
        except NoSampleError as error:
            return [refused(error.reason, error.detail, **base)]


def _columns(sample: MadeSample) -> dict[str, Any]:
    fields = asdict(sample)
    wanted = ("data_source", "reward_mode", "question", "answer", "context", "generator")
    return {
        **{name: fields[name] for name in wanted},
        "golds": list(sample.golds),
        "evidence": list(sample.evidence),
    }
