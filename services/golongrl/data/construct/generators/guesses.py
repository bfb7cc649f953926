"""Answers that anybody can give who sees the question alone. Pure.

A sample that one of them answers well enough to pass teaches nothing about its documents. What a model knows or infers
is more than this; `verify` asks one without the documents.
"""

import re
from collections.abc import Iterator

from golongrl.data.construct.generate_models import PASS_THRESHOLDS
from golongrl.data.construct.generators.sample import MadeSample
from golongrl.tasks import score
from golongrl.tasks.text import CLOSE

# What a question lists: quoted words, or sentences with names.
_QUOTED = re.compile(r"`([^`\n]+)`|“([^”\n]+)”")
_NAMED = re.compile(r"^([SG]\d+): ", re.MULTILINE)
# The first so many sections of a text with numbers.
_FIRST = (2, 3, 5)


def guesses(question: str) -> Iterator[str]:
    """All of what the question lists, in its order, the reverse and by name; and the first sections of any text."""
    listed = _NAMED.findall(question) or [one or other for one, other in _QUOTED.findall(question)]
    if listed:
        for order in (listed, listed[::-1], sorted(listed)):
            yield "\n".join(order)
    for count in _FIRST:
        yield "\n".join(f"[{number}]" for number in range(1, count + 1))


def best_guess(sample: MadeSample) -> tuple[float, str]:
    """The guess that earns most by the strict rules, and what it earns. Choices of four and single numbers are not
    looked at: each constant answer is right for some of them, and the generators see to it that it is for few."""
    if sample.task in ("T2", "T4"):
        return 0.0, ""
    truth, extra = sample.ground_truth(), {"reward_mode": sample.reward_mode}
    earned = [
        (score(sample.data_source, f"{CLOSE}{guess}", truth, extra, "strict").score or 0.0, guess)
        for guess in guesses(sample.question)
    ]
    return max(earned)


def is_guessed(sample: MadeSample) -> bool:
    """Whether a guess would pass."""
    return best_guess(sample)[0] >= PASS_THRESHOLDS[sample.task]
