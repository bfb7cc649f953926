"""A sample as a row of the dataset, without what later stages know about it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from golongrl.data.answer_forms import prompt_of
from golongrl.data.construct.tables import context_of
from golongrl.tasks import TASKS, task_of

_ABILITIES = {task.type: task.ability for task in TASKS}


def prompt_text(out: Path, sample: Mapping[str, Any], instructions: Literal["full", "terse"]) -> str:
    """The user's message."""
    context = context_of(out, dict(sample))
    if instructions == "terse":
        return f"{context}\n{sample['question']}"
    return prompt_of(context, sample["question"], sample["data_source"], sample["reward_mode"], sample["lang"])


def truth_of(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The gold answer as the dataset has it."""
    return {"doc_ids": sample["golds"] or [], "golden_label": sample["answer"] or "", "summary": sample["lang"]}


def ability_of(sample: Mapping[str, Any]) -> str:
    """The dataset's words for the task type."""
    return _ABILITIES[task_of(sample["data_source"], sample["reward_mode"]).type]


def dataset_row(out: Path, sample: Mapping[str, Any], instructions: Literal["full", "terse"]) -> dict[str, Any]:
    """The row; `extra_info.sample_id` says which sample it is."""
    return {
        "data_source": sample["data_source"],
        "prompt": [{"role": "user", "content": prompt_text(out, sample, instructions)}],
        "ability": ability_of(sample),
        "reward_model": {"ground_truth": truth_of(sample)},
        "extra_info": {
            "reward_mode": sample["reward_mode"],
            "question": sample["question"],
            "sample_id": sample["id"],
        },
    }
