"""A worker's way to ask the sender for a transfer."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pydantic

from golongrl.broadcast.protocol import TURN_S, Ask, Transfer
from golongrl.errors import GolongrlError

_CONNECT_S = 5.0


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
    timeout = httpx.Timeout(TURN_S + _CONNECT_S, connect=_CONNECT_S)
    async with httpx.AsyncClient(timeout=timeout, trust_env=False) as http:
        request = http.build_request("POST", f"{source}/transfers", json=question.model_dump())
        try:
            response = await http.send(request, stream=True)
        except httpx.TransportError as error:
            raise _unreachable(host, error) from error
        lines: Any = response.aiter_lines()  # a generator, which its type does not say; dropped, it would close
        async with aclosing(response), aclosing(lines):
            yield await _transfer(host, response, lines)


async def _transfer(host: str, response: httpx.Response, lines: AsyncIterator[str]) -> Transfer:
    try:
        if response.status_code != 200:
            await response.aread()
            raise SourceError(f"weight sender {host}: {response.status_code}: {detail(response)}")
        return Transfer.model_validate_json(await anext(lines, ""))
    except httpx.TransportError as error:
        raise _unreachable(host, error) from error
    except pydantic.ValidationError as error:
        raise SourceError(f"weight sender {host}: unreadable answer: {error.errors()[0]['msg']}") from error


def _unreachable(host: str, error: httpx.TransportError) -> SourceError:
    return SourceError(f"weight sender {host}: {type(error).__name__} {error}".rstrip())


def detail(response: httpx.Response) -> str:
    """What a sender that refused says."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
