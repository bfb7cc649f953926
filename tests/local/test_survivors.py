"""What a killed supervisor leaves is found by the run's folder, under whatever name it is reached, and ended."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from golongrl.local import survivors
from support.embedded_server import EmbeddedServer
from support.redis_server import free_port

SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def start(folder: Path | None) -> subprocess.Popen[str]:
    env = {**os.environ, **({"GOLONGRL_RUN_FOLDER": str(folder)} if folder else {})}
    process = subprocess.Popen([sys.executable, "-c", SLEEP], env=env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


async def test_a_server_that_wrote_over_its_environment_is_found_too(tmp_path: Path) -> None:
    data = tmp_path / "demo" / "redis"
    async with EmbeddedServer(free_port(), data) as server:
        assert server.process is not None
        (tmp_path / "link").symlink_to(tmp_path / "demo")
        for name in ("demo", "link"):
            found = survivors.of_run(tmp_path / name)
            assert [process.pid for process in found] == [server.process.pid]
        assert survivors.of_run(tmp_path / "other") == []


def test_the_processes_of_a_run_are_found_and_ended_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    mine, stopped, other, foreign = start(tmp_path / "a"), start(tmp_path / "link"), start(tmp_path / "b"), start(None)
    try:
        os.kill(stopped.pid, signal.SIGSTOP)
        found = survivors.of_run(tmp_path / "a")
        assert {process.pid for process in found} == {mine.pid, stopped.pid}
        assert survivors.of_run(tmp_path / "link") == found
        assert f"(pid {mine.pid})" in survivors.names(found)
        assert survivors.end(found) == []
        assert survivors.of_run(tmp_path / "a") == []
        assert psutil.pid_exists(other.pid)
        assert psutil.pid_exists(foreign.pid)
    finally:
        for process in (mine, stopped, other, foreign):
            process.kill()
            process.wait()
