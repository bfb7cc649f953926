"""Frames: 824 questions that need several Wikipedia articles, which the prompt holds.

- `compat`: cover exact match of the gold in the whole text behind the thought, or a judge on the extracted answer (what
  follows the last "the answer is"), whichever is higher. Its judge's reply is read by the letters YES alone.
- `strict`: the same, but the gold must stand in the extracted answer, so that a reply that lists many candidates earns
  nothing by it; without a stated answer the last line is the answer. The last verdict counts.
- `official`: the judge alone.

The longest prompts have their middle cut out. The released evaluation asks its harness for that, which ignores it and
has them refused.
"""

from collections.abc import Mapping
from typing import Any

from golongrl.evaluation import judge
from golongrl.evaluation.benchmark import Benchmark, user
from golongrl.evaluation.benchmarks import reading
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode, Verdict
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, gold_field, text_field
from golongrl.evaluation.replies import ScoredReply, judged
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.text import cover_exact_match
from golongrl.evaluation.thought import FinalAnswer

_MARK = "the answer is"


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    gold = gold_field(record, "Answer", where)
    return ProblemDraft(where.rpartition(" ")[2], (gold,), text_field(record, "Prompt", where))


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, _mode: Mode) -> list[Message]:
    articles: Any = record.get("wiki_items")
    if not isinstance(articles, list) or not all(isinstance(article, Mapping) for article in articles):
        raise EvaluationError(f"{problem.where}: wiki_items must be a list of articles")
    # A few published questions have no article, or one without text.
    context = "\n".join(f"{article.get('title') or ''}\n{article.get('text') or ''}" for article in articles)
    return user(reading.question_about(context, text_field(record, "Prompt", problem.where)))


def extract_answer(text: str, mode: Mode) -> str:
    """The answer that a reply without its thought states; see the module."""
    if mode == "strict":
        return reading.extract_answer(text, mode)
    _, stated, answer = text.replace("*", "").rpartition(_MARK)
    return answer.strip().strip(".").strip() if stated else ""


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    answer = extract_answer(reply.answer, mode)
    if mode == "official":
        return judged(answer, None)
    searched = answer if mode == "strict" else reply.answer
    return judged(answer, float(cover_exact_match(searched, problem.golds[0], mode)))


def judge_prompts(problem: EvalProblem, answer: str, _mode: Mode) -> tuple[str, ...]:
    """The one question to the judge."""
    return (judge.same_answer(problem.question, problem.golds[0], answer),)


def verdict(reply: str, mode: Mode) -> Verdict:
    """`compat` reads the letters YES; the other modes the last verdict."""
    return judge.has_yes(reply) if mode == "compat" else judge.parse_verdict(reply)


FRAMES = Benchmark(
    name="frames",
    title="Frames",
    sources=(EvalSource("frames", "iic/frames", ("test.jsonl",), 824, "test", hub="modelscope"),),
    labels=(),
    _columns=("Prompt", "Answer"),
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    rule="middle",
    needs_judge=True,
    _judge_prompts=judge_prompts,
    _verdict=verdict,
)
