"""What was asked and answered: an append-only JSONL file a benchmark, from which a killed run continues.

Invariants:
- a record is one line, written in one call after the reply is whole: a kill loses what was in flight, and no more;
- a line that the kill cut is removed when the file is opened again; a damaged line anywhere else is an error, because
  silently asking its sample again would hide that the file was changed;
- (problem, epoch) has one reply and at most one verdict; a second one of the same kind replaces it (`--retry-failed`).

Only what figures need stays in memory; texts are read from the file again, one at a time.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from golongrl.errors import writing_to
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Flag, Sample, Status
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.replies import Reply, ScoredReply
from golongrl.reading import refuse_special

Key = tuple[str, int]
REPLY: Final = "reply"
VERDICT: Final = "verdict"
Score = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
# A line is read back for its text; the longest has a thought of 100,000 tokens.
_BLOCK: Final = 1 << 20


class _Scored(TypedDict):
    status: Status
    score: Score | None
    answer: str
    rule: Score | None
    flags: list[Flag]
    parts: dict[str, float]
    reason: str


class _Record(_Scored):
    """What a reply and a verdict both say: of which sample they are, and the score that follows."""

    key: str
    epoch: Count


class _ReplyText(TypedDict):
    text: str
    reasoning: str | None
    finish_reason: str
    error: str


class ReplyRecord(_Record):
    """A line about a reply."""

    kind: Literal["reply"]
    where: str
    labels: dict[str, str]
    question: str
    golds: list[str]
    reply: _ReplyText
    seconds: Annotated[float, Field(ge=0)]
    prompt_tokens: Count
    completion_tokens: Count
    cut_tokens: Count
    refused: bool
    versions: list[str]


class _Question(TypedDict):
    prompt: str
    replies: list[str]
    verdict: float | None


class VerdictRecord(_Record):
    """A line about what the judge said."""

    kind: Literal["verdict"]
    judge: str
    judged: list[_Question]
    tokens: Count


Record = ReplyRecord | VerdictRecord
_RECORD: Final[TypeAdapter[Record]] = TypeAdapter(
    Annotated[Record, Field(discriminator="kind")], config=ConfigDict(strict=True, allow_inf_nan=False)
)


@dataclass(slots=True)
class SampleEntry:
    """What is known of one sample without its texts.

    Attributes:
        at: where its reply stands in the file: first byte and length.
        judged: a judge was asked about it.
        refused: the server refused the request itself, so that asking again would fail the same way.
    """

    sample: Sample
    reason: str = ""
    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut_tokens: int = 0
    judge_tokens: int = 0
    judged: bool = False
    refused: bool = False
    versions: tuple[str, ...] = ()
    at: tuple[int, int] = (0, 0)

    @property
    def key(self) -> Key:
        return self.sample.problem, self.sample.epoch


@dataclass(frozen=True, slots=True)
class Cost:
    """What a reply took."""

    seconds: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut_tokens: int = 0
    refused: bool = False
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """One question to the judge: the prompt's hash, its replies as they came, and the verdict."""

    prompt: str
    replies: tuple[str, ...]
    verdict: float | None


