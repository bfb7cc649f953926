"""A store of replies on disk: what was asked and answered once is never asked again, by this run or another.

One SQLite file, so that a reply is durable when `put` returns and a kill at any instant leaves whole replies only; two
runs may share it. The first reply under a key stays.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from golongrl.errors import InputError, NoSpaceError, no_space, writing_to

# Another process writes for milliseconds; a network disk may be slow.
_BUSY_S = 60.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, stage TEXT NOT NULL, model TEXT NOT NULL, status TEXT NOT NULL, body TEXT NOT NULL,
    tokens INTEGER NOT NULL
) WITHOUT ROWID
"""

Status = Literal["answered", "refused"]


@dataclass(frozen=True, slots=True)
class StoredReply:
    """What came back under a key: the body of an answer, or why the endpoint refused the request."""

    status: Status
    body: str
    tokens: int


class ReplyStore:
    """Replies by key. May be used by several threads; use as a context manager, or `close` it."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InputError: the file cannot be made, or is no store of replies.
        """
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # SQLite's own mode is 0644 whatever the umask; its other files take the mode of this one.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            with self._readable():
                self._db.execute(_SCHEMA)
        except OSError:
            with writing_to(f"store of replies {path}", folder=path.parent):
                raise
        except sqlite3.Error as error:
            raise InputError(f"store of replies {path}: {error}") from error
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """
        Raises:
            NoSpaceError: the disk is full; what was answered before is kept.
            InputError: the file is damaged, or somebody else holds it for too long.
        """
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise NoSpaceError(no_space(self.path.parent)) from error
            raise InputError(
                f"store of replies {self.path}: {error}; if it is damaged, move it away, and the same is asked again"
            ) from error

    def get(self, key: str) -> StoredReply | None:
        """The reply under `key`, if there is one."""
        with self._lock, self._readable():
            row = self._db.execute("SELECT status, body, tokens FROM replies WHERE key = ?", (key,)).fetchone()
        return StoredReply(*row) if row else None

    def put(self, key: str, stage: str, model: str, reply: StoredReply) -> None:
        """Keep a reply; durable when this returns. One that is there already stays."""
        with self._lock, self._readable():
            self._db.execute(
                "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?)",
                (key, stage, model, reply.status, reply.body, reply.tokens),
            )

    def count(self, stage: str | None = None) -> tuple[int, int]:
        """How many replies there are, of a stage or of all, and their tokens."""
        where, given = ("WHERE stage = ?", (stage,)) if stage else ("", ())
        with self._lock, self._readable():
            calls, tokens = self._db.execute(f"SELECT count(*), sum(tokens) FROM replies {where}", given).fetchone()
        return calls, tokens or 0
