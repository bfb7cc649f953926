"""Asking models for a stage: many calls, few of their prompts in memory, all replies in the store.

A stage asks in one pass and makes its rows in another, from the store alone. So rows are made by the same picklable
functions as everywhere, and a stage that was killed asks only for what is missing.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import structlog
import yaml

from golongrl.data.construct.generate_models import AskedModel, Spending
from golongrl.data.construct.metrics import Asked, DataMetrics
from golongrl.errors import GolongrlError
from golongrl.llm import Asker, Budget, CallEstimate, ChatClient, LlmCall, ReplyStore, estimate

log = structlog.get_logger(__name__)

REPLIES = "replies.sqlite"
# How often a person hears how far it is.
_REPORT_S = 30.0


class Job(NamedTuple):
    """What one row asks of a model: `ask` makes its calls, one after the other or at once."""

    model: AskedModel
    ask: Callable[[Asker], Awaitable[None]]


def ask_all(
    jobs: Iterable[Job], models: Sequence[AskedModel], budget: Spending, replies: Path, metrics: DataMetrics
) -> Asked:
    """Run all jobs, as many at once as the models take calls.

    Raises:
        LlmError: a model cannot be asked.
        BudgetSpentError: the budget has no room for the next call.
    """
    return asyncio.run(_ask_all(iter(jobs), models, budget, replies, metrics))


async def _ask_all(
    jobs: Iterator[Job], models: Sequence[AskedModel], spending: Spending, replies: Path, metrics: DataMetrics
) -> Asked:
    budget = spending.budget()
    async with AsyncExitStack() as stack:
        store = stack.enter_context(ReplyStore(replies))
        askers: dict[AskedModel, Asker] = {}
        for model in dict.fromkeys(models):
            client = await stack.enter_async_context(ChatClient(model.endpoint(), budget))
            askers[model] = Asker(client, store)
        asking = _Asking(jobs, askers, budget)
        metrics.asks(asking.asked)
        await asking.run()
        total = asking.asked()
        metrics.asks(lambda: total)
        log.info("models asked", made=total.made, found=total.found, tokens=total.tokens, calls=budget.calls)
        if asking.errors:
            raise asking.errors[0]
    return total


@dataclass
class _Asking:
    """The jobs, and the models that they ask; after the first error no further job begins."""

    jobs: Iterator[Job]
    askers: Mapping[AskedModel, Asker]
    budget: Budget
    errors: list[GolongrlError] = field(default_factory=list)

    async def run(self) -> None:
        """All jobs, as many at once as the models take calls: each of these holds the prompts of one row."""
        reporting = asyncio.create_task(self._report())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(sum(model.concurrency for model in self.askers)):
                    group.create_task(self._drain())
        finally:
            reporting.cancel()

    async def _drain(self) -> None:
        for model, ask in self.jobs:
            try:
                await ask(self.askers[model])
            except GolongrlError as error:
                self.errors.append(error)
            # The calls in flight are paid for: each drain ends with its own.
            if self.errors:
                return

    def asked(self) -> Asked:
        """How far it is."""
        askers = self.askers.values()
        made, found = sum(one.asked for one in askers), sum(one.found for one in askers)
        return Asked(made, found, self.budget.tokens, sum(one.client.gate.in_flight for one in askers))

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(_REPORT_S)
            now = self.asked()
            log.info("asking models", made=now.made, found=now.found, tokens=now.tokens, in_flight=now.in_flight)


def replies_of(settings: Path | str | None, out: Path) -> Path:
    """The store that a stage uses."""
    return Path(settings) if settings else out / REPLIES


def forecast_lines(calls: Iterable[LlmCall], replies: Path, spending: Spending) -> list[str]:
    """What calls would cost that the store does not have, and whether the budget allows it."""
    if replies.is_file():
        with ReplyStore(replies) as store:
            total = estimate(calls, store)
    else:
        total = sum((CallEstimate(1, call.prompt_tokens, call.request.max_tokens) for call in calls), CallEstimate())
    return [f"at most {total}", *over_budget(total, spending)]


def over_budget(total: CallEstimate, spending: Spending) -> list[str]:
    """A line for each bound that the estimate exceeds."""
    found = []
    if spending.calls is not None and total.calls > spending.calls:
        found.append(f"more than the budget's {spending.calls} calls: the stage would end there")
    if spending.tokens is not None and total.tokens > spending.tokens:
        found.append(f"may exceed the budget's {spending.tokens} tokens: the stage would end there")
    return found


class PromptSheet(NamedTuple):
    """A file of prompts, and a hash of its content, which is a part of each call's key."""

    texts: dict[str, Any]
    sha: str


@cache
def sheet(name: str) -> PromptSheet:
    """The prompts of `prompts/NAME.yaml`."""
    text = (resources.files("golongrl.data.construct") / "prompts" / f"{name}.yaml").read_text("utf-8")
    return PromptSheet(yaml.safe_load(text), hashlib.sha256(text.encode("utf-8")).hexdigest()[:12])
