"""Difficulty bands: from how often two models answered right to easy, medium, hard or discard. Pure.

The paper's rule on 8 rollouts: a share above 3/4 of a small model is easy, from 1/2 to 3/4 medium; below 1/2 a large
model decides: above 3/4 medium, from 1/4 to 3/4 hard, below 1/4 discard. A bound belongs to the middle band.
"""

from fractions import Fraction
from typing import Final

ROLLOUTS: Final = 8
ASK_LARGE: Final = "undecided: ask the large model"

_EASY = Fraction(3, 4)
_SOLVED = Fraction(1, 2)
_DISCARD = Fraction(1, 4)


def band(
    passes_small: int,
    passes_large: int | None = None,
    *,
    unscored_small: int = 0,
    unscored_large: int = 0,
) -> str:
    """The band of a prompt: `easy`, `medium`, `hard` or `discard`.

    An unscored rollout is no failure: with any of the model that decides, the answer is `undecided: rerun the N`. Below
    one half of the small model and without the large one's rollouts it is `undecided: ask the large model`.

    Args:
        passes_small, passes_large: scored rollouts that passed; None where the large model was not asked.
        unscored_small, unscored_large: rollouts without a score.

    Raises:
        ValueError: more rollouts than the `ROLLOUTS` of a model.
    """
    _check(passes_small, unscored_small)
    if unscored_small:
        return f"undecided: rerun the {unscored_small}"
    small = Fraction(passes_small, ROLLOUTS)
    if small >= _SOLVED:
        return "easy" if small > _EASY else "medium"
    if passes_large is None:
        return ASK_LARGE
    _check(passes_large, unscored_large)
    if unscored_large:
        return f"undecided: rerun the {unscored_large}"
    large = Fraction(passes_large, ROLLOUTS)
    if large > _EASY:
        return "medium"
    return "hard" if large >= _DISCARD else "discard"


def _check(passes: int, unscored: int) -> None:
    if min(passes, unscored) < 0 or passes + unscored > ROLLOUTS:
        raise ValueError(f"{passes} passed and {unscored} unscored of {ROLLOUTS} rollouts")
