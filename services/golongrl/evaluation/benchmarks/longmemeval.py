"""LongMemEval (S): 500 questions about a user's 40 or so dated chat sessions, about 115K tokens; a judge decides.

- `official`: a judge is asked in the form of the question's type (preferences by a rubric, updated facts, days that may
  be off by one), and for unanswerable questions (ids that end in `_abs`) in one of their own; "yes" anywhere in its
  reply is right, also inside "yesterday".
- `strict`: the same questions; the reply's verdict is the word yes or no that it begins with, else the last one.
- `compat`: one lenient question for all types, unanswerable ones included, [[CORRECT]] without [[INCORRECT]]; the
  question's date is left out of the prompt. Judged so, right abstentions may fail: their gold is an explanation.

The report has the overall mean, the mean of the six types' means, and the five abilities of the released evaluation, of
which abstention is one. Official types count unanswerable questions inside their type.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from golongrl.evaluation.aggregate import ScoreTable, by_type
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.judge import LONGEST_ANSWER
from golongrl.evaluation.kinds import Message, Mode, Sample, Verdict
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, gold_field, text_field
from golongrl.evaluation.replies import ScoredReply, judged
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer

ABILITIES = {
    "single-session-user": "information_extraction",
    "single-session-assistant": "information_extraction",
    "single-session-preference": "information_extraction",
    "multi-session": "multi_session_reasoning",
    "knowledge-update": "knowledge_update",
    "temporal-reasoning": "temporal_reasoning",
}
_ABSTENTION = "_abs"

_SYSTEM = """\
You are an assistant who remembers the earlier conversations with this user. They are given below in the order of \
their dates. First look for what bears on the question and note it down, then reason from it and answer briefly. If \
the conversations do not contain what is asked, say so."""
_ASK = "Earlier conversations:\n\n{history}\n\n{date}Question: {question}"

# What the judge of each type is told, in our words.
_CONTAINS = """\
A question, its correct answer and a model's reply follow. Say yes if the reply contains the correct answer, says \
the same in other words, or has every step that leads to it. Say no if it lacks it or gives only a part of it."""
_TASKS = {
    "temporal-reasoning": f"""{_CONTAINS} Where a number of days, weeks or months is asked for, a reply that is off by \
one is still correct.""",
    "knowledge-update": """\
A question, its correct answer and a model's reply follow. Say yes if the reply gives the correct answer, also if it \
mentions what was true before, as long as its up-to-date answer is the correct one. Say no otherwise.""",
    "single-session-preference": """\
A question, a rubric for a reply that suits this user, and a model's reply follow. Say yes if the reply recalls what \
it knows of the user correctly and uses it; it need not meet every point of the rubric. Say no otherwise.""",
    "abstention": """\
A question that cannot be answered, an explanation why, and a model's reply follow. Say yes if the reply recognises \
that it cannot be answered: that the information is missing, or that only other information is there. Say no \
otherwise.""",
}
_NAMES = {"single-session-preference": "Rubric", "abstention": "Explanation"}
_FORM = "{task}\n\nQuestion: {question}\n\n{name}: {gold}\n\nReply: {answer}\n\nAnswer with yes or no only."
_LENIENT = """\
A question, a reference answer and a model's reply follow. Decide whether the reply answers the question correctly by \
the reference. It need not use the same words, and extra detail that is right does no harm; be lenient if its core is \
right. If several points are asked for, it should have all. If the question cannot be answered, it should say that the \
information is not there.

Question: {question}

Reference answer: {gold}

Reply: {answer}

Explain in one or two sentences. Then end with [[CORRECT]] or [[INCORRECT]]."""

_WORD = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def category(question_type: str, question_id: str) -> str:
    """The ability that a question tests."""
    return "abstention" if question_id.endswith(_ABSTENTION) else ABILITIES.get(question_type, "other")


def judge_label(text: str, mode: Mode = "strict") -> Verdict:
    """What a judge's yes or no says; see the module for the modes."""
    if mode == "official":
        return float("yes" in text.lower())
    if mode == "compat":
        return float("[[CORRECT]]" in text and "[[INCORRECT]]" not in text)
    words = [found[1].lower() for found in _WORD.finditer(text)]
    if not words:
        return None
    first = _WORD.match(text.strip().lstrip("*_\"'([").strip())
    return float((first[1].lower() if first is not None else words[-1]) == "yes")


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    key = text_field(record, "question_id", where)
    kind = text_field(record, "question_type", where)
    if kind not in ABILITIES:
        raise EvaluationError(f"{where}: unknown question_type {kind!r} (known: {', '.join(ABILITIES)})")
    gold = gold_field(record, "answer", where)
    labels = {"type": kind, "ability": category(kind, key)}
    return ProblemDraft(key, (gold,), text_field(record, "question", where), labels)


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, mode: Mode) -> list[Message]:
    date = "" if mode == "compat" else f"Date of the question: {text_field(record, 'question_date', problem.where)}\n"
    content = _ASK.format(history=_history(record, problem.where), date=date, question=problem.question)
    return [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": content}]


def _history(record: Record, where: str) -> str:
    sessions, dates = record.get("haystack_sessions"), record.get("haystack_dates")
    if not isinstance(sessions, list) or not isinstance(dates, list) or len(sessions) != len(dates) or not sessions:
        raise EvaluationError(f"{where}: haystack_sessions and haystack_dates must be lists of the same length")
    parts = []
    for number, (session, date) in enumerate(zip(sessions, dates, strict=True), start=1):
        turns = [
            f"{text_field(turn, 'role', where)}: {text_field(turn, 'content', where, blank=True)}" for turn in session
        ]
        parts.append("\n".join([f"[Conversation {number}, {date}]", *turns]))
    return "\n\n".join(parts)


def _score(_problem: EvalProblem, reply: FinalAnswer, _mode: Mode) -> ScoredReply:
    return judged(reply.answer, None)


def _judge_prompts(problem: EvalProblem, answer: str, mode: Mode) -> tuple[str, ...]:
    given = {"question": problem.question, "gold": problem.golds[0], "answer": answer[-LONGEST_ANSWER:]}
    if mode == "compat":
        return (_LENIENT.format(**given),)
    kind = "abstention" if problem.labels["ability"] == "abstention" else problem.labels["type"]
    task = _TASKS.get(kind, _CONTAINS)
    return (_FORM.format(task=task, name=_NAMES.get(kind, "Correct answer"), **given),)


def _refine(table: ScoreTable, samples: Sequence[Sample], mode: Mode) -> ScoreTable:
    types: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        if sample.score is not None or mode != "compat":
            types[sample.labels["type"]].append(sample.score or 0.0)
    if not any(types.values()):
        return table
    return replace(table, figures={**table.figures, "task_averaged": by_type(types).task_averaged})


LONGMEMEVAL = Benchmark(
    name="longmemeval",
    title="LongMemEval",
    sources=(EvalSource("longmemeval", "xiaowu0162/longmemeval-cleaned", ("longmemeval_s_cleaned.json",), 500),),
    labels=("ability", "type"),
    _columns=("question_id", "question_type", "question", "answer"),
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    rule="skip",
    needs_judge=True,
    drops_failures=True,
    _judge_prompts=_judge_prompts,
    _verdict=judge_label,
    _refine=_refine,
)
