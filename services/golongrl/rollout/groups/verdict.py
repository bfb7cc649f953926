"""What becomes of a row: submitted, rejected with a reason, or given back. Pure.

Invariant: a response without a score stays unscored; it counts neither as 0 nor as equal to anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from golongrl.queue.types import RejectReason


@dataclass(frozen=True)
class Submit:
    """The group is worth training on."""


@dataclass(frozen=True)
class Reject:
    """The row is over without training."""

    reason: RejectReason


@dataclass(frozen=True)
class RowRelease:
    """The row is given back to be done again. `failed`: the row itself may be the cause, so that the queue gives it up
    after a bounded number of such tries, with `detail`."""

    reason: str
    failed: bool = False
    detail: str = ""


Verdict = Submit | Reject


def overlong(prompt_tokens: int, *, max_prompt_tokens: int, max_response_tokens: int, context_length: int) -> bool:
    """Whether a prompt leaves the engine no room for the longest response; such a row is rejected unsampled."""
    return prompt_tokens > max_prompt_tokens or prompt_tokens + max_response_tokens > context_length


def judge(rewards: Sequence[float | None], *, group_filter: bool, min_scored: int) -> Verdict:
    """Decide over a group whose responses have all ended and been sent to the reward service; None is unscored.

    Too few scores reject it, then equal scores. A group of one response is never all-equal: there is nothing it could
    differ from.
    """
    scored = [reward for reward in rewards if reward is not None]
    if len(scored) < min_scored:
        return Reject(RejectReason.FEW_SCORED)
    if group_filter and len(rewards) > 1 and scored and min(scored) == max(scored):
        return Reject(RejectReason.ALL_EQUAL)
    return Submit()
