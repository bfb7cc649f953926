"""The supervisor with real processes: restarts, failures, signals, and nothing left behind."""

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from golongrl.errors import NO_SPACE_EXIT, InputError
from golongrl.local.health import Liveness
from golongrl.local.process import ServiceSpec, descendants, last_words
from golongrl.local.supervisor import RunFailedError, RunInterruptedError, Stage, Supervisor, storage_trouble


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


async def test_an_error_that_comes_once_the_run_ends_is_not_told_of_as_lost(tmp_path: Path) -> None:
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    supervisor = Supervisor([Stage((python("main", "pass"),))], "main", tmp_path, print)
    await supervisor.run()
    supervisor.fail(RunFailedError("the run's folder is gone"))
    del supervisor
    gc.collect()
    assert lost == []


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
    assert said == ["helper died (signal SIGKILL); its log ends with: about to fall - starting it again in 1 s"]


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("one\nno weights in /models/x", r"; the end of .*/helper.log:\n  one\n  no weights in /models/x"),
        ("{}\nerror: no weights in /models/x", r": no weights in /models/x; its log is .*/helper.log"),
    ],
)
async def test_a_service_that_dies_at_start_ends_the_run_with_its_last_words(
    tmp_path: Path, words: str, told: str
) -> None:
    stages = [Stage((python("helper", f"raise SystemExit({words!r})", never), python("main", SLEEP)))]
    with pytest.raises(RunFailedError, match=rf"^helper died \(exit code 1\) and was never ready{told}$"):
        await Supervisor(stages, "main", tmp_path, print).run()


async def test_a_service_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    said: list[str] = []
    marker = tmp_path / "second-life"
    helper = f"""
import os, pathlib, signal, time
marker = pathlib.Path({str(marker)!r})
if not marker.exists():
    marker.touch(); os.kill(os.getpid(), signal.SIGKILL)
time.sleep(600)
"""

    async def second() -> bool:
        if marker.exists() and any("starting it again" in line for line in said):
            (tmp_path / "done").touch()
        return (tmp_path / "done").exists()

    stages = [Stage((python("helper", helper, second), python("main", once(tmp_path / "done"))))]
    await Supervisor(stages, "main", tmp_path, said.append).run()
    assert [line for line in said if "helper died (signal SIGKILL)" in line] == said


async def test_a_service_that_is_never_ready_in_time_ends_the_run(tmp_path: Path) -> None:
    stages = [Stage((python("helper", SLEEP, never, deadline=0.6), python("main", SLEEP)))]
    with pytest.raises(
        RunFailedError, match=r"^helper was not ready within 0.6 s and was never ready; nothing is in .*/helper.log$"
    ):
        await Supervisor(stages, "main", tmp_path, print).run()


async def test_a_service_that_is_stopped_by_a_signal_is_killed_and_restarted_with_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    marker = tmp_path / "second-life"
    pid = tmp_path / "pid"
    helper = f"""
import os, pathlib, signal, time
pid = pathlib.Path({str(pid)!r})
if pid.exists():
    pid.write_text(str(os.getpid())); pathlib.Path({str(marker)!r}).touch(); time.sleep(600)
pid.write_text(str(os.getpid()))
os.kill(os.getpid(), signal.SIGSTOP)
"""

    async def runs() -> bool:
        try:
            return psutil.Process(int(pid.read_text())).status() != psutil.STATUS_STOPPED
        except (psutil.NoSuchProcess, ValueError):  # the second life has not written its id yet
            return True

    spec = python(
        "helper",
        helper,
        exists(pid),
        lives=runs,
        asked="GET /healthz",
        liveness=Liveness(period_s=0.2, timeout_s=60, failures=3),
        stop_grace_s=5,
    )
    stages = [Stage((spec,), gate=True), Stage((python("main", once(marker)),))]
    await Supervisor(stages, "main", tmp_path, said.append).run()
    assert said == [
        "helper has not answered GET /healthz for 0.6 s (the process was stopped by a signal) - killing it",
        "helper was killed - starting it again in 1 s",
    ]


async def test_a_service_with_a_frozen_process_below_it_is_restarted(tmp_path: Path) -> None:
    """Such as a rank of the learner: the learner itself answers."""
    ready, marker, said = tmp_path / "ready", tmp_path / "marker", list[str]()
    helper = f"""
import os, pathlib, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
ready = pathlib.Path({str(ready)!r})
if ready.exists():
    pathlib.Path({str(marker)!r}).touch()
else:
    child.send_signal(signal.SIGSTOP)
    ready.touch()
time.sleep(600)
"""

    async def lives() -> bool:
        return True

    times = Liveness(period_s=0.1, timeout_s=60, failures=3)
    spec = python("helper", helper, exists(ready), lives=lives, liveness=times, stop_grace_s=60)
    stages = [Stage((spec,), gate=True), Stage((python("main", once(marker)),))]
    await Supervisor(stages, "main", tmp_path, said.append).run()
    assert re.fullmatch(
        r"helper has had a process that was stopped by a signal \(\S+, pid \d+\) for 0.3 s - killing it", said[0]
    )
    assert said[1:] == ["helper was killed - starting it again in 1 s"]


