"""GPQA-Diamond: 198 questions of experts in biology, physics and chemistry, four answers to each; the mean.

The options are shuffled by a hash of the question, so that every run asks the same form. Some golds of the data are
known to be wrong (arXiv 2602.13964).

- `official`: the first "Answer: X" in any case.
- `compat`: the last "ANSWER: X", as evalscope reads it.
- `strict`: the last statement of the answer, the letter standing alone.
"""

import hashlib
import random
import re

from golongrl.evaluation.benchmark import Benchmark, user
from golongrl.evaluation.choices import choice_strict, first_letter, last_stated, letters
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, text_field
from golongrl.evaluation.replies import ScoredReply, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer

CHOICES = 4
REPEATS = 4
_WRONG = tuple(f"Incorrect Answer {i}" for i in (1, 2, 3))
_OFFICIAL = (re.compile(r"answer[ \t]*:[ \t]*\$?([A-D])\$?", re.IGNORECASE),)
_ASK = """\
{question}

{choices}

Reason step by step. End your reply with one line of the form: "ANSWER: X", X being one of {letters}."""


def shuffled(question: str, options: list[str]) -> tuple[list[str], str]:
    """The options in the question's own order, and the letter of the one that came first."""
    seed = int.from_bytes(hashlib.sha256(question.encode("utf-8", "surrogatepass")).digest()[:8])
    order = list(range(len(options)))
    random.Random(seed).shuffle(order)
    return [options[i] for i in order], letters(len(options))[order.index(0)]


def _arranged(record: Record, where: str) -> tuple[list[str], str]:
    options = [text_field(record, name, where).strip() for name in ("Correct Answer", *_WRONG)]
    return shuffled(text_field(record, "Question", where), options)


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    question = text_field(record, "Question", where)
    _, gold = _arranged(record, where)
    key = record.get("Record ID") or where.rpartition(" ")[2]
    labels = {"domain": text_field(record, "High-level domain", where)}
    return ProblemDraft(str(key), (gold,), question, labels)


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, _mode: Mode) -> list[Message]:
    options, _ = _arranged(record, problem.where)
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip(letters(CHOICES), options, strict=True))
    question = text_field(record, "Question", problem.where)
    return user(_ASK.format(question=question, choices=listed, letters=", ".join(letters(CHOICES))))


def extract_choice(text: str, mode: Mode, choices: int = CHOICES) -> str | None:
    """The letter that a reply without its thought names; see the module."""
    if mode == "strict":
        return choice_strict(text, choices)
    if mode == "compat":
        return last_stated(text, choices)
    found = first_letter(_OFFICIAL, text)
    return found.upper() if found is not None else None


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    letter = extract_choice(reply.answer, mode)
    return scored(letter or "", float(letter == problem.golds[0]), unparsed=letter is None)


GPQA = Benchmark(
    name="gpqa-diamond",
    title="GPQA-Diamond",
    sources=(
        EvalSource(
            "gpqa-diamond",
            "Idavidrein/gpqa",
            ("gpqa_diamond.csv", "gpqa_diamond*.parquet"),
            198,
            "train",
            "gpqa_diamond",
            gated=True,
            note="accept its terms on the hub and set HF_TOKEN",
        ),
    ),
    labels=("domain",),
    _columns=("Record ID", "Question", "Correct Answer", *_WRONG, "High-level domain"),
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    repeats=REPEATS,
)
