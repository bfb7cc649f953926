"""Which services have a process that somebody stopped with a signal: their own, or one below it."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from golongrl.local.process import stopped_processes
from golongrl.local.watched import of_services
from golongrl.telemetry.watchdog import read, stalls, with_troubles

PARENT = (
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True); time.sleep(600)"
)


@pytest.fixture
def parent() -> Iterator[tuple[int, int]]:
    """A process and its child."""
    process = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process.pid, child
    finally:
        for pid in (child, process.pid):
            psutil.Process(pid).kill()
        process.wait(60)
        process.stdout.close()


def stop(pid: int) -> None:
    process = psutil.Process(pid)
    process.send_signal(signal.SIGSTOP)
    while process.status() != psutil.STATUS_STOPPED:
        pass


def test_a_stopped_process_is_that_of_its_service(parent: tuple[int, int]) -> None:
    own, child = parent
    assert stopped_processes({own: "learner"}, "other") == {}
    stop(child)
    [(name, words)] = stopped_processes({own: "learner"}, "other").items()
    assert name == "learner"
    assert words.startswith("has a process that was stopped by a signal (")
    assert words.endswith(f", pid {child})")
    assert list(stopped_processes({}, "other")) == ["other"]
    stop(own)
    assert stopped_processes({own: "learner"}, "other") == {"learner": f"was stopped by a signal (pid {own})"}


def test_what_the_supervisor_has_told_is_not_told_again() -> None:
    names = ["redis", "reward", "engine-0", "rollout-0", "learner"]
    troubles = {"engine-0": ("is restarting (death 1)", True), "rollout-0": ("was stopped by a signal (pid 7)", False)}
    seen = with_troubles(read([]), of_services(names, troubles))
    assert seen["engine/rollout-0"].known
    assert [str(stall) for stall in stalls(seen) if not seen[stall.culprit].known] == [
        "rollout-0 was stopped by a signal (pid 7)"
    ]
