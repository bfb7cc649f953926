"""What a server takes of its clients' bodies: how long one may be, how dear to parse, and how much all may be together.

Every server that reads bodies has `BodyLimit`; what serves probes alone reads none. JSON is parsed on the event loop,
where /health waits for it, and the bytes of slow clients stay in memory until their bodies are whole.

Invariants: nothing is counted of a body that the application does not ask for; a request that ends, whatever way, gives
back what it counted.
"""

from dataclasses import dataclass

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# A body's first part is counted apart, so that a few long bodies do not keep the short ones out.
SHORT_BYTES = 1 << 20
# Ten million lists take seconds to parse.
MOST_LISTS = 1 << 20
# Parsing a million different keys takes more than a second; no request has thousands.
MOST_KEYS = 1 << 18
BUSY = "Too many requests with long bodies are under way; ask again later."


@dataclass
class JsonParts:
    """How many lists, objects and keys a JSON text has at most, by its characters: it is not parsed."""

    brackets: int = 0
    colons: int = 0
    quotes: int = 0

    def add(self, part: bytes) -> None:
        """Count the next part of the text."""
        self.brackets += part.count(b"[") + part.count(b"{")
        self.colons += part.count(b":")
        # The quote before a key is never behind a backslash; those of a text are.
        self.quotes += part.count(b'"') - part.count(b'\\"')

    def problem(self) -> str | None:
        """Why the text is not parsed; None where it may be."""
        if self.brackets > MOST_LISTS:
            return f"The body has more than {MOST_LISTS} lists and objects."
        if min(self.colons, self.quotes) > MOST_KEYS:
            return f"The body has more than {MOST_KEYS} keys."
        return None


class BodyLimit:
    """ASGI middleware that refuses a body once it is read too far, for the application to answer.

    A body of more than `most` bytes, its length announced or not, or of too many lists, objects or keys is refused with
    `too_long`; one that would make those of all requests more than `most_at_once` bytes with 503. The first
    `SHORT_BYTES` of a body count, in a sum of their own, until it has arrived; the others until its request has ended,
    because what was read from them takes several times as much memory.
    """

    def __init__(self, app: ASGIApp, most: int, most_at_once: int, too_long: int = 413) -> None:
        self._app = app
        self._most, self._most_at_once, self._too_long = most, most_at_once, too_long
        self._short = self._long = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"")
        # int() reads no thousands of digits.
        announced_too_long = announced.isdigit() and (len(announced) > 18 or int(announced) > self._most)
        seen = short = long = 0
        parts = JsonParts()

        async def bounded() -> Message:
            nonlocal seen, short, long
            if announced_too_long:
                self._refuse_long()
            message = await receive()
            body = message.get("body", b"")
            seen += len(body)
            parts.add(body)
            if seen > self._most:
                self._refuse_long()
            if problem := parts.problem():
                raise HTTPException(self._too_long, problem)
            more = message.get("more_body", False)
            now_short, now_long = (min(seen, SHORT_BYTES) if more else 0), max(0, seen - SHORT_BYTES)
            if self._over(self._short, now_short - short) or self._over(self._long, now_long - long):
                raise HTTPException(503, BUSY, {"Retry-After": "1"})
            self._short += now_short - short
            self._long += now_long - long
            short, long = now_short, now_long
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            self._short -= short
            self._long -= long

    def _over(self, held: int, more: int) -> bool:
        return more > 0 and held + more > self._most_at_once

    def _refuse_long(self) -> None:
        raise HTTPException(self._too_long, f"The body is longer than {self._most} bytes; send smaller requests.")
