"""Asking every problem as often as it is to be asked, and keeping each reply as it comes.

Invariants:
- a sample that the journal has is not asked again, and every sample ends in the journal exactly once: scored, waiting
  for the judge, failed with its reason, or skipped because it does not fit;
- prompts are read when they are sent, by a few threads, and at most `prompt_bytes` of them are in memory;
- a server from which nothing comes at all ends the run, instead of thousands of samples that failed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

from golongrl.errors import GolongrlError
from golongrl.evaluation.benchmarks import bfcl_memory
from golongrl.evaluation.benchmarks.bfcl_memory import MemoryGroup
from golongrl.evaluation.memory.loop import MemoryAgentError, ToolStyle, Turn
from golongrl.evaluation.memory.stores import Embed, Snapshot, Tool
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.prompts import AskingPlan, Counts, FittedPrompt, Tokens, prepare, request_fields
from golongrl.evaluation.replies import Reply, ScoredReply
from golongrl.evaluation.report.results import CourseRecord
from golongrl.evaluation.run import memories
from golongrl.evaluation.run.judging import Judge
from golongrl.evaluation.run.memories import KeptMemories
from golongrl.evaluation.run.silence import SilenceCount
from golongrl.evaluation.scoring import Scorer
from golongrl.evaluation.sources import DataFiles
from golongrl.evaluation.store.journal import Cost, Key, SampleEntry, SampleJournal
from golongrl.llm import (
    ChatClient,
    ChatReply,
    ChatRequest,
    LlmError,
    LlmMessage,
    LlmRefusedError,
    LlmUnavailableError,
)

# Tokenizing a prompt of 5 MB takes a core for seconds and half a gigabyte.
_PREPARED_AT_ONCE: Final = 2


@dataclass
class Course:
    """One benchmark on its way: what is asked, what is known, and where it is kept."""

    plan: AskingPlan
    journal: SampleJournal
    data: DataFiles
    problems: Sequence[EvalProblem]
    outside: set[str] = field(default_factory=set)
    """Keys of problems that belong to another length bin."""
    memories: KeptMemories | None = None

    @property
    def expected(self) -> int:
        """Samples of this benchmark, as far as it is known which problems belong to it."""
        return (len(self.problems) - len(self.outside)) * self.plan.repeats

    def entries(self) -> list[SampleEntry]:
        """Those of its samples that are known; the journal may have more, of an earlier run without a limit."""
        keys = {problem.key for problem in self.problems} - self.outside
        # A copy, because a scrape reads this from another thread.
        known = list(self.journal.entries.items())
        return [entry for (key, epoch), entry in known if key in keys and epoch < self.plan.repeats]


def record_of(
    plan: AskingPlan, problems: Sequence[EvalProblem], outside: Collection[str], step: int | None, model: str
) -> CourseRecord:
    """What is asked, for figures that are made without the data; `outside` belongs to another length bin."""
    return {
        "benchmark": plan.benchmark.name,
        "mode": plan.mode,
        "model": model,
        "step": step,
        "asked": {
            "context": plan.context,
            "input_tokens": plan.input_tokens,
            "rule": plan.rule,
            "max_tokens": plan.max_tokens,
            "temperature": plan.temperature,
            "top_p": plan.top_p,
            "repeats": plan.repeats,
        },
        "departures": list(plan.departures),
        "keys": [problem.key for problem in problems if problem.key not in outside],
        "outside": sorted(outside),
    }


class ByteBudget:
    """Room for prompts in memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def reserved(self, size: int) -> AsyncIterator[None]:
        """Room for so many bytes; a prompt above the whole budget goes alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._used or self._used + size <= self._most)
            self._used += size
        try:
            yield
        finally:
            async with self._changed:
                self._used -= size
                self._changed.notify_all()


class Questioner:
    """Asks courses of one model; `clients` are its endpoints, `extra` are fields that each request to them has."""

    def __init__(
        self,
        clients: Sequence[ChatClient],
        tokens: Tokens | None,
        counts: Counts,
        scorer: Scorer,
        judge: Judge | None,
        *,
        prompt_bytes: int,
        retry_failed: bool = False,
        embed: Embed | None = None,
        style: ToolStyle = "native",
        replied: Callable[[str, float, int, int], None] = lambda *_: None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._extra = dict(extra or {})
        self._clients = clients
        self._tokens = tokens
        self._counts = counts
        self._scorer = scorer
        self._judge = judge
        self._retry_failed = retry_failed
        self._embed = embed
        self._style = style
        self._replied = replied
        self._preparing = asyncio.Semaphore(_PREPARED_AT_ONCE)
        self._memory = ByteBudget(prompt_bytes)
        self._silence = SilenceCount()
        self._to_judge: asyncio.Queue[tuple[Course, EvalProblem, Key] | None] = asyncio.Queue()
        self.in_flight = 0

    @property
    def most_in_flight(self) -> int:
        """Requests that may be in flight now: fewer while a server is full."""
        return sum(client.gate.limit.room for client in self._clients)

    @property
    def trouble(self) -> str:
        """Why the last attempts failed, of each server that has answered none since."""
        clients = [*self._clients, *([self._judge.client] if self._judge else [])]
        return "; ".join(dict.fromkeys(client.trouble for client in clients if client.trouble))

    async def ask(self, courses: Sequence[Course]) -> None:
        """Ask whatever the journals lack.

        Raises:
            EvaluationError: a row of the data cannot be used.
            LlmUnusableError, TargetGoneError: a server refuses everything, or is gone.
        """
        left = self._left([course for course in courses if not course.plan.benchmark.conversational])
        concurrency = sum(client.endpoint.concurrency for client in self._clients)
        judges = self._judge.concurrency if self._judge else 0
        try:
            async with asyncio.TaskGroup() as group:
                judging = [group.create_task(self._judge_all()) for _ in range(judges)]
                asking = [group.create_task(self._work(left)) for _ in range(concurrency)]
                asking += [
                    group.create_task(self._converse(course, memory, problems))
                    for course in courses
                    if course.plan.benchmark.conversational
                    for memory, problems in memories.grouped(course.problems).items()
                ]
                await asyncio.wait(asking)
                for _ in judging:
                    self._to_judge.put_nowait(None)
        except BaseExceptionGroup as errors:
            raise _first(errors) from errors
        self._silence.ended()
        if self._judge is not None:
            self._judge.silence.ended()

    def _left(self, courses: Sequence[Course]) -> Iterator[tuple[Course, EvalProblem, int]]:
        """What is to be asked, in order: repeats of a problem follow each other, so that a prefix cache helps."""
        for course in courses:
            for problem in course.problems:
                for epoch in range(course.plan.repeats):
                    if problem.key in course.outside:
                        break
                    if self._wanted(course, problem, epoch):
                        yield course, problem, epoch

    def _wanted(self, course: Course, problem: EvalProblem, epoch: int) -> bool:
        entry = course.journal.entries.get((problem.key, epoch))
        if entry is None:
            return True
        again = self._retry_failed
        if entry.sample.status == "failed":
            return again and not entry.refused
        if entry.sample.status == "needs_judge" or (again and entry.sample.status == "unjudged" and entry.judged):
            self._queue(course, problem, entry.key)
        return False

    def _queue(self, course: Course, problem: EvalProblem, key: Key) -> None:
        if self._judge is not None:
            self._to_judge.put_nowait((course, problem, key))

    async def _work(self, left: Iterator[tuple[Course, EvalProblem, int]]) -> None:
        for course, problem, epoch in left:
            await self._one(course, problem, epoch)

    async def _one(self, course: Course, problem: EvalProblem, epoch: int) -> None:
        async with self._preparing:
            prepared = await asyncio.to_thread(prepare, course.plan, problem, course.data, self._tokens, self._counts)
        if prepared.outside:
            course.outside.add(problem.key)
            return
        if prepared.messages is None:
            reason = f"{prepared.prompt_tokens:,} tokens do not fit in {course.plan.room:,}"
            skipped = ScoredReply("skipped", None, reason=reason)
            course.journal.add_reply(problem, epoch, Reply(""), skipped, Cost(prompt_tokens=prepared.prompt_tokens))
            return
        async with self._memory.reserved(prepared.size):
            began = time.monotonic()
            reply, cost = await self.request(course.plan, prepared, course.plan.seed_of(problem.key, epoch))
            seconds = time.monotonic() - began
        scored = await self._score(course.plan, problem, reply)
        self._keep(course, problem, epoch, reply, scored, cost(seconds))

    def _keep(
        self, course: Course, problem: EvalProblem, epoch: int, reply: Reply, scored: ScoredReply, cost: Cost
    ) -> None:
        keep = partial(course.journal.add_reply, problem, epoch, reply, scored, cost)
        if scored.status == "failed" and not cost.refused:
            self._silence.hold(keep)
            return
        entry = keep()
        if scored.status == "needs_judge":
            self._queue(course, problem, entry.key)

    async def _score(self, plan: AskingPlan, problem: EvalProblem, reply: Reply) -> ScoredReply:
        thinking = plan.enable_thinking is not False
        return await self._scorer.score(plan.benchmark, problem, replace(reply, thinking=thinking), plan.mode)

    async def request(
        self, plan: AskingPlan, prepared: FittedPrompt, seed: int | None
    ) -> tuple[Reply, Callable[[float], Cost]]:
        """Send one chat; a request without a reply is a failed one with the reason."""
        request = ChatRequest(
            messages=tuple(LlmMessage.model_validate(message) for message in prepared.messages or ()),
            max_tokens=plan.max_tokens,
            temperature=plan.temperature,
            top_p=plan.top_p,
            seed=seed,
            extra=request_fields(plan) | self._extra,
        )
        found = await self._send(plan, request)
        if isinstance(found, LlmError):
            refused = isinstance(found, LlmRefusedError)
            reply = Reply.failure(str(found))
            return reply, lambda seconds: Cost(seconds, prepared.prompt_tokens, refused=refused)
        answer, _ = found
        return reply_of(answer), lambda seconds: _cost(answer, prepared, seconds)

    async def _send(self, plan: AskingPlan, request: ChatRequest) -> tuple[ChatReply, str] | LlmError:
        """The endpoint's reply with its body, or the error of this one request."""
        client = min(self._clients, key=lambda client: client.gate.in_flight)
        self.in_flight += 1
        began = time.monotonic()
        try:
            found = await client.chat(request, cost=0)
        except LlmRefusedError as error:
            self._silence.broken()
            return error
        except LlmUnavailableError as error:
            self._silence.lasts(error)
            return error
        finally:
            self.in_flight -= 1
        self._silence.broken()
        usage = found[0].usage
        prompt, completion = (usage.prompt_tokens, usage.completion_tokens) if usage else (0, 0)
        self._replied(plan.benchmark.name, time.monotonic() - began, prompt, completion)
        return found

    async def _converse(self, course: Course, group: MemoryGroup, problems: Sequence[EvalProblem]) -> None:
        """Fill one memory, if a question of it is still to be asked, and ask."""
        asked = [
            (problem, epoch)
            for problem in problems
            for epoch in range(course.plan.repeats)
            if self._wanted(course, problem, epoch)
        ]
        if not asked:
            return
        course.memories = course.memories or memories.KeptMemories(course.journal.path.with_suffix(".memories.json"))
        send, _ = self._sender(course.plan, course.plan.seed_of(group.key, 0))
        snapshot, trouble = None, ""
        try:
            snapshot = await memories.filled(group, course.data, course.memories, send, self._embed, self._style)
        except MemoryAgentError as error:
            trouble = f"its memory could not be filled: {error}"
        await asyncio.gather(*(self._question(course, *one, snapshot, trouble) for one in asked))

    async def _question(
        self, course: Course, problem: EvalProblem, epoch: int, snapshot: Snapshot | None, trouble: str
    ) -> None:
        began = time.monotonic()
        send, spent = self._sender(course.plan, course.plan.seed_of(problem.key, epoch))
        reply = Reply.failure(trouble)
        if snapshot is not None and not trouble:
            chat = memories.chat_of(send)
            reply = await bfcl_memory.ask(problem, course.data, snapshot, chat, embed=self._embed, style=self._style)
        scored = await self._score(course.plan, problem, reply)
        cost = replace(spent[0], seconds=time.monotonic() - began)
        self._keep(course, problem, epoch, reply, scored, cost)

    def _sender(self, plan: AskingPlan, seed: int | None) -> tuple[memories.Send, list[Cost]]:
        """Sends the requests of one conversation; the list's one element is what they have cost so far."""
        spent = [Cost()]

        async def send(turns: Sequence[Turn], tools: Sequence[Tool]) -> tuple[ChatReply, str] | str:
            request = ChatRequest(
                turns=tuple(dict(turn) for turn in turns),
                max_tokens=plan.max_tokens,
                temperature=plan.temperature,
                top_p=plan.top_p,
                seed=seed,
                extra={**request_fields(plan), **self._extra, **({"tools": list(tools)} if tools else {})},
            )
            found = await self._send(plan, request)
            if isinstance(found, tuple) and found[0].usage is not None:
                usage, before = found[0].usage, spent[0]
                spent[0] = Cost(
                    prompt_tokens=before.prompt_tokens + usage.prompt_tokens,
                    completion_tokens=before.completion_tokens + usage.completion_tokens,
                    versions=tuple(dict.fromkeys((*before.versions, *found[0].versions))),
                )
            return found if isinstance(found, tuple) else str(found)

        return send, spent

    async def _judge_all(self) -> None:
        assert self._judge is not None
        while (item := await self._to_judge.get()) is not None:
            course, problem, key = item
            scored = course.journal.scored(course.journal.entries[key])
            decided, judged, tokens = await self._judge.decide(course.plan.benchmark, problem, scored, course.plan.mode)
            keep = partial(course.journal.add_verdict, key, decided, self._judge.name, judged, tokens)
            if decided.status == "unjudged":
                self._judge.silence.hold(keep)
            else:
                keep()


def reply_of(answer: ChatReply) -> Reply:
    """The reply as the scorers take it."""
    return Reply(answer.text, answer.reasoning, answer.finish_reason or "stop")


def _cost(answer: ChatReply, prepared: FittedPrompt, seconds: float) -> Cost:
    usage = answer.usage
    return Cost(
        seconds,
        usage.prompt_tokens if usage and usage.prompt_tokens else prepared.prompt_tokens,
        usage.completion_tokens if usage else 0,
        prepared.cut_tokens,
        versions=tuple(answer.versions),
    )


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a person can act on, of those that ended the tasks."""
    for error in errors.exceptions:
        found = _first(error) if isinstance(error, BaseExceptionGroup) else error
        if isinstance(found, GolongrlError):
            return found
    return errors.exceptions[0]
