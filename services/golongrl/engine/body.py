"""What is checked before anything of a request's body is read or parsed: the key, and how much may be sent."""

import hmac
from collections.abc import Collection

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# So much of every body is not counted with the others: a few long ones must not keep the short ones out.
_SHORT_BYTES = 1 << 20
# Brackets of a body, those in its texts included: ten million lists take seconds to parse, and /health waits.
_MOST_LISTS = 1 << 20


class Keys:
    """Which key a path asks for: `control` the admin's (else the usual one), `open_to_all` none, any other the usual.

    ASGI middleware: without its key a request is answered with 401, and nothing of its body is read.
    """

    def __init__(
        self,
        app: ASGIApp,
        usual: str | None,
        admin: str | None,
        control: Collection[str],
        open_to_all: Collection[str],
    ) -> None:
        self._app = app
        self._usual, self._admin = usual, admin or usual
        self._control, self._open = frozenset(control), frozenset(open_to_all)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or self._passes(scope["path"], dict(scope["headers"]).get(b"authorization", b"")):
            await self._app(scope, receive, send)
        else:
            await JSONResponse({"error": "Unauthorized"}, 401)(scope, receive, send)

    def _passes(self, path: str, given: bytes) -> bool:
        key = None if path in self._open else self._admin if path in self._control else self._usual
        return key is None or hmac.compare_digest(given, f"Bearer {key}".encode())


class BodyLimit:
    """ASGI middleware: a body of more than `most` bytes, its length announced or not, or of too many lists and objects
    is answered with 400; one that would make the bodies of all requests more than `most_at_once` bytes, with 503. A
    body counts until its request has ended, because what was read from it takes several times as much memory."""

    def __init__(self, app: ASGIApp, most: int, most_at_once: int) -> None:
        self._app = app
        self._most, self._most_at_once = most, most_at_once
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = f"The body is longer than {self._most} bytes."
        announced = dict(scope["headers"]).get(b"content-length", b"")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self._most):
            await JSONResponse({"error": {"message": problem}}, 400)(scope, receive, send)
            return
        seen = counted = lists = 0

        async def bounded() -> Message:
            nonlocal seen, counted, lists
            message = await receive()
            body = message.get("body", b"")
            seen += len(body)
            lists += body.count(b"[") + body.count(b"{")
            if seen > self._most:
                raise HTTPException(400, problem)
            if lists > _MOST_LISTS:
                raise HTTPException(400, f"The body has more than {_MOST_LISTS} lists and objects.")
            now = max(0, seen - _SHORT_BYTES)
            if self._held + now - counted > self._most_at_once and now > counted:
                raise HTTPException(503, "Too many long requests are under way; ask again later.")
            self._held += now - counted
            counted = now
            return message

        try:
            await self._app(scope, bounded, send)
        finally:
            self._held -= counted
