"""An OpenAI chat endpoint that answers by a script: a real server on 127.0.0.1, which also breaks off and stalls."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Said:
    """One answer: `content` becomes a chat completion unless `body` gives the whole body. `cut` ends the connection
    after so many bytes of the body; `wait` is awaited before anything is sent (`held`: `OpenAIServer.hold`, in its
    stead)."""

    content: str = ""
    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    tokens: int | None = 10
    cut: int | None = None
    wait: asyncio.Event | None = None
    held: bool = False

    def text(self) -> str:
        if self.body is not None:
            return self.body
        if self.status != 200:
            return json.dumps({"error": {"message": self.content or "scripted"}})
        reply: dict[str, Any] = {
            "choices": [
                {"message": {"role": "assistant", "content": self.content}, "finish_reason": self.finish_reason}
            ]
        }
        if self.tokens is not None:
            reply["usage"] = {"prompt_tokens": self.tokens - self.tokens // 2, "completion_tokens": self.tokens // 2}
        return json.dumps(reply)


Script = Callable[[dict[str, Any], int], Said]
"""From the request's body and how often an equal one was asked before, to what is said."""


@dataclass
class LlmEndpoint:
    """The running server: `url`, the requests in their order, the most that were in flight at once, and how many
    connections were opened."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    connections: int = 0


@contextlib.asynccontextmanager
async def llm_endpoint(script: Script) -> AsyncIterator[LlmEndpoint]:
    """Serve `script` until the block ends."""
    here = LlmEndpoint()
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        here.connections += 1
        try:
            while await _one(here, script, reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            open_writers.discard(writer)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    here.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield here
    finally:
        server.close()
        for writer in open_writers:
            writer.transport.abort()


@contextlib.contextmanager
def served(script: Script) -> Iterator[LlmEndpoint]:
    """The same on a thread of its own, for code that runs an event loop of its own."""
    ready, stop = threading.Event(), threading.Event()
    found: list[LlmEndpoint] = []

    async def run() -> None:
        async with llm_endpoint(script) as server:
            found.append(server)
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(run(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield found[0]
    finally:
        stop.set()
        thread.join()


async def _one(here: LlmEndpoint, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Answer one request; whether the connection stays."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
    )
    request = json.loads(await reader.readexactly(length))
    said = script(request, here.asked.count(request))
    here.asked.append(request)
    here.in_flight += 1
    here.most_in_flight = max(here.most_in_flight, here.in_flight)
    try:
        if said.wait is not None:
            await said.wait.wait()
        payload = said.text().encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(payload)), **said.headers}
        lines = [f"HTTP/1.1 {said.status} Said", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + payload[: said.cut])
        await writer.drain()
    finally:
        here.in_flight -= 1
    return said.cut is None
