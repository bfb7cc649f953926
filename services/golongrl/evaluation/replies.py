"""What a model answered, and what became of the answer. Pure.

Invariants: a score is in [0, 1]; a reply without one says why, and is never a 0 in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from golongrl.evaluation.kinds import Flag, Status
from golongrl.tasks.outcome import check_score


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
        check_score(self.status, self.score)


def judged(answer: str, rule: float | None, parts: Mapping[str, float] | None = None) -> ScoredReply:
    """A reply that its rule scores where that is the highest score there is, and else the judge."""
    if rule is not None and rule >= 1.0:
        return ScoredReply("scored", rule, answer, rule, parts=dict(parts or {}))
    return ScoredReply("needs_judge", None, answer, rule, parts=dict(parts or {}))


def scored(answer: str, value: float, *, unparsed: bool = False) -> ScoredReply:
    """A reply that a rule scored."""
    flags: frozenset[Flag] = frozenset(["unparsed"]) if unparsed else frozenset()
    return ScoredReply("scored", value, answer, value, flags)
