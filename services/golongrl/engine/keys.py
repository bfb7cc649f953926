"""The key that a request must bring, checked before anything of its body is read."""

import hmac
from collections.abc import Collection

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send


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
