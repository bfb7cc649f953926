"""The sender's process, and how the learner's first rank starts and controls it.

The sender has its own process for two reasons: a broken transfer over NCCL can end the process that drives it, and
weights are sent while the rank trains. The rank writes the weights as files into a folder of the host, from which the
sender reads them. The page cache then holds as many bytes as the weights, and twice that while the version before is
still being sent.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx
import structlog

from golongrl.broadcast.client import detail
from golongrl.broadcast.protocol import Held, Hold, in_url
from golongrl.errors import GolongrlError

log = structlog.get_logger()

# The import of torch, on a busy machine.
_START_S = 120.0
# Reading and hashing 60 GB.
_HOLD_S = 600.0
# A sender that keeps dying has a cause that restarting does not fix.
_RESTARTS = 5
# Between the end of its connections and the end of the process.
_DYING_S = 5.0
# NCCL: a broken broadcast raises in its thread instead of ending the process.
_ENVIRONMENT = {"TORCH_NCCL_BLOCKING_WAIT": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "OMP_NUM_THREADS": "1"}

_PREFIX = "golongrl-weights-"
# Set by the downward API in a pod whose ranks meet at an address of their own.
POD_IP = "GOLONGRL_POD_IP"


class SenderFailedError(GolongrlError):
    """There is no sender; one line says why."""


def reachable(environment: Mapping[str, str]) -> str:
    """Where engines reach this host: where the ranks meet. Those of a local Ray meet at 127.0.0.1, so a pod with one
    has its address from elsewhere."""
    return environment.get(POD_IP) or environment["MASTER_ADDR"]


class SenderProcess:
    """Starts the sender, tells it what to hold, and starts it again (same address, same weights) where it dies.

    `on_gone` is called, in a thread, when restarting failed: these weights cannot be sent any more.
    """

    def __init__(self, address: str, on_gone: Callable[[SenderFailedError], None]) -> None:
        """
        Raises:
            SenderFailedError: it does not start.
        """
        self._address = address
        self._on_gone = on_gone
        self._token = secrets.token_urlsafe(12)
        _sweep()
        self._root, claim = _own_folder()
        self._claim: int | None = claim
        self._port = 0
        self._hold: Hold | None = None
        self._restarts = 0
        self._lock = threading.Lock()
        self._closed = False
        self._process = self._start()

    @property
    def source(self) -> str:
        """Where workers ask."""
        return f"http://{in_url(self._address)}:{self._port}/{self._token}"

    def folder(self) -> Path:
        """An empty folder for the files of a version; it goes when another is held, or with the process."""
        return Path(tempfile.mkdtemp(dir=self._root))

    def hold(self, folder: Path, version: int, lineage: str) -> Held:
        """Send these weights from now on.

        Raises:
            SenderFailedError: it cannot read them, or does not answer.
        """
        with self._lock:
            self._hold, self._restarts = Hold(folder=str(folder), version=version, lineage=lineage), 0
            held = self._told(self._hold) or self._revived(self._hold)
            assert held is not None
        for other in self._root.iterdir():
            if other != folder:
                shutil.rmtree(other)
        return held

    def close(self) -> None:
        """End it; harmless when repeated."""
        with self._lock:
            self._closed = True
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._root, ignore_errors=True)
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "golongrl.broadcast", self._address, str(self._port), str(self._root)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # its end is ours: the sender leaves with us
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **_ENVIRONMENT, "GOLONGRL_SENDER_TOKEN": self._token},
        )
        watchdog = threading.Timer(_START_S, process.kill)
        watchdog.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise SenderFailedError(f"the weight sender did not start (exit code {process.wait()}); its log says why")
        self._port = int(json.loads(line)["port"])
        threading.Thread(target=self._watch, args=(process,), name="weight-sender", daemon=True).start()
        return process

    def _tell(self, hold: Hold) -> Held:
        url = f"http://127.0.0.1:{self._port}/{self._token}/weights"
        try:
            response = httpx.put(url, json=hold.model_dump(), timeout=_HOLD_S, trust_env=False)
        except httpx.HTTPError as error:
            reason = f"{type(error).__name__} {error}".rstrip()
            raise SenderFailedError(f"the weight sender cannot hold version {hold.version}: {reason}") from error
        if response.status_code != 200:  # httpx's own error would show the address, and its secret
            raise SenderFailedError(f"the weight sender cannot hold version {hold.version}: {detail(response.content)}")
        return Held.model_validate_json(response.content)

    def _watch(self, process: "subprocess.Popen[str]") -> None:
        process.wait()
        with self._lock:
            if self._closed or process is not self._process:
                return
            try:
                self._revived(self._hold)
            except SenderFailedError as error:
                self._closed = True
                log.error("the weight sender is gone", error=str(error))
                self._on_gone(error)

    def _told(self, hold: Hold) -> Held | None:
        """As `_tell`; None where the process died instead of answering."""
        try:
            return self._tell(hold)
        except SenderFailedError:
            if self._dead():
                return None
            raise

    def _revived(self, hold: Hold | None) -> Held | None:
        """Start it again and have it hold what it is to hold, if anything.

        Raises:
            SenderFailedError: it does not start, cannot hold it, or died too often.
        """
        held = None
        while held is None:
            code = self._process.wait()
            self._restarts += 1
            if self._restarts > _RESTARTS:
                raise SenderFailedError(
                    f"the weight sender died {self._restarts} times (exit code {code}); see its log"
                )
            log.warning("the weight sender died and is started again", exit_code=code, restart=self._restarts)
            self._process = self._start()
            if hold is None:
                break
            held = self._told(hold)
        return held

    def _dead(self) -> bool:
        """Whether the process has ended, or is about to."""
        try:
            self._process.wait(_DYING_S)
        except subprocess.TimeoutExpired:
            return False
        return True


def _claim(folder: Path) -> int:
    """Mark a folder as in use, until this process ends; the descriptor that does."""
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return handle


def _own_folder() -> tuple[Path, int]:
    """A new folder and the claim to it."""
    # Another rank's sweep may come between the two; that it does so every time is out of the question.
    for _ in range(5):
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        with contextlib.suppress(OSError):
            claim = _claim(folder)
            if folder.exists():
                return folder, claim
            os.close(claim)
    raise SenderFailedError(f"{tempfile.gettempdir()}: the sender's folders vanish as soon as they are made")


def _sweep() -> None:
    """Delete what ranks of this host left that were killed together with their senders.

    Found by a lock, not by a process id: ids start again with every container, the folder may not.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            claim = _claim(folder)
        except OSError:  # in use, or not ours
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(claim)
