"""A typed client of the scoring service: deadlines everywhere, bounded retries, errors that say what to do.

Scoring is pure, so repeating a request is harmless; every attempt carries the same request id. Retried are a full
queue (429, after the time the service asks for), a service that is not ready (503, and a proxy's 502 and 504), a body
that came too slowly (408) and lost connections. A request that is wrong is never repeated.
"""

import asyncio
import json
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import httpx
import pydantic_core
import structlog
import tenacity
from pydantic import ValidationError

from golongrl import bounded_http
from golongrl.errors import GolongrlError, brief
from golongrl.recipe.fields import ScoringMode
from golongrl.reward.models import Health, Item, Problem, ScoreRequest, ScoreResponse, ScoreResult

log = structlog.get_logger()

_RETRIED = frozenset({408, 429, 502, 503, 504})
_BACKOFF_S = (0.1, 10.0)  # first and longest pause where the service names none
_LONGEST_ASKED_S = 60.0  # the service asks for no longer one; something between may ask for a day
# Results of the largest batch are a few hundred kilobytes.
_MOST_BYTES = 16 << 20
_SHOWN = 200
# Of the service's own words, which go into messages and the queue.
_LONGEST_DETAIL = 1000
_CONNECT_S = 5.0  # a service in the cluster answers in milliseconds or not at all


class RewardError(GolongrlError):
    """Scoring failed; the message names the URL and what to do."""


class RewardRejectedError(RewardError):
    """The service refused the request (4xx): repeating it would not help."""

    def __init__(self, message: str, status: int, problem: Problem) -> None:
        super().__init__(message)
        self.status, self.problem = status, problem


class RewardUnavailableError(RewardError):
    """The service could not be reached, or stayed full or unready, for the whole time allowed."""


