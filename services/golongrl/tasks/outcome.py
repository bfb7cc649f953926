"""What scoring one response can end in.

A response either has a score or the reason why it has none. "Cannot be scored" is never a zero: a zero is a judgement
about the response and enters its group's statistics, an unscored response does not.
"""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["compat", "strict"]
"""`compat`: the rules the paper's runs were trained with. `strict`: the same metrics with their openings closed."""

Status = Literal["scored", "unscored"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of scoring one response.

    `score` is in [0, 1], and None exactly if `status` is "unscored". `metric` ("F1") and `task` ("T3") are empty where
    the original gives 0 before it looks at the data source. `reason` says why a response is unscored, why the gate
    stopped it or which limit its answer exceeds, and is empty otherwise.
    """

    score: float | None
    status: Status
    metric: str
    task: str
    reason: str = ""


class UnscorableError(Exception):
    """A response that cannot be given a score; the message is the outcome's reason."""


class TooLargeError(UnscorableError):
    """An answer that would take too long to evaluate. Strict gives it 0: else a power tower would buy a policy out of
    its zeros, and no gold is one.
    """
