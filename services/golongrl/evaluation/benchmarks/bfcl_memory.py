"""BFCL-V4 memory: 155 questions to an agent whose memory earlier conversations have filled, for each of three backends.

Five scenarios have 37 conversations in all. For each backend and scenario they are held first and in their order
(`fill_memory`); every question then starts from that memory (`ask`). The total is the unweighted mean of the backends.

- `official` and `compat`: a gold stands in the whole last reply at word boundaries, after removing ,./-_*^() , small
  letters, and ' as ". The reply also explains its answer, so that a gold in the explanation counts.
- `strict`: the gold stands in the reply's field `answer`; without that field in the whole reply.

A reply that only calls tools until it is stopped answers nothing and scores 0.
"""

import ast
import json
import re
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from golongrl import whole_text
from golongrl.evaluation.aggregate import mean_of_groups
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode
from golongrl.evaluation.memory.loop import Chat, MemoryConversation, ToolStyle, converse, fill
from golongrl.evaluation.memory.stores import (
    BACKENDS,
    Embed,
    KeyValueStore,
    MemoryStore,
    Snapshot,
    SummaryStore,
    VectorMemoryStore,
)
from golongrl.evaluation.problems import EvalProblem, ProblemDraft, text_field, text_list
from golongrl.evaluation.replies import Reply, ScoredReply, scored
from golongrl.evaluation.sources import DataFiles, EvalSource
from golongrl.evaluation.tables import Record
from golongrl.evaluation.text import stands_in
from golongrl.evaluation.thought import FinalAnswer

_PACKAGE = "bfcl-eval"
_VERSION = "2025.10.27.1"
_SHA256 = ("520cdc0f517b7620737670c1af09fa5b0a040a4123fb133896b4256d86c1c213",)
_QUESTIONS, _ANSWERS = "bfcl-memory", "bfcl-memory-answers"
# Each scenario: how many conversations fill its memory, and who the agent is.
SCENARIOS = {
    "customer": (10, "You answer the customers of an online shop."),
    "healthcare": (5, "You accompany a patient from one medical appointment to the next."),
    "finance": (7, "You assist a senior manager in finance, at work and in private."),
    "student": (10, "You support a student at college."),
    "notetaker": (5, "You keep somebody's notes, tasks and dates."),
}
_MARKS = re.compile(r"[,./\-_*^()]")

_MEMORY = {
    "pairs": """\
{role} Remember what the user tells you and use it in later conversations.

You have a memory that lasts from one conversation to the next, in two parts. The short-term (core) memory is small \
and always shown below. The long-term (archival) memory is large and only seen through your tools. Keep both up to \
date, and store what may be asked for later so that it is easy to find.

Short-term memory:
{memory}""",
    "text": """\
{role} Remember what the user tells you and use it in later conversations.

You have a memory that lasts from one conversation to the next. Keep it up to date with your tools, and store what may \
be asked for later.

Memory:
{memory}""",
}
_ANSWER_FORM = """

Give your final answer in this form: {"answer": "a short and exact answer", "context": "how you know it"}. If you do \
not know it, the answer is "I do not know"."""


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """The questions that share one filled memory."""

    backend: str
    scenario: str

    @property
    def key(self) -> str:
        """How files and messages name it."""
        return f"{self.backend}-{self.scenario}"


def group_of(problem: EvalProblem) -> MemoryGroup:
    """The memory that a question is asked of."""
    return MemoryGroup(problem.labels["backend"], problem.labels["scenario"])


def open_store(backend: str, snapshot: Snapshot | None = None, embed: Embed | None = None) -> MemoryStore:
    """A store, empty or as it was at a snapshot.

    Raises:
        EvaluationError: the vector store has no embedder.
    """
    if backend == "kv":
        return KeyValueStore(snapshot)
    if backend == "rec_sum":
        return SummaryStore(snapshot)
    if embed is None:
        raise EvaluationError(
            "bfcl-memory: the vector backend needs an embedder; name a folder with all-MiniLM-L6-v2, or leave it out"
        )
    return VectorMemoryStore(embed, snapshot)


def _system(group: MemoryGroup, memory: str, *, question: bool) -> str:
    _, role = SCENARIOS[group.scenario]
    form = _MEMORY["text" if group.backend == "rec_sum" else "pairs"]
    text = form.replace("{role}", role).replace("{memory}", memory)
    return text + _ANSWER_FORM if question else text


def conversations(data: DataFiles, scenario: str) -> list[MemoryConversation]:
    """The conversations that fill a scenario's memory, in their order.

    Raises:
        EvaluationError: naming the row that is wrong.
    """
    source = f"{_QUESTIONS}-{scenario}"
    return [
        MemoryConversation(text_field(row, "id", f"{source} row {number}"), _turns(row, f"{source} row {number}"))
        for number, row in enumerate(data.all_rows(source), start=1)
    ]


def _turns(record: Record, where: str) -> tuple[tuple[Message, ...], ...]:
    turns: Any = record.get("question")
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, list) and turn for turn in turns):
        raise EvaluationError(f"{where}: question must be a list of turns, each a list of messages")
    return tuple(
        tuple({"role": text_field(one, "role", where), "content": text_field(one, "content", where)} for one in turn)
        for turn in turns
    )


