"""A worker's way to ask the sender for a transfer."""

import httpx
import pydantic

from golongrl.broadcast.protocol import TURN_S, Ask, Transfer

_CONNECT_S = 5.0


class SourceError(Exception):
    """The sender cannot send now: it is gone, holds another version, or is busy. The line says which, and where."""


async def ask(source: str, question: Ask) -> Transfer:
    """The transfer, in its turn; it has begun then: the sender waits for the engine in the group.

    Args:
        source: the sender's URL as announced, its secret included.

    Raises:
        SourceError: no transfer.
    """
    host = httpx.URL(source).netloc.decode()
    timeout = httpx.Timeout(TURN_S + _CONNECT_S, connect=_CONNECT_S)
    try:
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as http:
            response = await http.post(f"{source}/transfers", json=question.model_dump())
    except httpx.TransportError as error:
        raise SourceError(f"weight sender {host}: {type(error).__name__} {error}".rstrip()) from error
    if response.status_code != 200:
        raise SourceError(f"weight sender {host}: {response.status_code}: {detail(response)}")
    try:
        return Transfer.model_validate_json(response.content)
    except pydantic.ValidationError as error:
        raise SourceError(f"weight sender {host}: unreadable answer: {error.errors()[0]['msg']}") from error


def detail(response: httpx.Response) -> str:
    """What a sender that refused says."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text[:200]
