"""The stage: samples in, what the second model's answers say of each out."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from golongrl.data.construct import schemas
from golongrl.data.construct.asking import Job, sheet
from golongrl.data.construct.asking_stage import AskingStage
from golongrl.data.construct.generate_models import AskedModel, Verify
from golongrl.data.construct.keys import digest
from golongrl.data.construct.metrics import DataMetrics
from golongrl.data.construct.models import Pipeline
from golongrl.data.construct.stage import (
    Executor,
    Input,
    Made,
    Row,
    StageName,
    Work,
    refused,
)
from golongrl.data.construct.table import Lookup
from golongrl.data.construct.tables import Tables
from golongrl.data.construct.verify.judge import Gates, Gold, SampleFinding, Trial, find
from golongrl.data.construct.verify.questions import Questions, around, calls
from golongrl.data.corpus import estimate_tokens
from golongrl.llm import Asker, LlmCall, LlmReply, ReplyStore, kept_reply

# Prompts with one short answer.
_EXACT = ("T1", "T2", "T4")


class VerifyStage(AskingStage):
    """A verdict on each generated sample."""

    name: ClassVar[StageName] = "verify"
    version: ClassVar[int] = 1
    schema: ClassVar[pa.Schema] = schemas.VERIFY
    shard_rows: ClassVar[int] = 32

    def __init__(
        self,
        pipeline: Pipeline,
        tables: Tables,
        executor: Executor,
        settings: Verify,
        metrics: DataMetrics | None = None,
    ) -> None:
        super().__init__(tables, executor, settings, metrics)
        self._settings = settings
        self._seed = pipeline.seed

    def settings(self) -> Mapping[str, object]:
        settings = self._settings.model_dump(mode="json", exclude={"model", "budget", "replies"})
        return {**settings, "model": self._settings.model.asked(), "prompts": sheet("verify").sha, "seed": self._seed}

    def inputs(self) -> Iterator[Input]:
        by_lang: dict[str, list[tuple[str, int]]] = {}
        if self._settings.padded_tries:
            for row in self._tables.table("sources").rows(["doc_id", "lang", "n_tokens"]):
                by_lang.setdefault(row["lang"], []).append((row["doc_id"], row["n_tokens"]))
        for row in self._tables.table("generate").rows(["id", "task", "lang", "doc_ids", "prompt_sha"]):
            plan = {"sample_id": row["id"], "task": row["task"], "by_code": row["prompt_sha"] is None}
            plan["others"] = self._others(row, by_lang.get(row["lang"], []))
            yield Input(digest(plan), plan)

    def _others(self, row: Row, documents: Sequence[tuple[str, int]]) -> list[str]:
        """Documents of the same language that fill the padding, chosen by the sample's id."""
        settings = self._settings
        if not settings.padded_tries or (row["prompt_sha"] is None and settings.code_golds):
            return []
        own = set(row["doc_ids"])
        lengths = dict(documents)
        context = sum(lengths.get(doc_id, 0) for doc_id in own)
        left = min(settings.padding * context, settings.max_padded_tokens - context)
        rng = random.Random(f"{row['id']}:padding")
        chosen = []
        for doc_id, length in rng.sample(documents, len(documents)):
            if doc_id not in own and length <= left:
                chosen.append(doc_id)
                left -= length
        return chosen

    def work(self) -> Work:
        return VerifyWork(self._tables.out, self._settings, self._replies, self._seed)

    def models(self) -> Sequence[AskedModel]:
        return [self._settings.model]

    def most_calls(self, inputs: int) -> tuple[int, StageName]:
        return inputs * (2 * self._settings.tries + self._settings.padded_tries), "generate"

    def planned_calls(self, inputs: Iterable[Input]) -> Iterator[LlmCall]:
        for one in inputs:
            for some in trials(self._tables.out, self._settings, one.row, self._seed):
                yield from some or ()

    def jobs(self, inputs: Iterable[Input]) -> Iterator[Job]:
        for one in inputs:
            planned = trials(self._tables.out, self._settings, one.row, self._seed)
            sample = Lookup.of(self._tables.out / "generate", "id").get(one.row["sample_id"])
            gold, gates = judged_by(sample, self._settings)
            # Scoring a formula may take long, which is not for an event loop: all of its prompts are asked.
            stops = None if sample["task"] == "T4" else Stops(gold, gates)

            async def ask(asker: Asker, planned: Trials = planned, stops: Stops | None = stops) -> None:
                await ask_in_order(asker, planned, stops)

            yield Job(self._settings.model, ask)


