"""What both parts of the learner's benchmark share: a clock and a made-up batch."""

import statistics
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, ParamSpec, Self

import numpy as np
import torch
from rich.console import Console

from golongrl.queue import Batch, Group, Response, VersionSpan

console = Console(width=130)
TASKS = 9
P = ParamSpec("P")


class Spent(NamedTuple):
    """Seconds of one call; `cpu` of all threads of this process."""

    wall: float
    cpu: float

    def __mul__(self, factor: object) -> "Spent":
        assert isinstance(factor, int | float)
        return Spent(self.wall * factor, self.cpu * factor)


def spent(call: Callable[P, object], *arguments: P.args, **keys: P.kwargs) -> Spent:
    """Time a call, a GPU's work included."""
    _settle()
    wall, cpu = time.perf_counter(), time.process_time()
    call(*arguments, **keys)
    _settle()
    return Spent(time.perf_counter() - wall, time.process_time() - cpu)


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median(times: Iterable[Spent]) -> Spent:
    """Wall and CPU each by themselves."""
    walls, cpus = zip(*times, strict=True)
    return Spent(statistics.median(walls), statistics.median(cpus))


def slowest(times: Iterable[Spent]) -> Spent:
    """By CPU time, which a busy machine does not blur."""
    return max(times, key=lambda t: t.cpu)


class Span(NamedTuple):
    """Lengths in tokens between two bounds, both included; `100-200` or `150`."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError on anything else."""
        low, _, high = text.partition("-")
        return cls(int(low), int(high or low))


def made_up(groups: int, n: int, prompt: Span, response: Span, vocabulary: int) -> Batch:
    """A batch of nine task types with random ids, log-probs and rewards; one response in fifty is unscored."""
    chance = np.random.default_rng(0)

    def ids(span: Span) -> np.ndarray:
        return chance.integers(3, vocabulary, chance.integers(span.low, span.high + 1), dtype=np.int32)

    def answer() -> Response:
        tokens, scored = ids(response), chance.random() > 0.02
        return Response(
            ids=tokens,
            logprobs=-chance.exponential(0.4, len(tokens)).astype(np.float32),
            version_spans=(VersionSpan(0, 0, len(tokens)),),
            finish_reason="stop",
            reward=float(chance.integers(0, 5)) / 4 if scored else None,
            status="scored" if scored else "unscored",
        )

    def group(i: int) -> Group:
        task, answers = f"T{i % TASKS + 1}", tuple(answer() for _ in range(n))
        return Group(f"0-{i}", i, 0, task, "F1", task, "qa", ids(prompt), answers, "w", 0)

    return Batch(1, tuple(group(i) for i in range(groups)), replayed=False)
