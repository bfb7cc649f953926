"""What scoring one response can end in.

A response either has a score or the reason why it has none. "Cannot be scored" is never a zero: a zero is a judgement
about the response and enters its group's statistics, an unscored response does not.
"""

from dataclasses import dataclass
from typing import Literal

Mode = Literal["compat", "strict"]
"""`compat`: the rules the paper's runs were trained with. `strict`: the same metrics with their openings closed."""

Status = Literal["scored", "unscored"]


def check_score(status: str, score: float | None) -> None:
    """Raises ValueError unless what is scored has a score in [0, 1], and nothing else has one."""
    if (status == "scored") != (score is not None):
        raise ValueError(f"score must be a number exactly when status is scored: {score} is {status}")
    if score is not None and not 0.0 <= score <= 1.0:  # refuses NaN, too
        raise ValueError(f"score must be in [0, 1], got {score}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of scoring one response.

    `score` is in [0, 1], and None exactly if `status` is "unscored"; anything else raises ValueError. `metric` ("F1")
    and `task` ("T3") are empty where the original gives 0 before it looks at the data source. `reason` says why a
    response is unscored, why the gate stopped it or what is wrong with its answer, and is empty otherwise.
    """

    score: float | None
    status: Status
    metric: str
    task: str
    reason: str = ""

    def __post_init__(self) -> None:
        check_score(self.status, self.score)


class UnscorableError(Exception):
    """A response that cannot be given a score; the message is the outcome's reason."""


class BadAnswerError(UnscorableError):
    """The answer itself prevents its scoring, the row is sound. Strict gives it 0: an unscored response leaves its
    group's statistics, and a policy must not be able to choose that.
    """


class TooLargeError(BadAnswerError):
    """An answer that would take too long to evaluate."""
