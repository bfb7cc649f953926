"""What a Ray pod of the learner waits for before it ends."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from golongrl.learner.pre_stop import is_driver, is_rank, wait

# A process with the driver's words, which ends when it is asked to, and says so.
DRIVER = """
import pathlib, signal, sys
def end(*_):
    pathlib.Path(sys.argv[1]).write_text("asked")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
pathlib.Path(sys.argv[2]).write_text("up")
signal.pause()
signal.pause()
"""


@pytest.mark.parametrize(
    ("command", "driver", "rank"),
    [
        (["/opt/golongrl/bin/python", "/opt/golongrl/bin/golongrl", "learner", "--recipe", "x"], True, False),
        (["python", "-m", "golongrl", "learner"], True, False),
        (["/opt/golongrl/bin/golongrl", "learner"], True, False),
        (["sh", "-c", "golongrl data prepare && exec golongrl learner"], False, False),
        (["golongrl", "data", "prepare"], False, False),
        (["golongrl", "rollout", "--worker", "learner"], False, False),
        (["python", "-m", "golongrl.learner.pre_stop", "--seconds", "90"], False, False),
        (["ray::LearnerRank.update"], False, True),
        (["ray::LearnerRank"], False, True),
        (["ray::IDLE"], False, False),
        (["ray::JobSupervisor"], False, False),
        ([], False, False),
    ],
)
def test_driver_and_ranks_are_told_apart(command: list[str], driver: bool, rank: bool) -> None:
    assert (is_driver(command), is_rank(command)) == (driver, rank)


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A container's first process with a driver and another process below it; and what the driver writes."""
    (tmp_path / "driver.py").write_text(DRIVER)
    words = f"{sys.executable} {tmp_path}/driver.py {tmp_path}/asked {tmp_path}/up golongrl learner"
    first = subprocess.Popen(["/bin/bash", "-c", f"sleep 3600 & {words} & wait; wait; sleep 3600"])
    process = psutil.Process(first.pid)
    try:
        # A child has the shell's name until it runs its own program.
        while not (tmp_path / "up").exists() or "sleep" not in [child.name() for child in process.children()]:
            assert first.poll() is None
        yield first, tmp_path / "asked"
    finally:
        for one in [*process.children(recursive=True), process]:
            one.kill()
        first.wait()


def test_the_driver_is_asked_and_waited_for_and_the_others_are_left(
    pod: tuple[subprocess.Popen[bytes], Path],
) -> None:
    first, asked = pod
    assert wait(first.pid, 240.0) == []
    assert asked.read_text() == "asked"
    assert [child.name() for child in psutil.Process(first.pid).children()] == ["sleep"]
    # Nothing to wait for any more.
    assert wait(first.pid, 240.0) == []


def test_a_rank_is_waited_for_until_the_limit_and_not_touched() -> None:
    first = subprocess.Popen(["/bin/bash", "-c", "(exec -a ray::LearnerRank.update sleep 3600) & wait; sleep 3600"])
    try:
        found: list[psutil.Process] = []
        while not found:
            found = wait(first.pid, 0.0)
        assert [process.pid for process in wait(first.pid, 0.1)] == [found[0].pid]
        found[0].kill()
        assert wait(first.pid, 240.0) == []
        assert first.poll() is None
    finally:
        for one in [*psutil.Process(first.pid).children(), first]:
            one.kill()
        first.wait()


def test_a_pod_that_is_gone_is_waited_for_no_more() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert wait(gone.pid, 240.0) == []
