"""An OpenAI-compatible server in a thread of its own, which answers by a script: for tests that run a whole command.

`support.llm_endpoint` is its sibling for tests that are coroutines themselves.
"""

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.llm_endpoint import Said

Script = Callable[[dict[str, Any], int], Said]
"""From the request's body and how often an equal one was asked before, to what is said."""


@dataclass
class OpenAIServer:
    """The running server: its URL, the requests in their order, and the most that were in flight at once."""

    url: str
    script: Script
    models: list[dict[str, Any]]
    asked: list[dict[str, Any]] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)
    """Requests whose `Said.wait` is set are held until this is."""
    pages: dict[str, str] = field(default_factory=dict)
    """What is said at other paths; all else is 404."""
    most_in_flight: int = 0
    _in_flight: int = 0
    _seen: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def prompts(self) -> list[str]:
        """The last message of each request."""
        return [request["messages"][-1]["content"] for request in self.asked]

    def until(self, number: int, timeout_s: float = 240.0) -> None:
        """Wait for so many requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.asked) >= number, timeout_s), len(self.asked)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # With the default, each answer waits 40 ms for the acknowledgement of its head.
    disable_nagle_algorithm = True
    here: OpenAIServer

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            self._say(Said(body=json.dumps({"object": "list", "data": self.here.models})))
        elif self.path in self.here.pages:
            self._say(Said(body=self.here.pages[self.path]))
        else:
            self._say(Said(status=404))

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        here = self.here
        name = json.dumps(request, sort_keys=True)
        with here.changed:
            turn = here._seen[name]
            here._seen[name] += 1
            here.asked.append(request)
            here._in_flight += 1
            here.most_in_flight = max(here.most_in_flight, here._in_flight)
            here.changed.notify_all()
        try:
            said = here.script(request, turn)
            if said.held:
                here.hold.wait(600)
            self._say(said)
        finally:
            with here.changed:
                here._in_flight -= 1

    def _say(self, said: Said) -> None:
        payload = said.text().encode()
        with contextlib.suppress(ConnectionError):
            self.send_response_only(said.status)
            for name, value in {"Content-Length": str(len(payload)), **said.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload[: said.cut])
            self.close_connection = said.cut is not None

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that went away, killed by a test."""


@contextlib.contextmanager
def openai_server(
    script: Script, models: tuple[str, ...] = ("m",), context: int | None = None
) -> Iterator[OpenAIServer]:
    """Serve `script` until the block ends."""
    cards = [{"id": name, **({"max_model_len": context} if context else {})} for name in models]
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    here = OpenAIServer(f"http://127.0.0.1:{server.server_port}/v1", script, cards)
    handler.here = here  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield here
    finally:
        here.hold.set()
        server.shutdown()
        thread.join()
        server.server_close()
