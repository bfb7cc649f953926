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

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Self

from golongrl.evaluation import judge
from golongrl.evaluation.aggregate import ScoreTable, by_label
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Flag, Message, Mode, Rule, Sample, Status, Verdict
from golongrl.evaluation.tables import SUFFIXES, Record, Table, open_table
from golongrl.evaluation.thought import FinalAnswer, strip_thought


@dataclass(frozen=True, slots=True)
class EvalSource:
    """One table of a benchmark and where it can be downloaded.

    `files` are patterns of paths inside the hub's repository, matched from the right; the first pattern that has files
    counts, and their rows follow each other in name order. `member` is the file's path inside them where they are zip
    archives. `rows` is the published number of rows. `revision` and `sha256` are empty where they are not known to us:
    fetching then takes the newest and writes down what it got. A `role` other than "problems" is read beside them.
    """

    name: str
    repo: str
    files: tuple[str, ...]
    rows: int
    split: str = ""
    config: str = ""
    revision: str | None = None
    sha256: tuple[str, ...] = ()
    role: Literal["problems", "examples", "golds", "conversations"] = "problems"
    member: str = ""
    hub: Literal["huggingface", "modelscope", "pypi"] = "huggingface"
    gated: bool = False
    note: str = ""

    def chosen(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Those of a repository's paths that hold this source, in name order; none if no pattern has any."""
        for pattern in self.files:
            found = sorted(path for path in paths if PurePosixPath(path).match(pattern))
            if found:
                return tuple(found)
        return ()


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn; the defaults are those of the paper's evaluation."""

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int = 51_200


@dataclass(frozen=True, slots=True)
class EvalProblem:
    """One question without its long text.

    `labels` group the report (domain, length, needles, ...); `extra` is what scoring needs besides the golds. `row`
    counts from 1 in its source.
    """

    key: str
    source: str
    file: str
    row: int
    golds: tuple[str, ...]
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.file} row {self.row}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered. `text` may contain the thought; an engine that parses it sends `reasoning` apart.

    `thinking`: the model thinks before it answers, so that a cut text without any tag is its thought.
    """

    text: str
    reasoning: str | None = None
    finish_reason: str = "stop"
    error: str = ""
    thinking: bool = True

    @classmethod
    def failure(cls, error: str) -> Self:
        """There was no answer: refused, timed out, cut connection."""
        return cls("", None, "error", error or "no answer")


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """What became of one reply.

    `answer` is what was extracted (the judge sees only this); `rule` the score that rules alone give, or None;
    `parts` are further figures beside it (token F1).
    """

    status: Status
    score: float | None
    answer: str = ""
    rule: float | None = None
    flags: frozenset[Flag] = frozenset()
    parts: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.status == "scored") != (self.score is not None):
            raise ValueError(f"score must be a number exactly when status is scored: {self.score} is {self.status}")
        if self.score is not None and not 0.0 <= self.score <= 1.0:  # refuses NaN, too
            raise ValueError(f"score must be in [0, 1], got {self.score}")


class DataFiles:
    """The open tables of a benchmark's sources."""

    def __init__(self, paths: Mapping[str, Sequence[Path]]) -> None:
        self.paths = {name: tuple(files) for name, files in paths.items()}
        self._tables: dict[Path, Table] = {}
        self._small: dict[str, list[Record]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._tables.clear()

    @classmethod
    def find(cls, folder: Path, sources: Sequence[EvalSource]) -> Self:
        """The sources' files below `folder`.

        Either as fetched, FOLDER/REPO/FILE, or one file of any readable kind named after the source, FOLDER/NAME.jsonl.

        Raises:
            EvaluationError: a source has no file there.
        """
        return cls({source.name: located(folder, source) for source in sources})

    def table(self, path: Path) -> Table:
        """The open table of a file."""
        if path not in self._tables:
            self._tables[path] = open_table(path)
        return self._tables[path]

    def rows(self, source: str) -> int:
        """Rows of a source."""
        return sum(len(self.table(path)) for path in self._files(source))

    def light(self, source: str, columns: Sequence[str]) -> Iterator[tuple[Path, int, Record]]:
        """(file, row's number, record) of every row of a source."""
        for path in self._files(source):
            for number, record in self.table(path).light(columns):
                yield path, number, record

    def all_rows(self, source: str) -> list[Record]:
        """Every whole row of a small source (examples, golds, conversations), read once."""
        if source not in self._small:
            self._small[source] = [
                self.table(path).row(number)
                for path in self._files(source)
                for number in range(1, len(self.table(path)) + 1)
            ]
        return self._small[source]

    def row(self, problem: EvalProblem) -> Record:
        """The whole row of a problem."""
        return self.table(Path(problem.file)).row(problem.row)

    def _files(self, source: str) -> tuple[Path, ...]:
        if source not in self.paths:
            raise EvaluationError(f"data: no file given for {source}")
        return self.paths[source]


def located(folder: Path, source: EvalSource) -> tuple[Path, ...]:
    """Where a source's files lie below `folder`; see `DataFiles.find`.

    Raises:
        EvaluationError: they do not.
    """
    root = folder / source.repo
    if source.member:
        fetched = [root / source.member] if (root / source.member).is_file() else []
    else:
        below = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        fetched = [root / path for path in source.chosen(below)]
    if fetched:
        return tuple(fetched)
    for suffix in SUFFIXES:
        plain = folder / f"{source.name}{suffix}"
        if plain.is_file():
            return (plain,)
    expected = root / (source.member or source.files[0])
    raise EvaluationError(
        f"data {folder}: no file for {source.name}: expected {expected} (as `golongrl eval fetch` writes it) "
        f"or {folder / source.name}.parquet, .jsonl, .json or .csv"
    )


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


@dataclass(frozen=True, slots=True)
class ProblemDraft:
    """A problem before its place in the data is known."""

    key: str
    golds: tuple[str, ...]
    question: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    def at(self, source: str, file: str, row: int) -> EvalProblem:
        """The problem at this place."""
        labels, extra = dict(self.labels), dict(self.extra)
        return EvalProblem(self.key, source, file, row, self.golds, self.question, labels, extra)


def text_field(record: Record, name: str, where: str, *, blank: bool = False) -> str:
    """A column that must be a text.

    Raises:
        EvaluationError: it is missing, no text, or (unless `blank`) blank.
    """
    value: Any = record.get(name)
    if value is None:
        raise EvaluationError(f"{where}: no {name}")
    if not isinstance(value, str):
        raise EvaluationError(f"{where}: {name} must be a text, got {type(value).__name__}")
    if not blank and not value.strip():
        raise EvaluationError(f"{where}: {name} is blank")
    return value


def gold_field(record: Record, name: str, where: str) -> str:
    """A column that must be a gold answer: a text that is not blank, or a number.

    Raises:
        EvaluationError: it is missing or something else.
    """
    value: Any = record.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise EvaluationError(f"{where}: {name} must be a text or a number, got {value!r}")
    return str(value)


def text_list(record: Record, name: str, where: str) -> tuple[str, ...]:
    """A column that must be a list of at least one text.

    Raises:
        EvaluationError: it is not.
    """
    value: Any = record.get(name)
    if value is None:
        raise EvaluationError(f"{where}: no {name}")
    if not isinstance(value, list | tuple) or not value or not all(isinstance(item, str) for item in value):
        raise EvaluationError(f"{where}: {name} must be a list of at least one text")
    return tuple(value)


def judged(answer: str, rule: float | None, parts: Mapping[str, float] | None = None) -> ScoredReply:
    """A reply that its rule scores where that is the highest score there is, and else the judge."""
    if rule is not None and rule >= 1.0:
        return ScoredReply("scored", rule, answer, rule, parts=dict(parts or {}))
    return ScoredReply("needs_judge", None, answer, rule, parts=dict(parts or {}))


def scored(
    answer: str, value: float, *, unparsed: bool = False, parts: Mapping[str, float] | None = None
) -> ScoredReply:
    """A reply that a rule scored."""
    flags: frozenset[Flag] = frozenset(["unparsed"]) if unparsed else frozenset()
    return ScoredReply("scored", value, answer, value, flags, dict(parts or {}))


def user(text: str) -> list[Message]:
    """A chat of one question."""
    return [{"role": "user", "content": text}]
