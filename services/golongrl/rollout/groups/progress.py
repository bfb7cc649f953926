"""The groups an engine is working on, and how fast it works: bookkeeping without clock or client.

Progress is counted in tokens that really exist, so a lease renewed by it cannot outlive a hung engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from golongrl.rollout.backoff import Pause
from golongrl.rollout.weights.policy import InFlight, Speed
from golongrl.telemetry.waits import Entry

# Weight of the newest observation in running means: about the last twenty responses count.
_NEWEST = 0.1

Phase = Literal["generating", "scoring"]


def running_mean(mean: float | None, value: float) -> float:
    """The exponentially weighted mean after one more value."""
    return value if mean is None else mean + _NEWEST * (value - mean)


@dataclass
class Pace:
    """What the engine has been seen to do."""

    decode: float | None = None
    prefill: float | None = None
    response_tokens: float | None = None
    version_s: float | None = None
    """Seconds between announcements of new weights."""

    def saw_response(self, tokens: int, decode_s: float) -> None:
        """A response of `tokens` ended `decode_s` after its first token."""
        self.response_tokens = running_mean(self.response_tokens, tokens)
        if tokens > 1 and decode_s > 0:
            self.decode = running_mean(self.decode, (tokens - 1) / decode_s)

    def saw_prefill(self, tokens: int, seconds: float) -> None:
        """`tokens` of a prompt were computed in `seconds`."""
        if tokens > 0 and seconds > 0:
            self.prefill = running_mean(self.prefill, tokens / seconds)

    def saw_version(self, seconds: float) -> None:
        """New weights came `seconds` after the last ones."""
        self.version_s = running_mean(self.version_s, seconds)

    @property
    def speed(self) -> Speed:
        """As the adoption rule wants it."""
        return Speed(self.decode, self.prefill)


@dataclass
class LiveGroup:
    """One leased group: what its responses have come to."""

    uid: str
    token: str
    oldest_version: int
    prompt_tokens: int
    max_response_tokens: int
    tokens: list[int]
    """Tokens each response has now."""
    ended: list[bool]
    phase: Phase = "generating"
    lost: bool = False
    """The queue gave the row to somebody else: nothing may be said about it any more."""
    ending: bool = False
    """Its end is being reported to the queue: cancelling that would leave the lease until it expires."""
    given_up: bool = False
    """The work on it is being cancelled: once is enough."""
    give_back: str = field(default="stopped")
    """The reason under which the row is released if the work on it is cancelled."""
    held_up: Pause | None = None
    """What must be there before the finished row can be handed in."""
    scoring_since: float | None = None
    """When its answers were sent to the reward service (monotonic clock)."""
    wait: Entry | None = None
    """Its wait for the engine, which every token begins again."""
    sampled: int = 0
    """Tokens ever sampled, those of aborted attempts included, so that progress never falls."""

    @classmethod
    def begin(
        cls, *, uid: str, token: str, version: int, prompt_tokens: int, n: int, max_response_tokens: int
    ) -> "LiveGroup":
        """A group none of whose `n` responses has a token yet."""
        return cls(uid, token, version, prompt_tokens, max_response_tokens, [0] * n, [False] * n)

    def scores(self, now: float) -> None:
        """All responses have ended: from now on the reward service works on them."""
        self.phase, self.scoring_since = "scoring", now

    def advance(self, index: int, tokens: int) -> None:
        """Response `index` has `tokens` tokens now; a new attempt counts from 0 again."""
        if self.wait is not None and tokens > self.tokens[index]:
            self.wait.moved()
        self.sampled += max(0, tokens - self.tokens[index])
        self.tokens[index] = tokens

    @property
    def progress(self) -> int:
        """A number that grows exactly when work was done: tokens, ended responses, and reaching the reward service."""
        return self.sampled + sum(self.ended) + (self.phase == "scoring")

    def in_flight(self, expected_tokens: float | None) -> InFlight:
        """As the adoption rule sees it, if a response usually takes `expected_tokens`."""
        unfinished = [count for count, ended in zip(self.tokens, self.ended, strict=True) if not ended]
        return InFlight(
            uid=self.uid,
            oldest_version=self.oldest_version,
            prompt_tokens=self.prompt_tokens if unfinished else 0,
            generated_tokens=sum(unfinished),
            remaining_tokens=_remaining(unfinished, expected_tokens, self.max_response_tokens),
        )


def _remaining(unfinished: Sequence[int], expected: float | None, longest: int) -> int:
    """Tokens the slowest unfinished response still takes: up to the usual length, or beyond it up to the longest."""
    usual = longest if expected is None else min(longest, round(expected))
    return max((usual - count if count < usual else longest - count for count in unfinished), default=0)