class _RetryableError(Exception):
    """One attempt failed in a way the next may not."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class RewardClient:
    """`async with RewardClient(url) as client: await client.score(items, "strict")`.

    `timeout_s` bounds a whole `score` call, retries included; `attempts` bounds how often it is tried. One client may
    be used by many tasks at once. `transport` replaces the network (an ASGI app in process).
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_s: float = 300.0,
        attempts: int = 8,
        transport: httpx.AsyncBaseTransport | None = None,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if timeout_s <= 0 or attempts < 1:
            raise ValueError(f"timeout_s must be above 0 and attempts at least 1, got {timeout_s} and {attempts}")
        self.url = url.rstrip("/")
        self.waits = ""
        """What the service waited for when it was last asked whether it answers (`telemetry.waits.dumps`)."""
        self.proven = False
        """Whether it has answered with scores: what it answers otherwise is then an accident, not another version."""
        self._timeout_s, self._attempts, self._jitter = timeout_s, attempts, jitter
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        # The call as a whole has a deadline (`timeout_s`); only connecting needs one of its own.
        timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32)
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=timeout,
            limits=limits,
            transport=transport,
            trust_env=False,  # a service of the run is never behind a proxy
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def score(
        self,
        items: Sequence[Item],
        mode: ScoringMode,
        deadline_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> list[ScoreResult]:
        """Results in the order of `items`; an item the service could not score comes back `unscored`.

        `headers` go along with the request. `deadline_s` bounds the computing of one item.

        Raises RewardRejectedError, RewardUnavailableError, RewardError.
        """
        if not items:
            return []
        request = ScoreRequest(mode=mode, items=list(items), deadline_s=deadline_s)
        body = encode(request)
        sent = {**(headers or {}), "X-Request-Id": uuid.uuid4().hex}
        failures: list[str] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                results = await self._with_retries(body, sent, failures)
        except TimeoutError as error:
            raise RewardUnavailableError(
                f"reward service {self.url}: {len(items)} items not scored within {self._timeout_s:g} s"
                f"{f' (attempt {len(failures)} failed: {failures[-1]})' if failures else ''}; "
                "add workers or replicas, or raise the client's timeout"
            ) from error
        if [result.id for result in results] != [item.id for item in items]:
            raise RewardError(
                f"reward service {self.url}: its answer is for items that were not sent; check that it is a reward "
                "service of this version"
            )
        self.proven = True
        return results

    async def ready(self) -> bool:
        """Whether the service has warm workers right now; False also where it cannot be reached."""
        try:
            return (await bounded_http.get(self._http, f"{self.url}/readyz", _CONNECT_S)).status_code == 200
        except httpx.RequestError:
            return False

    async def answers(self) -> bool:
        """Whether the service answers at all, be it that it is not ready; `waits` is then what it waits for itself."""
        try:
            answer = await bounded_http.get(self._http, f"{self.url}/healthz", _CONNECT_S)
        except httpx.RequestError:
            return False
        try:
            self.waits = Health.model_validate_json(answer.content).waits
        except ValidationError:
            self.waits = ""
        return True

    async def _with_retries(self, body: bytes, headers: Mapping[str, str], failures: list[str]) -> list[ScoreResult]:
        try:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(_RetryableError),
                stop=tenacity.stop_after_attempt(self._attempts),
                wait=self._pause,
                before_sleep=self._say,
                reraise=True,
            ):
                with attempt:
                    try:
                        return await self._attempt(body, headers)
                    except _RetryableError as error:
                        failures.append(str(error))
                        raise
        except _RetryableError as error:
            raise RewardUnavailableError(
                f"reward service {self.url}: gave up after {self._attempts} attempts, the last one: {error}; "
                f"see whether {self.url}/readyz answers and whether it has enough workers"
            ) from error
        raise AssertionError("tenacity either returns or raises")

    async def _attempt(self, body: bytes, headers: Mapping[str, str]) -> list[ScoreResult]:
        try:
            response = await bounded_http.request(
                self._http,
                "POST",
                f"{self.url}/v1/score",
                self._timeout_s,
                most=_MOST_BYTES,
                content=body,
                headers=dict(headers),
            )
        except httpx.RequestError as error:  # no connection, a cut one, an answer that cannot be decompressed
            raise _RetryableError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
        if response.status_code in _RETRIED:
            raise _RetryableError(
                f"HTTP {response.status_code}: {_problem(response).detail}", bounded_http.asked_pause_s(response)
            )
        if response.status_code != 200:
            problem = _problem(response)
            raise RewardRejectedError(
                f"reward service {self.url} refused the request with HTTP {response.status_code}: {problem.detail}",
                response.status_code,
                problem,
            )
        return self._read(response)

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, _RetryableError) else None
        return pause_s(state.attempt_number, asked, self._jitter)

    def _say(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.warning("scoring is retried", url=self.url, attempt=state.attempt_number, why=str(error))

    def _read(self, response: httpx.Response) -> list[ScoreResult]:
        try:
            return ScoreResponse.model_validate_json(response.content).results
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            # A proxy ended it as if it were whole, or answered with its own page.
            if first["type"] == "json_invalid":
                raise _RetryableError(f"the answer is cut, or no JSON at all: {first['msg']}") from error
            where = ".".join(map(str, first["loc"])) or "the answer"
            raise RewardError(
                f"reward service {self.url}: its answer is not a scoring result ({where}: {first['msg']}); "
                "check that it is a reward service of this version"
            ) from error


def encode(request: ScoreRequest) -> bytes:
    """The request as JSON in UTF-8; text that UTF-8 cannot carry (lone surrogates) goes as ASCII escapes, slower."""
    raw = request.model_dump()
    try:
        return pydantic_core.to_json(raw, inf_nan_mode="constants")  # NaN: refused by the service, not made null here
    except pydantic_core.PydanticSerializationError:
        return json.dumps(raw).encode("ascii")


def pause_s(attempt: int, asked_s: float | None, jitter: Callable[[float, float], float]) -> float:
    """Seconds before the next attempt: what the service asked for, within bounds, else exponential; spread either
    way."""
    first, longest = _BACKOFF_S
    if asked_s is not None:
        asked_s = min(asked_s, _LONGEST_ASKED_S)
        return asked_s + jitter(0.0, min(1.0, 0.5 * asked_s))  # so that refused clients do not come back together
    ceiling = min(longest, first * 2 ** min(attempt, 20))
    return jitter(ceiling / 2, ceiling)


def _problem(response: httpx.Response) -> Problem:
    try:
        problem = Problem.model_validate_json(response.content)
        return problem.model_copy(update={"detail": brief(problem.detail, _LONGEST_DETAIL)})
    except ValidationError:  # a proxy's page, not the service's own answer
        said = brief(response.content[: 4 * _SHOWN].decode(errors="replace"), _SHOWN)
        where = response.headers.get("location")
        said = f"redirects to {brief(where, _SHOWN)}; give that address" if response.is_redirect and where else said
        return Problem(detail=said or response.reason_phrase)
