"""The supervisor with real processes: restarts, failures, signals, and nothing left behind."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest

from golongrl.local.process import ServiceSpec, descendants, last_words
from golongrl.local.supervisor import RunFailedError, RunInterruptedError, Stage, Supervisor


async def always() -> bool:
    return True


async def never() -> bool:
    return False


def python(name: str, code: str, probe=always, **options) -> ServiceSpec:
    return ServiceSpec(
        name, (sys.executable, "-c", code), probe, start_deadline_s=options.pop("deadline", 120.0), **options
    )


def exists(path: Path):
    async def probe() -> bool:
        return path.exists()

    return probe


def once(path: Path) -> str:
    """Code that waits until there is a file."""
    return f"import pathlib, time\nwhile not pathlib.Path({str(path)!r}).exists(): time.sleep(0.05)\n"


SLEEP = "import time; time.sleep(600)"


async def test_it_ends_when_main_is_done_and_leaves_no_process(tmp_path: Path) -> None:
    # The helper starts a grandchild of its own, in a session of its own: that one must go too.
    started = tmp_path / "started"
    grandchild = (
        f"import pathlib, subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"
        f"; pathlib.Path({str(started)!r}).touch(); {SLEEP}"
    )
    stages = [
        Stage((python("helper", grandchild, exists(started)),), gate=True),
        Stage((python("main", "print('done')"),)),
    ]
    foreign = await asyncio.create_subprocess_exec(sys.executable, "-c", SLEEP)
    before = descendants()
    try:
        await Supervisor(stages, "main", tmp_path, print).run()
        # Nothing of the run is left, and nothing else was ended. (What earlier tests left may end meanwhile.)
        assert descendants() - before == set()
        assert psutil.Process(foreign.pid).status() != psutil.STATUS_ZOMBIE
    finally:
        foreign.kill()
        await foreign.wait()
    assert "done" in (tmp_path / "main.log").read_text()


async def test_what_a_process_starts_as_it_ends_goes_too(tmp_path: Path) -> None:
    """Nobody stops the grandchild but the last sweep, and that is when it starts another."""
    ready, ended = tmp_path / "ready", tmp_path / "ended"
    grandchild = f"""
import pathlib, signal, subprocess, sys, time
def end(*_):
    subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)
    pathlib.Path({str(ended)!r}).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
pathlib.Path({str(ready)!r}).touch()
time.sleep(600)
"""
    helper = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {grandchild!r}]); {SLEEP}"
    stages = [Stage((python("helper", helper, exists(ready)),), gate=True), Stage((python("main", "pass"),))]
    before = descendants()
    await Supervisor(stages, "main", tmp_path, print).run()
    assert ended.exists()
    assert descendants() - before == set()


async def test_a_killed_service_is_started_again_and_the_line_says_which_and_why(tmp_path: Path) -> None:
    said: list[str] = []
    marker, seen = tmp_path / "second-life", tmp_path / "seen"
    helper = f"""
import os, pathlib, signal, time
first = pathlib.Path({str(tmp_path / "first-life")!r})
if first.exists():
    pathlib.Path({str(marker)!r}).touch(); time.sleep(600)
first.touch(); print('about to fall', flush=True)
while not pathlib.Path({str(seen)!r}).exists(): time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
    # Main is started when the helper was seen to be ready; not before that does it fall.
    main = f"import pathlib; pathlib.Path({str(seen)!r}).touch()\n{once(marker)}"
    stages = [
        Stage((python("helper", helper, exists(tmp_path / "first-life")),), gate=True),
        Stage((python("main", main),)),
    ]
    await Supervisor(stages, "main", tmp_path, said.append).run()
    assert said == ["helper died (signal SIGKILL): about to fall - starting it again in 1 s"]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["first", "last", " "], "last"),
        ([], "nothing in its log"),
        (
            ['{"event": "weights not confirmed", "error": "no manifest", "level": "error"}'],
            "weights not confirmed: no manifest",
        ),
        (['{"cut": '], '{"cut":'),
        (["a" * 200 + "b" * 200], "a" * 100 + " ... " + "b" * 100),
        (["error: no space left on /x", "Exception ignored in: <_io.TextIOWrapper>"], "no space left on /x"),
    ],
)
def test_last_words_are_short_and_readable(lines: list[str], words: str) -> None:
    assert last_words(lines) == words


async def test_a_service_that_dies_at_start_ends_the_run_with_its_last_words(tmp_path: Path) -> None:
    stages = [Stage((python("helper", "raise SystemExit('no weights in /models/x')", never), python("main", SLEEP)))]
    with pytest.raises(
        RunFailedError, match=r"helper died \(exit code 1\) and was never ready(.|\n)*no weights in /models/x"
    ):
        await Supervisor(stages, "main", tmp_path, print).run()


async def test_a_service_that_is_never_ready_in_time_ends_the_run(tmp_path: Path) -> None:
    stages = [Stage((python("helper", SLEEP, never, deadline=0.6), python("main", SLEEP)))]
    with pytest.raises(RunFailedError, match=r"helper was not ready within 0.6 s"):
        await Supervisor(stages, "main", tmp_path, print).run()


async def test_a_signal_stops_the_stages_in_the_opposite_order(tmp_path: Path) -> None:
    order = tmp_path / "order"
    code = """
import pathlib, signal, sys, time
def stop(*_):
    with open({order!r}, 'a') as file: file.write('{name}\\n')
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
pathlib.Path({ready!r}).touch()
time.sleep(600)
"""

    def service(name: str) -> ServiceSpec:
        ready = tmp_path / f"{name}.ready"
        return python(name, code.format(order=str(order), name=name, ready=str(ready)), exists(ready))

    supervisor = Supervisor([Stage((service("redis"),), gate=True), Stage((service("main"),))], "main", tmp_path, print)
    running = asyncio.create_task(supervisor.run())
    while supervisor.states["main"] != "up":
        await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(RunInterruptedError, match="--resume"):
        await running
    assert order.read_text().split() == ["main", "redis"]
