"""One service as a child process: started, probed, stopped, and never left behind.

Invariants:
- a child leads its own process group, so that Ctrl-C reaches only the supervisor, which stops things in order;
- a child dies with the supervisor, even if that is killed (Linux: parent-death signal);
- output goes to the service's log file, appended, so that a restart keeps what the last life said.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

# From <linux/prctl.h>.
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# A process may start another before it sees its own end; what was killed starts none.
_KILLS = 3

Probe = Callable[[], Awaitable[bool]]


@dataclass(frozen=True)
class ServiceSpec:
    """What to start and how to know that it is up.

    Attributes:
        name: unique in the run; also the log file's stem.
        argv: the command line.
        probe: answers whether the service is ready; must not raise and must not take long.
        start_deadline_s: longest time from start to the first ready.
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


def describe_exit(code: int) -> str:
    """`exit code 1`, or `signal SIGKILL` for a negative code."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def last_lines(log: Path, count: int = 15) -> list[str]:
    """The last lines of a log file, without reading a long one whole."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            return file.read().decode("utf-8", "replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def last_words(lines: Sequence[str], most: int = 200) -> str:
    """The last line that says something, shortened; of a structured line the event and its error."""
    line = next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
    with contextlib.suppress(json.JSONDecodeError):
        fields = json.loads(line)
        if isinstance(fields, dict) and "event" in fields:
            line = ": ".join(str(fields[key]) for key in ("event", "error") if key in fields)
    return line if len(line) <= most else f"{line[:most]}..."


def adopt_orphans() -> None:
    """Make this process the parent of its descendants' orphans, so that `kill_descendants` finds them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def descendants() -> set[psutil.Process]:
    """Every process below this one."""
    return set(psutil.Process().children(recursive=True))


def kill_descendants(spare: Set[psutil.Process], grace_s: float = 3.0) -> None:
    """End whatever runs below this process but not in `spare`, and what that starts while it is being ended."""
    for number in (signal.SIGTERM, *[signal.SIGKILL] * _KILLS):
        left = list(descendants() - spare)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        psutil.wait_procs(left, timeout=grace_s)


def _before_exec(nice: int) -> None:
    os.nice(nice)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Service:
    """A running (or ended) child process of a `ServiceSpec`."""

    def __init__(self, spec: ServiceSpec, log: Path, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.log = log
        self._process = process

    @classmethod
    async def start(cls, spec: ServiceSpec, logs: Path) -> "Service":
        """Start the process; its output is appended to `logs/NAME.log`."""
        log = logs / f"{spec.name}.log"
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **spec.env},
                # Not a session: Linux shares cores between sessions first, whatever `nice` says.
                process_group=0,
                preexec_fn=partial(_before_exec, spec.nice),
            )
        return cls(spec, log, process)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def wait(self) -> int:
        """Wait for its end; returns the exit code, negative for a signal."""
        return await self._process.wait()

    async def until_ready(self, poll_s: float = 0.25) -> bool:
        """Wait until the probe says ready; False when the process ended or the start deadline passed first."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.spec.start_deadline_s
        while self.alive and clock() < deadline:
            if await self.spec.probe():
                return True
            await asyncio.sleep(poll_s)
        return False

    async def stop(self) -> int:
        """SIGTERM, and SIGKILL to the whole group after the grace period. Returns the exit code."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            try:
                async with asyncio.timeout(self.spec.stop_grace_s):
                    return await self._process.wait()
            except TimeoutError:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        return await self._process.wait()