@dataclass
class SampleJournal:
    """The records of one benchmark, open for appending."""

    path: Path
    entries: dict[Key, SampleEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.path.exists():
            refuse_special(self.path)
        with writing_to(str(self.path)):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer: after a full disk it would be written once more when the file is closed.
            self._file = self.path.open("ab", buffering=0)
        self._end = self._load()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _load(self) -> int:
        end = 0
        for start, line in lines(self.path):
            if not line.endswith(b"\n"):
                os.truncate(self.path, start)
                return start
            _take(_record_of(line, self.path, start), self.entries, (start, len(line)))
            end = start + len(line)
        return end

    def add_reply(self, problem: EvalProblem, epoch: int, reply: Reply, scored: ScoredReply, cost: Cost) -> SampleEntry:
        """Keep a reply and its score."""
        record: ReplyRecord = {
            "kind": REPLY,
            "key": problem.key,
            "epoch": epoch,
            "where": problem.where,
            "labels": dict(problem.labels),
            "question": problem.question,
            "golds": list(problem.golds),
            "reply": {
                "text": reply.text,
                "reasoning": reply.reasoning,
                "finish_reason": reply.finish_reason,
                "error": reply.error,
            },
            **_scored(scored),
            "seconds": round(cost.seconds, 3),
            "prompt_tokens": cost.prompt_tokens,
            "completion_tokens": cost.completion_tokens,
            "cut_tokens": cost.cut_tokens,
            "refused": cost.refused,
            "versions": list(cost.versions),
        }
        return self._append(record)

    def add_verdict(
        self, key: Key, scored: ScoredReply, judge: str, judged: Sequence[Judged], tokens: int
    ) -> SampleEntry:
        """Keep what the judge said about a reply, and the score that follows."""
        record: VerdictRecord = {
            "kind": VERDICT,
            "key": key[0],
            "epoch": key[1],
            "judge": judge,
            "judged": [{"prompt": one.prompt, "replies": list(one.replies), "verdict": one.verdict} for one in judged],
            "tokens": tokens,
            **_scored(scored),
        }
        return self._append(record)

    def _append(self, record: Record) -> SampleEntry:
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        # What UTF-8 cannot carry is written as a question mark: nobody could read the line again.
        line = text.encode("utf-8", "replace") + b"\n"
        with writing_to(str(self.path), folder=self.path.parent):
            self._write(line)
        entry = _take(record, self.entries, (self._end, len(line)))
        self._end += len(line)
        assert entry is not None
        return entry

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError:
            # What is there of the line goes, so that the next one begins a line.
            with suppress(OSError):
                os.truncate(self.path, self._end)
            raise

    def scored(self, entry: SampleEntry) -> ScoredReply:
        """What the rules made of an entry's reply, before any verdict."""
        record = read_record(self.path, entry)
        return ScoredReply(
            record["status"], record["score"], record["answer"], record["rule"], frozenset(record["flags"]),
            record["parts"], record["reason"],
        )  # fmt: skip


def _scored(scored: ScoredReply) -> _Scored:
    return {
        "status": scored.status,
        "score": scored.score,
        "answer": scored.answer,
        "rule": scored.rule,
        "flags": sorted(scored.flags),
        "parts": dict(scored.parts),
        "reason": scored.reason,
    }


def _take(record: Record, entries: dict[Key, SampleEntry], at: tuple[int, int]) -> SampleEntry | None:
    """Keep what stays in memory of a record. A verdict adds to the reply that is known; without one it is None, and its
    sample is asked again.
    """
    key = (record["key"], record["epoch"])
    if record["kind"] == VERDICT:
        if (entry := entries.get(key)) is not None:
            entry.sample, entry.reason = _sample(record, entry.sample.labels), record["reason"]
            entry.judge_tokens += record["tokens"]
            entry.judged = True
        return entry
    entries[key] = SampleEntry(
        _sample(record, record["labels"]),
        record["reason"],
        record["seconds"],
        record["prompt_tokens"],
        record["completion_tokens"],
        record["cut_tokens"],
        refused=record["refused"],
        versions=tuple(record["versions"]),
        at=at,
    )
    return entries[key]


def _sample(record: Record, labels: Mapping[str, str]) -> Sample:
    return Sample(
        problem=record["key"],
        epoch=record["epoch"],
        status=record["status"],
        score=record["score"],
        labels=labels,
        flags=frozenset(record["flags"]),
        rule=record["rule"],
        parts=record["parts"],
    )


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Every line of a file with the byte at which it begins; the last one may lack its end."""
    start = 0
    with path.open("rb", buffering=_BLOCK) as file:
        for line in file:
            yield start, line
            start += len(line)


def _record_of(line: bytes, path: Path, start: int) -> Record:
    try:
        return _RECORD.validate_json(line)
    except ValidationError as error:
        raise EvaluationError(
            f"{path}: the line at byte {start} is not a record of this program; remove the line, and its sample is "
            "asked again"
        ) from error


def read_record(path: Path, entry: SampleEntry) -> ReplyRecord:
    """The record of an entry's reply, with its texts.

    Raises:
        EvaluationError: it has been damaged since it was read.
    """
    start, length = entry.at
    with path.open("rb") as file:
        file.seek(start)
        record = _record_of(file.read(length), path, start)
    assert record["kind"] == REPLY
    return record


def read_entries(path: Path) -> dict[Key, SampleEntry]:
    """The entries of a journal that this process does not write; a cut last line is left out.

    Raises:
        EvaluationError: a line is damaged.
    """
    entries: dict[Key, SampleEntry] = {}
    if path.is_file():
        for start, line in lines(path):
            if line.endswith(b"\n"):
                _take(_record_of(line, path, start), entries, (start, len(line)))
    return entries
