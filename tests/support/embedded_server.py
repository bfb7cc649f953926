"""A Redis-compatible server as a child process, which tests kill and start again."""

import asyncio
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import redis.asyncio as aioredis
from redis.exceptions import RedisError

from golongrl.local.redis_command import Fsync, ServerFailedError, server_command

START_S = 20.0
STOP_S = 10.0


class EmbeddedServer:
    """Runs the server while the context lasts; `kill` and `start` inside it play a crash and a restart.

    Raises ServerFailedError when it does not answer within START_S.
    """

    def __init__(
        self,
        port: int,
        folder: Path,
        *,
        server: str | None = None,
        appendfsync: Fsync | None = "everysec",
        maxmemory: int = 0,
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self.folder = folder
        self.password = password
        self.process: subprocess.Popen[bytes] | None = None
        self._command = server_command(
            port,
            folder,
            server=server,
            appendfsync=appendfsync,
            maxmemory=maxmemory,
            password=password,
            settings=settings,
        )

    @property
    def url(self) -> str:
        """redis:// URL, with the password if there is one."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start and wait until it answers with its data loaded."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = await asyncio.to_thread(self._spawn)
        try:
            async with asyncio.timeout(START_S):
                await self._answers()
        except TimeoutError:
            await self.kill()
            raise ServerFailedError(
                f"server on port {self.port} did not answer in {START_S:g} s: {self._last_lines()}"
            ) from None

    async def stop(self) -> None:
        """SIGTERM, which flushes the append-only file; SIGKILL after STOP_S."""
        if self.process is not None:
            self.process.terminate()
            try:
                await asyncio.to_thread(self.process.wait, STOP_S)
            except subprocess.TimeoutExpired:
                await self.kill()
            self.process = None

    async def kill(self) -> None:
        """SIGKILL, as a node's failure would."""
        if self.process is not None:
            self.process.kill()
            await asyncio.to_thread(self.process.wait)
            self.process = None

    async def _answers(self) -> None:
        async with aioredis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            while True:
                if self.process is None or self.process.poll() is not None:
                    raise ServerFailedError(f"server on port {self.port} ended at once: {self._last_lines()}")
                try:
                    # PING of a loading server fails, and another program's port does not answer it.
                    await client.ping()
                    return
                except (RedisError, OSError):
                    await asyncio.sleep(0.02)

    def _spawn(self) -> subprocess.Popen[bytes]:
        with (self.folder / "server.log").open("ab") as output:
            return subprocess.Popen(self._command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)

    def _last_lines(self) -> str:
        lines = (self.folder / "server.log").read_text(errors="replace").splitlines()
        return " | ".join(lines[-3:])
