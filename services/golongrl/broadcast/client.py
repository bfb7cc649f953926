"""A worker's way to ask the sender for a transfer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

import httpx
import pydantic

from golongrl import bounded_http
from golongrl.broadcast.protocol import TURN_S, Ask, Transfer
from golongrl.errors import GolongrlError, brief

# The sender is in the same cluster, and accepts at once or not at all.
_CONNECT_S = 5.0
# A transfer names every tensor of the model twice, with its shape: a few megabytes for the largest.
_MOST_BYTES = 32 << 20


class SourceError(GolongrlError):
    """The sender cannot send now: it is gone, holds another version, or is busy. The line says which, and where."""


@asynccontextmanager
async def asked(source: str, question: Ask) -> AsyncIterator[Transfer]:
    """The transfer, in its turn; it has started then: the sender waits for the engine in the group.

    The connection stays open inside the context; the sender gives the transfer up when it closes.

    Args:
        source: the sender's URL as announced, its secret included.

    Raises:
        SourceError: no transfer.
    """
    host = httpx.URL(source).netloc.decode()
    limit = TURN_S + _CONNECT_S
    timeout = httpx.Timeout(limit, connect=_CONNECT_S)
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=timeout, trust_env=False))
        try:
            # httpx bounds each read; the question as a whole is bounded here.
            async with asyncio.timeout(limit):
                response = await stack.enter_async_context(
                    bounded_http.asked(http, "POST", f"{source}/transfers", json=question.model_dump())
                )
                # A generator, which its type does not say; dropped, it would close.
                parts: Any = response.aiter_bytes()
                await stack.enter_async_context(aclosing(parts))
                transfer = await _transfer(host, response, parts)
        except TimeoutError as error:
            raise SourceError(f"weight sender {host}: no answer within {limit:g} s") from error
        except httpx.RequestError as error:
            raise SourceError(f"weight sender {host}: {type(error).__name__} {error}".rstrip()) from error
        yield transfer


async def _transfer(host: str, response: httpx.Response, parts: AsyncIterator[bytes]) -> Transfer:
    if response.status_code != 200:
        content = await bounded_http.read(response, _MOST_BYTES)
        raise SourceError(f"weight sender {host}: {response.status_code}: {detail(content)}")
    line = b""
    async for part in parts:
        line += part
        if b"\n" in part:
            break
        if len(line) > _MOST_BYTES:
            raise SourceError(f"weight sender {host}: an answer of more than {_MOST_BYTES} bytes")
    try:
        return Transfer.model_validate_json(line.partition(b"\n")[0])
    except pydantic.ValidationError as error:
        raise SourceError(f"weight sender {host}: unreadable answer: {error.errors()[0]['msg']}") from error


def detail(content: bytes) -> str:
    """What a sender that refused says, in one line."""
    try:
        said = str(json.loads(content)["detail"])
    except (ValueError, LookupError, TypeError, RecursionError):
        said = content.decode(errors="replace")
    return brief(said)
