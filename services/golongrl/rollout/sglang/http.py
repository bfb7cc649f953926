"""The HTTP side of an engine's client: connection, keys and deadlines, and every failure as one of a few errors.

Invariants: every call has a deadline and every answer a bound on its size; an answer that is not what the API promises
is an error, never a success.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx

from golongrl import bounded_http
from golongrl.errors import brief
from golongrl.rollout.sglang.answers import error_message, parse_json
from golongrl.rollout.sglang.errors import (
    EngineBusyError,
    EngineError,
    EngineKeyError,
    EngineProtocolError,
    EngineRefusedError,
    EngineSilentError,
    EngineUnavailableError,
)

# A request whose connection was dropped lives on for a moment in the engine.
_DUPLICATE = "Duplicate request ID"
# An engine starved of processor time answers, but not in time, and each new call starts from scratch, so none
# would ever be answered. So a call may take up to this many times its deadline, after it was missed.
_MOST_LEEWAY = 8
# A call that was answered in this share of its time needs no leeway.
_QUICK = 0.25
# Longest answer of a call that does not generate: checksums of every tensor of a large model are a few megabytes.
MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Deadlines:
    """Seconds before a call counts as unanswered."""

    connect_s: float = 5.0
    control_s: float = 10.0
    # Pausing with abort waits until every request has been answered.
    pause_s: float = 60.0
    # Reading 60 GB of weights from a network disk takes minutes.
    update_s: float = 600.0
    # Longest silence of a stream; a 160K-token prefill in a busy engine comes before the first chunk.
    silence_s: float = 900.0


@dataclass
class Leeway:
    """How many times its deadline one kind of call may take: doubled by each silence, halved by each quick answer."""

    factor: int = 1

    def silent(self) -> None:
        """No answer in the time allowed."""
        self.factor = min(_MOST_LEEWAY, 2 * self.factor)

    def answered(self, share: float) -> None:
        """An answer, after `share` of the time allowed."""
        if share < _QUICK:
            self.factor = max(1, self.factor // 2)


class EngineHttp:
    """The connection to one engine. Use as an async context manager.

    Both keys are needed when the server has both: `api_key` guards the ordinary endpoints, and with an admin key the
    control endpoints take only that one.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        admin_api_key: str | None = None,
        deadlines: Deadlines | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self._deadlines = deadlines or Deadlines()
        self._headers = _bearer(api_key)
        self._admin_headers = _bearer(admin_api_key or api_key)
        self._leeway: defaultdict[str, Leeway] = defaultdict(Leeway)
        self._http = httpx.AsyncClient(
            base_url=url,
            transport=transport,
            trust_env=False,  # the engine runs in the same pod, never behind a proxy
            # One connection a running response; the engine's own queue is the limit.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def _control(self, path: str, body: Mapping[str, Any], deadline_s: float | None = None) -> None:
        await self._call("POST", path, headers=self._admin_headers, body=body, deadline_s=deadline_s)

    async def _confirmed(
        self, path: str, body: Mapping[str, Any], deadline_s: float | None = None
    ) -> Mapping[str, Any]:
        """A control call whose answer must say `success`."""
        answer = await self._told(path, body, deadline_s)
        if answer.get("success") is not True:
            raise EngineProtocolError(
                f"POST {path} at {self.url}: not confirmed: {brief(answer.get('message', answer))}"
            )
        return answer

    async def _told(self, path: str, body: Mapping[str, Any], deadline_s: float | None = None) -> Mapping[str, Any]:
        """A control call that is answered in JSON: 200 with anything else was another program's."""
        return await self._json("POST", path, headers=self._admin_headers, body=body, deadline_s=deadline_s)

    async def _json(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
    ) -> Mapping[str, Any]:
        answer = await self._call(method, path, headers=headers, body=body, deadline_s=deadline_s)
        return parse_json(answer, f"{method} {path} at {self.url}")

    async def _call(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        body: Mapping[str, Any] | None = None,
        deadline_s: float | None = None,
    ) -> bytes:
        """The body of a 200.

        Raises:
            EngineError: there was another answer, or none.
        """
        leeway = self._leeway[path]
        # Deadlines of minutes are long enough.
        limit = deadline_s or self._deadlines.control_s * leeway.factor
        begun = time.monotonic()
        try:
            # httpx bounds each read; the whole call is bounded here.
            async with asyncio.timeout(limit + self._deadlines.connect_s):
                timeout = httpx.Timeout(limit, connect=self._deadlines.connect_s)
                async with bounded_http.asked(
                    self._http, method, path, json=body, headers=headers, timeout=timeout
                ) as response:
                    content = await read_bounded(response, MOST_BYTES)
        except (httpx.RequestError, TimeoutError) as error:
            unanswered = unreachable(f"{method} {path} at {self.url}", error, limit)
            if isinstance(unanswered, EngineSilentError):
                leeway.silent()
            raise unanswered from error
        leeway.answered((time.monotonic() - begun) / limit)
        if response.status_code != 200:
            raise failure(f"{method} {path}", response.status_code, content.decode(errors="replace"))
        return content


async def read_bounded(response: httpx.Response, most: int) -> bytes:
    """The whole body. Raises EngineProtocolError where it is longer than `most` bytes, or has no end."""
    try:
        return await bounded_http.read(response, most)
    except bounded_http.AnswerTooLongError as error:
        raise EngineProtocolError(f"{response.request.url.path}: {error}") from error


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def unreachable(call: str, error: Exception, limit_s: float) -> EngineError:
    """The error of a call that brought no answer within `limit_s`."""
    if isinstance(error, httpx.DecodingError):
        return EngineProtocolError(f"{call}: the answer cannot be decompressed: {error}")
    # A connection that is not even accepted is a dead engine, not a slow one.
    if isinstance(error, TimeoutError | httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        return EngineSilentError(f"{call}: no answer within {limit_s:g} s")
    return EngineUnavailableError(f"{call}: {type(error).__name__}" + (f": {error}" if str(error) else ""))


def failure(call: str, status: int, text: str) -> EngineError:
    """The error of a call that was answered with `status`."""
    message = f"{call}: {status}: {error_message(text)}"
    if status == 503 or (status == 400 and _DUPLICATE in text):
        return EngineBusyError(message)
    if status in (401, 403):
        return EngineKeyError(f"{message} (set GOLONGRL_ENGINE_API_KEY and GOLONGRL_ENGINE_ADMIN_API_KEY)", status)
    return EngineRefusedError(message, status) if status < 500 else EngineUnavailableError(message)
