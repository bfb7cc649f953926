"""Prompts of all nine task types, built from text, with gold answers found by code. Pure: same seed, same prompt."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from golongrl.data.answer_forms import BOXED, FULL_FORM, ITEMS, OPTION, SUMMARY
from golongrl.data.builders import passages, records
from golongrl.data.builders.common import Draft, Material, Style
from golongrl.data.corpus import Corpus
from golongrl.data.rows import ExtraInfo, GroundTruth, Message, RewardModel, Row
from golongrl.recipe import TaskType

__all__ = ["Draft", "Style", "build", "compose", "demonstration"]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a task type is built, and the names under which the dataset has it."""

    make: Callable[[Material], Draft]
    data_source: str
    reward_mode: str
    ability: str
    answer: str


_KINDS: dict[TaskType, _Kind] = {
    "T1": _Kind(passages.next_line, "EM", "EM", "precise long-range information retrieval",
                "the line and nothing else"),
    "T2": _Kind(passages.choice, "selection", "selection", "evidence-grounded comprehension and reasoning",
                OPTION),
    "T3": _Kind(records.filter_items, "longbench_pro", "T6.2 Targeted Subset Cluster Identification",
                "high-recall exhaustive retrieval and verification", ITEMS),
    "T4": _Kind(records.count, "math_longcot_math_verify", "math_longcot_math_verify",
                "numerical extraction and quantitative reasoning", BOXED),
    "T5": _Kind(records.table_rows, "multitableqa_pretraining", "multitableqa", "multi-table structured extraction",
                '<answer>{"data": [["group", "name", 1], ["group", "name", 2]]}</answer>'),
    "T6": _Kind(records.final_state, "longbench_pro", "T8.3 Long-Context Procedural State Tracking",
                "fragment-level structured matching and induction", ITEMS),
    "T7": _Kind(records.ranking, "longbench_pro", "T1.1 Global Cohesive Retrieval",
                "dimension-quantified retrieval and graded ranking", ITEMS),
    "T8": _Kind(passages.order, "longbench_pro", "T2.1 Global Timeline Reconstruction",
                "sequence reconstruction and ordering", ITEMS),
    "T9": _Kind(passages.summary, "longbench_pro", "T4.2 Query-Focused Summary", "long document summarization",
                SUMMARY),
}  # fmt: skip


def compose(task: TaskType, corpus: Corpus, rng: random.Random, context_tokens: int, style: Style = "full") -> Draft:
    """The parts of a prompt of about `context_tokens` tokens (estimated).

    Raises:
        DataError: the corpus has too little text for it.
    """
    return _KINDS[task].make(Material(corpus, rng, context_tokens, style))


def build(task: TaskType, corpus: Corpus, rng: random.Random, context_tokens: int, style: Style = "full") -> Row:
    """A row of the dataset's format; see `compose` for the arguments and errors."""
    return to_row(task, compose(task, corpus, rng, context_tokens, style), style)


def to_row(task: TaskType, draft: Draft, style: Style) -> Row:
    """Put the parts together as the dataset has them."""
    kind = _KINDS[task]
    if style == "terse":
        content = f"{draft.context}\n{draft.question}"
    else:
        content = f"{draft.context}\n\n----\n{draft.question}\n\n{FULL_FORM}{kind.answer}"
    gold = GroundTruth(doc_ids=list(draft.doc_ids), golden_label=draft.golden_label, summary="English")
    return Row(
        data_source=kind.data_source,
        prompt=[Message(role="user", content=content)],
        ability=kind.ability,
        reward_model=RewardModel(ground_truth=gold),
        extra_info=ExtraInfo(reward_mode=kind.reward_mode, question=draft.question.strip()),
    )


def demonstration(draft: Draft) -> str:
    """A perfect, well-formed response to the draft's prompt."""
    return f"<think>{draft.think}</think>{draft.answer}"
