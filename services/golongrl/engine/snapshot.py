"""A request as its caller sees it while it runs and when it has ended."""

from dataclasses import dataclass

from golongrl.engine.routes import RouteLog
from golongrl.engine.scheduler import Finish, TokenSpan


@dataclass(slots=True)
class Timeline:
    """When things happened to a request: `time.time()`, or None as long as they have not."""

    received: float
    admitted: float | None = None
    prefilled: float | None = None
    finished: float | None = None


@dataclass(frozen=True, slots=True)
class RequestSnapshot:
    """A request as it was at one moment; with `finish` set it is the last one."""

    rid: str
    prompt_tokens: int
    output: tuple[int, ...]
    logprobs: tuple[float, ...]
    spans: tuple[TokenSpan, ...]
    version: str
    finish: Finish | None
    retractions: int
    cached_tokens: int
    timeline: Timeline
    routes: RouteLog | None = None
    """Of a request that has ended and asked for them."""
