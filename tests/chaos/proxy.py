"""A TCP proxy between a client and the server that can cut, stall and slow down its connections at any moment."""

import asyncio
import contextlib
from typing import Self


class Proxy:
    """Listens on a port of its own of 127.0.0.1 and forwards new connections to the port `target`, which may change.

    `cut` aborts every connection, replies in flight included; `stall` forwards nothing for a while, as a lossy network
    would; after `cut_after`, each connection ends when so many more bytes of replies have passed: in mid-reply.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._bytes_left: int | None = None

    @property
    def url(self) -> str:
        """The server as seen through this proxy."""
        assert self._server is not None
        return f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        self._open.set()
        self.cut()

    def cut(self) -> None:
        """Abort: no goodbye, nothing flushed."""
        for writer in list(self._writers):
            writer.transport.abort()

    def cut_after(self, bytes_: int) -> None:
        """Abort once so many more bytes of replies have passed."""
        self._bytes_left = bytes_

    async def stall(self, seconds: float) -> None:
        """Forward nothing, in either direction, for so long; nobody is told."""
        self._open.clear()
        await asyncio.sleep(seconds)
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, upstream}
        await asyncio.gather(self._pump(reader, upstream), self._pump(upstream_reader, writer, replies=True))
        self._writers -= {writer, upstream}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                await self._open.wait()
                if replies and self._bytes_left is not None:
                    data, self._bytes_left = data[: self._bytes_left], self._bytes_left - len(data)
                writer.write(data)
                await writer.drain()
                if replies and self._bytes_left is not None and self._bytes_left <= 0:
                    self._bytes_left = None
                    self.cut()
        writer.transport.abort()
