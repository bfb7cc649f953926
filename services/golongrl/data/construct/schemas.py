"""The tables between the stages.

Every table has the columns of `FRAME` first, written by the frame: `id` is a hash of the row's content (the next stage
knows its inputs by it), `key` a hash of the stage, its version, the settings that matter and the input's id (a rerun
takes a row with the same key from the disk), `reason` is null where the row was kept and a short name of why it was
left out otherwise, `detail` a sentence on that. Every column may be null, because a refused row may lack it.

`sources`   a document.
`select`    a slot: one prompt that shall be made, with the documents it is made of, the main one first.
`generate`  a sample: question and gold. `context` is null where it is the slot's documents one after the other.
`convert`   samples too, from the rows of public sets; they have no slot.
`verify`, `passrate`   what was found about a sample (`sample_id` is its `id`); they repeat none of its text.
`format`    the dataset's columns.
`decontaminate`   the verdict on a row of `format`, with the evidence.
"""

from typing import Final

import pyarrow as pa

FRAME: Final = (
    pa.field("id", pa.string()),
    pa.field("key", pa.string()),
    pa.field("reason", pa.string()),
    pa.field("detail", pa.string()),
)


def table(*fields: tuple[str, pa.DataType]) -> pa.Schema:
    """The schema of a stage's table with these columns."""
    return pa.schema([*FRAME, *(pa.field(name, kind) for name, kind in fields)])


TEXTS: Final = pa.list_(pa.large_string())

SOURCES: Final = table(
    ("doc_id", pa.string()),  # sha256 of the normalised text, 32 hex digits
    ("text", pa.large_string()),
    ("title", pa.string()),
    ("lang", pa.string()),  # English or Chinese
    ("licence", pa.string()),
    ("source", pa.string()),  # the input's name
    ("origin", pa.string()),  # file, and row where it has rows
    ("n_tokens", pa.int64()),
    ("sha256", pa.string()),
    ("features", pa.string()),  # JSON: counts that the criteria of select look at
    ("signature", pa.binary()),  # MinHash
)

SELECT: Final = table(
    ("slot", pa.int64()),  # number within its cell: the seed of its choices
    ("task", pa.string()),
    ("length_bin", pa.string()),
    ("lang", pa.string()),
    ("doc_ids", pa.list_(pa.string())),  # the main document, then those that fill the context
    ("target_tokens", pa.int64()),  # how long the context shall be
    ("n_tokens", pa.int64()),  # how long these documents are together
    ("seed", pa.int64()),
)

GENERATE: Final = table(
    ("slot_id", pa.string()),  # null where the sample was converted from a public set
    ("task", pa.string()),
    ("length_bin", pa.string()),
    ("lang", pa.string()),
    ("doc_ids", pa.list_(pa.string())),
    ("source", pa.string()),
    ("data_source", pa.string()),  # with reward_mode: what scores it (golongrl.tasks)
    ("reward_mode", pa.string()),
    ("question", pa.large_string()),
    ("answer", pa.large_string()),  # golden_label
    ("golds", TEXTS),  # doc_ids of longbench_pro rows
    ("evidence", TEXTS),  # verbatim passages of the context
    ("context", pa.large_string()),
    ("generator", pa.string()),
    ("prompt_sha", pa.string()),  # null where no model was asked
)
CONVERT: Final = GENERATE

VERIFY: Final = table(
    ("sample_id", pa.string()),
    ("model", pa.string()),
    ("with_context", pa.int64()),  # answers that agree with the gold, of `tries`
    ("without_context", pa.int64()),
    ("padded", pa.int64()),
    ("tries", pa.int64()),
    ("prompt_sha", pa.string()),
)

PASSRATE: Final = table(
    ("sample_id", pa.string()),
    ("band", pa.string()),  # easy, medium or hard
    ("mean_reward", pa.float64()),
    ("passed", pa.int64()),
    ("rollouts", pa.int64()),
    ("model", pa.string()),  # the one that decided
)

MESSAGES: Final = pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))
GROUND_TRUTH: Final = pa.struct([("doc_ids", TEXTS), ("golden_label", pa.large_string()), ("summary", pa.string())])
# What the dataset itself has in `extra_info`, then what the pipeline knows about the row.
EXTRA_INFO: Final = pa.struct(
    [
        ("reward_mode", pa.string()),
        ("question", pa.large_string()),
        ("task", pa.string()),
        ("length_bin", pa.string()),
        ("lang", pa.string()),
        ("source", pa.string()),
        ("doc_ids", pa.list_(pa.string())),
        ("evidence", TEXTS),
        ("generator", pa.string()),
        ("band", pa.string()),
        ("mean_reward", pa.float64()),
        ("n_tokens", pa.int64()),
        ("sample_id", pa.string()),
    ]
)
# The columns of the file that is trained on.
DATASET: Final = pa.schema(
    [
        ("data_source", pa.string()),
        ("prompt", MESSAGES),
        ("ability", pa.string()),
        ("reward_model", pa.struct([("ground_truth", GROUND_TRUTH)])),
        ("extra_info", EXTRA_INFO),
    ]
)
FORMAT: Final = table(
    ("sample_id", pa.string()),
    ("origin", pa.string()),  # the table that the sample is in
    *((field.name, field.type) for field in DATASET),
)

DECONTAMINATE: Final = table(
    ("row_id", pa.string()),  # `id` of the row of `format`
    ("benchmark", pa.string()),
    ("item", pa.string()),  # which row of the benchmark
    ("field", pa.string()),  # question, gold or prompt
    ("evidence", pa.large_string()),  # the shared words
    ("context_hits", pa.int64()),  # n-grams of the context that a benchmark has, too
    ("context_evidence", pa.large_string()),
)

DIAGNOSE: Final = table(
    ("row_id", pa.string()),
    ("digest", pa.string()),  # equal where prompt and gold are
    ("task", pa.string()),
    ("band", pa.string()),
    ("length_bin", pa.string()),
    ("lang", pa.string()),
    ("source", pa.string()),
    ("generator", pa.string()),
    ("n_tokens", pa.int64()),
    ("gold_tokens", pa.int64()),
    ("evidence_at", pa.list_(pa.float64())),  # from 0, the start of the context, to 1
)
