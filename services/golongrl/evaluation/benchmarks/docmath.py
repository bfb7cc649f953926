"""DocMath: 800 questions about financial documents, in four splits, each with a number or a yes/no as its answer.

- `official`: the published rule alone (docmath_rules.py).
- `compat`: the published rule as the released evaluation has it, or a judge, whichever is higher; the judge's reply is
  read by the letters YES.
- `strict`: a strict rule, or a judge on the extracted answer, whichever is higher; the last verdict counts.

The total is the mean over all 800, not over the splits.
"""

from typing import Any

from golongrl.evaluation.benchmark import Benchmark, user
from golongrl.evaluation.benchmarks.docmath_rules import published_rule, strict_rule
from golongrl.evaluation.benchmarks.frames import judge_prompts, verdict
from golongrl.evaluation.benchmarks.reading import extract_answer, question_about
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, text_field, text_list
from golongrl.evaluation.replies import ScoredReply, judged, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer

SPLITS = {"complong": 300, "compshort": 200, "simplong": 100, "simpshort": 200}


def _problem(source: EvalSource, record: Record, where: str) -> ProblemDraft:
    truth: Any = record.get("ground_truth")
    if isinstance(truth, str):  # a table of one type holds all golds as texts
        truth = _typed(truth.strip())
    if truth is None or not isinstance(truth, bool | int | float):
        raise EvaluationError(
            f"{where}: ground_truth must be a number or true/false, got {record.get('ground_truth')!r}"
        )
    split = source.name.removeprefix("docmath-")
    key = record.get("question_id") or f"{split}-{where.rpartition(' ')[2]}"
    question = text_field(record, "question", where)
    return ProblemDraft(str(key), (str(truth),), question, {"split": split}, {"type": type(truth).__name__})


def _typed(text: str) -> bool | int | float | None:
    if text in ("True", "False", "true", "false"):
        return text.lower() == "true"
    try:
        return int(text)
    except ValueError:
        try:
            return float(text)
        except ValueError:
            return None


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, _mode: Mode) -> list[Message]:
    context = "\n".join(text_list(record, "paragraphs", problem.where))
    return user(question_about(context, text_field(record, "question", problem.where)))


def rule_score(text: str, gold: str, kind: str, mode: Mode) -> float:
    """1 if the rule of this mode takes a reply without its thought for the gold of that type (int, float, bool)."""
    if mode == "strict":
        return strict_rule(text, gold, kind)
    compat = mode == "compat"
    return published_rule(text, gold, kind, decimals=2 if compat else 3, gold_text_is_true=compat)


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    rule = rule_score(reply.answer, problem.golds[0], problem.extra["type"], mode)
    answer = extract_answer(reply.answer, mode)
    return scored(answer, rule) if mode == "official" else judged(answer, rule)


DOCMATH = Benchmark(
    name="docmath",
    title="DocMath",
    sources=tuple(
        EvalSource(
            f"docmath-{split}",
            "yale-nlp/DocMath-Eval",
            (f"{split}[_-]testmini*.json", f"{split}[_-]testmini*.jsonl", f"{split}[_-]testmini*.parquet"),
            rows,
            f"{split}_testmini",
        )
        for split, rows in SPLITS.items()
    ),
    labels=("split",),
    _columns=("question_id", "question", "ground_truth"),
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    rule="middle",
    needs_judge=True,
    _judge_prompts=judge_prompts,
    _verdict=verdict,
)
