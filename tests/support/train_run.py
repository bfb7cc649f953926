"""`golongrl train` as a user runs it: a process with its children, its folder and what it printed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from golongrl.telemetry import history
from support.processes import below

WORKERS = ("rollout-0", "rollout-1")
# Starting verl, Ray and torch on a machine that is busy with other tests.
PATIENCE_S = 480.0


class Run:
    """A `golongrl train` process in a session of its own; `total` steps, once that is known."""

    total = 0

    def __init__(self, out: Path, *arguments: str) -> None:
        self.folder = out / "demo"
        self.log = out / "train.log"
        command = [
            sys.executable,
            "-m",
            "golongrl",
            "train",
            "quickstart",
            "--out",
            str(out),
            "--name",
            "demo",
            "--plain",
        ]
        with self.log.open("a") as log:
            self._process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log, start_new_session=True)

    def until(self, what: Callable[[], bool]) -> None:
        """Wait for a condition; fails with the run's output when the run ends first or it takes too long."""
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            if self._process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"exit {self._process.poll()}\n{self.log.read_text()}")
            time.sleep(0.1)

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def steps(self) -> list[int]:
        return history.read(self.folder / "metrics.jsonl").steps

    def served(self) -> set[str]:
        """Workers whose groups were trained on."""
        records = history.read(self.folder / "metrics.jsonl")
        return {worker for worker in WORKERS if any(value > 0 for value in records.series(f"groups_from/{worker}"))}

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def child(self, words: str) -> psutil.Process:
        found = [one.process for one in below(self._process.pid) if words in one.command]
        assert found, f"no process {words}"
        return found[0]

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def wait(self) -> int:
        return self._process.wait(PATIENCE_S)

    def end(self) -> None:
        found = self.children() if self._process.poll() is None else []
        self._process.kill()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
