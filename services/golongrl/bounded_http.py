"""Reading what a server answers, within bounds: httpx bounds each read of a socket, not an answer's length or time.

Every client reads through here, so that a server which never ends, sends a byte a second, or gigabytes (or kilobytes
that decompress to gigabytes) costs a known time and memory.
"""

import asyncio
import json
from typing import Any

import httpx

# An answer about a server itself: a list of models, its metrics, its settings.
_MOST_BYTES = 16 << 20
# These describe the body as it was sent.
_OF_THE_BODY = frozenset({"content-encoding", "content-length", "transfer-encoding"})


class AnswerTooLongError(httpx.RequestError):
    """The answer is longer than its reader takes, or has no end."""


async def read(response: httpx.Response, most: int) -> bytes:
    """The whole body of a streamed answer.

    Raises:
        AnswerTooLongError: it has more than `most` bytes, decompressed.
    """
    parts, size = [], 0
    async for part in response.aiter_bytes():
        size += len(part)
        if size > most:
            raise AnswerTooLongError(f"an answer of more than {most} bytes", request=response.request)
        parts.append(part)
    return b"".join(parts)


async def request(
    http: httpx.AsyncClient, method: str, url: str, deadline_s: float, *, most: int = _MOST_BYTES, **options: Any
) -> httpx.Response:
    """The whole answer.

    Args:
        deadline_s: of the call, connecting and reading included.
        options: of `httpx.AsyncClient.stream`.

    Raises:
        httpx.RequestError: there is none within the deadline, or it is too long.
        httpx.InvalidURL: there is no such address.
    """
    try:
        async with asyncio.timeout(deadline_s), http.stream(method, url, **options) as response:
            content = await read(response, most)
    except TimeoutError as error:
        raise httpx.ReadTimeout(f"no whole answer within {deadline_s:g} s") from error
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in _OF_THE_BODY]
    return httpx.Response(response.status_code, headers=headers, content=content, request=response.request)


async def get(http: httpx.AsyncClient, url: str, deadline_s: float) -> httpx.Response:
    """As `request`, of a GET."""
    return await request(http, "GET", url, deadline_s)


def parsed(answer: httpx.Response) -> Any:
    """The JSON of an answer; None where it is none, whatever it is instead."""
    try:
        return json.loads(answer.content)
    except (ValueError, RecursionError):
        return None


def asked_pause_s(answer: httpx.Response) -> float | None:
    """The seconds before another try that a server asks for; None where it names none, or a date."""
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdecimal() else None
