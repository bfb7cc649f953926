"""The Ray that the ranks run on: the cluster of a RayJob (RAY_ADDRESS), or a node of our own with only what they need.

Our own node is a child process (`ray start --block`), so that it can start while verl, which takes as long, is being
imported, and so that its death is seen at once: `ray.init` itself would wait for a dead raylet in silence.

Invariants:
- the node ends with this process, however that ends (Linux: parent-death signal; it is that of the thread that starts
  the node, so the main one does), its agents about a minute later, and its folder is removed at the end;
- a folder left by a process that was killed is removed by the next start: an unlocked folder has no owner;
- only who has this process's token can use the node. Ray reads it when it is imported, so nothing here imports Ray
  before the token is set.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import structlog

from golongrl.errors import GolongrlError
from golongrl.ports import unused

log = structlog.get_logger()

# verl warns at import of every engine that is not installed.
QUIET = "ignore::UserWarning:verl.workers.engine"

# The shards of a step travel through it; a batch of the paper's size is 0.5 GB and belongs on a cluster.
_LOCAL_OBJECT_STORE_BYTES = 256 << 20

# A small, busy machine may not have read Ray's and verl's files from its disk after Ray's own half minute.
_START_S = 300.0
# Looking costs one look at a child's children.
_LOOK_S = 0.1
# Of a line of Ray's log, for a message.
_LONGEST_REASON = 300
# After SIGTERM a node drains first; there is nothing to drain.
_STOP_S = 10.0

_PREFIX = "golongrl-ray-"
_LOCK = "owner.lock"
# Written by `ray start` when the node is up.
_UP = "ray_current_cluster"
# Paths of Ray's sockets in a folder of this length still fit into the 107 bytes of a Unix address.
_LONGEST_TEMP = 28
# From <linux/prctl.h>.
_PR_SET_PDEATHSIG = 1
# A raylet waits a fixed 15 s for its agents to start, and then ends. On a busy machine the next one may be in time,
# because by then Ray's files are in memory.
_TRIES = 3
# In a raylet's log: its reason, which a stack trace follows.
_FATAL = re.compile(r"Check failed.*| C \d+ \d+\] .*")


class RaySessionError(GolongrlError):
    """Ray did not start on this machine; the message has Ray's reason."""


def joined() -> bool:
    """Whether an existing cluster is used."""
    return "RAY_ADDRESS" in os.environ


class RaySession:
    """A context in which Ray is there: entering starts it, `connect` waits until it is up, leaving ends it."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._node: _Node | None = None

    async def __aenter__(self) -> Self:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not joined():
            self._node = _Node.start(self._ranks)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        if ray.is_initialized():
            ray.shutdown()
        if self._node is not None:
            await asyncio.to_thread(self._node.stop)

    async def connect(self) -> None:
        """Wait until Ray is up, and become its driver.

        Raises:
            RaySessionError: our own node died while it started, at every try, or did not start in time.
        """
        if self._node is not None:
            self._node = await self._started(self._node)
        await asyncio.to_thread(_init, None if self._node is None else self._node.address)

    async def _started(self, node: "_Node") -> "_Node":
        """`node` once it is up, or the one that was started after it died."""
        for more in reversed(range(_TRIES)):
            try:
                await node.up()
                break
            except RaySessionError as error:
                if not more:
                    raise
                log.warning("starting Ray again", error=str(error), tries_left=more)
                await asyncio.to_thread(node.stop)
                self._node = node = _Node.start(self._ranks)
        return node


class _Node:
    """A Ray node of this process, in a folder of its own."""

    def __init__(self, folder: Path, lock: int, process: subprocess.Popen[bytes], port: int) -> None:
        self._folder = folder
        self._lock = lock
        self._process = process
        self.address = f"127.0.0.1:{port}"

    @classmethod
    def start(cls, ranks: int) -> "_Node":
        root = _temp_folder()
        _sweep(root)
        folder, lock = _own_folder(root)
        # Ray would run its workers at the lowest priority but four, and engines on the same cores would starve the
        # ranks.
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ.setdefault("RAY_raylet_start_wait_time_s", f"{_START_S:.0f}")
        # Other users of this machine can reach the node's ports. Ray's own token would stay in the home folder.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token":
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        (port,) = unused(1)
        # Imported here: it takes seconds, and `joined` is asked first of all.
        import torch

        command = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
            "--include-dashboard=false", f"--num-cpus={ranks}", f"--num-gpus={torch.cuda.device_count()}",
            f"--object-store-memory={_LOCAL_OBJECT_STORE_BYTES}", f"--temp-dir={folder}",
            f"--port={port}",
        ]  # fmt: skip
        with (folder / "start.log").open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                preexec_fn=_die_with_parent,
            )
        return cls(folder, lock, process, port)

    async def up(self) -> None:
        deadline = asyncio.get_running_loop().time() + _START_S
        raylet: psutil.Process | None = None
        while not (self._folder / _UP).exists():
            raylet = raylet or self._raylet()
            if self._process.poll() is not None or (raylet is not None and _ended(raylet)):
                raise RaySessionError(f"Ray died while it started: {self._reason()}")
            if asyncio.get_running_loop().time() > deadline:
                raise RaySessionError(f"Ray was not up after {_START_S:.0f} s: {self._reason()}")
            await asyncio.sleep(_LOOK_S)

    def stop(self) -> None:
        """End the node and remove its folder."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    def _raylet(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children():
                if child.name() == "raylet":
                    return child
        return None

    def _reason(self) -> str:
        """The line in which Ray says why, or else the last of its log."""
        last = ""
        for path in [self._folder / "start.log", *self._folder.glob("session_2*/logs/raylet.*")]:
            with contextlib.suppress(OSError):
                text = path.read_text(errors="replace")
                if found := _FATAL.search(text):
                    return f"{path.name}: {found.group()[:_LONGEST_REASON]}"
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                last = f"{path.name}: {lines[-1][:_LONGEST_REASON]}" if lines else last
        return last or "nothing in its logs"


def _init(address: str | None) -> None:
    import ray

    try:
        ray.init(address=address)
    except (ConnectionError, RuntimeError) as error:
        where = os.environ["RAY_ADDRESS"] if address is None else address
        raise RaySessionError(f"Ray at {where} cannot be used: {str(error).splitlines()[0]}") from error


def _temp_folder() -> Path:
    chosen = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    return chosen if len(str(chosen)) <= _LONGEST_TEMP else Path("/tmp")


def _own_folder(root: Path) -> tuple[Path, int]:
    """A new folder, locked before another start can find it by its name; and the lock."""
    hidden = Path(tempfile.mkdtemp(prefix=f".{_PREFIX}", dir=root))
    lock = os.open(hidden / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    return hidden.rename(root / hidden.name.removeprefix(".")), lock


def _sweep(root: Path) -> None:
    """Remove the folders of this user's learners that were killed."""
    for folder in root.glob(f"{_PREFIX}*"):
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


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