async def fill_memory(
    group: MemoryGroup,
    data: DataFiles,
    chat: Chat,
    *,
    snapshot: Snapshot | None = None,
    done: int = 0,
    embed: Embed | None = None,
    style: ToolStyle = "native",
) -> AsyncIterator[tuple[int, Snapshot]]:
    """Hold the conversations of a group from the `done`-th on; yields how many are done, and the memory then.

    A runner keeps what it was given last, and begins there after a restart.

    Raises:
        MemoryAgentError: a conversation failed; its questions cannot be asked.
    """
    store = open_store(group.backend, snapshot, embed)
    rest = conversations(data, group.scenario)[done:]
    async for _ in fill(store, lambda memory: _system(group, memory, question=False), rest, chat, style):
        done += 1
        yield done, store.snapshot()


async def ask(
    problem: EvalProblem,
    data: DataFiles,
    snapshot: Snapshot,
    chat: Chat,
    *,
    embed: Embed | None = None,
    style: ToolStyle = "native",
) -> Reply:
    """Ask one question of a filled memory; the snapshot stays as it is."""
    group = group_of(problem)
    store = open_store(group.backend, snapshot, embed)
    turns = _turns(data.row(problem), problem.where)
    answer = await converse(store, _system(group, store.shown(), question=True), turns, chat, style)
    if answer.stopped:
        return Reply("", "", "tool_calls")
    reply = answer.reply
    return Reply(reply.text, reply.reasoning, reply.finish_reason, reply.error)


def _problems(data: DataFiles) -> Iterator[EvalProblem]:
    golds: dict[str, tuple[str, ...]] = {}
    for path, number, record in data.light(_ANSWERS, ("id", "ground_truth")):
        where = f"{path} row {number}"
        golds[text_field(record, "id", where)] = text_list(record, "ground_truth", where)
    rows = list(data.light(_QUESTIONS, ("id", "question", "scenario")))
    for backend in BACKENDS:
        for path, number, record in rows:
            yield _problem(backend, golds, record, path, number)


def _problem(backend: str, golds: dict[str, tuple[str, ...]], record: Record, path: Path, number: int) -> EvalProblem:
    where = f"{path} row {number}"
    key, scenario = text_field(record, "id", where), text_field(record, "scenario", where)
    if scenario not in SCENARIOS:
        raise EvaluationError(f"{where}: unknown scenario {scenario!r} (known: {', '.join(SCENARIOS)})")
    if key not in golds:
        raise EvaluationError(f"{where}: {_ANSWERS} has no ground_truth for {key}")
    question = _turns(record, where)[-1][-1]["content"]
    labels = {"backend": backend, "scenario": scenario}
    return ProblemDraft(f"{backend}-{key}", golds[key], question, labels).at(_QUESTIONS, str(path), number)


def _standard(text: str) -> str:
    return _MARKS.sub("", text).lower().replace("'", '"')


def answer_contained(text: str, golds: Sequence[str], mode: Mode = "strict") -> bool:
    """Whether a gold stands in a reply without its thought; see the module for the modes."""
    searched = _standard(_answer_field(text) if mode == "strict" else text)
    standard = [_standard(gold) for gold in golds]
    if mode == "strict":
        return any(gold and stands_in(gold, searched) for gold in standard)
    return any(re.search(rf"\b{re.escape(gold)}\b", searched) is not None for gold in standard)


def _answer_field(text: str) -> str:
    """The field `answer` of the last JSON or Python dictionary in a reply, else the whole reply."""
    with warnings.catch_warnings():
        # What models write is often odd Python.
        warnings.simplefilter("ignore", SyntaxWarning)
        return _read_answer(text)


def _read_answer(text: str) -> str:
    for start in reversed([found.start() for found in re.finditer(r"\{", text)][-20:]):
        end = text.rfind("}") + 1
        for read in (json.loads, ast.literal_eval):
            try:
                value = read(text[start:end])
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
            if isinstance(value, dict) and "answer" in value:
                answer: str = whole_text.whole(str(value["answer"]))
                return answer
    return text


def _score(problem: EvalProblem, reply: FinalAnswer, mode: Mode) -> ScoredReply:
    right = bool(reply.answer) and answer_contained(reply.answer, problem.golds, mode)
    return scored(_answer_field(reply.answer), float(right), unparsed=not reply.answer)


def _source(name: str, member: str, rows: int, role: Any) -> EvalSource:
    return EvalSource(
        name,
        _PACKAGE,
        (f"bfcl_eval-{_VERSION}-*.whl",),
        rows,
        revision=_VERSION,
        sha256=_SHA256,
        role=role,
        member=f"bfcl_eval/data/{member}",
        hub="pypi",
        note="its data only; the package itself is not installed",
    )


BFCL_MEMORY = Benchmark(
    name="bfcl-memory",
    title="BFCL-V4 memory",
    sources=(
        _source(_QUESTIONS, "BFCL_v4_memory.json", 155, "problems"),
        _source(_ANSWERS, "possible_answer/BFCL_v4_memory.json", 155, "golds"),
        *(
            _source(f"{_QUESTIONS}-{name}", f"memory_prereq_conversation/memory_{name}.json", rows, "conversations")
            for name, (rows, _) in SCENARIOS.items()
        ),
    ),
    labels=("backend", "scenario"),
    _score=_score,
    _problems=_problems,
    _refine=mean_of_groups("backend"),
    variants=len(BACKENDS),
    conversational=True,
)
