"""`ChatClient`: one call to an OpenAI chat endpoint, with everything that makes thousands of them end well.

Invariants:
- every attempt has a deadline, the number of attempts is bounded, and a wrong request is never repeated;
- a key comes from the environment alone and is in no message;
- what is answered with 200 and is no chat completion is a failed attempt, never an answer;
- each attempt reserves its cost in the budget before it is sent.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import httpx
import structlog
import tenacity
from pydantic import ValidationError

from golongrl import bounded_http
from golongrl.header_keys import environment_key
from golongrl.llm.budget import Budget
from golongrl.llm.concurrency import Gate
from golongrl.llm.errors import LlmError, LlmRefusedError, LlmUnavailableError, LlmUnusableError
from golongrl.llm.models import ChatReply, ChatRequest

log = structlog.get_logger(__name__)

KEY_VARIABLE = "GOLONGRL_LLM_API_KEY"
# The server has no room now.
_BUSY = frozenset({429, 503, 529})
# A fault of the server or of a proxy, which the next attempt may not meet.
_RETRIED = _BUSY | {408, 409, 500, 502, 504}
# About the request itself: too long, an unknown parameter. 451 and 403 of some providers stand for a content filter,
# but 403 is a wrong key far more often.
_ROW = frozenset({400, 413, 422, 451})
_CONNECT_S = 10.0
# First and longest pause between attempts; a server's Retry-After above the longest is cut to it.
_BACKOFF_S = (0.5, 60.0)
# A completion of 64K tokens is under a megabyte; with log-probs nobody asked for it may be a few.
_MOST_BYTES = 16 << 20
_SHOWN = 300


@dataclass(frozen=True)
class Endpoint:
    """Where a model is: `url` ends in /v1, as OpenAI clients write it."""

    url: str
    model: str
    concurrency: int = 16
    """Most calls in flight."""
    deadline_s: float = 900.0
    """Of one attempt: a long thought over a long document takes minutes."""
    attempts: int = 6
    busy_s: float = 0.0
    """As long as this, answers that the server is busy do not count as attempts: it will have room in the end."""
    key_variable: str = KEY_VARIABLE


class _AttemptFailedError(Exception):
    """One attempt failed in a way in which the next may not."""

    def __init__(self, why: str, retry_after_s: float | None = None, *, busy: bool = False, own: bool = False) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        self.busy = busy
        self.own = own
        """The request itself may be the cause."""


class _Stop:
    """When a call is given up: after so many attempts. A busy server counts only after `busy_s`."""

    def __init__(self, attempts: int, busy_s: float) -> None:
        self._left = attempts
        self._busy_s = busy_s

    def __call__(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        busy = isinstance(error, _AttemptFailedError) and error.busy
        if not busy or (state.seconds_since_start or 0.0) >= self._busy_s:
            self._left -= 1
        return self._left < 1


class _Connections:
    """One HTTP client for each call in flight: the pool of a single client looks at all of its connections before and
    after each request, which at 64 connections costs more than the request. The gate bounds how many there are.
    """

    def __init__(
        self, url: str, deadline_s: float, headers: dict[str, str], transport: httpx.AsyncBaseTransport | None
    ) -> None:
        self._make = partial(
            bounded_http.client,
            url,
            headers=headers,
            timeout=httpx.Timeout(deadline_s, connect=min(_CONNECT_S, deadline_s)),
            transport=transport,
            verify=bounded_http.certificates(url),
        )
        self._all: list[httpx.AsyncClient] = []
        self._idle: list[httpx.AsyncClient] = []

    @contextmanager
    def one(self) -> Iterator[httpx.AsyncClient]:
        """A client that nobody else uses meanwhile; the one used last, so that its connection is still open."""
        if not self._idle:
            self._idle.append(self._make())
            self._all.append(self._idle[-1])
        http = self._idle.pop()
        try:
            yield http
        finally:
            self._idle.append(http)

    async def aclose(self) -> None:
        """Close all connections."""
        for http in self._all:
            await http.aclose()


class ChatClient:
    """`async with ChatClient(endpoint) as client: await client.chat(request, cost)`.

    One client may be used by many tasks at once. `transport` replaces the network; `first_pause_s` is the first pause
    between attempts.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        budget: Budget | None = None,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        first_pause_s: float = _BACKOFF_S[0],
    ) -> None:
        self.endpoint = endpoint
        self.budget = budget or Budget()
        self.gate = Gate(endpoint.concurrency)
        self.trouble = ""
        """Why the last attempt failed; empty after one that was answered."""
        self._settled = asyncio.Condition()
        self._answered = 0
        self._url = f"{endpoint.url.rstrip('/')}/chat/completions"
        self._backoff = tenacity.wait_random_exponential(multiplier=first_pause_s, max=_BACKOFF_S[1])
        key = environment_key(endpoint.key_variable)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = _Connections(endpoint.url, endpoint.deadline_s, headers, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def chat(self, request: ChatRequest, cost: int) -> tuple[ChatReply, str]:
        """The answer, and its body as it came.

        Args:
            cost: tokens of prompt and completion that the call uses at most; reserved for every attempt.

        Raises:
            LlmRefusedError: the endpoint refuses this request.
            LlmUnavailableError: no attempt was answered.
            LlmUnusableError: the endpoint refuses everything.
            BudgetSpentError: the budget has no room for it.
        """
        failures: list[int] = []  # how many calls had been answered at each
        try:
            async for attempt in tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(_AttemptFailedError),
                stop=_Stop(self.endpoint.attempts, self.endpoint.busy_s),
                wait=self._pause,
                before_sleep=self._say,
                reraise=True,
            ):
                with attempt:
                    try:
                        return await self._reserved(request, cost)
                    finally:
                        failures.append(self._answered)
        except _AttemptFailedError as error:
            raise LlmUnavailableError(
                f"{self._who}: gave up after {self.endpoint.attempts} attempts, the last one: {error}; "
                "see whether it is up, lower `concurrency` or raise `deadline_s`, and start again: "
                "finished calls are kept",
                # A server that has answered others since the last attempt but one is there.
                of_the_request=error.own and len(failures) > 1 and failures[-1] > failures[-2],
            ) from error
        raise AssertionError("tenacity either returns or raises")

    @property
    def _who(self) -> str:
        return f"model {self.endpoint.model} at {self.endpoint.url}"

    async def _reserved(self, request: ChatRequest, cost: int) -> tuple[ChatReply, str]:
        async with self.gate.slot() as mark:
            async with self._settled:
                # Calls in flight may give back most of what they have reserved.
                await self._settled.wait_for(lambda: self.budget.fits(cost) or not self.budget.reserved)
                self.budget.reserve(cost)
            used = 0
            try:
                reply, body = await self._attempt(request, mark)
                used = cost if reply.tokens is None else reply.tokens
            finally:
                self.budget.settle(cost, used)
                async with self._settled:
                    self._settled.notify_all()
            return reply, body

    async def _attempt(self, request: ChatRequest, mark: int) -> tuple[ChatReply, str]:
        response, body = await self._exchange(request)
        if response.status_code in _BUSY:
            self.gate.limit.pushed_back(mark)
        if response.status_code != 200:
            raise self._failure(response, body)
        try:
            reply = ChatReply.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the body"
            message = f"the answer is not a chat completion ({where}: {first['msg']})"
            raise _AttemptFailedError(message, own=True) from error
        self.gate.limit.answered()
        self._answered += 1
        self.trouble = ""
        if reply.finish_reason == "abort":
            raise _AttemptFailedError("the server aborted the request")
        return reply, body

    async def _exchange(self, request: ChatRequest) -> tuple[httpx.Response, str]:
        """The response, and its body, which has been read."""
        try:
            # httpx bounds each read; the attempt as a whole is bounded here.
            async with asyncio.timeout(self.endpoint.deadline_s):
                with self._http.one() as http:
                    async with bounded_http.asked(
                        http, "POST", self._url, json=request.body(self.endpoint.model)
                    ) as response:
                        body = (await bounded_http.read(response, _MOST_BYTES)).decode("utf-8", "replace")
            return response, body
        except bounded_http.AnswerTooLongError as error:
            raise _AttemptFailedError(str(error), own=True) from error
        except TimeoutError as error:
            raise _AttemptFailedError(f"no answer within {self.endpoint.deadline_s:g} s", own=True) from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise LlmUnusableError(f"endpoint {self.endpoint.url}: {error}; give it as http://HOST:PORT/v1") from error
        except httpx.RequestError as error:
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            raise _AttemptFailedError(said + bounded_http.by_proxy(self._url)) from error

    def _failure(self, response: httpx.Response, body: str) -> LlmError | _AttemptFailedError:
        said = f"HTTP {response.status_code}: {' '.join(body.split())[:_SHOWN] or response.reason_phrase}"
        if response.status_code in _RETRIED:
            busy, own = response.status_code in _BUSY, response.status_code == 500
            return _AttemptFailedError(said, bounded_http.asked_pause_s(response), busy=busy, own=own)
        if response.status_code in _ROW:
            return LlmRefusedError(f"{self._who} refused the request: {said}", response.status_code)
        advice = {
            401: f"set {self.endpoint.key_variable}",
            403: f"check {self.endpoint.key_variable}",
            404: "check `url` (it ends in /v1) and `model`",
        }.get(response.status_code, "check `url`, which has to be an OpenAI endpoint ending in /v1")
        return LlmUnusableError(f"{self._who}: {said}; {advice}")

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.retry_after_s if isinstance(error, _AttemptFailedError) else None
        pause = self._backoff(state)
        return pause if asked is None else min(_BACKOFF_S[1], max(asked, pause))

    def _say(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        self.trouble = f"{self._who}: {error}"
        log.warning(
            "a call is retried",
            url=self.endpoint.url,
            attempt=state.attempt_number,
            why=str(error),
            at_once=self.gate.limit.room,
        )
