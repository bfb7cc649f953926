"""The Pipeline: WHAT data is made (sources, quotas, generators, gates), never where it is computed.

Strict and immutable as a recipe is. Lengths are in tokens of `tokenizer`. A stage whose section is null is left out.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from golongrl.data.construct.generate_models import Generate, Passrate, Verify
from golongrl.recipe.fields import (
    NAME,
    NonNegativeFloat,
    NonNegativeInt,
    Place,
    PositiveFloat,
    PositiveInt,
    Probability,
    Section,
    TaskType,
)

Language = Literal["English", "Chinese"]
# `auto` is read from the file's suffix.
Format_ = Literal["auto", "text", "markdown", "html", "pdf", "jsonl", "parquet", "hub"]
Reader = Literal["golongrl", "longbench", "longbench_v2", "longbench_pro", "hotpotqa", "docmath"]

# What a document holds, as counts.
Feature = Literal[
    "paragraphs", "long_paragraphs", "numbers", "dates", "speech", "headings", "table_lines", "list_lines"
]


class SourceInput(Section):
    """One place that documents come from."""

    path: Place = Field(
        description="A file, a folder (read with all below it), `builtin:python-reference`, or with `format: hub` the "
        "id of a data set."
    )
    format: Format_ = Field("auto", description="How the files are read; `auto` goes by their suffix.")
    licence: str | None = Field(None, description="Licence of these documents where they do not state their own.")
    language: Language | None = Field(None, description="Their language; null is found from the text.")
    name: str | None = Field(None, description="Name of the source in reports; null is the last part of the path.")
    text_key: str = Field("text", description="jsonl, parquet, hub: the key of the text.")
    licence_key: str = Field("licence", description="jsonl, parquet, hub: the key of the licence, where rows have it.")
    title_key: str = Field("title", description="jsonl, parquet, hub: the key of the title, where rows have it.")
    split: str = Field("train", description="hub: the split that is read.")
    revision: str | None = Field(None, description="hub: the commit that is read; null is the newest.")


class Sources(Section):
    """Phase 1: documents, and what keeps one out."""

    inputs: Annotated[tuple[SourceInput, ...], Field(min_length=1)] = Field(
        description="Where the documents come from."
    )
    licences: tuple[str, ...] | None = Field(
        None, description="Licences that are accepted (any case); null accepts every stated one."
    )
    unknown_licence: Literal["refuse", "keep"] = Field(
        "refuse", description="What happens to a document of which no licence is stated."
    )
    min_tokens: PositiveInt = Field(200, description="A shorter document is refused.")
    max_tokens: PositiveInt = Field(1_000_000, description="A longer document is cut at a paragraph into parts.")
    min_letters: Probability = Field(0.5, description="Least share of letters among the characters but white space.")
    max_repeated_lines: Probability = Field(0.3, description="Largest share of lines that repeat an earlier line.")
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        0.8, description="Documents whose MinHash similarity reaches this are duplicates; null looks for exact ones."
    )
    max_file_bytes: PositiveInt = Field(256 << 20, description="A larger text, markdown, HTML or PDF file is refused.")
    deadline_s: PositiveFloat = Field(120.0, description="Longest that reading one file may take.")


class LengthBin(Section):
    """Prompts of one range of lengths; the paper has two (`long`, `overlong`), each with a generator of its own."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=20)]
    min_tokens: NonNegativeInt = Field(0, description="Least tokens of context.")
    max_tokens: PositiveInt = Field(description="Most tokens of context.")
    share: Annotated[float, Field(gt=0)] = Field(1.0, description="Its part of every task's quota.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_tokens >= self.max_tokens:
            raise ValueError("min_tokens must be less than max_tokens")
        return self


class Criterion(Section):
    """What a document needs to be asked about for a task type."""

    sources: tuple[str, ...] | None = Field(None, description="Names of sources; null is all.")
    features: dict[Feature, NonNegativeInt] = Field(
        {}, description="Least counts, of which one is enough; empty asks for nothing."
    )


class Select(Section):
    """Phase 2: which documents are asked about, for which task type, and how often."""

    tasks: Annotated[dict[TaskType, NonNegativeInt], Field(min_length=1)] = Field(
        description="Prompts to make for each task type."
    )
    bins: Annotated[tuple[LengthBin, ...], Field(min_length=1)] = Field(description="Length bins.")
    languages: Annotated[dict[Language, PositiveFloat], Field(min_length=1)] = Field(
        {"English": 1.0}, description="Each language's part of every task's quota."
    )
    criteria: dict[TaskType, Criterion] = Field(
        {}, description="What a task's documents need, in place of the built-in criterion of that task."
    )
    max_per_document: PositiveInt = Field(40, description="Most prompts that have one document as their main one.")
    oversample: Annotated[float, Field(ge=1)] = Field(
        1.0, description="Prompts made for each one wanted, because later stages refuse some."
    )
    feedback: tuple[Place, ...] = Field(
        (),
        description="Where a trained model fails: the folder of a run or of `golongrl eval`, or jsonl of rows with "
        "`task` and `score` (and, where known, `length_bin`, `language`, `source`, `doc_ids`). Quotas move to the "
        "cells with low scores, and main documents to those that are answered badly, or of such a source.",
    )
    feedback_strength: NonNegativeFloat = Field(
        1.0, description="A cell that scores 0 gets this much more of its task's weight than one that scores 1."
    )

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [one.name for one in self.bins]
        if len(set(names)) < len(names):
            raise ValueError("bins: two bins have the same name")
        return self


class Conversion(Section):
    """Rows of a public set, brought to the natural reward of their task type."""

    path: Place = Field(
        description="A parquet or jsonl file, or a folder of them, in the public set's own columns; with `format: hub` "
        "the set's id."
    )
    format: Literal["auto", "jsonl", "parquet", "hub"] = Field("auto", description="How the files are read.")
    split: str = Field("train", description="hub: the split that is read.")
    reader: Reader = Field(description="Which set's columns these are.")
    name: str | None = Field(None, description="Name of the set in reports; null is the last part of the path.")
    limit: PositiveInt | None = Field(None, description="Rows taken at most, in the order of the file.")


class Convert(Section):
    """Phase 3, open-source track."""

    inputs: Annotated[tuple[Conversion, ...], Field(min_length=1)]


class Format(Section):
    """The dataset's rows, and the check that a perfect answer earns full marks."""

    max_prompt_tokens: PositiveInt = Field(163_840, description="A longer prompt is refused.")
    gold_deadline_s: PositiveFloat = Field(20.0, description="Longest that scoring one row's own gold may take.")
    instructions: Literal["full", "terse"] = Field(
        "full", description="As in a recipe: sentences, or a cue word for models with a tiny vocabulary."
    )


class Decontaminate(Section):
    """Phase 4: what the benchmarks hold does not stay in the data."""

    benchmarks: tuple[Place, ...] = Field(
        (),
        description="Folders or files (jsonl, parquet, text) with benchmarks; every text field of a row counts, "
        "`context` and the like as context.",
    )
    suite: Place | None = Field(
        None,
        description="Folder that `golongrl eval fetch` has written: the evaluation's benchmarks are looked for.",
    )
    suite_name: str = Field("paper", description="Which of the evaluation's suites, or one of its benchmarks.")
    suite_missing: Literal["error", "note"] = Field(
        "error", description="What a benchmark of the suite does that is not in the folder."
    )
    n: Annotated[int, Field(ge=5, le=50)] = Field(13, description="Length of the n-grams, in words.")
    max_shared: Probability = Field(
        0.01, description="A source document that shares more of its n-grams with a benchmark's context is refused."
    )


class Diagnose(Section):
    """Phase 4: counts and pictures of what was made."""

    plots: bool = Field(True, description="Write report.html beside the numbers in report.json.")


class Pipeline(Section):
    """A whole pipeline. Read one with `golongrl.data.construct.load.load`."""

    name: Annotated[str, Field(pattern=NAME, max_length=40)]
    seed: NonNegativeInt = Field(0, description="Seed of every choice.")
    tokenizer: Place | None = Field(
        None, description="Model whose tokenizer measures lengths, as `model.path` of a recipe; null estimates them."
    )
    sources: Sources
    select: Select
    generate: Generate = Generate()
    convert: Convert | None = None
    verify: Verify | None = None
    passrate: Passrate | None = None
    format: Format = Format()
    decontaminate: Decontaminate = Decontaminate()
    diagnose: Diagnose = Diagnose()
