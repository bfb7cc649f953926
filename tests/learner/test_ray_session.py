"""The Ray of a learner on one machine: gone without a trace, and noticed at once when it dies as it starts."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from pathlib import Path

import psutil
import pytest
from structlog.testing import capture_logs

from golongrl.learner.ranks import ray_folder, ray_session
from golongrl.learner.ranks.ray_session import RaySessionError
from golongrl.local import temporary
from golongrl.local.plan import RunFolder
from support.processes import below

# Ray starts in five seconds alone, in a minute on a machine that is busy with other things.
pytestmark = pytest.mark.timeout(600)

SESSION = """
import asyncio, contextlib, os, threading, time
import psutil
from golongrl.learner.ranks.ray_session import RaySession, RaySessionError
from support.processes import below

def raylets():
    return [one.process for one in below() if one.name == "raylet"]

async def main():
    async with RaySession(1) as session:
        MEANWHILE
        await session.connect()
        import ray
        print("up", int(ray.cluster_resources()["CPU"]), flush=True)
        THEN

try:
    asyncio.run(main())
except RaySessionError as error:
    print(f"error: {error}")
"""


def _start(
    temp: Path, meanwhile: str = "pass", then: str = "pass", folder: Path | None = None
) -> "subprocess.Popen[str]":
    code = SESSION
    for name, text in (("MEANWHILE", meanwhile), ("THEN", then)):
        code = code.replace(name, textwrap.indent(textwrap.dedent(text), " " * 8).strip())
    environment = {**os.environ, "RAY_TMPDIR": str(temp), "TMPDIR": str(temp)}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment.pop("RAY_ADDRESS", None)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=folder,
    )


@pytest.fixture
def temp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Ray's sockets need a short path; pytest's own folders are longer.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.parametrize("length", [ray_folder.LONGEST_ROOT, ray_folder.LONGEST_ROOT + 1, 200])
def test_a_folder_is_chosen_in_which_ray_accepts_its_sockets(monkeypatch: pytest.MonkeyPatch, length: int) -> None:
    """Whatever number the process has: Ray puts it into the name of its session."""
    from ray._private.utils import validate_socket_filepath

    monkeypatch.setenv("RAY_TMPDIR", "/" + "t" * (length - 1))
    root = ray_folder.root()
    assert (str(root) == "/tmp") == (length > ray_folder.LONGEST_ROOT)
    session = root / f"{ray_folder.PREFIX}abcdefgh" / "session_2026-11-29_03-09-50_622113_4194304"
    validate_socket_filepath(str(session / "sockets" / "plasma_store"))


def test_a_runs_own_temporary_folder_has_room_for_a_session(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for chosen in ("/tmp", "/var/tmp", str(tmp_path)):
        monkeypatch.setattr(tempfile, "tempdir", chosen)
        made = temporary.make(RunFolder(tmp_path))
        try:
            assert made.parent == Path("/tmp" if chosen == str(tmp_path) else chosen)
            monkeypatch.setenv("RAY_TMPDIR", str(made))
            assert ray_folder.root() == made
        finally:
            temporary.remove(RunFolder(tmp_path), made)
        assert not made.exists()


@pytest.mark.full
def test_nothing_is_left_in_the_temporary_folder(temp: Path) -> None:
    process = _start(temp)
    out, err = process.communicate(timeout=500)
    assert (process.returncode, out) == (0, "up 1\n"), err
    assert list(temp.iterdir()) == []


KILL = """
def kill():
    killed = set()
    while len(killed) < TIMES:
        for raylet in raylets():
            if raylet.pid not in killed:
                # What says that the node is up cannot say so any more.
                raylet.parent().suspend()
                raylet.kill()
                killed.add(raylet.pid)
        time.sleep(0.01)
threading.Thread(target=kill, daemon=True).start()
"""


@pytest.mark.full
@pytest.mark.parametrize("times", [1, ray_session._TRIES])
def test_a_raylet_that_dies_as_it_starts_is_noticed(times: int, temp: Path) -> None:
    """`ray.init` would wait for it until its own deadline passes, which is minutes for every try."""
    process = _start(temp, KILL.replace("TIMES", str(times)))
    out, err = process.communicate(timeout=ray_session._START_S)
    assert process.returncode == 0, err
    *restarts, last = out.splitlines()
    assert len([line for line in restarts if "starting Ray again" in line]) == min(times, ray_session._TRIES - 1)
    assert last == "up 1" if times == 1 else last.startswith("error: Ray died while it started: ")
    assert list(temp.iterdir()) == []


# The raylet's own limit for its agents is 15 s: the first one dies of it.
STOP = """
def stop():
    agents = []
    while len(agents) < 2:
        for raylet in raylets():
            for child in raylet.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "agent" in " ".join(child.cmdline()) and child not in agents:
                        child.suspend()
                        agents.append(child)
        time.sleep(0.01)
    time.sleep(25)
    for agent in agents:
        agent.resume()
threading.Thread(target=stop, daemon=True).start()
"""


@pytest.mark.full
def test_agents_that_are_slow_to_start_are_waited_for(temp: Path) -> None:
    process = _start(temp, STOP)
    out, err = process.communicate(timeout=500)
    assert (process.returncode, out.splitlines()[-1]) == (0, "up 1"), err
    assert "starting Ray again" in out
    assert "Check failed" in out


def test_what_a_killed_learner_leaves_ends_and_is_removed_by_the_next(temp: Path) -> None:
    process = _start(temp, then="await asyncio.sleep(1000)")
    assert process.stdout is not None
    assert process.stdout.readline() == "up 1\n"
    found = below(process.pid)
    family = [one.process for one in found]
    agents = [one.process for one in found if "agent" in one.command]
    assert agents
    assert any(one.name == "raylet" for one in found)
    # Stopped, they do not end by themselves, which takes them 80 s.
    for agent in agents:
        agent.suspend()
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(family, timeout=180)
    assert alive == []
    assert len(list(temp.glob("glr-ray-*"))) == 1
    # Another learner's session, which is in use, and another program's files stay.
    used = temp / "glr-ray-used"
    used.mkdir()
    (temp / "session").touch()
    with (used / "owner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ray_folder.sweep(temp)
        assert sorted(path.name for path in temp.iterdir()) == ["glr-ray-used", "session"]


@pytest.mark.full
def test_workers_do_not_import_from_the_folder_where_the_learner_was_started(temp: Path, tmp_path: Path) -> None:
    """A user's `random.py` there: each rank died at its start."""
    ask = """
    import sys
    paths = ray.remote(lambda: sys.path)
    print(os.getcwd(), os.getcwd() in ray.get(paths.remote()))
    """
    out, _ = _start(temp, then=ask, folder=tmp_path).communicate(timeout=600)
    assert out.splitlines()[1:] == [f"{tmp_path} False"]


async def test_a_cluster_that_does_not_answer_is_named_while_and_after_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The learner waited in silence; Ray itself waits for longer than two minutes."""
    asked = threading.Event()
    monkeypatch.setenv("RAY_ADDRESS", "head")
    monkeypatch.setattr(ray_session, "_init", lambda address, folder: asked.wait())
    monkeypatch.setattr(ray_session, "_START_S", 0.5)
    monkeypatch.setattr(ray_session, "_SAY_S", 0.0)
    try:
        with capture_logs() as lines, pytest.raises(RaySessionError, match="RAY_ADDRESS head: no Ray"):
            await ray_session.RaySession(1).connect()
    finally:
        asked.set()
    assert lines[0]["event"] == "waiting for the Ray cluster of RAY_ADDRESS"
    assert lines[0]["address"] == "head"
