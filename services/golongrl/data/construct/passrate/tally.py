"""What the rollouts of a sample add up to. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from golongrl.data.construct.bands import ASK_LARGE, ROLLOUTS, band


@dataclass
class Tally:
    """The scored rewards of one model's rollouts, in the order in which they came, at most as many as are wanted."""

    rewards: list[float] = field(default_factory=list)

    def add(self, rewards: Iterable[float | None]) -> None:
        """Take what is missing from a group's rewards; an unscored one is passed over."""
        for reward in rewards:
            if reward is not None and len(self.rewards) < ROLLOUTS:
                self.rewards.append(reward)

    @property
    def missing(self) -> int:
        """Rollouts that still have to be scored."""
        return ROLLOUTS - len(self.rewards)

    def passes(self, threshold: float) -> int:
        return sum(reward >= threshold for reward in self.rewards)

    @property
    def mean(self) -> float | None:
        return fmean(self.rewards) if self.rewards else None


@dataclass(frozen=True, slots=True)
class Decision:
    """The band of a sample, or why it is left out; with the tally that decided."""

    band: str | None
    reason: str | None
    detail: str
    tally: Tally
    by_large: bool


def decide(small: Tally, large: Tally | None, threshold: float, keep: Sequence[str], *, dealt: bool = True) -> Decision:
    """Judge a sample. `large` is None where no large model was asked; `dealt` is false where a model could not be asked
    the prompt."""
    found = band(
        small.passes(threshold),
        None if large is None else large.passes(threshold),
        unscored_small=small.missing,
        unscored_large=0 if large is None else large.missing,
    )
    by_large = large is not None and not small.missing and band(small.passes(threshold)) == ASK_LARGE
    tally = large if by_large and large is not None else small
    passed = f"{tally.passes(threshold)} of {len(tally.rewards)} passed"
    if not dealt and tally.missing:
        detail = "the prompt is too long for the model's context_length, or repeats another one"
        return Decision(None, "not rolled out", detail, tally, by_large)
    if found == ASK_LARGE:
        return Decision(None, "not solved by the small model", passed, tally, by_large)
    if found.startswith("undecided"):
        return Decision(None, "unscored", f"{tally.missing} of {ROLLOUTS} rollouts have no reward", tally, by_large)
    if found == "discard":
        return Decision(None, "solved too rarely", passed, tally, by_large)
    if found not in keep:
        return Decision(None, f"band {found}", f"passrate.keep has {', '.join(keep)}", tally, by_large)
    return Decision(found, None, "", tally, by_large)


def needs_large(tallies: Mapping[str, Tally], thresholds: Mapping[str, float]) -> list[str]:
    """The samples that the small model leaves to the large one."""
    return [
        sample
        for sample, tally in tallies.items()
        if not tally.missing and band(tally.passes(thresholds[sample])) == ASK_LARGE
    ]
