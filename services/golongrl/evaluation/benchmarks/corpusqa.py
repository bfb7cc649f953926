"""CorpusQA: 329 questions over a corpus of documents, at 128K and at 1M tokens; a judge compares the answer.

The prompt is in the data. The answer is
- `official`: what follows the first "The answer is: " on its line, else the whole reply;
- `compat`: the same, with or without the colon, where "the" may be small and the answer may begin on the next line;
- `strict`: the same in any case, of the last such statement that says something, without asterisks around it. An answer
  that equals the gold after normalising is right without asking the judge.

`official` and `compat` take a judge's reply for right if it has [[YES]] and no [[NO]]; `strict` reads the last verdict.
"""

import re

from golongrl.evaluation import judge
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.benchmarks.frames import judge_prompts
from golongrl.evaluation.benchmarks.mrcr import checked_chat
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode, Verdict
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, gold_field, text_field
from golongrl.evaluation.replies import ScoredReply, judged
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.text import same_text
from golongrl.evaluation.thought import FinalAnswer

DOMAINS = ("financial_zh", "financial_en", "education_en", "real_estate_en")
_OFFICIAL = re.compile(r"The answer is: (.*)")
_COMPAT = re.compile(r"[Tt]he answer is:?\s*(.*)")
_STRICT = re.compile(r"the answer is\s*[:：]?[\s*]*([^\n]*)", re.IGNORECASE)


def domain(key: str) -> str | None:
    """The domain that a question's id begins with."""
    return next((name for name in DOMAINS if key.startswith(name)), None)


def _problem(_source: EvalSource, record: Record, where: str) -> ProblemDraft:
    key = text_field(record, "id", where)
    known = domain(key)
    if known is None:
        raise EvaluationError(f"{where}: id {key!r} begins with no domain ({', '.join(DOMAINS)})")
    golds = (gold_field(record, "answer", where),)
    return ProblemDraft(key, golds, text_field(record, "question", where), {"domain": known})


def _messages(problem: EvalProblem, record: Record, _data: DataFiles, _mode: Mode) -> list[Message]:
    return checked_chat(record.get("prompt"), problem.where)


def extract_answer(text: str, mode: Mode) -> str:
    """The answer of a reply without its thought; see the module."""
    if mode == "strict":
        # Each statement ends where the next begins, also on one line.
        pieces = [found[1] for part in re.split(r"(?i)(?=the answer is)", text) for found in _STRICT.finditer(part)]
        said = [piece.strip().strip("*").strip() for piece in pieces]
        return next((piece for piece in reversed(said) if piece), text.strip())
    found = (_COMPAT if mode == "compat" else _OFFICIAL).search(text)
    return found[1].strip() if found is not None else text.strip()


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    answer = extract_answer(reply.answer, mode)
    return judged(answer, float(same_text(answer, problem.golds)) if mode == "strict" else None)


def _verdict(reply: str, mode: Mode) -> Verdict:
    return judge.parse_verdict(reply) if mode == "strict" else judge.yes_and_not_no(reply)


def _corpusqa(size: str, title: str, context: int, yarn_factor: float, input_tokens: int | None) -> Benchmark:
    name = f"corpusqa-{size}"
    return Benchmark(
        name=name,
        title=title,
        sources=(EvalSource(name, "Tongyi-Zhiwen/CorpusQA", (f"{size}_4domains.jsonl",), 329),),
        labels=("domain",),
        _columns=("id", "question", "answer"),
        _problem=_problem,
        _messages=_messages,
        _score=_score,
        context=context,
        yarn_factor=yarn_factor,
        input_tokens=input_tokens,
        needs_judge=True,
        drops_failures=True,
        _judge_prompts=judge_prompts,
        _verdict=_verdict,
    )


CORPUSQA = (
    _corpusqa("128k", "CorpusQA <=128K", 182_272, 1.0, 131_072),
    _corpusqa("1m", "CorpusQA <=1M", 1_048_576, 4.0, None),
)
