"""What runs below a Ray node ends with the learner, though it left its group, became an orphan or was stopped."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from golongrl.learner.ranks import ray_node

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")

TELL = """
import os, pathlib, signal, subprocess, sys, time
def tell(name, number):
    fresh = pathlib.Path(name + ".new")
    fresh.write_text(str(number))
    fresh.rename(name)
"""
# An orphan in a session of its own that ignores SIGTERM, as Ray's agents are.
PROGRAMS = {
    "agent": "signal.signal(signal.SIGTERM, signal.SIG_IGN); tell('agent', os.getpid()); time.sleep(600)",
    "start": "subprocess.Popen([sys.executable, 'agent.py'], start_new_session=True)",
    "command": "subprocess.run([sys.executable, 'start.py']); tell('command', os.getpid()); time.sleep(600)",
    "learner": """
from golongrl.learner.ranks import ray_node
node = subprocess.Popen(ray_node.command([sys.executable, "command.py"]), process_group=0)
tell("node", node.pid)
sys.exit(-node.wait() % 256)
""",
}


class Family:
    """A learner that waits for its node, and what runs below that."""

    def __init__(self, folder: Path) -> None:
        for name, text in PROGRAMS.items():
            (folder / f"{name}.py").write_text(TELL + text)
        self.learner = subprocess.Popen([sys.executable, "learner.py"], cwd=folder)
        self.processes = {name: psutil.Process(self._told(folder / name)) for name in ("node", "command", "agent")}

    def _told(self, path: Path) -> int:
        while not path.exists():
            assert self.learner.poll() is None
            time.sleep(0.05)
        return int(path.read_text())

    def are_gone(self) -> bool:
        return not psutil.wait_procs(list(self.processes.values()), timeout=120)[1]


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    yield family
    family.learner.kill()
    for process in family.processes.values():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    family.learner.wait()


@pytest.mark.parametrize("stopped", [[], ["agent"], ["command", "agent"]])
def test_a_killed_learner_leaves_nothing(family: Family, stopped: list[str]) -> None:
    for name in stopped:
        family.processes[name].suspend()
    family.learner.kill()
    assert family.are_gone()


def test_a_node_that_is_asked_to_stop_takes_all_along(family: Family) -> None:
    family.processes["node"].terminate()
    assert family.are_gone()
    assert family.learner.wait(120) == signal.SIGTERM


def test_a_command_that_ends_takes_all_along(family: Family) -> None:
    family.processes["command"].kill()
    assert family.are_gone()
    assert family.learner.wait(120) == signal.SIGKILL


def test_a_learner_that_died_before_starts_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made"
    words = ray_node.command([sys.executable, "-c", f"open({str(made)!r}, 'w')"])
    words[words.index(str(os.getpid()))] = str(os.getppid())
    assert subprocess.run(words, check=False).returncode == 1
    assert not made.exists()
