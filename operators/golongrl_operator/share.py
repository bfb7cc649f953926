"""Which runs may train under a budget of GPUs, and how many GPUs each gets. Pure.

Invariants (tests/operators/test_share.py):
- together they never get more than the budget, and a run that trains gets between its least and its most;
- a run of higher priority is never refused for one of lower priority; among equals those that train continue, then the
  older ones come first;
- a smaller run of lower priority may use what a larger one cannot start with yet; one of the same priority may not
  begin before an older one that waits, because a row of small runs would keep a large one out without end;
- what is left is shared max-min fairly: a run gets more only if no other run with less could use it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuClaim:
    """What one run asks for."""

    name: str
    least: int
    """GPUs without which it cannot train: its learner and its fewest engines."""
    most: int
    step: int = 1
    """GPUs of one engine."""
    priority: int = 0
    training: bool = False


def fair_share(budget: int, claims: Sequence[GpuClaim], taken: int = 0) -> dict[str, int]:
    """GPUs for each run that may train; the others are missing.

    Args:
        claims: older runs first.
        taken: GPUs of the budget that are held by what is no run.
    """
    order = sorted(claims, key=lambda claim: (-claim.priority, not claim.training))
    left, given = budget - taken, dict[str, int]()
    age = {claim.name: number for number, claim in enumerate(claims)}
    for claim in order:
        older = (other for other in claims[: age[claim.name]] if other.priority == claim.priority)
        waits = any(other.name not in given and other.least <= budget for other in older)
        if claim.least <= left and (claim.training or not waits):
            given[claim.name] = claim.least
            left -= claim.least
    while growing := [
        claim
        for claim in order
        if claim.name in given and claim.step <= left and given[claim.name] + claim.step <= claim.most
    ]:
        poorest = min(growing, key=lambda claim: given[claim.name])
        given[poorest.name] += max(1, poorest.step)
        left -= max(1, poorest.step)
    return given


def begin(budget: int, claims: Sequence[GpuClaim], given: Collection[str], leaving: int) -> set[str]:
    """Of the runs with a share that do not train yet, those for which enough GPUs are free now.

    Args:
        claims: older runs first.
        given: runs with a share.
        leaving: GPUs of runs that lost theirs and have not ended yet; one may hang in its deletion.
    """
    left = budget - leaving - sum(claim.least for claim in claims if claim.name in given and claim.training)
    found = set[str]()
    for claim in sorted(claims, key=lambda claim: -claim.priority):
        if claim.name in given and not claim.training and claim.least <= left:
            found.add(claim.name)
            left -= claim.least
    return found
