"""The sender as a process of its own beside the learner's first rank, and that rank's hold on it.

Apart from the rank because a broken transfer over NCCL can end the process that drives it, and because sending goes on
while the rank trains. The weights cross between them as files in a folder of the host, which costs the page cache as
many bytes as the weights (twice that while a transfer of the version before is still running).
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

import httpx
import psutil
import structlog

from golongrl.broadcast.protocol import Held, Hold

log = structlog.get_logger()

# The import of torch, on a busy machine.
_START_S = 120.0
# Reading and hashing 60 GB.
_HOLD_S = 600.0
# A sender that keeps dying has a reason that starting it again does not mend.
_RESTARTS = 5
# NCCL: a broken broadcast raises in its thread instead of ending the process.
_ENVIRONMENT = {"TORCH_NCCL_BLOCKING_WAIT": "1", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0", "OMP_NUM_THREADS": "1"}
_PREFIX = "golongrl-weights-"
# What a pod is told by the downward API, where its ranks meet on an address of their own.
POD_IP = "GOLONGRL_POD_IP"


class SenderFailed(RuntimeError):
    """There is no sender; one line says why."""


def reachable(environment: Mapping[str, str]) -> str:
    """Where engines reach this host: where the ranks meet. Those of a local Ray meet at 127.0.0.1, so a pod with one
    has its address from elsewhere."""
    return environment.get(POD_IP) or environment["MASTER_ADDR"]


class SenderProcess:
    """Starts the sender, tells it what to hold, and starts it again (same address, same weights) where it dies."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._token = secrets.token_urlsafe(12)
        _sweep()
        self._root = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self._port = 0
        self._hold: Hold | None = None
        self._restarts = 0
        self._lock = threading.Lock()
        self._closed = False
        self._process = self._start()

    @property
    def source(self) -> str:
        """Where workers ask."""
        return f"http://{self._address}:{self._port}/{self._token}"

    def folder(self) -> Path:
        """An empty folder for the files of a version; it goes when another is held, or with the process."""
        return Path(tempfile.mkdtemp(dir=self._root))

    def hold(self, folder: Path, version: int, lineage: str) -> Held:
        """Send these weights from now on.

        Raises:
            SenderFailed: it cannot read them, or does not answer.
        """
        with self._lock:
            self._hold, self._restarts = Hold(folder=str(folder), version=version, lineage=lineage), 0
            held = self._tell()
        for other in self._root.iterdir():
            if other != folder:
                shutil.rmtree(other)
        return held

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._closed = True
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self._root, ignore_errors=True)

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
            raise SenderFailed(f"the weight sender did not start (exit code {process.wait()}); its log says why")
        self._port = int(json.loads(line)["port"])
        threading.Thread(target=self._watch, args=(process,), name="weight-sender", daemon=True).start()
        return process

    def _tell(self) -> Held:
        assert self._hold is not None
        try:
            response = httpx.put(
                f"http://127.0.0.1:{self._port}/{self._token}/weights",
                json=self._hold.model_dump(),
                timeout=_HOLD_S,
                trust_env=False,
            )
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise SenderFailed(f"the weight sender cannot hold version {self._hold.version}: {error}") from error
        return Held.model_validate_json(response.content)

    def _watch(self, process: "subprocess.Popen[str]") -> None:
        code = process.wait()
        with self._lock:
            if self._closed or process is not self._process:
                return
            self._restarts += 1
            if self._restarts > _RESTARTS:
                log.error("the weight sender keeps dying; engines without these weights wait", exit_code=code)
                return
            log.warning("the weight sender died and is started again", exit_code=code, restart=self._restarts)
            try:
                self._process = self._start()
                if self._hold is not None:
                    self._tell()
            except SenderFailed as error:
                log.error("the weight sender is gone; engines without these weights wait", error=str(error))


def _sweep() -> None:
    """Delete what ranks of this host left that were killed together with their senders."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        owner = folder.name.removeprefix(_PREFIX).split("-")[0]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)