async def test_a_service_that_answers_again_in_time_lives_on(tmp_path: Path) -> None:
    done, answers = tmp_path / "done", iter([False, False, True, False, False, True])
    states: list[str] = []

    async def probe() -> bool:
        states.append(supervisor.states["helper"])
        answer = next(answers, None)
        if answer is None:
            done.touch()
        return answer is not False

    times = Liveness(period_s=0.02, timeout_s=60, failures=3)
    stages = [Stage((python("helper", SLEEP, lives=probe, liveness=times), python("main", once(done))))]
    supervisor = Supervisor(stages, "main", tmp_path, pytest.fail)
    await supervisor.run()
    assert states[:7] == ["up", "up", "does not answer", "up", "up", "does not answer", "up"]


async def test_refused_connections_are_a_period_apart(tmp_path: Path) -> None:
    """A service that has closed its port and takes long to end is not hanging: a refusal comes at once."""
    done = tmp_path / "done"
    asked: list[float] = []

    async def refuses() -> bool:
        asked.append(time.monotonic())
        if len(asked) == 4:
            done.touch()
        return False

    times = Liveness(period_s=0.3, timeout_s=0.3, failures=1000)
    stages = [Stage((python("helper", SLEEP, lives=refuses, liveness=times), python("main", once(done))))]
    await Supervisor(stages, "main", tmp_path, lambda _: None).run()
    assert all(later - earlier > 0.29 for earlier, later in pairwise(asked))


async def test_a_probe_that_takes_for_ever_is_no_answer(tmp_path: Path) -> None:
    said: list[str] = []

    async def hangs() -> bool:
        await asyncio.sleep(600)
        return True

    spec = python("helper", SLEEP, lives=hangs, liveness=Liveness(period_s=0.1, timeout_s=0.05, failures=2))
    with pytest.raises(RunFailedError, match="died 3 times within a minute"):
        await Supervisor([Stage((spec, python("main", SLEEP)))], "main", tmp_path, said.append).run()
    assert [line for line in said if "has not answered its probe" in line]


@pytest.mark.parametrize(
    ("code", "lines", "trouble"),
    [
        (
            NO_SPACE_EXIT,
            ["error: read-only file system on /x: weights v3 could not be written"],
            "read-only file system",
        ),
        (NO_SPACE_EXIT, ['{"event": "waiting for Re'], "the storage of runs/demo is full or read-only"),
        (1, ["OSError: [Errno 28] No space left on device: 'x'"], "no space left on runs/demo"),
        (1, ["MISCONF Errors writing to the AOF file: No space left on device"], "no space left on runs/demo"),
        (1, ["error: no space left on runs/demo"], "no space left on runs/demo"),
        (1, ["OSError: [Errno 122] Disk quota exceeded"], "no space left on runs/demo"),
        (1, ["error: something else"], None),
        (-9, [], None),
    ],
)
def test_trouble_of_the_storage_is_told_from_other_ends(code: int, lines: list[str], trouble: str | None) -> None:
    found = storage_trouble(code, lines, Path("runs/demo"))
    assert (found is None) is (trouble is None)
    assert (found or "").startswith(trouble or "")


async def test_a_full_disk_ends_the_run_at_once_and_names_the_folder(tmp_path: Path) -> None:
    code = "print('OSError: [Errno 28] No space left on device', flush=True); raise SystemExit(1)"
    logs = tmp_path / "logs"
    logs.mkdir()
    # What an earlier life wrote is not this one's end.
    (logs / "other.log").write_text("No space left on device\n")
    said, before = [], descendants()

    def say(line: str) -> None:
        said.append((line, bool(descendants() - before)))

    other = python("other", SLEEP)
    with pytest.raises(RunFailedError, match=f"no space left on {tmp_path}; main ended: make room") as error:
        await Supervisor([Stage((other, python("main", code)))], "main", logs, say).run()
    assert error.value.exit_code == 1
    assert len(str(error.value).splitlines()) == 1
    # Stopping may take a minute, in which a person would not know why.
    assert said == [(f"no space left on {tmp_path}; stopping everything in order", True)]


