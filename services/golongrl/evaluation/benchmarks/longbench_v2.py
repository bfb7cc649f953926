"""LongBench-V2: 503 multiple-choice questions over 8K to 2M words.

- `official`: without asterisks, the first "The correct answer is (X)", else "The correct answer is X", case-sensitive.
  Its settings are temperature 0.1 and the middle cut to 120,000 tokens.
- `strict`: the last statement of the answer in any case, in that form or as "ANSWER: X", the letter standing alone.
- `compat`: the released evaluation has no script of its own; as `official`.
"""

import re

from golongrl.evaluation.benchmark import Benchmark, user
from golongrl.evaluation.choices import choice_strict, first_letter, letters
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, text_field
from golongrl.evaluation.replies import ScoredReply, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer

_COLUMNS = (
    "_id", "domain", "difficulty", "length", "question", "choice_A", "choice_B", "choice_C", "choice_D", "answer",
)  # fmt: skip
CHOICES = 4
_OFFICIAL = (re.compile(r"The correct answer is \(([A-D])\)"), re.compile(r"The correct answer is ([A-D])"))
_ASK = """\
Read the text and answer the question about it.

<text>
{context}
</text>

Question: {question}

{choices}

Choose one option. End your reply with one line of the form: "The correct answer is (X)", X being its letter."""


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    gold = text_field(record, "answer", where)
    if gold not in letters(CHOICES):
        raise EvaluationError(f"{where}: answer must be A, B, C or D, got {gold!r}")
    labels = {name: text_field(record, name, where) for name in ("difficulty", "length", "domain")}
    for name, known in (("difficulty", ("easy", "hard")), ("length", ("short", "medium", "long"))):
        if labels[name] not in known:
            raise EvaluationError(f"{where}: {name} must be one of {', '.join(known)}, got {labels[name]!r}")
    return ProblemDraft(text_field(record, "_id", where), (gold,), text_field(record, "question", where), labels)


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, _mode: Mode) -> list[Message]:
    where = problem.where
    choices = "\n".join(f"({letter}) {text_field(record, f'choice_{letter}', where)}" for letter in letters(CHOICES))
    return user(
        _ASK.format(
            context=text_field(record, "context", where),
            question=text_field(record, "question", where),
            choices=choices,
        )
    )


def extract_choice(text: str, mode: Mode) -> str | None:
    """The letter that a reply without its thought names; see the module."""
    if mode == "strict":
        return choice_strict(text, CHOICES)
    return first_letter(_OFFICIAL, text.replace("*", ""))


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    letter = extract_choice(reply.answer, mode)
    return scored(letter or "", float(letter == problem.golds[0]), unparsed=letter is None)


LONGBENCH_V2 = Benchmark(
    name="longbench-v2",
    title="LongBench-V2",
    sources=(EvalSource("longbench-v2", "zai-org/LongBench-v2", ("data.json", "train*.parquet"), 503, "train"),),
    labels=("difficulty", "length", "domain"),
    _columns=_COLUMNS,
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    rule="middle",
)
