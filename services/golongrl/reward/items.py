"""An item on its way through the pool, and its answer: the function's value, or why there is none."""

import asyncio
import pickle
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Lost:
    """An item without a value: `kind` deadline, died or no_worker, and a sentence for people."""

    kind: Literal["deadline", "died", "no_worker"]
    reason: str


@dataclass(frozen=True)
class Answer:
    """The result of an item: the function's value or `Lost`, and the seconds it waited and computed."""

    value: Any
    waited_s: float
    computed_s: float


@dataclass(eq=False)
class ScoreJob:
    """An item on its way through the pool; times are seconds of the pool's clock."""

    payload: bytes
    deadline_s: float
    future: "asyncio.Future[Answer]"
    queued_at: float
    started_at: float = 0.0

    def answer(self, value: object, now: float) -> None:
        """Give the caller its answer; only the first counts."""
        if not self.future.done():  # the caller may have gone
            started = self.started_at or now
            self.future.set_result(Answer(value, started - self.queued_at, now - started))


def encode(*arguments: object) -> bytes:
    """The payload of one item. Raises RecursionError where the arguments nest too deep."""
    return pickle.dumps(arguments, protocol=pickle.HIGHEST_PROTOCOL)
