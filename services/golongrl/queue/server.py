"""What a server must be, and be told, to hold a queue. Pure: over its INFO and CONFIG."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

# The oldest version of Redis that the tests run on.
OLDEST = (7, 0)


class Durability(Enum):
    """How a reply is known to be on disk."""

    WAITAOF = "waitaof"
    ALWAYS = "appendfsync always"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class QueueServerReport:
    """A server's fitness for a queue: `refusals` lose groups without a word, `warnings` may with a crash, or
    keep a run waiting.

    Each is one sentence with the line to set. `replicas`: those that confirm a durable write.
    """

    refusals: tuple[str, ...]
    warnings: tuple[str, ...]
    durability: Durability
    replicas: int = 0


@dataclass(frozen=True, slots=True)
class ServerState:
    """How a server is at this moment; `persisting`: it has an append-only file, and the last write to it succeeded."""

    memory_bytes: int
    max_memory_bytes: int
    persisting: bool

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> "ServerState":
        """From INFO."""
        persisting = bool(int(info.get("aof_enabled", 0))) and info.get("aof_last_write_status", "ok") == "ok"
        return cls(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0)), persisting)


def judge(
    info: Mapping[str, Any],
    config: Mapping[str, str],
    *,
    waitaof: bool,
    replicas: int | None = None,
    lacking: Sequence[str] = (),
) -> QueueServerReport:
    """`info` is INFO; `config` is CONFIG GET of appendfsync and min-replicas-to-write, empty where the server hides it;
    `waitaof`: the server has this command; `replicas`: as the URL says; `lacking`: commands of the scripts that it does
    not have."""
    refusals, warnings = [], []
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        refusals.append(f"it is Redis {version}; the queue needs Redis 7.0 or newer, or Valkey")
    if lacking:
        refusals.append(f"it has no command {', '.join(lacking)}: its `rename-command` must leave what the queue calls")
    policy, most = str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0))
    if policy != "noeviction":
        evicts = f"it evicts keys when its memory is full (maxmemory-policy {policy}), which loses groups of the run"
        if most:
            refusals.append(f"{evicts}: set `maxmemory-policy noeviction`")
        else:
            warnings.append(f"{evicts}, once maxmemory is set: set `maxmemory-policy noeviction`")
    aof = bool(int(info.get("aof_enabled", 0)))
    durability = Durability.NONE
    if aof and config.get("appendfsync") == "always":
        durability = Durability.ALWAYS
    elif aof and waitaof:
        durability = Durability.WAITAOF
    if durability is Durability.NONE:
        line = "with `appendfsync always`, or use Redis 7.2 or Valkey" if aof else "turn on `appendonly yes`"
        warnings.append(f"after a crash of this server groups may be lost or trained twice: {line}")
    wanted = int(config.get("min-replicas-to-write") or 0) if replicas is None else replicas
    if not wanted and int(info.get("connected_slaves", 0)):
        warnings.append(
            "it has replicas, but a fail-over may lose what they had not received yet: set "
            "`min-replicas-to-write 1`, or ?replicas=1 in the URL"
        )
    if reasons := ", ".join(_refusing_writes(info)):
        warnings.append(f"it may refuse writes at this moment: {reasons}")
    return QueueServerReport(tuple(refusals), tuple(warnings), durability, wanted)


def _refusing_writes(info: Mapping[str, Any]) -> Iterator[str]:
    """What makes a server answer MISCONF or OOM; a queue waits until it has passed."""
    most = int(info.get("maxmemory", 0))
    if 0 < most <= int(info.get("used_memory", 0)):
        yield "its maxmemory is used up"
    if info.get("aof_last_write_status", "ok") != "ok":
        yield "its last write to the append-only file failed"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        yield "its last snapshot failed"