@dataclass(frozen=True)
class Stops:
    """Says when the prompts that are still to be asked would not change the verdict."""

    gold: Gold
    gates: Gates

    def __call__(self, without: Trial, with_context: Trial | None) -> bool:
        return find(self.gold, self.gates, with_context, without, None).reason is not None


async def ask_in_order(asker: Asker, planned: "Trials", stops: Stops | None) -> None:
    """Ask without the documents first, which costs least, then with them, then with others around; one call after the
    other, because those of one prompt share its prefix in the engine's cache."""
    with_context, without, padded = planned
    guesses = trial_of([await asker.ask(call) for call in without])
    if stops is not None and stops(guesses, None):
        return
    readings = None
    if with_context is not None:
        readings = trial_of([await asker.ask(call) for call in with_context])
        if stops is not None and stops(guesses, readings):
            return
    for call in padded or ():
        await asker.ask(call)


Trials = tuple[list[LlmCall] | None, list[LlmCall], list[LlmCall] | None]


def trials(out: Path, settings: Verify, row: Row, seed: int) -> Trials:
    """The calls with the documents, without, and with others around; None is what is not asked."""
    sample = Lookup.of(out / "generate", "id").get(row["sample_id"])
    documents = Lookup.of(out / "sources", "doc_id") if row["others"] else None
    before, after = around([documents.get(doc_id)["text"] for doc_id in row["others"]]) if documents else ("", "")
    asked = Questions(
        sample["data_source"],
        sample["reward_mode"],
        sample["lang"],
        sample["context"],
        sample["question"],
        before,
        after,
    )
    model = settings.model
    without = calls(asked.without_context(), model, settings.tries, seed)
    if row["by_code"] and settings.code_golds:
        return None, without, None
    padded = None
    if settings.padded_tries and row["others"] and estimate_tokens(asked.padded()) <= settings.max_padded_tokens:
        padded = calls(asked.padded(), model, settings.padded_tries, seed)
    return calls(asked.with_context(), model, settings.tries, seed), without, padded


@dataclass(frozen=True, slots=True)
class VerifyWork:
    """Judges samples by the replies in the store."""

    out: Path
    settings: Verify
    replies: Path
    seed: int

    def __call__(self, rows: Sequence[Row]) -> Sequence[Made]:
        with ReplyStore(self.replies) as store:
            return [[self._judged(row, store)] for row in rows]

    def _judged(self, row: Row, store: ReplyStore) -> dict[str, object]:
        sample = Lookup.of(self.out / "generate", "id").get(row["sample_id"])
        asked = trials(self.out, self.settings, row, self.seed)
        with_context, without, padded = (None if some is None else _kept(some, store) for some in asked)
        gold, gates = judged_by(sample, self.settings)
        finding = find(gold, gates, with_context, without or Trial(), padded)
        columns = _columns(row, finding, self.settings, asked[1][0].key)
        return columns if finding.reason is None else refused(finding.reason, finding.detail, **columns)


def judged_by(sample: Row, settings: Verify) -> tuple[Gold, Gates]:
    """What scores the answers to a sample, and what they have to meet."""
    truth = {"doc_ids": sample["golds"], "golden_label": sample["answer"], "summary": sample["lang"]}
    gold = Gold(sample["data_source"], sample["reward_mode"], truth, exact=sample["task"] in _EXACT)
    return gold, Gates(settings.agree, settings.guesses, settings.thresholds[sample["task"]])


def _kept(asked: Sequence[LlmCall], store: ReplyStore) -> Trial:
    """The answers in the store; what was not asked has none."""
    return trial_of([kept_reply(call, store) for call in asked])


def trial_of(replies: Sequence[LlmReply | None]) -> Trial:
    """The answers of some calls. A cut answer is none: it says nothing about the sample."""
    answers = [
        None if reply is None or reply.refused or reply.finish_reason == "length" else reply.text for reply in replies
    ]
    return Trial(answers, asked=any(reply is not None for reply in replies))


def _columns(row: Row, finding: SampleFinding, settings: Verify, prompt_sha: str) -> dict[str, object]:
    return {
        "sample_id": row["sample_id"],
        "model": settings.model.model,
        "with_context": finding.with_context,
        "without_context": finding.without_context,
        "padded": finding.padded,
        "tries": settings.tries,
        "prompt_sha": prompt_sha,
    }
