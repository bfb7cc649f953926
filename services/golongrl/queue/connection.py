"""Scripts on one server: a pool of connections, bounded patience that says what it waits for, and durability.

The patience is the only retry there is (redis-py's own is off): scripts are idempotent, so a call whose reply was lost
is made again as it was, on a fresh connection, which may lead to another server. Durable calls are followed, on the
same connection, by WAITAOF and WAIT: they wait only for writes that their own connection made, which is why every
durable script writes something even when it repeats itself.
"""

import asyncio
import contextlib
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack
import structlog
import tenacity
from redis import exceptions as rx
from redis.asyncio.connection import AbstractConnection

from golongrl.errors import InputError, brief, has_half_character
from golongrl.queue.address import Address, address
from golongrl.queue.errors import (
    NotDurableError,
    QueueDamagedError,
    QueueError,
    QueueServerError,
    QueueUnavailableError,
)
from golongrl.queue.scripts import Script, commands, script
from golongrl.queue.server import Durability, QueueServerReport, ServerState, judge
from golongrl.queue.server_errors import (
    advice,
    is_of_the_data,
    needs_right,
    passing_reason,
    words,
)
from golongrl.telemetry.waits import Waits

log = structlog.get_logger()

T = TypeVar("T")

# One try, connecting and waiting for the disk included: longer than any script or a reply of 100 MB takes; a server
# that has not answered by then is treated as gone.
TRY_S = 30.0
# Characters of the checksum that a script's answer begins with: SHA-1 is the only one that Lua has there.
_CHECKSUM = 40
# One disk flush, and one replica's answer; together below TRY_S, so that the server answers first.
WAITAOF_MS = 10_000
WAIT_MS = 5_000
# Keys looked at in one SCAN call: about a millisecond of the server's time.
SCAN_COUNT = 1000
# While the server fails, one line tells of each reason in so many seconds: there may be a try in each.
SAY_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an operation may wait for a server that is down, loading, full or read-only."""

    total_s: float = 120.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 2.0


# What redis-py, msgpack and we raise as we read an answer of another type or form than any Redis gives.
_STRANGE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, msgpack.UnpackException)


def _strange(name: str, server: str, error: Exception) -> QueueError:
    text = brief(f"{type(error).__name__}: {error}")
    return QueueError(
        f"{name}: Redis at {server} answered what no Redis does ({text}): check the address, and that nothing between "
        "changes answers"
    )


class _Answer(dict[str, Any]):
    """A script's answer: a map with a status, which has the fields that its reader asks for."""

    def __init__(self, reply: bytes) -> None:
        """Raises ValueError or TypeError on what no script answers."""
        checksum, packed = reply[:_CHECKSUM], reply[_CHECKSUM:]
        if hashlib.sha1(packed, usedforsecurity=False).hexdigest().encode() != checksum:
            raise ValueError("a script's answer with another checksum than its own")
        unpacked = msgpack.unpackb(packed, strict_map_key=False)
        if not isinstance(unpacked, dict) or not isinstance(unpacked.get("s"), str):
            raise TypeError(f"a script's answer is a map with a status, not {type(unpacked).__name__}")
        super().__init__(unpacked)

    def __missing__(self, field: str) -> Any:
        raise QueueError(
            f"a script of the queue on Redis answered without {field!a}: something between changes answers"
        )


class _PassingError(Exception):
    """The call may succeed later; str() is what it waits for."""


class _NotFlushedError(_PassingError):
    """The server runs, but did not confirm that a write is on disk or with a replica."""


