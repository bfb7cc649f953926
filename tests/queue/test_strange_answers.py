"""A server, or something between, that answers what no Redis with our scripts would: one error in one line."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgpack
import pytest

from golongrl.queue import QueueError, SampleQueue
from golongrl.queue.connection import Patience
from support.groups import group_for

from .conftest import Play


async def message(reader: asyncio.StreamReader) -> bytes:
    """One command or answer, as it travels."""
    line = await reader.readuntil(b"\r\n")
    kind, size = line[:1], line[1:-2]
    if kind == b"$":
        return line + (await reader.readexactly(int(size) + 2) if int(size) >= 0 else b"")
    parts = {b"*": 1, b"~": 1, b">": 1, b"%": 2}.get(kind, 0)
    return line + b"".join([await message(reader) for _ in range(parts * int(size))] if parts else [])


@asynccontextmanager
async def lying(redis_url: str, command: bytes, lie: bytes | Callable[[bytes], bytes]) -> AsyncIterator[str]:
    """The URL of a proxy that answers `command` with `lie` and ends the connection, and passes on all others. A
    function makes it of the true answer."""
    host, port = urlsplit(redis_url).hostname, urlsplit(redis_url).port

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, onward = await asyncio.open_connection(host, port)
        try:
            while True:
                asked = await message(reader)
                if command in asked[:40]:
                    onward.write(asked if callable(lie) else b"")
                    writer.write(lie(await message(behind)) if callable(lie) else lie)
                    await writer.drain()
                    return
                onward.write(asked)
                writer.write(await message(behind))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            onward.close()
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


def bulk(content: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(content), content)


LIES = {
    "nothing": b"",
    "nil": b"$-1\r\n",
    "a null": b"_\r\n",
    "a number": b":5\r\n",
    "a word": b"+OK\r\n",
    "a truth": b"#t\r\n",
    "a list": b"*2\r\n:1\r\n:2\r\n",
    "a map": b"%1\r\n+s\r\n+ok\r\n",
    "a push alone": b">2\r\n+invalidate\r\n*0\r\n",
    "a text": bulk(b"hello"),
    "no msgpack": bulk(b"\xc1"),
    "two values": bulk(b"\x01\x02"),
    "a packed number": bulk(msgpack.packb(5)),
    "a packed list": bulk(msgpack.packb([1])),
    "an empty map": bulk(msgpack.packb({})),
    "a status that is none": bulk(msgpack.packb({"s": 5})),
    "an unknown status": bulk(msgpack.packb({"s": "what"})),
    "a status alone": bulk(msgpack.packb({"s": "ok"})),
    "a lease without fields": bulk(msgpack.packb({"s": "lease", "lease": {}})),
    "a batch without groups": bulk(msgpack.packb({"s": "batch"})),
    "an error": b"-ERR something\r\n",
    "cut in mid reply": b"$500\r\nabc",
    "no protocol at all": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a length that is none": b"$abc\r\n",
}


async def is_refused(call: Callable[[], Awaitable[object]]) -> bool:
    """Whether the call fails, in one line."""
    try:
        await call()
    except QueueError as error:
        return "\n" not in str(error)
    return False


@pytest.mark.parametrize("lie", LIES)
async def test_a_strange_answer_is_one_line(play: Play, redis_url: str, lie: str) -> None:
    await play.start()
    lease = await play.lease()
    patience = Patience(total_s=0.05, first_pause_s=0.01, longest_pause_s=0.01)
    async with (
        lying(redis_url, b"EVALSHA", LIES[lie]) as url,
        SampleQueue.from_url(url, play.queue.run, patience=patience) as queue,
    ):
        refused = 0
        for call in (
            lambda: queue.lease("w", 0),
            lambda: queue.renew("w", {lease.token: 1}),
            lambda: queue.submit(lease, group_for(lease)),
            lambda: queue.release(lease, "shutdown"),
            lambda: queue.attach(0),
            lambda: queue.take(play.fence, 1),
            lambda: queue.stats(),
            lambda: queue.services(),
            lambda: queue.set_aside_groups(),
            lambda: queue.weights(),
            lambda: queue.peek("0-0"),
            lambda: queue.validation.progress(),
        ):
            refused += await is_refused(call)
        # Of a map with a status some calls read no more.
        assert refused >= (6 if "status" in lie or "without" in lie else 12)
    # The run has not noticed.
    assert (await play.queue.stats()).leased == 1


@pytest.mark.full
@pytest.mark.parametrize("command", ["INFO", "WAITAOF", "MGET", "SCAN"])
@pytest.mark.parametrize("lie", ["nil", "a number", "a text", "a list", "a map", "an error"])
async def test_a_strange_answer_to_another_command_is_one_line(
    play: Play, redis_url: str, command: str, lie: str
) -> None:
    await play.start()
    patience = Patience(total_s=0.05, first_pause_s=0.01, longest_pause_s=0.01)
    async with (
        lying(redis_url, command.encode(), LIES[lie]) as url,
        SampleQueue.from_url(url, play.queue.run, patience=patience) as queue,
    ):
        for call in (lambda: queue.attach(0), lambda: queue.peek("0-0"), queue.inspect_server, queue.forget):
            await is_refused(call)


@pytest.mark.parametrize("bits", [0x01, 0x80])
@pytest.mark.parametrize("name", ["lease", "take"])
async def test_a_changed_byte_of_an_answer_is_one_line(play: Play, redis_url: str, name: str, bits: int) -> None:
    """It could name another row or version, or call a sound group unfit."""
    await play.start(max_staleness=4)
    for lease in await play.leases(2):
        await play.submit(lease)
    assert await play.batch(1) == ["0-0", "0-1"]
    patience = Patience(total_s=0.05, first_pause_s=0.01, longest_pause_s=0.01)
    for offset in range(6, 220, 11):
        changed: list[bool] = []

        def change(answer: bytes, offset: int = offset, changed: list[bool] = changed) -> bytes:
            # The line end is no part of a value.
            changed.append(offset < len(answer) - 2 and b"NOSCRIPT" not in answer)
            return answer[:offset] + bytes([answer[offset] ^ bits]) + answer[offset + 1 :] if changed[-1] else answer

        async with (
            lying(redis_url, b"EVALSHA", change) as url,
            SampleQueue.from_url(url, play.queue.run, patience=patience, incarnation="same") as queue,
        ):
            calls = {
                "lease": lambda queue=queue: queue.lease("x", 0, request_id="one"),
                "take": lambda queue=queue: queue.take(play.fence, 1),
            }
            assert await is_refused(calls[name]) or not changed[0], f"byte {offset}"
    stats = await play.queue.stats()
    assert (stats.in_batches, stats.leased, stats.set_aside) == (2, name == "lease", 0)
