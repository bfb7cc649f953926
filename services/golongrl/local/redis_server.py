"""The Redis of a run on this machine: its password, its command line, its probe, and what its last words mean.

The password is random, made once a run, and stands only in files that this user alone can read: the server reads it
from its configuration file, other processes get it by their environment.
"""

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError

from golongrl import files
from golongrl.errors import InputError
from golongrl.local.plan import HOST
from golongrl.local.redis_command import server_command
from golongrl.reading import read_text

# A probe that takes longer counts as no answer.
PROBE_TIMEOUT_S = 5.0

_PASSWORD = "password"
# What `token_urlsafe` makes; anything else could be more than one word of the server's configuration.
_PASSWORDS = re.compile("[A-Za-z0-9_-]{16,}")
_LONGEST = 1 << 10  # characters of one's file; a damaged one is made again
_CONFIGURATION = "server.conf"
# What the server says as it ends because a part of its append-only file cannot be read.
_DAMAGED = (
    "reading the append only file",
    "Bad file format",
    "AOF manifest",
    "AOF file",
    "AOF base",
    "rdb file reading error",
    "RDB reading",
    "Unrecoverable error",
    "Short read or OOM loading DB",
    "Wrong signature trying to load DB",
)
# A server that ended for one of these reasons has files that are whole.
_OTHER_REASONS = ("No space left on device", "Address already in use", "Out Of Memory")


def password_file(folder: Path) -> Path:
    """Where the run's password is kept; `folder` is the server's."""
    return folder / _PASSWORD


def password_of(folder: Path) -> str:
    """The run's password: the one it has, or a new one where there is none that was made here. The server is told it at
    every start, so it may change between two.

    Raises:
        OSError: the storage refused.
    """
    # Only the run that has the lock writes here; a staged file has the password in it.
    files.sweep_staged(folder, 0)
    with suppress(FileNotFoundError, InputError):
        kept = read_text(password_file(folder), _LONGEST).strip()
        if _PASSWORDS.fullmatch(kept):
            return kept
    password = secrets.token_urlsafe(24)
    files.write_private(password_file(folder), password + "\n")
    return password


def command(port: int, folder: Path, password: str) -> tuple[str, ...]:
    """The command line of the run's server, whose configuration file is written for it.

    Raises:
        OSError: the storage refused.
    """
    configuration = folder / _CONFIGURATION
    files.write_private(configuration, f"requirepass {password}\n")
    server, *arguments = server_command(port, folder)
    return (server, str(configuration), *arguments)


def damage(lines: Sequence[str], folder: Path) -> InputError | None:
    """What a person can do about the server's end, from the last lines of its log; None where it is nothing known."""
    text = "\n".join(lines)
    if any(reason in text for reason in _OTHER_REASONS) or not any(sign in text for sign in _DAMAGED):
        return None
    return InputError(
        f"redis: the append-only file in {folder} is damaged; remove that folder and use --resume again: "
        "training then continues from the last checkpoint"
    )


def probe_client(port: int, password: str | None) -> "aioredis.Redis":
    """A client of the run's own server that asks it once, as a probe has to."""
    return aioredis.Redis(
        host=HOST,
        port=port,
        password=password,
        socket_timeout=PROBE_TIMEOUT_S,
        socket_connect_timeout=PROBE_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    )


async def answers(client: "aioredis.Redis") -> bool:
    """Whether the server answers with its data loaded."""
    try:
        return bool(await client.ping())
    except (RedisError, OSError):
        return False


async def lives(client: "aioredis.Redis") -> bool:
    """Whether the server answers at all, be it with an error (loading, disk full)."""
    try:
        await client.ping()
    except (ResponseError, AuthenticationError, BusyLoadingError):  # the last two are connection errors to redis-py
        return True
    except (RedisError, OSError):
        return False
    return True
