"""The folder of our own Ray session: short enough for Ray's sockets, locked while it is used, swept when it is not.

Invariant: Ray refuses a socket whose path is longer than a Unix address holds, so a session lies in no folder that is
too long for that, whatever number its process has.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import structlog

log = structlog.get_logger()

# Short, so that it has room in the run's own temporary folder and in /var/tmp.
PREFIX = "glr-ray-"
_LOCK = "owner.lock"
# Bytes of a Unix address on Linux, without the zero at its end.
_ADDRESS_BYTES = 107
# What Ray makes below the folder that it is given, of a process with the largest number that Linux has.
_LONGEST_BELOW = f"/{PREFIX}12345678/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
# Bytes of the longest folder that a session can be in.
LONGEST_ROOT = _ADDRESS_BYTES - len(_LONGEST_BELOW)


def root() -> Path:
    """Where sessions are made: the temporary folder, or /tmp where that one is too long."""
    chosen = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return chosen if len(os.fsencode(chosen)) <= LONGEST_ROOT else Path("/tmp")


def new(root: Path) -> tuple[Path, int]:
    """A new folder, locked before another start can find it by its name; and the lock."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=root))
    lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return hidden.rename(root / hidden.name.removeprefix(".")), lock


def sweep(root: Path) -> None:
    """Remove the folders of this user's learners that were killed."""
    for folder in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.stat().st_uid != os.geteuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
                log.info("removed the Ray session of a learner that was killed", folder=str(folder))
            finally:
                os.close(lock)