class Connection:
    """Runs scripts for one run. Safe for concurrent use by many tasks."""

    def __init__(self, server: Address, run: str, patience: Patience, waits: Waits | None = None) -> None:
        self.client = server.client
        self.run_name = run
        self.prefix = f"golongrl:{{{run}}}:"
        self.patience = patience
        self.waits = waits or Waits()
        self._server = server
        self._report: QueueServerReport | None = None
        self._warned: set[str] = set()
        self._spoken: dict[str, float] = {}

    @classmethod
    def from_url(cls, url: str, run: str, patience: Patience, waits: Waits | None = None) -> "Connection":
        """Connects at the first call; the forms of a URL are in `golongrl.queue.address`.

        Raises:
            InputError: it is not the URL of a Redis, or the run's name is not UTF-8.
        """
        if has_half_character(run):
            raise InputError(f"run {run!a}: its name has half a character (a lone surrogate)")
        return cls(address(url), run, patience, waits)

    @property
    def name(self) -> str:
        """The server, for messages."""
        return self._server.name

    def key(self, name: str) -> str:
        """The full key of `name`; the braces keep a run in one cluster slot."""
        return self.prefix + name

    async def aclose(self) -> None:
        """Close every connection of the pool."""
        # By itself it closes no pool that it was given.
        await self.client.aclose(close_connection_pool=True)

    async def run(
        self,
        name: str,
        args: Mapping[str, Any],
        *blobs: bytes,
        before: tuple[tuple[Any, ...], ...] = (),
        durable: bool = False,
    ) -> dict[str, Any]:
        """The script's answer. `before`: commands sent just ahead on the same connection; `durable`: on disk, and with
        the replicas that are to confirm it, before this returns. Raises QueueUnavailableError, NotDurableError,
        QueueError."""
        wanted = script(name)
        try:
            packed = msgpack.packb(dict(args))
        except (ValueError, OverflowError, TypeError) as error:
            raise QueueError(f"{name}: a name or number in it cannot be sent to Redis: {error}") from error

        async def attempt() -> dict[str, Any]:
            return await self._once(wanted, packed, blobs, before, durable)

        return await self._patiently(name, attempt)

    async def get_many(self, names: list[str]) -> list[bytes | None]:
        """The values of plain keys."""

        async def attempt() -> list[bytes | None]:
            (values,) = await self._round_trip([("MGET", *map(self.key, names))])
            if isinstance(values, Exception):
                raise values
            if len(values) != len(names) or not all(isinstance(value, bytes | None) for value in values):
                raise TypeError(f"{len(names)} keys have as many values, each bytes or nothing")
            return list(values)

        return await self._patiently("read", attempt)

    async def inspect(self) -> QueueServerReport:
        """What this server is, asked now. Raises QueueUnavailableError, QueueError."""
        return await self._patiently("inspect", self._inspect)

    async def state(self) -> ServerState:
        """How this server is, asked now. Raises QueueUnavailableError, QueueError."""

        async def attempt() -> ServerState:
            return ServerState.of(await self.client.info())

        return await self._patiently("info", attempt)

    async def check_rights(self) -> None:
        """Every command of the scripts is tried: some are not called before a run is hours old.

        Raises:
            QueueServerError: the user may not run one of them.
        """
        arguments = await self._patiently("rights", self._arguments)
        answer = await self.run("probe", {"commands": [pair for pair in arguments.items() if pair[1] is not None]})
        if denied := answer["denied"]:
            names = ", ".join(f"'{name.lower()}'" for name in denied)
            raise QueueServerError(
                f"Redis at {self.name}: its user has no permissions to run {names}; {needs_right(self.prefix)}"
            )

    async def scan(self, cursor: int) -> tuple[int, list[str]]:
        """Some of the run's keys, and the cursor of the next ones; 0 begins and ends."""

        async def attempt() -> tuple[int, list[str]]:
            pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self.prefix) + "*"
            found: Any = await self.client.scan(cursor, pattern, SCAN_COUNT)
            return int(found[0]), [_text(name) for name in found[1]]

        return await self._patiently("scan", attempt)

    async def _once(
        self,
        wanted: Script,
        packed: bytes,
        blobs: tuple[bytes, ...],
        before: tuple[tuple[Any, ...], ...],
        durable: bool,
    ) -> dict[str, Any]:
        commands = [*before, ("EVALSHA", wanted.sha, 1, self.key("state"), packed, *blobs)]
        confirmations = self._confirmations(await self._known()) if durable else []
        replies = await self._round_trip([*commands, *confirmations])
        if isinstance(replies[len(before)], rx.NoScriptError):
            await self.client.script_load(wanted.source)
            replies = await self._round_trip([*commands, *confirmations])
        for reply in replies[: len(commands)]:
            if isinstance(reply, Exception):
                raise reply
        for command, reply in zip(confirmations, replies[len(commands) :], strict=True):
            self._check_confirmed(command, reply)
        return _Answer(replies[len(before)])

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

    def _confirmations(self, report: QueueServerReport) -> list[tuple[Any, ...]]:
        flushed = [("WAITAOF", 1, 0, WAITAOF_MS)] if report.durability is Durability.WAITAOF else []
        copied = [("WAIT", report.replicas, WAIT_MS)] if report.replicas else []
        return [*flushed, *copied]

    def _check_confirmed(self, command: tuple[Any, ...], reply: Any) -> None:
        name, wanted, timeout_ms = command[0], command[1], command[-1]
        if isinstance(reply, rx.ResponseError):
            # The server changed under us, in a fail-over.
            raise _PassingError(f"{name} ({reply})")
        if isinstance(reply, Exception):
            raise reply
        if name == "WAITAOF" and reply[0] < 1:
            raise _NotFlushedError(f"its append-only file was not flushed within {timeout_ms / 1000:g} s")
        if name == "WAIT" and reply < wanted:
            raise _NotFlushedError(f"{reply} of {wanted} replicas confirmed a write within {timeout_ms / 1000:g} s")

    async def _patiently(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        def spoken(state: tenacity.RetryCallState) -> None:
            words = str(state.outcome.exception() if state.outcome else None)
            now = time.monotonic()
            self._spoken = {other: at for other, at in self._spoken.items() if now - at < SAY_EVERY_S}
            if words in self._spoken:
                return
            self._spoken[words] = now
            log.warning(
                "waiting for Redis", operation=name, waits_for=words, server=self.name, tries=state.attempt_number
            )

        try:
            # Most calls succeed at once, and the machinery for trying again costs as much as a whole call.
            with contextlib.suppress(_PassingError), self.waits.on("redis", f"{{on}} at {self.name} ({name})", TRY_S):
                return await self._try(name, attempt)
            retrying = tenacity.AsyncRetrying(
                retry=tenacity.retry_if_exception_type(_PassingError),
                stop=tenacity.stop_before_delay(self.patience.total_s),
                wait=tenacity.wait_random_exponential(
                    multiplier=self.patience.first_pause_s, max=self.patience.longest_pause_s
                ),
                before_sleep=spoken,
                reraise=True,
            )
            with self.waits.on("redis", f"{{on}} at {self.name} ({name})", self.patience.total_s):
                return await retrying(self._try, name, attempt)
        except _PassingError as error:
            kind = NotDurableError if isinstance(error, _NotFlushedError) else QueueUnavailableError
            raise kind(
                f"Redis at {self.name} kept failing for {self.patience.total_s:g} s; {name} waited for {error}"
            ) from error

    async def _try(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """One try. What may pass is a _PassingError, and the next try gets fresh connections and looks at the server
        again: it may be another one."""
        try:
            async with asyncio.timeout(TRY_S):
                return await attempt()
        except _PassingError:
            await self._start_afresh()
            raise
        except rx.MovedError as error:
            raise QueueError(
                f"{name} on Redis at {self.name}: the run's keys are on another node of a cluster, "
                f"{error.host}:{error.port}: "
                "give that node's address, or a server that is not a cluster"
            ) from error
        except rx.InvalidResponse as error:
            await self._start_afresh()
            raise _strange(name, self.name, error) from error
        except (rx.RedisError, OSError) as error:
            reason, text = passing_reason(error), self._server.hide(words(error))
            if reason is None and is_of_the_data(error):
                raise QueueDamagedError.unreadable(self.run_name, self.name, text) from error
            if reason is None:
                known = advice(error, self.prefix)
                said = text.removesuffix(".") if known else text
                raise QueueError(f"{name} on Redis at {self.name}: {said}{known}") from error
            await self._start_afresh()
            raise _PassingError(f"{reason}: {text}") from error
        except _STRANGE as error:
            await self._start_afresh()
            raise _strange(name, self.name, error) from error

    async def _start_afresh(self) -> None:
        self._report = None
        await self.client.connection_pool.disconnect(inuse_connections=False)

    async def _known(self) -> QueueServerReport:
        """How this server makes writes durable; asked once for each connection to it, and warned of."""
        if self._report is None:
            report = await self._inspect()
            if report.refusals:
                raise QueueServerError(f"Redis at {self.name} cannot hold a queue: " + "; ".join(report.refusals))
            self._report = report
            for warning in set(self._report.warnings) - self._warned:
                log.warning("queue is not crash-safe", server=self.name, detail=warning)
            self._warned |= set(self._report.warnings)
        return self._report

    async def _inspect(self) -> QueueServerReport:
        info = await self.client.info()
        if info.get("role") != "master":
            raise _PassingError(f"a writable primary (this one is a replica of {info.get('master_host')})")
        config: dict[str, str] = {}
        # Managed servers hide CONFIG; WAITAOF is right under any policy.
        with contextlib.suppress(rx.ResponseError):
            found = await self.client.config_get("appendfsync", "min-replicas-to-write")
            config = {_text(name): _text(value) for name, value in found.items()}
        try:
            await self.client.waitaof(0, 0, 1)
            waitaof = True
        except rx.ResponseError as error:
            if passing_reason(error) is not None:
                raise
            waitaof = False
        return judge(info, config, waitaof=waitaof, replicas=self._server.replicas, lacking=await self._lacking())

    async def _lacking(self) -> list[str]:
        """Commands of the scripts that the server does not have, as far as it tells."""
        return [name for name, arguments in (await self._arguments()).items() if arguments is None]

    async def _arguments(self) -> dict[str, int | None]:
        """How many arguments each command of the scripts takes at least; None where the server does not have it. Empty
        where it does not tell."""
        wanted = commands()
        try:
            (known,) = await self._round_trip([("COMMAND", "INFO", *wanted)])
        except rx.ResponseError:
            return {}
        if not isinstance(known, list) or len(known) != len(wanted):
            return {}
        # The second number counts the name, too, and is negative where there may be more.
        return {name: abs(found[1]) - 1 if found else None for name, found in zip(wanted, known, strict=True)}


def _text(value: str | bytes | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


async def _answer(connection: "AbstractConnection") -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except rx.ResponseError as error:
        return error
