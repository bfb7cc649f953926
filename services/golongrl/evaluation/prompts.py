"""From a problem to the request that asks it: the long text is read here, counted, and cut to what fits.

Counting is by the evaluated model's own tokenizer. Without one (an endpoint whose weights are elsewhere) a prompt is
sent if it fits however it is tokenised, because no token is shorter than a byte; else the tokenizer is asked for.
"""

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from golongrl.data.chat import Chat
from golongrl.errors import writing_to
from golongrl.evaluation import budget
from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Message, Mode, Rule
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.sources import DataFiles
from golongrl.evaluation.suite import Suite

# Tokens that a chat template puts around a message, at most, of the templates we know.
_AROUND_MESSAGE: Final = 64


class Tokens(Protocol):
    """How long a chat is."""

    def count(self, messages: Sequence[Mapping[str, str]]) -> int: ...

    def encode(self, text: str) -> Sequence[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...


class ModelTokens:
    """The evaluated model's tokenizer and chat template."""

    def __init__(self, folder: Path, enable_thinking: bool | None) -> None:
        self._chat = Chat.open(folder)
        self._thinking = enable_thinking

    def ids(self, messages: Sequence[Mapping[str, str]]) -> NDArray[np.int32]:
        """The rendered chat, ready for the answer."""
        (ids,) = self._chat.encode([self._chat.render(messages, self._thinking)])
        return ids

    def count(self, messages: Sequence[Mapping[str, str]]) -> int:
        """Tokens of the rendered chat."""
        return len(self.ids(messages))

    def encode(self, text: str) -> Sequence[int]:
        (ids,) = self._chat.encode([text])
        return [int(token) for token in ids]

    def decode(self, ids: Sequence[int]) -> str:
        return self._chat.decode(ids)


@dataclass(frozen=True, slots=True)
class AskingPlan:
    """How one benchmark is asked of one model, after the suite, the benchmark and the server have had their say.

    Attributes:
        departures: where this is not what the benchmark asks for, in sentences for the report.
    """

    benchmark: Benchmark
    mode: Mode
    context: int
    input_tokens: int | None
    rule: Rule
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int | None
    repeats: int
    seed: int | None
    enable_thinking: bool | None
    departures: tuple[str, ...] = ()

    @property
    def room(self) -> int:
        """Prompt tokens that fit beside the answer.

        Raises:
            EvaluationError: none do.
        """
        return budget.fit(self.context, self.max_tokens, self.context, self.input_tokens).keep

    def seed_of(self, key: str, epoch: int) -> int | None:
        """The seed of one request: repeats differ, even on a server that draws deterministically."""
        if self.seed is None:
            return None
        text = f"{self.seed}:{self.benchmark.name}:{key}:{epoch}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4]) >> 1


def plan(benchmark: Benchmark, suite: Suite, served: int | None, answer_tokens: int | None = None) -> AskingPlan:
    """What is asked of a model whose server has a context of `served` tokens (None: unknown).

    A model with a shorter context than the benchmark's gets the same share of it for the answer, or what its own recipe
    trains with (`answer_tokens`).

    Raises:
        EvaluationError: the answer does not fit the context.
    """
    asked = suite.context.length or benchmark.context
    context = asked if served is None else min(asked, served)
    own = benchmark.sampling
    max_tokens = suite.sampling.max_tokens or own.max_tokens
    if suite.sampling.max_tokens is None and context < asked:
        max_tokens = max(1, min(answer_tokens or own.max_tokens, own.max_tokens * context // asked))
    sampling = suite.sampling
    temperature = own.temperature if sampling.temperature is None else sampling.temperature
    found = AskingPlan(
        benchmark=benchmark,
        mode=suite.mode,
        context=context,
        input_tokens=suite.context.input_tokens or benchmark.input_tokens,
        rule=suite.context.rule or benchmark.rule,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=own.top_p if sampling.top_p is None else sampling.top_p,
        top_k=sampling.top_k,
        repeats=sampling.repeats or benchmark.repeats,
        seed=sampling.seed,
        enable_thinking=sampling.enable_thinking,
    )
    _ = found.room
    return replace(found, departures=tuple(_departures(found, suite)))


def _departures(found: AskingPlan, suite: Suite) -> list[str]:
    """In what the plan differs from the benchmark's own settings, in words."""
    benchmark, own = found.benchmark, found.benchmark.sampling
    differs = [
        f"{name} {mine:,} instead of {theirs:,}"
        for name, mine, theirs in (
            ("context", found.context, benchmark.context),
            ("answers of at most", found.max_tokens, own.max_tokens),
            ("repeats", found.repeats, benchmark.repeats),
            ("temperature", found.temperature, own.temperature),
            ("top-p", found.top_p, own.top_p),
        )
        if mine != theirs
    ]
    if found.rule != benchmark.rule:
        differs.append(f"long prompts: {found.rule} instead of {benchmark.rule}")
    if benchmark.conversational and suite.target.embedder is None:
        differs.append("without the vector backend, which needs target.embedder")
    if suite.limits.samples is not None:
        differs.append(f"at most {suite.limits.samples:,} of its problems")
    return differs


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A chat that fits, or None: the problem does not fit (`skipped`) or is not of this benchmark (`outside`)."""

    messages: list[Message] | None
    prompt_tokens: int = 0
    cut_tokens: int = 0
    outside: bool = False

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return sum(len(message["content"]) for message in self.messages or ())


class Counts:
    """How long each problem is, kept in a file: a tokenizer takes minutes for the gigabytes of MRCR, which has three
    benchmarks on one file, and a run may be killed. Without a file they last as long as this object.
    """

    def __init__(self, path: Path | None, tokenizer: str) -> None:
        self._path = path
        self._tokenizer = tokenizer
        self._known: dict[tuple[str, str], int] = {}
        self._writing = threading.Lock()
        if path is not None and path.is_file():
            for line in path.read_text("utf-8", "replace").splitlines():
                self._read(line)

    def _read(self, line: str) -> None:
        try:
            tokenizer, source, key, tokens = json.loads(line)
        except ValueError:
            return  # a cut line: the problem is counted again
        if tokenizer == self._tokenizer:
            self._known[source, key] = int(tokens)

    def get(self, problem: EvalProblem) -> int | None:
        return self._known.get((problem.source, problem.key))

    def keep(self, problem: EvalProblem, tokens: int) -> None:
        """Remember a count."""
        if self._path is None:
            self._known[problem.source, problem.key] = tokens
            return
        line = json.dumps([self._tokenizer, problem.source, problem.key, tokens], ensure_ascii=False)
        with self._writing, writing_to(str(self._path)), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            self._known[problem.source, problem.key] = tokens


def outside(plan: AskingPlan, tokens: int | None) -> bool:
    """Whether a problem of this length is known to belong to another length bin than the benchmark's."""
    bounds = plan.benchmark.bin_tokens
    return bounds is not None and tokens is not None and not bounds[0] <= tokens <= bounds[1]


def prepare(
    plan: AskingPlan, problem: EvalProblem, data: DataFiles, tokens: Tokens | None, counts: Counts
) -> FittedPrompt:
    """Read and fit one problem. Slow where it is long: call it in a thread.

    Raises:
        EvaluationError: the row is wrong, the rule is `refuse` and it does not fit, or its length cannot be known.
    """
    known = counts.get(problem)
    if outside(plan, known):
        return FittedPrompt(None, known or 0, outside=True)
    if known is not None and known > plan.room and plan.rule == "skip":
        return FittedPrompt(None, known)
    messages = plan.benchmark.messages(problem, data, plan.mode)
    if tokens is None:
        return _unmeasured(plan, problem, messages)
    total = tokens.count(messages)
    if known is None and plan.benchmark.bin_tokens is not None:
        counts.keep(problem, total)
    if outside(plan, total):
        return FittedPrompt(None, total, outside=True)
    if total <= plan.room:
        return FittedPrompt(messages, total)
    fitted = budget.apply(
        plan.rule, messages, plan.room, count=tokens.count, encode=tokens.encode, decode=tokens.decode,
        where=problem.where,
    )  # fmt: skip
    if fitted.messages is None:
        return FittedPrompt(None, fitted.prompt_tokens)
    return FittedPrompt(fitted.messages, fitted.kept_tokens, fitted.prompt_tokens - fitted.kept_tokens)


def _unmeasured(plan: AskingPlan, problem: EvalProblem, messages: list[Message]) -> FittedPrompt:
    longest = sum(len(m["content"].encode("utf-8", "replace")) + _AROUND_MESSAGE for m in messages)
    low = plan.benchmark.bin_tokens[0] if plan.benchmark.bin_tokens else 0
    if longest <= plan.room and not low:
        return FittedPrompt(messages)
    raise EvaluationError(
        f"{problem.where}: only the model's tokenizer can tell whether this prompt fits; give --tokenizer FOLDER"
    )


def request_fields(plan: AskingPlan) -> dict[str, Any]:
    """Fields of a request beyond those that every server knows."""
    extra: dict[str, Any] = {}
    if plan.top_k is not None:
        extra["top_k"] = plan.top_k
    if plan.enable_thinking is not None:
        extra["chat_template_kwargs"] = {"enable_thinking": plan.enable_thinking}
    return extra
