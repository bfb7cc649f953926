"""What a second model's answers say about a sample. Pure.

A sample is kept if the model is right often enough with the documents, not without them, and still once with other
documents around, and if its wrong answers do not agree on another one.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from golongrl.tasks import score
from golongrl.tasks.text import CLOSE, answer_area_strict, collapse

# A row whose answers all failed (refused, cut) is not judged by them.
NOT_ANSWERED = "not answered"


@dataclass(frozen=True, slots=True)
class Trial:
    """Answers to one form of the prompt; None where the call was refused."""

    answers: Sequence[str | None] = ()
    asked: bool = True
    """False where an earlier gate refused the sample, so that these were not asked."""

    @property
    def usable(self) -> list[str]:
        return [answer for answer in self.answers if answer is not None]


@dataclass(frozen=True, slots=True)
class Gates:
    """The recipe's `verify`: see there."""

    agree: int
    guesses: int
    threshold: float


@dataclass(frozen=True, slots=True)
class SampleFinding:
    """Right answers of each form (None: not asked), and why the sample is refused."""

    with_context: int | None
    without_context: int | None
    padded: int | None
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Gold:
    """What scores an answer."""

    data_source: str
    reward_mode: str
    ground_truth: dict[str, object]
    exact: bool = field(default=True)
    """One short answer, so that two wrong answers can be the same."""

    def reward(self, answer: str) -> float | None:
        """The strict reward; None where the answer cannot be scored."""
        response = answer if CLOSE in answer else f"{CLOSE}{answer}"
        extra = {"reward_mode": self.reward_mode}
        return score(self.data_source, response, self.ground_truth, extra, "strict").score


def find(gold: Gold, gates: Gates, with_context: Trial | None, without: Trial, padded: Trial | None) -> SampleFinding:
    """Judge a sample. `with_context` and `padded` are None where they were not asked.

    The gates come in the order in which the prompts are asked, so that a sample which one of them refuses has the same
    verdict whether the later prompts were asked or not.
    """
    right = _right(gold, gates, with_context) if with_context is not None and with_context.asked else None
    guessed = _right(gold, gates, without)
    robust = _right(gold, gates, padded) if padded is not None and padded.asked else None

    def refused(reason: str, detail: str) -> SampleFinding:
        return SampleFinding(right, guessed, robust, reason, detail)

    nothing = "the model refused, or its answers were cut"
    if guessed > gates.guesses:
        return refused("answered without the documents", f"{guessed} of {len(without.answers)} times")
    if not without.usable:
        return refused(NOT_ANSWERED, nothing)
    if with_context is not None:
        if right is None or not with_context.usable:
            return refused(NOT_ANSWERED, nothing)
        if (other := _agreed(gold, gates, with_context)) is not None:
            return refused("gold not unique", f"the model agrees on another answer: {other[:120]}")
        if right < gates.agree:
            return refused("wrong with the documents", f"right {right} of {len(with_context.answers)} times")
    if padded is not None and not padded.usable:
        return refused(NOT_ANSWERED, nothing)
    if robust == 0:
        return refused("lost in other documents", f"right 0 of {len(padded.answers if padded else ())} times")
    return SampleFinding(right, guessed, robust)


def _right(gold: Gold, gates: Gates, trial: Trial) -> int:
    rewards = [gold.reward(answer) for answer in trial.usable]
    return sum(reward is not None and reward >= gates.threshold for reward in rewards)


def _agreed(gold: Gold, gates: Gates, trial: Trial) -> str | None:
    """A wrong answer that more than half of the answers give; None where there is none, or answers are long."""
    if not gold.exact:
        return None
    wrong = Counter(
        collapse(answer_area_strict(answer.rpartition(CLOSE)[2]).lower())
        for answer in trial.usable
        if (gold.reward(answer) or 0.0) < gates.threshold
    )
    for answer, count in wrong.most_common(1):
        if 2 * count > len(trial.answers) and answer:
            return answer
    return None
