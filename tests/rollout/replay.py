"""An engine that answers with what a real SGLang 0.5.23 answered: recordings replayed over httpx's mock transport."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from support.recordings import recorded

Handler = Callable[[httpx.Request], httpx.Response]


def recording(name: str) -> dict[str, Any]:
    """The response part of a recording: status, content_type, body."""
    response: dict[str, Any] = recorded(name)["response"]
    return response


def answer(name: str) -> httpx.Response:
    """A recorded response as an HTTP response."""
    response = recording(name)
    body = response["body"]
    content = body if isinstance(body, str) else json.dumps(body)
    headers = {"content-type": response.get("content_type") or "application/json"}
    return httpx.Response(response["status"], content=content.encode(), headers=headers)


class Replay:
    """Answers each path with its recordings in turn (the last one for ever), and remembers what was asked."""

    def __init__(self, **paths: list[str]) -> None:
        self._left = {path: list(names) for path, names in paths.items()}
        self.asked: list[tuple[str, Any]] = []
        self.keys: dict[str, str | None] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.strip("/")
        self.asked.append((path, json.loads(request.content) if request.content else None))
        self.keys[path] = request.headers.get("authorization")
        names = self._left[path]
        return answer(names.pop(0) if len(names) > 1 else names[0])

    @property
    def paths(self) -> list[str]:
        """The paths asked for, in order."""
        return [path for path, _ in self.asked]
