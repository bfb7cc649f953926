"""AIME 2024 and 2025: 30 competition problems each, 32 answers to each, avg@32.

- `strict`: the answer is what follows the thought; math-verify through the strict math rules of training (the last box
  counts). A reply cut inside its thought scores 0.
- `compat`: the released evaluation lets math-verify look at the whole reply with the thought, so that a box in the
  thought rescues a cut reply and spoils a right one: every box is read, and all of them must be the gold.
- `official`: there is no official code; as `strict`.

The released evaluation also samples with repetition_penalty 1.05 and asks the bare problem; here no penalty is set, and
the answer is asked for in \\boxed{} (in `compat` the bare problem is asked).
"""

import re

from golongrl.evaluation.benchmark import Benchmark, user
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.mathematics import math_equal
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, gold_field, text_field
from golongrl.evaluation.replies import ScoredReply, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer
from golongrl.tasks import math_answer

REPEATS = 32
_COLUMNS = ("id", "problem", "answer", "solution")
_BOX = re.compile(r"\\boxed\{([^{}]+)\}")
_ASK = "{problem}\n\nReason step by step, and put the final answer, an integer, in \\boxed{{}}."


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    question = text_field(record, "problem", where)
    # AIME 2024 has its golds as \boxed{...} in `solution`.
    gold = gold_field(record, "answer" if record.get("answer") not in (None, "") else "solution", where)
    boxes = _BOX.findall(gold)
    key = record.get("id")
    number = str(key) if key is not None else where.rpartition(" ")[2]
    return ProblemDraft(number, (boxes[-1] if boxes else gold,), question)


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, mode: Mode) -> list[Message]:
    question = text_field(record, "problem", problem.where)
    return user(question if mode == "compat" else _ASK.format(problem=question))


def score(reply: FinalAnswer, gold: str, mode: Mode) -> float:
    """1 if the answer of a reply equals the gold; see the module for the modes."""
    return math_equal(gold, reply.whole if mode == "compat" else reply.answer, mode)


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    return scored(reply.answer[-math_answer.TAIL :], score(reply, problem.golds[0], mode))


def _aime(year: int) -> Benchmark:
    name = f"aime{year % 100}"
    return Benchmark(
        name=name,
        title=f"AIME {year}",
        sources=(EvalSource(name, f"math-ai/{name}", ("test*.parquet", "test*.jsonl"), 30, "test"),),
        labels=(),
        _columns=_COLUMNS,
        _problem=_problem,
        _messages=_messages,
        _score=_score,
        repeats=REPEATS,
    )


AIME = (_aime(2024), _aime(2025))
