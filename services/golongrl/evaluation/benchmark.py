"""What a benchmark is: where its data lies, what is asked, how an answer is scored and how scores are summed up.

A runner needs no more than this:

    with DataFiles.find(folder, benchmark.sources) as data:
        for problem in benchmark.problems(data):              # light: the long text stays on disk
            messages = benchmark.messages(problem, data)      # late: read when it is asked
            reply = Reply(text, reasoning, finish_reason)     # or Reply.failure("HTTP 400: ...")
            scored = benchmark.score(problem, reply, mode)
            if scored.status == "needs_judge":
                prompts = benchmark.judge_prompts(problem, scored.answer, mode)
                scored = benchmark.decide(scored, [benchmark.verdict(reply, mode) for each prompt's reply], mode)
        benchmark.aggregate(samples, mode)

A benchmark that is `conversational` (BFCL's memory) has a loop of several requests instead of `messages`.

Modes: `official` is the benchmark's own published scoring, `compat` that of the released GoLongRL evaluation, `strict`
ours. Where a mode has no rule of its own, the module of the benchmark says which one it takes.

Invariants: everything here is pure apart from reading data; a score is in [0, 1]; a reply without a score says why, and
is never a 0 in silence.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace

from golongrl.evaluation import judge
from golongrl.evaluation.aggregate import ScoreTable, by_label
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Flag, Message, Mode, Rule, Sample, Verdict
from golongrl.evaluation.problems import EvalProblem, ProblemDraft
from golongrl.evaluation.replies import Reply, ScoredReply
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.thought import FinalAnswer, strip_thought


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn; the defaults are those of the paper's evaluation."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 51_200


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark; see the module for how it is used. The fields with an underscore are its rules, one function each.

    `variants`: into how many problems each row is made. `bin_tokens` are the least and most prompt tokens, by the
    evaluated model's tokenizer, of the problems that belong to it (None: all); `context` what the paper's engine was
    started with; `yarn_factor` the rope scaling for it. `drops_failures` says that the original leaves failed samples
    out of its mean, which `compat` then does. A `conversational` benchmark is asked by a loop of its own instead of
    `messages` (benchmarks/bfcl_memory.py).
    """

    name: str
    title: str
    sources: tuple[EvalSource, ...]
    labels: tuple[str, ...]
    _columns: tuple[str, ...] = ()
    _problem: Callable[[EvalSource, Record, str], "ProblemDraft"] | None = None
    _messages: Callable[[EvalProblem, Record, DataFiles, Mode], list[Message]] | None = None
    _score: Callable[[EvalProblem, FinalAnswer, Mode], ScoredReply]
    repeats: int = 1
    variants: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    context: int = 182_272
    input_tokens: int | None = 131_072
    yarn_factor: float = 1.0
    bin_tokens: tuple[int, int] | None = None
    rule: Rule = "skip"
    needs_judge: bool = False
    drops_failures: bool = False
    _judge_prompts: Callable[[EvalProblem, str, Mode], tuple[str, ...]] | None = None
    _verdict: Callable[[str, Mode], Verdict] | None = None
    _refine: Callable[[ScoreTable, Sequence[Sample], Mode], ScoreTable] | None = None
    _problems: Callable[[DataFiles], Iterator[EvalProblem]] | None = None
    conversational: bool = False

    @property
    def published(self) -> int:
        """How many problems the published data has."""
        return self.variants * sum(source.rows for source in self.sources if source.role == "problems")

    def problems(self, data: DataFiles) -> Iterator[EvalProblem]:
        """Every question, without its long text.

        Raises:
            EvaluationError: naming the file and row of the first that is wrong.
        """
        make = self._problem
        if make is None:
            yield from self._problems(data) if self._problems is not None else ()
            return
        seen: dict[str, str] = {}
        for source in self.sources:
            if source.role != "problems":
                continue
            for path, number, record in data.light(source.name, self._columns):
                where = f"{path} row {number}"
                draft = make(source, record, where)
                if draft.key in seen:
                    raise EvaluationError(f"{where}: the id {draft.key!r} is also that of {seen[draft.key]}")
                seen[draft.key] = where
                yield draft.at(source.name, str(path), number)

    def spread(self, data: DataFiles, most: int | None, *, without: Collection[str] = ()) -> list[EvalProblem]:
        """All problems, or `most` of them that are evenly spread over the data.

        Args:
            without: values of the label `backend` that are left out.

        Raises:
            EvaluationError: as `problems`.
        """
        found = [problem for problem in self.problems(data) if problem.labels.get("backend") not in without]
        if most is None or most >= len(found):
            return found
        return [found[index * len(found) // most] for index in range(most)]

    def messages(self, problem: EvalProblem, data: DataFiles, mode: Mode = "strict") -> list[Message]:
        """The chat that asks the question. The runner fits it to the context (budget.py).

        Raises:
            EvaluationError: naming the file and row, where the row cannot be used; or the benchmark is conversational.
        """
        if self._messages is None:
            raise EvaluationError(f"benchmark {self.name} is asked in a conversation of its own, not by one prompt")
        return self._messages(problem, data.row(problem), data, mode)

    def score(self, problem: EvalProblem, reply: Reply, mode: Mode) -> ScoredReply:
        """Score one reply; never raises for what a model may have said."""
        if reply.error:
            return ScoredReply("failed", None, reason=reply.error)
        thought = strip_thought(reply.text, reply.finish_reason, reply.thinking, reply.reasoning, mode)
        scored = self._score(problem, thought, mode)
        return replace(scored, flags=scored.flags | thought.flags)

    def judge_prompts(self, problem: EvalProblem, answer: str, mode: Mode) -> tuple[str, ...]:
        """What the judge is asked about an extracted answer; the best verdict counts.

        Raises:
            EvaluationError: this benchmark has no judge.
        """
        if self._judge_prompts is None:
            raise EvaluationError(f"benchmark {self.name} is scored by rules, without a judge")
        return self._judge_prompts(problem, answer, mode)

    def verdict(self, judge_reply: str, mode: Mode) -> Verdict:
        """What a judge's reply says: 1, 0, or None for no verdict (ask again, then `unjudged`)."""
        value = (self._verdict or judge.parse_verdict)(judge_reply, mode)
        return None if value == judge.UNDECIDED else value

    def decide(self, scored: ScoredReply, verdicts: Sequence[Verdict], mode: Mode) -> ScoredReply:
        """The final score of a reply that needed the judge: the best of its rule and the verdicts.

        A verdict that is missing after the retries leaves it `unjudged`, unless another one already is the highest
        there is. `compat` counts a missing verdict as 0, as the released evaluation does, and flags it.
        """
        values = [value for value in (scored.rule, *verdicts) if value is not None]
        best = max(values, default=0.0)
        if best < 1.0 and (not verdicts or None in verdicts):
            flags: frozenset[Flag] = scored.flags | frozenset[Flag](["unjudged"])
            if mode == "compat" and verdicts:
                return replace(scored, status="scored", score=best, flags=flags)
            return replace(scored, status="unjudged", score=None, flags=flags, reason="the judge gave no verdict")
        return replace(scored, status="scored", score=best)

    def aggregate(self, samples: Sequence[Sample], mode: Mode) -> ScoreTable:
        """The benchmark's table: total, by label, errors clustered by problem, and what has no score."""
        table = by_label(
            self.name,
            samples,
            mode,
            labels=self.labels,
            drop_failures=mode == "compat" and self.drops_failures,
            repeats=self.repeats,
            judged=self.needs_judge,
        )
        return self._refine(table, samples, mode) if self._refine is not None else table


def user(text: str) -> list[Message]:
    """A chat of one question."""
    return [{"role": "user", "content": text}]
