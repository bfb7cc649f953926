"""Bounds on what one client of an HTTP server can hold: time, memory and open files.

uvicorn closes a connection that is idle after an answer, and h11 bounds the size of headers. The rest is here, as a
protocol class for uvicorn's `http`: a client that sends its request a byte at a time, never sends it, or does not read
the answer; headers without end, which httptools would keep; a thousand requests in a packet, which it would parse
before it looks at any other client; more connections than the process may have open files.

Invariants: a request that is being computed is never cut, however long it takes; a connection that was cut costs at
most one line of log.
"""

import asyncio
import resource
from typing import Any, ClassVar, Literal

import structlog

try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
except ImportError:
    HttpToolsProtocol = None  # type: ignore[assignment,misc]
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger()

# A client sends its headers at once; one that opens connections ahead of need must open them again.
HEAD_S = 30.0
# 32 MB, the longest body any server takes, at 100 KB a second.
BODY_S = 300.0
# A client that has read nothing of its answer for this long does not read it.
READ_S = 60.0
# All headers of a request, its URL, or one line of a chunked body.
HEAD_BYTES = 1 << 18
# Requests that wait on one connection for the answer to the one before. Hardly any client sends the next one early, and
# one packet holds thousands, which would all be parsed before another client's is looked at.
PIPELINED = 8
# What a header costs besides its bytes: a tuple and two objects.
_HEADER_BYTES = 128

Phase = Literal["head", "body"]


class ConnectionLimits:
    """Deadlines of one server, and its connections that have sent no whole headers, in the order of their age.

    At most `most` of them are kept: the oldest gives way. By default, half of the files that the process may open; the
    requests that are computed need the others.
    """

    def __init__(
        self, head_s: float = HEAD_S, body_s: float = BODY_S, read_s: float = READ_S, most: int | None = None
    ) -> None:
        self.head_s, self.body_s, self.read_s = head_s, body_s, read_s
        self.most = most or max(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self.waiting: dict[BoundedConnection, None] = {}


class BoundedConnection:
    """The part that holds for both of uvicorn's parsers."""

    limits: ClassVar[ConnectionLimits]
    # uvicorn's.
    transport: Any
    flow: Any
    cycle: Any
    loop: asyncio.AbstractEventLoop

    _timer: asyncio.TimerHandle | None = None
    _phase: tuple[Phase | None, Any] = (None, None)
    _unread: int | None = None
    _running: Any = None
    """Whose answer is computed: an older one than uvicorn's `cycle` where a client sends the next request early."""

    def connection_made(self, transport: Any) -> None:
        """Called by the transport, as the methods below."""
        super().connection_made(transport)  # type: ignore[misc]
        self._watch()
        waiting = self.limits.waiting
        if len(waiting) > self.limits.most:
            oldest = next(iter(waiting))
            del waiting[oldest]
            oldest.transport.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._stop()
        self._leave()
        super().connection_lost(error)  # type: ignore[misc]

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # type: ignore[misc]
        if not self.transport.is_closing():
            self._watch()

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        if self._unread is None:
            self._look()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()  # type: ignore[misc]
        # Closing waits until the client has read the rest.
        self.loop.call_later(self.limits.read_s, self.transport.abort)

    def send_400_response(self, msg: str) -> None:
        answered = any(
            cycle.response_started and (cycle.more_body or not cycle.response_complete) for cycle in self._cycles()
        )
        self._leave()
        if answered:
            self.transport.close()
        else:
            super().send_400_response(msg)  # type: ignore[misc]

    def _cycles(self) -> list[Any]:
        return [cycle for cycle in (self.cycle, self._running) if cycle is not None]

    def _leave(self) -> None:
        """What is computed can no longer be sent."""
        for cycle in self._cycles():
            if not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _watch(self) -> None:
        """Start the deadline of what the client has to send now, unless it runs already."""
        cycle = self.cycle
        answered = cycle is None or cycle.response_complete
        phase: Phase | None = "head" if answered else "body" if cycle.more_body else None
        if (phase, cycle) == self._phase:
            return
        self._stop()
        self._phase = (phase, cycle)
        if phase is None:
            return
        if phase == "head":
            self.limits.waiting[self] = None
        limit = self.limits.head_s if phase == "head" else self.limits.body_s
        self._timer = self.loop.call_later(limit, self._late)

    def _stop(self) -> None:
        self.limits.waiting.pop(self, None)
        self._phase = (None, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        before = self._phase
        self._watch()
        if self._phase == before:  # else the answer came first
            if before[0] == "body":
                log.warning("a request's body did not arrive in time", seconds=self.limits.body_s)
            self.transport.abort()

    def _look(self) -> None:
        """End the connection where nothing was read since the last look."""
        if self.transport.is_closing() and self.transport.get_write_buffer_size() == 0:
            return
        if not self.flow.write_paused:
            self._unread = None
            return
        size = self.transport.get_write_buffer_size()
        if self._unread is not None and size >= self._unread:
            log.warning("a client does not read its answer", seconds=self.limits.read_s)
            self.transport.abort()
            return
        self._unread = size
        self.loop.call_later(self.limits.read_s, self._look)


class OverH11(BoundedConnection, H11Protocol):
    """h11 bounds headers, lines of chunks and trailers itself."""


if HttpToolsProtocol is not None:

    class OverHttptools(BoundedConnection, HttpToolsProtocol):
        """httptools bounds nothing: bytes are counted here, in what it has told of and in what it still holds."""

        _head = 0
        _held = 0
        _problem = ""

        def data_received(self, data: bytes) -> None:
            self._held += len(data)
            super().data_received(data)
            # Nothing was told of in more bytes than all headers may have: one header, or a chunk's line.
            if self._held > HEAD_BYTES + len(data) and not self.transport.is_closing():
                self.send_400_response(self._too_large())

        def on_message_begin(self) -> None:
            self._head = self._held = 0
            super().on_message_begin()

        def on_url(self, url: bytes) -> None:
            self._count(len(url))
            super().on_url(url)

        def on_header(self, name: bytes, value: bytes) -> None:
            self._count(len(name) + len(value) + _HEADER_BYTES)
            super().on_header(name, value)

        def _start_asgi_task(self, cycle: Any, app: Any) -> None:
            self._running = cycle
            super()._start_asgi_task(cycle, app)

        def on_headers_complete(self) -> None:
            if len(self.pipeline) >= PIPELINED:
                self._problem = f"At most {PIPELINED} requests may wait on a connection for an answer."
                raise ValueError(self._problem)
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._held = 0
            super().on_body(body)

        def on_chunk_header(self) -> None:
            self._held = 0

        def send_400_response(self, msg: str) -> None:
            super().send_400_response(self._problem or msg)

        def _count(self, size: int) -> None:
            self._held = 0
            self._head += size
            if self._head > HEAD_BYTES:
                raise ValueError(self._too_large())

        def _too_large(self) -> str:
            self._problem = f"The URL and headers of a request have at most {HEAD_BYTES} bytes."
            return self._problem


def protocol(limits: ConnectionLimits | None = None) -> Any:
    """The protocol class of one server, for uvicorn's `http`."""
    base = OverH11 if HttpToolsProtocol is None else OverHttptools
    return type("Bounded", (base,), {"limits": limits or ConnectionLimits()})
