"""The words that all of the evaluation uses: modes, statuses, flags, rules, and one counted sample."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["official", "compat", "strict"]

# `skipped` (does not fit the context) and `failed` (no reply) have no score; `unjudged` had no verdict after retries.
Status = Literal["scored", "needs_judge", "unjudged", "failed", "skipped"]
Flag = Literal["truncated", "unparsed", "no_thought_end", "unjudged"]
# What happens to a prompt longer than the context leaves room for; see budget.py.
Rule = Literal["skip", "middle", "refuse"]
Message = dict[str, str]
# 1 or 0 by a judge, None for no verdict.
Verdict = float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One scored reply as the report counts it: `problem` is the key by which errors are clustered."""

    problem: str
    epoch: int
    status: Status
    score: float | None
    labels: Mapping[str, str] = field(default_factory=dict)
    flags: frozenset[Flag] = frozenset()
    rule: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