async def test_a_storage_that_has_room_is_not_said_to_need_it(tmp_path: Path) -> None:
    code = f"print('error: read-only file system under /out', flush=True); raise SystemExit({NO_SPACE_EXIT})"
    with pytest.raises(RunFailedError, match="under /out; main ended: mend it, then continue with --resume"):
        await Supervisor([Stage((python("main", code),))], "main", tmp_path, print).run()


def test_children_and_grandchildren_with_a_parents_signal_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    """kill -9 of the supervisor: its children ignore SIGTERM and end all the same."""
    ready = tmp_path / "ready"
    child = f"import os, pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); \
pathlib.Path({str(ready)!r}).write_text(str(os.getpid())); time.sleep(600)"
    program = f"""
import asyncio, sys
from pathlib import Path
from golongrl.local.process import ServiceSpec
from golongrl.local.supervisor import Stage, Supervisor
async def ready(): return Path({str(ready)!r}).exists()
spec = ServiceSpec("main", (sys.executable, "-c", {child!r}), ready, 60)
asyncio.run(Supervisor([Stage((spec,))], "main", Path({str(tmp_path)!r}), print).run())
"""
    supervisor = subprocess.Popen([sys.executable, "-c", program])
    try:
        while not (ready.exists() and ready.read_text()):
            assert supervisor.poll() is None
            time.sleep(0.05)
        process = psutil.Process(int(ready.read_text()))
    finally:
        supervisor.kill()
        supervisor.wait()
    psutil.wait_procs([process], timeout=30)
    assert not process.is_running()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_signal_is_named_and_sets_the_exit_code(tmp_path: Path, number: signal.Signals, code: int) -> None:
    supervisor = Supervisor([Stage((python("main", SLEEP),))], "main", tmp_path, print)
    running = asyncio.create_task(supervisor.run())
    while supervisor.states["main"] != "up":
        await asyncio.sleep(0.05)
    os.kill(os.getpid(), number)
    with pytest.raises(RunInterruptedError, match=f"stopped by {number.name}; continue with --resume") as error:
        await running
    assert error.value.exit_code == code


async def test_a_second_signal_ends_at_once_what_does_not_want_to(tmp_path: Path) -> None:
    ready, said = tmp_path / "ready", list[str]()
    stubborn = f"""
import pathlib, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({str(ready)!r}).touch()
time.sleep(600)
"""
    spec = python("main", stubborn, exists(ready), stop_grace_s=250)
    supervisor = Supervisor([Stage((spec,))], "main", tmp_path, said.append)
    running = asyncio.create_task(supervisor.run())
    while supervisor.states["main"] != "up":
        await asyncio.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
    while not said:
        await asyncio.sleep(0.05)
    assert not running.done()
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(RunInterruptedError, match="stopped by SIGINT"):
        await asyncio.wait_for(running, 120)
    assert said == ["SIGINT: stopping everything in order (send it again to kill)"]


async def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    go = tmp_path / "go"
    try:
        supervisor = Supervisor([Stage((python("main", once(go)),))], "main", tmp_path, print)
        running = asyncio.create_task(supervisor.run())
        while supervisor.states["main"] != "up":
            await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGHUP)
        go.touch()
        await running
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_no_line_and_no_log_line_has_a_password(tmp_path: Path) -> None:
    code = "print('error: redis://:secret-word@h:1/0 is gone', flush=True); raise SystemExit(3)"
    with pytest.raises(RunFailedError) as error:
        await Supervisor([Stage((python("main", code, never),))], "main", tmp_path, print).run()
    assert "secret-word" not in str(error.value)
    assert "redis://:***@h:1/0 is gone" in str(error.value)


async def test_a_child_inherits_neither_a_password_nor_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOLONGRL_REDIS_PASSWORD", "outer")
    monkeypatch.setenv("GOLONGRL_REDIS_URL", "redis://:outer@h")
    # Of other work: the learner waited for that cluster without a word.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_TMPDIR", "/none")
    names = ("GOLONGRL_REDIS_PASSWORD", "GOLONGRL_REDIS_URL", "RAY_ADDRESS", "RAY_TMPDIR")
    show = f"import os; print([os.environ.get(n) for n in {names}])"
    stages = [
        Stage((python("helper", f"{show}\n{SLEEP}"), python("main", show, env={"GOLONGRL_REDIS_PASSWORD": "own"})))
    ]
    await Supervisor(stages, "main", tmp_path, print).run()
    assert (tmp_path / "main.log").read_text() == "['own', None, None, None]\n"
    assert (tmp_path / "helper.log").read_text() == "[None, None, None, None]\n"


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


async def test_a_log_that_cannot_be_written_ends_the_run_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "main.log").mkdir()
    with pytest.raises(InputError, match=rf"{tmp_path / 'main.log'}: cannot be written: Is a directory"):
        await Supervisor([Stage((python("main", SLEEP),))], "main", tmp_path, print).run()
