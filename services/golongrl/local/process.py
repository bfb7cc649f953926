"""One service as a child process: started, probed, stopped, and never left behind.

Invariants:
- a child leads its own process group, so that Ctrl-C reaches only the supervisor, which stops things in order;
- a child dies with the supervisor, even if that is killed (Linux: parent-death signal), and at once: a learner that
  saves a checkpoint while its Redis is gone would wait for minutes, and nothing is lost by a kill;
- output goes to the service's log file, appended, so that a restart keeps what the last life wrote;
- a child gets no password of the supervisor's environment, except where its spec gives it one, and no Ray cluster.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

from golongrl.errors import GolongrlError, without_secrets, writing_to
from golongrl.local.health import Liveness, Pulse, StartDeadline
from golongrl.local.plan import PASSWORD_VARIABLE
from golongrl.telemetry.watchdog import UNANSWERED_S

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# A process may start another before it sees its own end; what was killed starts none.
_KILLS = 3
# Of the supervisor's environment, kept from its children: they get the address and the password that the run uses, and
# the learner starts a Ray of its own in the run's temporary folder, whatever cluster or folder other work has named.
_NOT_INHERITED = frozenset(
    {PASSWORD_VARIABLE, f"{PASSWORD_VARIABLE}_FILE", "GOLONGRL_REDIS_URL", "RAY_ADDRESS", "RAY_TMPDIR"}
)

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class ServiceSpec:
    """What to start and how to know that it is up.

    Attributes:
        name: unique in the run; also the log file's stem.
        argv: the command line.
        probe: answers whether the service is ready; must not raise and must not take long.
        lives: answers whether the service responds at all; without it, a service that hangs is not noticed.
        asked: what `lives` asks, for the line about a service that hangs.
        liveness: when silence counts as hanging.
        explain: what a death before the service was ready means to a person, from the last lines of its log.
        silent_s: without an answer for so long, it is reported not to answer.
        start_deadline_s: longest time from start to the first ready, unless it is at work (`StartDeadline`).
        stop_grace_s: time between SIGTERM and SIGKILL.
        env: added to the supervisor's environment.
        nice: how much the process yields to the others when cores are short.
    """

    name: str
    argv: tuple[str, ...]
    probe: Probe
    start_deadline_s: float
    stop_grace_s: float = 15.0
    env: Mapping[str, str] = field(default_factory=dict)
    nice: int = 0
    lives: Probe | None = None
    asked: str = ""
    liveness: Liveness = field(default_factory=Liveness)
    explain: Callable[[Sequence[str]], GolongrlError | None] = lambda _: None
    silent_s: float = UNANSWERED_S


def last_lines(log: Path, count: int = 15, since: int = 0) -> list[str]:
    """The last lines of a log file from the byte `since`, without reading a long one whole, and without secrets."""
    try:
        with log.open("rb") as file:
            file.seek(max(since, log.stat().st_size - 64 * 1024))
            lines = file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
    return [without_secrets(line) for line in lines]


def error_line(lines: Sequence[str]) -> str | None:
    """The error that a command printed at its end, in its log's last lines; None without one."""
    found = (line.strip() for line in reversed(lines))
    return next((line.removeprefix("error: ") for line in found if line.startswith("error: ")), None)


def last_words(lines: Sequence[str], most: int = 200) -> str:
    """The line that says why a process ended, shortened in its middle.

    That is the error which a command printed at its end, or else the last line that is not empty; of a structured line
    the event and its error.
    """
    line = error_line(lines)
    if line is None:
        line = next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
        with contextlib.suppress(ValueError, RecursionError):
            fields = json.loads(line)
            if isinstance(fields, dict) and "event" in fields:
                line = ": ".join(str(fields[key]) for key in ("event", "error") if key in fields)
    # What went wrong stands at the end of a line as often as at its beginning.
    return line if len(line) <= most else f"{line[: most // 2]} ... {line[-most // 2 :]}"


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that `kill_descendants` finds them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> set[psutil.Process]:
    """Every process below this one."""
    return set(psutil.Process().children(recursive=True))


def stopped_processes(owners: Mapping[int, str], other: str) -> dict[str, str]:
    """What to say of each service one of whose processes somebody stopped with a signal (SIGSTOP).

    Args:
        owners: the services by the ids of their processes.
        other: the service to which orphans belong.
    """
    found: dict[str, str] = {}
    for process in descendants():
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_STOPPED:
                continue
            if process.pid in owners:
                found[owners[process.pid]] = f"was stopped by a signal (pid {process.pid})"
            else:
                above = (owners[parent.pid] for parent in process.parents() if parent.pid in owners)
                what = f"has a process that was stopped by a signal ({process.name()}, pid {process.pid})"
                found.setdefault(next(above, other), what)
    return found


