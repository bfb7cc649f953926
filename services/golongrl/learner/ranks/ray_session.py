"""The Ray that the ranks run on: the cluster of a RayJob (RAY_ADDRESS), or a node of our own with only what they need.

Our own node is a child process (`ray start --block`, below `ray_node`), so that it can start while verl, which takes as
long, is being imported, and so that its death is seen at once: `ray.init` would wait for a dead raylet in silence.

Invariants:
- the node ends with this process, however that ends, and with all that it started (Linux: `ray_node` is told by a
  parent-death signal; it is that of the thread that starts the node, so the main one does); its folder is removed at
  the end;
- nothing of Ray holds up the event loop: a learner that does not answer is taken for one that hangs;
- a folder left by a process that was killed is removed by the next start: an unlocked folder has no owner;
- only who has this process's token can use the node. Ray reads it when it is imported, so nothing here imports Ray
  before the token is set.
"""

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import structlog

from golongrl.errors import GolongrlError
from golongrl.learner.ranks import ray_folder, ray_node
from golongrl.ports import unused

log = structlog.get_logger()

# verl warns at import of every engine that is not installed.
QUIET = "ignore::UserWarning:verl.workers.engine"

# The shards of a step travel through it; a batch of the paper's size is 0.5 GB and belongs on a cluster.
_LOCAL_OBJECT_STORE_BYTES = 256 << 20

# A small, busy machine may not have read Ray's and verl's files from its disk after Ray's own half minute.
_START_S = 300.0
# A wait for a cluster that does not answer is told so often.
_SAY_S = 15.0
# Looking costs one look at a child's children.
_LOOK_S = 0.1
# Of a line of Ray's log, for a message.
_LONGEST_REASON = 300
# Longest that the driver may take to leave Ray (seconds, on a busy machine fifteen); the node ends all the same.
_LEAVE_S = 40.0
# Longer than `ray_node` gives the node after SIGTERM.
_STOP_S = 30.0

# Written by `ray start` when the node is up.
_UP = "ray_current_cluster"
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
            leaving = _in_thread(ray.shutdown)
            await asyncio.wait({leaving}, timeout=_LEAVE_S)
            if not leaving.done():
                log.warning("Ray did not let the learner leave", waited_s=_LEAVE_S)
        if self._node is not None:
            await asyncio.to_thread(self._node.stop)

    async def connect(self) -> None:
        """Wait until Ray is up, and become its driver.

        Raises:
            RaySessionError: our own node died while it started, at every try, or while this process connected to it; or
                it did not start in time; or no cluster answers at RAY_ADDRESS.
        """
        if self._node is not None:
            self._node = await self._started(self._node)
        address, folder = (None, Path()) if self._node is None else (self._node.address, self._node.folder)
        joining = _in_thread(partial(_init, address, folder))
        clock = asyncio.get_running_loop().time
        began = said = clock()
        while not (await asyncio.wait({joining}, timeout=_LOOK_S))[0]:
            if self._node is not None:
                self._node.check()
            elif clock() - began > _START_S:
                raise RaySessionError(
                    f"RAY_ADDRESS {os.environ['RAY_ADDRESS']}: no Ray cluster answered there for {_START_S:g} s; see "
                    "whether its head is up, or unset RAY_ADDRESS to train on a Ray of this machine"
                )
            elif clock() - said > _SAY_S:
                said = clock()
                log.warning(
                    "waiting for the Ray cluster of RAY_ADDRESS",
                    address=os.environ["RAY_ADDRESS"],
                    waited_s=round(said - began),
                )
        joining.result()

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
        self.folder = folder
        self._lock = lock
        self._process = process
        self._raylet: psutil.Process | None = None
        self.address = f"127.0.0.1:{port}"

    @classmethod
    def start(cls, ranks: int) -> "_Node":
        root = ray_folder.root()
        ray_folder.sweep(root)
        folder, lock = ray_folder.new(root)
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

        start = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--disable-usage-stats",
            "--include-dashboard=false", f"--num-cpus={ranks}", f"--num-gpus={torch.cuda.device_count()}",
            f"--object-store-memory={_LOCAL_OBJECT_STORE_BYTES}", f"--temp-dir={folder}",
            f"--port={port}",
            # Of the system's choice. By default two nodes of a machine that start at once may give the same port to a
            # process each, and the one that binds it second dies.
            "--min-worker-port=0", "--max-worker-port=0",
        ]  # fmt: skip
        with (folder / "start.log").open("wb") as output:
            process = subprocess.Popen(
                ray_node.command(start), stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )
        return cls(folder, lock, process, port)

    async def up(self) -> None:
        """Wait until the node answers. Raises RaySessionError: it died, or was not up in time."""
        deadline = asyncio.get_running_loop().time() + _START_S
        while not (self.folder / _UP).exists():
            self.check()
            if asyncio.get_running_loop().time() > deadline:
                raise RaySessionError(f"Ray was not up after {_START_S:.0f} s: {self._reason()}")
            await asyncio.sleep(_LOOK_S)

    def check(self) -> None:
        """Raises RaySessionError if the node has died."""
        self._raylet = self._raylet or self._find_raylet()
        if self._process.poll() is not None or (self._raylet is not None and _ended(self._raylet)):
            raise RaySessionError(f"Ray died while it started: {self._reason()}")

    def stop(self) -> None:
        """End the node and remove its folder."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    def _find_raylet(self) -> psutil.Process | None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                if child.name() == "raylet":
                    return child
        return None

    def _reason(self) -> str:
        """The line in which Ray says why, or else the last of its log."""
        last = ""
        for path in [self.folder / "start.log", *self.folder.glob("session_2*/logs/raylet.*")]:
            with contextlib.suppress(OSError):
                text = path.read_text(errors="replace")
                if found := _FATAL.search(text):
                    return f"{path.name}: {found.group()[:_LONGEST_REASON]}"
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                last = f"{path.name}: {lines[-1][:_LONGEST_REASON]}" if lines else last
        return last or "nothing in its logs"


def _in_thread(function: Callable[[], None]) -> "asyncio.Future[None]":
    """Call it in a thread that does not hold up the end of the process."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failure: Exception | None = None
        try:
            function()
        except Exception as error:  # noqa: BLE001
            failure = error
        with contextlib.suppress(RuntimeError):  # nobody waited, and the loop is closed
            loop.call_soon_threadsafe(tell, failure)

    threading.Thread(target=run, name="ray", daemon=True).start()
    return done


def _init(address: str | None, folder: Path) -> None:
    """Become the driver of the node at `address`, from `folder`: Ray puts the current folder before all others that its
    workers import from, where a user's `random.py` would take the place of Python's own."""
    import ray

    try:
        with contextlib.chdir(folder):
            ray.init(address=address)
    except (ConnectionError, RuntimeError) as error:
        where = os.environ["RAY_ADDRESS"] if address is None else address
        raise RaySessionError(f"Ray at {where} cannot be used: {str(error).splitlines()[0]}") from error


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
