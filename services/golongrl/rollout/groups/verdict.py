"""What becomes of a finished group: submitted, rejected with a reason, or given back. Pure.

Invariants:
- a response that was cut short by the engine (not by its own length) is never submitted as if it had ended;
- a response without a score stays unscored: it counts neither as 0 nor as equal to anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from golongrl.queue.types import RejectReason
from golongrl.rollout.sglang.answers import Finish


@dataclass(frozen=True)
class GroupVerdict:
    """One response as the rules see it; `reward` is None when it is unscored."""

    finish: Finish
    reward: float | None


@dataclass(frozen=True)
class Submit:
    """The group is worth training on."""


@dataclass(frozen=True)
class Reject:
    """The row is over without training."""

    reason: RejectReason


@dataclass(frozen=True)
class RowRelease:
    """The row goes back and is done again."""

    reason: str


Verdict = Submit | Reject | RowRelease


def overlong(prompt_tokens: int, *, max_prompt_tokens: int, max_response_tokens: int, context_length: int) -> bool:
    """Whether a prompt leaves the engine no room for the longest response; such a row is rejected unsampled."""
    return prompt_tokens > max_prompt_tokens or prompt_tokens + max_response_tokens > context_length


def judge(responses: Sequence[GroupVerdict], *, group_filter: bool, min_scored: int) -> Verdict:
    """Decide over a group whose responses have all been sampled and sent to the reward service.

    In this order: a response cut short releases the row, too few scores and equal scores reject it. A group of one
    response is never all-equal: there is nothing it could differ from.
    """
    if any(response.finish == "abort" for response in responses):
        return RowRelease("aborted")
    scored = [response.reward for response in responses if response.reward is not None]
    if len(scored) < min_scored:
        return Reject(RejectReason.FEW_SCORED)
    if group_filter and len(responses) > 1 and scored and min(scored) == max(scored):
        return Reject(RejectReason.ALL_EQUAL)
    return Submit()
