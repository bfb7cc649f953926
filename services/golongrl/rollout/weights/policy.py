"""Whether and how an engine should take newly announced weights. Pure: no client, no clock.

The modes, cleanest first. All tokens of a group carry the version they were sampled from, whichever is chosen.

- drain: lease nothing, update once nothing is in flight. No response mixes versions; slots stand empty meanwhile.
- retract: pause, update, compute every live prompt and response again. Later tokens are exactly the new policy's; costs
  a prefill, which at 160K tokens is most of a response's price.
- in_place: pause, update, continue with the KV cache of the old weights. Costs nothing; later tokens are sampled by the
  new weights from keys and values of the old ones, so importance ratios do the correcting.
- abort: pause, end every response with what it has, update, sample the unfinished ones again.
- wait: nothing to take.

Invariants:
- an engine never goes to a lower version;
- with nothing in flight an update never waits;
- groups that could no longer be trained (their oldest token more than max_staleness versions behind) are never kept;
- nothing is leased while an update is due.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Policy = Literal["auto", "drain", "in_place", "retract", "abort"]


class Mode(StrEnum):
    """What to do about the announced weights."""

    DRAIN = "drain"
    IN_PLACE = "in_place"
    RETRACT = "retract"
    ABORT = "abort"
    WAIT = "wait"


@dataclass(frozen=True, order=True)
class AnnouncedWeights:
    """A version of the policy, and the lineage that tells a replayed version from the first one of its number."""

    version: int
    lineage: str


@dataclass(frozen=True)
class InFlight:
    """One group in the engine. Lengths in tokens; responses of a group share the prompt's prefill."""

    uid: str
    oldest_version: int
    prompt_tokens: int
    generated_tokens: int
    remaining_tokens: int
    """Tokens the longest of its unfinished responses is still expected to take."""


@dataclass(frozen=True)
class Speed:
    """What this engine has been seen to do; None until it has been."""

    decode_per_response: float | None = None
    """Tokens a second of one response."""
    prefill: float | None = None
    """Prompt tokens a second."""


@dataclass(frozen=True)
class Situation:
    """Everything the decision depends on."""

    engine: AnnouncedWeights | None
    """The weights the engine was last confirmed to hold; None when that is unknown (start, restart, failed update)."""
    announced: AnnouncedWeights | None
    max_staleness: int
    policy: Policy
    in_flight: Sequence[InFlight]
    speed: Speed
    deadline_s: float
    """Longest that taking the new weights may hold the engine back."""


@dataclass(frozen=True)
class AdoptionDecision:
    """The mode, whether leasing may continue, the groups to give up first, and the reason in words."""

    mode: Mode
    lease: bool
    reason: str
    doomed: tuple[str, ...] = ()


def decide(now: Situation) -> AdoptionDecision:
    """What to do about the announced weights."""
    if now.announced is None:
        return AdoptionDecision(Mode.WAIT, lease=False, reason="no weights have been announced")
    if now.engine is None:
        return AdoptionDecision(
            Mode.ABORT, lease=False, reason="the engine's weights are unknown", doomed=_uids(now.in_flight)
        )
    if now.engine == now.announced:
        return AdoptionDecision(Mode.WAIT, lease=True, reason="the engine holds the announced weights")
    if now.announced.version < now.engine.version:
        reason = f"announced version {now.announced.version} is below the engine's {now.engine.version}"
        return AdoptionDecision(Mode.WAIT, lease=False, reason=reason)
    doomed = _doomed(now.in_flight, now.announced, now.engine, now.max_staleness)
    kept = [group for group in now.in_flight if group.uid not in doomed]
    mode, reason = _mode(now, kept)
    return AdoptionDecision(mode, lease=False, reason=reason, doomed=doomed)


def _mode(now: Situation, kept: Sequence[InFlight]) -> tuple[Mode, str]:
    if not kept:
        return Mode.DRAIN, "nothing is in flight"
    if now.policy != "auto":
        return Mode(now.policy), "the recipe says so"
    drain_s = remaining_decode_s(kept, now.speed)
    if drain_s is not None and drain_s <= now.deadline_s:
        return Mode.DRAIN, f"what is in flight ends in {drain_s:.2g} s, within {now.deadline_s:.2g} s"
    prefill_s = re_prefill_s(kept, now.speed)
    if prefill_s is not None and prefill_s <= now.deadline_s:
        return Mode.RETRACT, f"computing the prompts again takes {prefill_s:.2g} s, within {now.deadline_s:.2g} s"
    return Mode.IN_PLACE, f"draining or computing the prompts again would take more than {now.deadline_s:.2g} s"


def remaining_decode_s(groups: Sequence[InFlight], speed: Speed) -> float | None:
    """Seconds until the last response in flight ends; None when the engine's speed is not known yet."""
    if not speed.decode_per_response:
        return None
    return max((group.remaining_tokens for group in groups), default=0) / speed.decode_per_response


def re_prefill_s(groups: Sequence[InFlight], speed: Speed) -> float | None:
    """Seconds to compute what is in flight again, each prompt once; None when the speed is not known yet."""
    if not speed.prefill:
        return None
    return sum(group.prompt_tokens + group.generated_tokens for group in groups) / speed.prefill


def _doomed(
    groups: Sequence[InFlight], announced: AnnouncedWeights, engine: AnnouncedWeights, max_staleness: int
) -> tuple[str, ...]:
    """Groups that cannot be trained any more.

    The batch of step `announced.version` is sealed, so whatever is in flight is trained from `announced.version` or a
    later one. Synchronous training (max_staleness 0) also wants the tokens of the very weights it replays.
    """
    if max_staleness == 0 and announced.lineage != engine.lineage:
        return _uids(groups)
    return _uids([group for group in groups if announced.version - group.oldest_version > max_staleness])


def _uids(groups: Sequence[InFlight]) -> tuple[str, ...]:
    return tuple(group.uid for group in groups)
