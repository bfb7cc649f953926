"""Scoring replies in processes with a deadline: comparing two formulas, or two long texts, may never end.

The pool is the reward service's. A reply that cannot be scored in time is not wrong and not right: it counts as
unjudged, with the reason.
"""

import os
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from golongrl.evaluation.benchmark import Benchmark
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.kinds import Mode
from golongrl.evaluation.problems import EvalProblem
from golongrl.evaluation.registry import BENCHMARKS
from golongrl.evaluation.replies import Reply, ScoredReply
from golongrl.reward.items import Lost, encode
from golongrl.reward.pool import WorkerPool

# The slowest that is honest: difflib over two texts of some 100,000 characters takes half a minute.
_DEADLINE_S: Final = 120.0
# More would take cores from the engine on a laptop, and a server's answers come slower than they are scored.
_MOST_WORKERS: Final = 4


@dataclass(frozen=True, slots=True)
class Unscorable:
    """The data is wrong: said by a worker, which an exception would end."""

    message: str


def score_reply(name: str, problem: EvalProblem, reply: Reply, mode: Mode) -> ScoredReply | Unscorable:
    """What a worker does."""
    try:
        return BENCHMARKS[name].score(problem, reply, mode)
    except EvaluationError as error:
        return Unscorable(f"{problem.where}: {error}")


class Scorer:
    """`async with Scorer() as scorer: await scorer.score(...)`."""

    def __init__(self) -> None:
        workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        self._pool = WorkerPool(score_reply, workers=workers, max_queued=1 << 20, preload=[__name__])

    async def __aenter__(self) -> Self:
        await self._pool.start()
        await self._pool.wait_warm()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._pool.stop()

    async def score(self, benchmark: Benchmark, problem: EvalProblem, reply: Reply, mode: Mode) -> ScoredReply:
        """The score of a reply.

        Raises:
            EvaluationError: the problem's gold cannot be used.
        """
        if reply.error:
            return benchmark.score(problem, reply, mode)
        (answer,) = self._pool.submit([encode(benchmark.name, problem, reply, mode)], _DEADLINE_S)
        value = (await answer).value
        if isinstance(value, Lost):
            return ScoredReply("unjudged", None, reason=f"scoring: {value.reason}")
        if isinstance(value, Unscorable):
            raise EvaluationError(value.message)
        scored: ScoredReply = value
        return scored
