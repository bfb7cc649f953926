"""What one client of a server can hold is bounded: by both of uvicorn's parsers, over real sockets."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from golongrl.connections import HEAD_BYTES, PIPELINED, ConnectionLimits, OverH11, OverHttptools
from golongrl.serving import Server, bind, served

FULL = pytest.mark.full
BOTH = pytest.mark.parametrize("parser", [OverH11, OverHttptools])
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
READ = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd"
# Long enough that nothing waits for it where a test is about another limit.
NEVER = 3600.0
MB = 1 << 20


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Lower ones depend on the level that others set in this process."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


class App:
    """Its answers wait for `finish` where the path is /long; /read takes the whole body; /large is 16 MB."""

    def __init__(self) -> None:
        self.finish = asyncio.Event()
        self.begun = asyncio.Event()

    async def short(self, _: Request) -> Response:
        return PlainTextResponse("short")

    async def long(self, _: Request) -> Response:
        self.begun.set()
        await self.finish.wait()
        return PlainTextResponse("long")

    async def read(self, request: Request) -> Response:
        try:
            return PlainTextResponse(str(len(await request.body())))
        except ClientDisconnect:
            return Response(status_code=499)

    async def large(self, _: Request) -> Response:
        return Response(b"x" * (16 * MB))


@asynccontextmanager
async def serving(parser: Any, **limits: Any) -> AsyncIterator[tuple[App, ConnectionLimits, Connect]]:
    held = ConnectionLimits(**{"head_s": NEVER, "body_s": NEVER, "read_s": NEVER, **limits})
    app = App()
    routes = [Route("/", app.short), *(Route(f"/{name}", getattr(app, name), methods=["GET", "POST"])
              for name in ("long", "read", "large"))]  # fmt: skip
    server = Server(
        uvicorn.Config(
            Starlette(routes=routes), http=type("Own", (parser,), {"limits": held}), log_config=None, lifespan="off"
        )
    )
    writers = []
    with bind("127.0.0.1", 0) as listener:
        listener.listen(1024)
        task = asyncio.create_task(server.serve(sockets=[listener]))

        async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writers.append(writer)
            return reader, writer

        try:
            async with asyncio.timeout(60):
                yield app, held, connect
        finally:
            for writer in writers:
                writer.close()
            server.should_exit = True
            await task


async def asked(connect: Connect, request: bytes = GET) -> bytes:
    """The beginning of an answer on a connection of its own."""
    reader, writer = await connect()
    writer.write(request)
    return await first_of(reader)


async def first_of(reader: asyncio.StreamReader) -> bytes:
    """The beginning of what comes; nothing where the server ended the connection with our bytes unread."""
    try:
        return await reader.read(1000)
    except ConnectionResetError:
        return b""


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """All that comes before the server ends the connection, politely or not."""
    parts = []
    try:
        while part := await reader.read(MB):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@BOTH
@pytest.mark.parametrize(
    "sent",
    [pytest.param(b"", marks=FULL), pytest.param(b"GET / HT", marks=FULL), b"GET / HTTP/1.1\r\nHost: x\r\nX-A: b"],
)
async def test_a_request_without_whole_headers_has_a_deadline(parser: Any, sent: bytes) -> None:
    async with serving(parser, head_s=0.2) as (_, held, connect):
        reader, writer = await connect()
        writer.write(sent)
        await until_closed(reader)
        assert not held.waiting
        held.head_s = NEVER
        assert b"200 OK" in await asked(connect)


@BOTH
async def test_headers_byte_by_byte_do_not_push_the_deadline_back(parser: Any) -> None:
    async with serving(parser, head_s=0.5) as (_, _, connect):
        reader, writer = await connect()
        closed = asyncio.create_task(until_closed(reader))
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not closed.done():
            writer.write(b"a")
            await asyncio.wait({closed}, timeout=0.05)
        assert await closed == b""


@BOTH
@pytest.mark.parametrize(
    "head",
    [b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc",
     b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"],
)  # fmt: skip
async def test_a_body_that_does_not_come_has_a_deadline_and_is_one_line(parser: Any, head: bytes) -> None:
    with structlog.testing.capture_logs() as lines:
        async with serving(parser, body_s=0.2) as (_, _, connect):
            reader, writer = await connect()
            writer.write(head)
            await until_closed(reader)
            assert b"200 OK" in await asked(connect)
    assert [line["event"] for line in lines] == ["a request's body did not arrive in time"]


@BOTH
async def test_an_answer_that_is_computed_is_never_cut(parser: Any) -> None:
    async with serving(parser, head_s=0.5, body_s=0.5, read_s=0.5) as (app, held, connect):
        reader, writer = await connect()
        writer.write(b"POST /long HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        await app.begun.wait()
        other, _ = await connect()
        await until_closed(other)  # its deadline has passed, and so those of the first
        assert not held.waiting
        app.finish.set()
        assert (await reader.read(1000)).endswith(b"long")


@BOTH
async def test_a_connection_is_used_again(parser: Any) -> None:
    async with serving(parser) as (_, held, connect):
        reader, writer = await connect()
        for request, answer in [(GET, b"short"), (READ, b"4")] * 2:
            writer.write(request[:40])
            await writer.drain()
            writer.write(request[40:])
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(len(answer)) == answer
            assert not held.waiting


@BOTH
async def test_of_too_many_idle_connections_the_oldest_gives_way(parser: Any) -> None:
    async with serving(parser, most=20) as (app, held, connect):
        running, writer = await connect()
        writer.write(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
        await app.begun.wait()
        readers = [(await connect())[0] for _ in range(50)]
        for reader in readers[:30]:
            assert await until_closed(reader) == b""
        assert b"200 OK" in await asked(connect)
        assert len(held.waiting) <= 20
        app.finish.set()
        assert (await running.read(1000)).endswith(b"long")


@BOTH
async def test_a_client_that_does_not_read_is_left_and_a_slow_reader_is_not(parser: Any) -> None:
    with structlog.testing.capture_logs() as lines:
        async with serving(parser, read_s=1.0) as (_, _, connect):
            deaf, writer = await connect()
            writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
            slow, writer = await connect()
            writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            size = 0
            while part := await slow.read(MB):
                size += len(part)
                if size < 4 * MB:
                    await asyncio.sleep(0.02)
            assert size > 16 * MB
            while not lines:
                await asyncio.sleep(0.05)
            assert len(await until_closed(deaf)) < 16 * MB
    assert [line["event"] for line in lines] == ["a client does not read its answer"]


TOO_LARGE = {
    "header": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (2 * HEAD_BYTES) + b"\r\n\r\n",
    "headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
    "url": b"GET /" + b"a" * (2 * HEAD_BYTES) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "name": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a" * (2 * HEAD_BYTES) + b": y\r\n\r\n",
    "second": GET + b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (2 * HEAD_BYTES) + b"\r\n\r\n",
    "header without end": b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (4 * HEAD_BYTES),
    "url without end": b"GET /" + b"a" * (4 * HEAD_BYTES),
    "chunk without end": b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;"
    + b"a" * (4 * HEAD_BYTES),
    "trailers": b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    + b"X: y\r\n" * 10_000 + b"\r\n",
}  # fmt: skip


# By default, one of each way in which it is counted.
COUNTED = {"header", "headers", "url without end", "trailers"}


@BOTH
@pytest.mark.parametrize(
    "request_",
    [pytest.param(sent, id=name, marks=() if name in COUNTED else FULL) for name, sent in TOO_LARGE.items()],
)
async def test_headers_are_bounded(parser: Any, request_: bytes) -> None:
    async with serving(parser) as (_, _, connect):
        reader, writer = await connect()
        writer.write(request_)
        answer = await first_of(reader)
        # h11 counts in another way: ten thousand short headers are few enough.
        assert answer == b"" or b"400 Bad Request" in answer or b"200 OK" in answer
        assert parser is OverH11 or b"200 OK" not in answer or request_.startswith(GET)
        assert b"200 OK" in await asked(connect)


async def test_httptools_says_what_is_too_large() -> None:
    # Just above the limit, and read in one go: what is left unread would take the answer along.
    count = HEAD_BYTES // 128
    async with serving(OverHttptools) as (_, _, connect):
        answer = await asked(connect, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * count + b"\r\n")
    assert answer.endswith(f"The URL and headers of a request have at most {HEAD_BYTES} bytes.".encode())


@BOTH
async def test_requests_that_are_sent_early_are_answered_in_order_and_are_few(parser: Any) -> None:
    async with serving(parser) as (_, _, connect):
        reader, writer = await connect()
        writer.write(READ + GET * (PIPELINED - 1) + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answers = await until_closed(reader)
        assert answers.count(b"200 OK") == PIPELINED + 1
        assert answers.index(b"\r\n\r\n4") < answers.index(b"short")
        if parser is OverHttptools:
            answer = await asked(connect, GET * 5000)
            assert answer.endswith(f"At most {PIPELINED} requests may wait on a connection for an answer.".encode())
        assert b"200 OK" in await asked(connect)


async def test_who_left_is_noticed_behind_requests_that_were_sent_early() -> None:
    left = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["path"] == "/first"
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    with bind("127.0.0.1", 0) as listener:
        async with asyncio.timeout(60), served(app, listener):
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
            await writer.drain()
            writer.close()
            await left.wait()


@BOTH
@pytest.mark.parametrize("chunk", [b"a", b"a" * 999, pytest.param(b"a" * 70_000, marks=FULL)])
async def test_a_long_body_in_chunks_of_any_size_is_read_whole(parser: Any, chunk: bytes) -> None:
    # More bytes around the data than the headers may have.
    count = 30_000 if len(chunk) == 1 else 500
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for _ in range(count)) + b"0\r\n\r\n"
    async with serving(parser) as (_, _, connect):
        request = b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        assert (await asked(connect, request)).endswith(f"\r\n{count * len(chunk)}".encode())


@BOTH
async def test_nonsense_in_a_body_that_is_answered_already_ends_the_connection(
    parser: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(parser) as (_, _, connect):
        reader, writer = await connect()
        writer.write(b"POST /large HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.readexactly(MB)
        writer.write(b"zz\r\nabc")
        assert b"400" not in await until_closed(reader)
    assert warnings(caplog) == ["Invalid HTTP request received."]


@BOTH
@pytest.mark.parametrize("path", ["long", "read"])
async def test_nonsense_in_a_body_that_is_not_answered_yet_is_one_line(
    parser: Any, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(parser) as (app, _, connect):
        reader, writer = await connect()
        writer.write(f"POST /{path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        if path == "long":
            await app.begun.wait()
        writer.write(b"zz\r\nabc")
        assert b"400 Bad Request" in await until_closed(reader)
        app.finish.set()
        assert b"200 OK" in await asked(connect)
    assert warnings(caplog) == ["Invalid HTTP request received."]


async def test_every_server_has_these_bounds() -> None:
    with bind("127.0.0.1", 0) as listener:
        async with served(Starlette(routes=[Route("/", App().short)]), listener):
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(TOO_LARGE["headers"])
            assert b"400 Bad Request" in await first_of(reader)
            writer.close()
