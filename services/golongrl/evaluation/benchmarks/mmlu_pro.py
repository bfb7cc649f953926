"""MMLU-Pro: 12,032 questions with up to ten options, asked with five worked examples of the same category.

- `official`: the first "answer is (X)", else "Answer: X", else the last capital A to J anywhere, which takes "I think
  so" for option I. The official code then guesses at random; here a reply without a letter scores 0 and is counted.
- `compat`: the released evaluation runs it through evalscope, whose rule is the last "ANSWER: X".
- `strict`: the last statement of the answer, the letter standing alone; nothing is guessed.
"""

import re
from typing import Any

from golongrl.evaluation.benchmark import Benchmark, Sampling, user
from golongrl.evaluation.choices import choice_strict, last_stated, letters
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, text_field, text_list
from golongrl.evaluation.replies import ScoredReply, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer

EXAMPLES = 5
_REPO = "TIGER-Lab/MMLU-Pro"
_EXAMPLE_SOURCE = "mmlu-pro-examples"
_MOST_CHOICES = 10
_FIRST = re.compile(r"answer is \(?([A-J])\)?")
_SECOND = re.compile(r"[aA]nswer:\s*([A-J])")
_ANY = re.compile(r"[A-J]")
_WORKED = re.compile(r"^A:\s*")
_INTRO = """\
Multiple-choice questions about {category} follow, the first ones with worked answers. Think step by step about the \
last one, and end your reply with one line of the form: "The answer is (X)", X being the letter of an option."""


def _options(record: Record, where: str) -> tuple[str, ...]:
    options = text_list(record, "options", where)
    if not 2 <= len(options) <= _MOST_CHOICES:
        raise EvaluationError(f"{where}: options must be 2 to {_MOST_CHOICES}, got {len(options)}")
    return options


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    options = _options(record, where)
    gold = text_field(record, "answer", where)
    if gold not in letters(len(options)):
        raise EvaluationError(f"{where}: answer {gold!r} is none of the {len(options)} options")
    key: Any = record.get("question_id", where.rpartition(" ")[2])
    labels = {"category": text_field(record, "category", where)}
    extra = {"choices": str(len(options))}
    return ProblemDraft(str(key), (gold,), text_field(record, "question", where), labels, extra)


def _messages(problem: EvalProblem, record: Record, data: DataFiles, _mode: Mode) -> list[Message]:
    category = problem.labels["category"]
    examples = [row for row in data.all_rows(_EXAMPLE_SOURCE) if row.get("category") == category][:EXAMPLES]
    parts = [_INTRO.format(category=category)]
    for number, example in enumerate(examples, start=1):
        where = f"{_EXAMPLE_SOURCE}, example {number} of {category}"
        worked = _WORKED.sub("", text_field(example, "cot_content", where))
        parts.append(f"{_shown(example, where)}\nAnswer: {worked}")
    parts.append(f"{_shown(record, problem.where)}\nAnswer:")
    return user("\n\n".join(parts))


def _shown(record: Record, where: str) -> str:
    options = _options(record, where)
    listed = "\n".join(f"{letter}. {option}" for letter, option in zip(letters(len(options)), options, strict=True))
    return f"Question: {text_field(record, 'question', where)}\nOptions:\n{listed}"


def extract_choice(text: str, mode: Mode, choices: int = _MOST_CHOICES) -> str | None:
    """The letter that a reply without its thought names; see the module."""
    if mode == "strict":
        return choice_strict(text, choices)
    if mode == "compat":
        return last_stated(text, choices)
    found = _FIRST.search(text)
    if found is not None:
        return found[1]
    answers = list(_SECOND.finditer(text))
    if answers:  # the last one on the first line that has any
        end = text.find("\n", answers[0].start())
        return [one for one in answers if end < 0 or one.start() < end][-1][1]
    capitals = _ANY.findall(text)
    return capitals[-1] if capitals else None


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    letter = extract_choice(reply.answer, mode, int(problem.extra["choices"]))
    return scored(letter or "", float(letter == problem.golds[0]), unparsed=letter is None)


MMLU_PRO = Benchmark(
    name="mmlu-pro",
    title="MMLU-Pro",
    sources=(
        EvalSource("mmlu-pro", _REPO, ("test-*.parquet",), 12_032, "test"),
        EvalSource(_EXAMPLE_SOURCE, _REPO, ("validation-*.parquet",), 70, "validation", role="examples"),
    ),
    labels=("category",),
    _columns=("question_id", "question", "options", "answer", "category"),
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    sampling=Sampling(max_tokens=32_768),
)
