"""The response that a row's own gold answer makes: what a perfect answer looks like, and whether a row can be scored.

A row whose gold does not earn full marks can never be scored right, whatever a policy writes.
"""

from collections.abc import Mapping
from typing import Any

from golongrl.tasks import math_answer
from golongrl.tasks.outcome import Mode, Outcome, UnscorableError
from golongrl.tasks.registry import LONGBENCH_PRO, task_of
from golongrl.tasks.scoring import score

# ROUGE-L adds 1e-8 to a denominator, and in compat counts </think> as a word of the answer.
_FULL = 1.0 - 1e-6


def gold_response(data_source: object, ground_truth: object, extra_info: Mapping[str, Any] | None) -> str:
    """A response that gives the gold answer in the form its task asks for.

    Raises:
        UnknownTaskError: no task type has this row.
    """
    task = task_of(data_source, (extra_info or {}).get("reward_mode"))
    truth = ground_truth[-1] if isinstance(ground_truth, list | tuple) and ground_truth else ground_truth
    if data_source == LONGBENCH_PRO:
        golds = truth.get("doc_ids") if isinstance(truth, Mapping) else str(truth).splitlines()
        items = [str(gold) for gold in golds] if isinstance(golds, list | tuple) else []
        return "</think>\n[Answer]\n" + "\n".join(items[:1] if task.metric in ("Accuracy", "ROUGE-L") else items)
    label = truth.get("golden_label", truth) if isinstance(truth, Mapping) else truth
    if task.metric == "IoU":
        import json

        return f"</think><answer>{label if isinstance(label, str) else json.dumps(label, default=str)}</answer>"
    first = label[0] if isinstance(label, list | tuple) and label else label
    if task.metric == "math_verify":
        return f"</think>\\boxed{{{first}}}"
    if task.metric == "Accuracy":
        letter = str(first).strip(" ().")
        return f"</think>{f'The correct answer is ({letter.upper()})' if len(letter) == 1 else first}"
    return f"</think>{first}"


def own_score(data_source: object, ground_truth: object, extra_info: Mapping[str, Any] | None, mode: Mode) -> Outcome:
    """What the row's gold answer earns; unscored, too, where nothing but its own text can be compared with it."""
    task = task_of(data_source, (extra_info or {}).get("reward_mode"))
    if task.metric == "math_verify":
        try:
            math_answer.check_golds(_labels(ground_truth))
        except UnscorableError as error:
            return Outcome(None, "unscored", task.metric, task.type, str(error))
    return score(data_source, gold_response(data_source, ground_truth, extra_info), ground_truth, extra_info, mode)


def _labels(ground_truth: object) -> list[str]:
    truth = ground_truth[-1] if isinstance(ground_truth, list | tuple) and ground_truth else ground_truth
    label = truth.get("golden_label") if isinstance(truth, Mapping) else truth
    return [str(one) for one in label] if isinstance(label, list | tuple) else [str(label)]


def earns_full_marks(outcome: Outcome, mode: Mode) -> bool:
    """Whether an outcome of `own_score` is a sound row's: 1, or for ROUGE-L in compat anything."""
    if outcome.metric == "ROUGE-L" and mode == "compat":
        return bool(outcome.score)
    return outcome.score is not None and outcome.score >= _FULL
