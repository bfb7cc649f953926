"""Scripts on one server: a pool of connections, bounded patience that says what it waits for, and durability.

The patience is the only retry there is (redis-py's own is off): scripts are idempotent, so a call whose reply was lost
is made again as it was. Durable calls are followed, on the same connection, by WAITAOF: it waits only for writes that
its own connection made, which is why every durable script writes something even when it repeats itself.
"""

import asyncio
import contextlib
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

import msgpack
import redis.asyncio as aioredis
import structlog
import tenacity
from redis import exceptions as rx
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from golongrl.errors import InputError
from golongrl.queue.errors import NotDurableError, QueueError, QueueUnavailableError
from golongrl.queue.scripts import Script, script

log = structlog.get_logger()

T = TypeVar("T")

# One try, connecting and waiting for the disk included: longer than any script or a reply of 100 MB takes; a server
# that has not answered by then is treated as gone.
TRY_S = 30.0
CONNECT_TIMEOUT_S = 5.0
# Keys looked at in one go: a millisecond of the server's time.
_SCANNED = 1000
# One disk flush; below TRY_S, so that the server answers first.
WAITAOF_MS = 10_000

# Answers of a server that will serve again: (start of the message, what is waited for).
_PASSING = (
    ("OOM ", "memory on the server (maxmemory reached)"),
    ("LOADING", "the server to load its data"),
    ("READONLY", "a writable primary (failover)"),
    ("MASTERDOWN", "a primary (failover)"),
    ("CLUSTERDOWN", "the cluster"),
    ("TRYAGAIN", "the cluster (slot migration)"),
    ("MISCONF", "the server's disk (it cannot persist)"),
    ("BUSY ", "a long script on the server"),
    ("UNBLOCKED", "a primary (failover)"),
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an operation may wait for a server that is down, loading, full or read-only."""

    total_s: float = 120.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0


class Durability(Enum):
    """How a reply is known to be on disk."""

    WAITAOF = "waitaof"
    ALWAYS = "appendfsync always"
    NONE = "none"


class _PassingError(Exception):
    """The call may succeed later; str() is what it waits for."""


def _passing_reason(error: Exception) -> str | None:
    """What to wait for after `error`; None when waiting cannot help."""
    if isinstance(error, rx.AuthenticationError | rx.AuthorizationError):
        return None
    if isinstance(error, rx.BusyLoadingError):
        return "the server to load its data"
    if isinstance(error, rx.ConnectionError | rx.TimeoutError | OSError):
        return "a connection to the server"
    text = str(error)
    if isinstance(error, rx.OutOfMemoryError) or "command not allowed when used memory" in text:
        return _PASSING[0][1]
    return (
        next((what for start, what in _PASSING if text.startswith(start)), None)
        if isinstance(error, rx.RedisError)
        else None
    )


class Connection:
    """Runs scripts for one run. Safe for concurrent use by many tasks."""

    def __init__(self, client: "aioredis.Redis", run: str, patience: Patience) -> None:
        self.client = client
        self.prefix = f"golongrl:{{{run}}}:"
        self.patience = patience
        self._durability: Durability | None = None
        self._address = _address(client)

    @classmethod
    def from_url(cls, url: str, run: str, patience: Patience) -> "Connection":
        """Connects at the first call. GOLONGRL_REDIS_PASSWORD is used where the URL has no password.

        Raises:
            InputError: the URL is none of a Redis; the message does not repeat it, as it may hold a password.
        """
        try:
            client = aioredis.Redis.from_url(
                url,
                password=os.environ.get("GOLONGRL_REDIS_PASSWORD"),
                # One deadline around a whole try (TRY_S) instead of redis-py's around each read and write.
                socket_timeout=None,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
            )
        except ValueError as error:
            raise InputError(f"--redis-url: {error}") from error
        return cls(client, run, patience)

    def key(self, name: str) -> str:
        """The full key of `name`; the braces keep a run in one cluster slot."""
        return self.prefix + name

    async def aclose(self) -> None:
        """Close every connection of the pool."""
        await self.client.aclose()

    async def run(
        self,
        name: str,
        args: Mapping[str, Any],
        *blobs: bytes,
        before: tuple[tuple[Any, ...], ...] = (),
        durable: bool = False,
    ) -> dict[str, Any]:
        """The script's answer. `before`: commands sent just ahead on the same connection; `durable`: on disk before
        this returns. Raises Unavailable, NotDurableError, QueueError."""
        wanted = script(name)
        packed = msgpack.packb(dict(args))

        async def attempt() -> dict[str, Any]:
            return await self._once(wanted, packed, blobs, before, durable)

        return await self._patiently(name, attempt)

    async def get_many(self, names: list[str]) -> list[bytes | None]:
        """The values of plain keys."""

        async def attempt() -> list[bytes | None]:
            (values,) = await self._round_trip([("MGET", *map(self.key, names))])
            if isinstance(values, Exception):
                raise values
            return list(values)

        return await self._patiently("read", attempt)

    async def delete_all(self, first: str) -> None:
        """Delete every key of the run, `first` before all others. Raises Unavailable, QueueError."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self.prefix) + "*"

        async def attempt() -> None:
            await self.client.unlink(self.key(first))
            async for key in self.client.scan_iter(match=pattern, count=_SCANNED):
                await self.client.unlink(key)

        await self._patiently("delete the run", attempt)

    async def _once(
        self,
        wanted: Script,
        packed: bytes,
        blobs: tuple[bytes, ...],
        before: tuple[tuple[Any, ...], ...],
        durable: bool,
    ) -> dict[str, Any]:
        durability = await self._probe() if durable else Durability.NONE
        commands = [*before, ("EVALSHA", wanted.sha, 1, self.key("state"), packed, *blobs)]
        if durability is Durability.WAITAOF:
            commands.append(("WAITAOF", 1, 0, WAITAOF_MS))
        replies = await self._round_trip(commands)
        if isinstance(replies[len(before)], rx.NoScriptError):
            await self.client.script_load(wanted.source)
            replies = await self._round_trip(commands)
        for reply in replies[: len(before) + 1]:
            if isinstance(reply, Exception):
                raise reply
        if durability is Durability.WAITAOF:
            self._check_flushed(replies[-1])
        result: dict[str, Any] = msgpack.unpackb(replies[len(before)], strict_map_key=False)
        return result

    async def _round_trip(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """All commands in one go on one connection, each with its answer or its error.

        On the connection itself: redis-py's pipeline, with its deadline around each of these reads and writes, takes
        as long again as the exchange.
        """
        pool: Any = self.client.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(connection.pack_commands(commands))
            return [await _answer(connection) for _ in commands]
        except BaseException:
            # Answers may still be on their way: nobody else must get them.
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)

    def _check_flushed(self, reply: Any) -> None:
        if isinstance(reply, rx.ResponseError):
            # The server changed under us (a failover to one without AOF): look again.
            self._durability = None
            raise _PassingError(f"WAITAOF ({reply})")
        if isinstance(reply, Exception):
            raise reply
        if reply[0] < 1:
            raise NotDurableError(
                f"Redis at {self._address} did not flush its append-only file within {WAITAOF_MS / 1000:g} s"
            )

    async def _patiently(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        def spoken(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            log.warning(
                "waiting", operation=name, waits_for=str(error), server=self._address, tries=state.attempt_number
            )

        async def translated() -> T:
            try:
                async with asyncio.timeout(TRY_S):
                    return await attempt()
            except (rx.RedisError, OSError) as error:
                reason = _passing_reason(error)
                if reason is None:
                    raise QueueError(f"{name} on Redis at {self._address}: {error}") from error
                raise _PassingError(f"{reason}: {error}") from error

        try:
            # Most calls succeed at once, and the machinery for trying again costs as much as a whole call.
            with contextlib.suppress(_PassingError):
                return await translated()
            retrying = tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(_PassingError),
                stop=tenacity.stop_after_delay(self.patience.total_s),
                wait=tenacity.wait_random_exponential(
                    multiplier=self.patience.first_pause_s, max=self.patience.longest_pause_s
                ),
                before_sleep=spoken,
                reraise=True,
            )
            return await retrying(translated)
        except _PassingError as error:
            raise QueueUnavailableError(
                f"{name}: Redis at {self._address} kept failing for {self.patience.total_s:g} s; waited for {error}"
            ) from error

    async def _probe(self) -> Durability:
        """How this server makes writes durable, asked once; says so clearly where it does not."""
        if self._durability is None:
            self._durability = await self._ask_durability()
            if self._durability is Durability.NONE:
                log.warning(
                    "queue is not crash-safe",
                    server=self._address,
                    detail="turn on appendonly, with Redis 7.2 or Valkey for WAITAOF, or appendfsync always: "
                    "after a crash of this server groups may be lost or trained twice",
                )
        return self._durability

    async def _ask_durability(self) -> Durability:
        if not int((await self.client.info("persistence")).get("aof_enabled", 0)):
            return Durability.NONE
        try:
            policy = (await self.client.config_get("appendfsync")).get("appendfsync")
        except rx.ResponseError:
            policy = None  # Managed servers hide CONFIG; WAITAOF is right under any policy.
        if policy in ("always", b"always"):
            return Durability.ALWAYS
        try:
            await self.client.waitaof(0, 0, 1)
        except rx.ResponseError:
            return Durability.NONE
        return Durability.WAITAOF


async def _answer(connection: "AbstractConnection") -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except rx.ResponseError as error:
        return error


def _address(client: "aioredis.Redis") -> str:
    kwargs = client.connection_pool.connection_kwargs
    return str(kwargs.get("path") or f"{kwargs.get('host')}:{kwargs.get('port')}")