def kill_descendants(spare: Set[psutil.Process], grace_s: float = 3.0) -> None:
    """End whatever runs below this process but not in `spare`, and what that starts while it is being ended."""
    for number in (signal.SIGTERM, *[signal.SIGKILL] * _KILLS):
        left = list(descendants() - spare)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        psutil.wait_procs(left, timeout=grace_s)


def _before_exec(nice: int, parent: int) -> None:
    os.nice(nice)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


def _waited_for_a_core_s(pid: int) -> float:
    """Seconds in which the process's threads were ready to run and had no core; 0 where Linux does not tell."""
    waited = 0
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            waited += int((thread / "schedstat").read_text().split()[1])
    return waited / 1e9


class Service:
    """A running (or ended) child process of a `ServiceSpec`."""

    def __init__(self, spec: ServiceSpec, log: Path, begin: int, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.log = log
        self.deadline = StartDeadline(spec.start_deadline_s)
        self._begin = begin
        self._process = process
        self._heard = time.monotonic()
        self._owes = False

    @classmethod
    async def start(cls, spec: ServiceSpec, logs: Path) -> "Service":
        """Start the process; its output is appended to `logs/NAME.log`."""
        log = logs / f"{spec.name}.log"
        with writing_to(str(log)):
            opened = log.open("ab")
        with opened as output:
            begin = output.tell()
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**_inherited(), **spec.env},
                # Not a session: Linux shares cores between sessions first, whatever their `nice` is.
                process_group=0,
                preexec_fn=partial(_before_exec, spec.nice, os.getpid()),
            )
        return cls(spec, log, begin, process)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    @property
    def stopped(self) -> bool:
        """Whether somebody stopped the process with a signal (SIGSTOP), so that it cannot answer."""
        with contextlib.suppress(psutil.Error):
            return bool(psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED)
        return False

    def stopped_below(self) -> str | None:
        """A process below it that somebody stopped with a signal, if there is one."""
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if child.status() == psutil.STATUS_STOPPED:
                        return f"{child.name()}, pid {child.pid}"
        return None

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def unanswered_s(self) -> float:
        """How long it has not answered a question that was asked; 0 while none is open and the last was answered."""
        return time.monotonic() - self._heard if self._owes else 0.0

    def last_lines(self) -> list[str]:
        """The end of its log, of this life only."""
        return last_lines(self.log, since=self._begin)

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        return await self._process.wait()

    async def until_ready(self, poll_s: float = 0.25) -> bool:
        """Wait until the probe says ready; False when the process ended or the start deadline passed first."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while self.alive and (clock() - began < self.deadline.s or not self.deadline.passed(self.worked_s())):
            if await self.spec.probe():
                return True
            await asyncio.sleep(poll_s)
        return False

    def worked_s(self) -> float:
        """CPU seconds of the process and of those below it, with those in which their threads waited for a core."""
        found = 0.0
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self._process.pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    found += sum(each.cpu_times()[:4])  # with those of its children that have ended
                found += _waited_for_a_core_s(each.pid)
        return found

    async def until_hung(self, answers: Callable[[bool], None] = lambda _: None) -> None:
        """Returns when the process lives and does not answer for too long; never, where nothing can be asked. Where a
        process below it is stopped, such as a rank, its answers count for nothing.

        Args:
            answers: receives, after each probe, whether the service can be counted on to answer.
        """
        times, pulse = self.spec.liveness, Pulse(self.spec.liveness)
        answered, self._heard = True, time.monotonic()
        pause = times.period_s
        while not pulse.observe(answered):
            await asyncio.sleep(pause)
            if self.spec.lives is None:
                continue
            self._owes, asked = True, time.monotonic()
            try:
                async with asyncio.timeout(times.timeout_s):
                    answered = await self.spec.lives()
            except TimeoutError:
                answered = False
            if answered:
                self._heard, self._owes = time.monotonic(), False
                answered = await asyncio.to_thread(self.stopped_below) is None
            # A refused connection takes no time, and has to count no more than an answer that does not come.
            pause = times.period_s if answered else max(0.0, times.period_s - (time.monotonic() - asked))
            # One lost answer is no news.
            answers(answered or pulse.failed == 0)

    async def stop(self) -> int:
        """SIGTERM, and SIGKILL to the whole group after the grace period. Returns the exit code."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
                # A stopped process would see the signal only when somebody continues it.
                self._process.send_signal(signal.SIGCONT)
            try:
                async with asyncio.timeout(self.spec.stop_grace_s):
                    return await self._process.wait()
            except TimeoutError:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return await self._process.wait()
