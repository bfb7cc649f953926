"""LongBench-QA: five question-answering sets of LongBench, 200 questions each; the total is the mean of the five means.

- `official`: token F1, the best of the golds; no judge.
- `compat`: a judge compares the answer with each gold, the best verdict counts; token F1 is printed beside it. The
  context is cut to 500,000 characters, its middle left out.
- `strict`: as `compat`, but an answer that equals a gold after normalising is right without asking, and the context is
  cut by the evaluated model's tokens only where it does not fit.

The official prompts differ from set to set; here all five are asked in one form, as in the released evaluation.
"""

from golongrl.evaluation import judge
from golongrl.evaluation.aggregate import mean_of_groups
from golongrl.evaluation.benchmark import Benchmark, user
from golongrl.evaluation.benchmarks.reading import extract_answer, question_about
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, text_field, text_list
from golongrl.evaluation.replies import ScoredReply, judged, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.text import same_text, token_f1
from golongrl.evaluation.thought import FinalAnswer

_REPO = "THUDM/LongBench"
SETS = ("narrativeqa", "qasper", "hotpotqa", "2wikimqa", "musique")
_COMPAT_CHARACTERS = 500_000


def _problem(source: EvalSource, record: Record, where: str) -> ProblemDraft:
    name = source.name.removeprefix("longbench-")
    key = record.get("_id", where.rpartition(" ")[2])
    golds = text_list(record, "answers", where)
    return ProblemDraft(f"{name}-{key}", golds, text_field(record, "input", where), {"set": name})


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, mode: Mode) -> list[Message]:
    context = text_field(record, "context", problem.where)
    if mode == "compat" and len(context) > _COMPAT_CHARACTERS:
        half = _COMPAT_CHARACTERS // 2
        context = f"{context[:half]}\n...\n{context[-half:]}"
    return user(question_about(context, text_field(record, "input", problem.where)))


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    answer = extract_answer(reply.answer, mode)
    f1 = max(token_f1(answer, gold, mode) for gold in problem.golds)
    if mode == "official":
        return scored(answer, f1)
    rule = float(same_text(answer, problem.golds)) if mode == "strict" else None
    return judged(answer, rule, {"f1": f1})


def _judge_prompts(problem: EvalProblem, answer: str, _mode: Mode) -> tuple[str, ...]:
    return tuple(judge.same_answer(problem.question, gold, answer) for gold in problem.golds)


LONGBENCH_QA = Benchmark(
    name="longbench-qa",
    title="LongBench-QA",
    sources=tuple(
        EvalSource(f"longbench-{name}", _REPO, ("data.zip",), 200, "test", name, member=f"data/{name}.jsonl")
        for name in SETS
    ),
    labels=("set",),
    _columns=("_id", "input", "answers"),
    _problem=_problem,
    _messages=_messages,
    _score=_score,
    rule="middle",
    needs_judge=True,
    drops_failures=True,
    _judge_prompts=_judge_prompts,
    _refine=mean_of_groups("set"),
)
