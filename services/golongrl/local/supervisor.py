"""Keeps a run's processes alive on one machine, as Kubernetes would, and ends them in order.

Invariants:
- the run ends with the learner's exit 0, a service that cannot be kept alive, a full disk or a signal; never silently;
- however it ends, no process of the run is left;
- a service that lives and does not answer is killed and restarted, like one that died;
- every death is one line: which service, how it ended, its last words, and what happens now.
"""

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from golongrl.errors import NO_SPACE_EXIT, GolongrlError, no_space, without_secrets
from golongrl.local.process import (
    Service,
    ServiceSpec,
    adopt_orphans,
    descendants,
    error_line,
    kill_descendants,
    last_words,
    stopped_processes,
)
from golongrl.restart import GiveUp, Restart, RestartPolicy, describe_exit

# The signals that end a run in order: Ctrl-C, a service manager's, a closed terminal's.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What the system writes in a log when the disk is full: the cause of a death, whatever its exit code.
_FULL_DISK = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), no_space(""))


# The state of a service that lives and does not answer; the states of one that should answer.
SILENT = "does not answer"
_ASKED = ("up", SILENT)


class RunFailedError(GolongrlError):
    """A service could not be kept alive."""


class RunInterruptedError(GolongrlError):
    """The run was stopped by a signal; it can be resumed."""

    def __init__(self, number: int, advice: str = "continue with --resume") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; {advice}")
        self.number = number
        # What a shell reports for a program that the signal ended.
        self.exit_code = 128 + number


def storage_trouble(code: int, lines: Sequence[str], folder: Path) -> str | None:
    """What is wrong with the storage, if a process that ended with `code` and these last lines ended for that. Pure."""
    if code == NO_SPACE_EXIT:
        told = error_line(lines) is not None
        return last_words(lines) if told else f"the storage of {folder} is full or read-only"
    return no_space(folder) if any(words in line for line in lines for words in _FULL_DISK) else None


@dataclass(frozen=True)
class Stage:
    """Services that start together, and stop together before the stages that started earlier do.

    Attributes:
        gate: later stages start only when this one is ready; else they wait for what they need by themselves.
    """

    services: tuple[ServiceSpec, ...]
    gate: bool = False


class Supervisor:
    """Runs stages of services until the service named `main` exits 0.

    Args:
        stages: in starting order; they stop in the opposite order.
        main: the service whose success ends the run.
        logs: folder of the log files.
        say: receives one line per event.
        step: the newest step that the run has finished.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        main: str,
        logs: Path,
        say: Callable[[str], None],
        step: Callable[[], int] = lambda: 0,
    ) -> None:
        self._stages = stages
        self._main = main
        self._logs = logs
        self._out = say
        self._step = step
        self._live: dict[str, Service] = {}
        self._foreign: set[psutil.Process] = set()
        self._finished = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._signal = signal.SIGINT
        self._failed: asyncio.Future[None] | None = None
        self._stopping = asyncio.Event()
        self.states: dict[str, str] = {spec.name: "waiting" for stage in stages for spec in stage.services}

    async def run(self) -> None:
        """Run to the end.

        Raises:
            RunFailedError: a service could not be kept alive; the message has its last log lines.
            RunInterruptedError: SIGINT, SIGTERM or SIGHUP came.
            GolongrlError: what `fail` was given, or what a service's death means to a person.
        """
        self._failed = asyncio.get_running_loop().create_future()
        adopt_orphans()
        # What a program that embeds us started before is not ours to end.
        self._foreign = descendants()
        with self._signals():
            keepers: list[asyncio.Task[None]] = []
            try:
                for stage in self._stages:
                    ready = [asyncio.Event() for _ in stage.services]
                    keepers += [
                        asyncio.create_task(self._keep(spec, event))
                        for spec, event in zip(stage.services, ready, strict=True)
                    ]
                    if stage.gate:
                        await self._watch(keepers, ready)
                await self._watch(keepers, [self._finished])
            except GolongrlError as error:
                if not isinstance(error, RunInterruptedError):
                    # The command says all of it, last: stopping may take a minute.
                    self._say(f"{str(error).splitlines()[0].partition('; ')[0]}; stopping everything in order")
                raise
            finally:
                self._stopping.set()
                await self._stop_all(keepers)

    def _say(self, line: str) -> None:
        self._out(without_secrets(line))

    @property
    def stopping(self) -> bool:
        """Whether it ends its services: nothing is expected of them any more."""
        return self._stopping.is_set()

    def left(self) -> list[str]:
        """The services that have not ended, in the order in which they are ended."""
        return [name for name, service in reversed(self._live.items()) if service.alive]

    def troubles(self) -> dict[str, tuple[str, bool]]:
        """Of each service from which nothing is to be expected now: why, and whether a line has reported it."""
        up = {name: service for name, service in self._live.items() if self.states.get(name) in _ASKED}
        silent = {
            name: (f"has not answered {service.spec.asked or 'its probe'} for {service.unanswered_s:.0f} s", False)
            for name, service in up.items()
            if service.unanswered_s >= service.spec.silent_s
        }
        down = {name: (f"is {state}", True) for name, state in self.states.items() if state not in (*_ASKED, "done")}
        return down | silent | {name: (words, False) for name, words in self.stopped().items()}

    def stopped(self) -> dict[str, str]:
        """What to say of each service one of whose processes somebody stopped with a signal."""
        return stopped_processes({service.pid: name for name, service in self._live.items()}, self._main)

    def fail(self, error: GolongrlError) -> None:
        """End the run with this error, unless it ends already."""
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)
            # Seen: where the run ends for something else, asyncio would tell of it as lost.
            self._failed.exception()

    async def _watch(self, keepers: Sequence[asyncio.Task[None]], goals: Sequence[asyncio.Event]) -> None:
        """Wait until all goals are set, or until a keeper fails, the run finishes or a signal comes."""

        async def reached() -> None:
            for goal in goals:
                await goal.wait()

        async def is_set(event: asyncio.Event) -> None:
            await event.wait()

        assert self._failed is not None  # made by `run`
        ends = [asyncio.create_task(wait) for wait in (reached(), is_set(self._finished), is_set(self._interrupted))]
        pending = {keeper for keeper in keepers if not keeper.done()}
        try:
            while not any(end.done() for end in ends):
                waited: set[asyncio.Future[None]] = {*ends, *pending, self._failed}
                done, _ = await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
                if self._failed.done():
                    self._failed.result()
                for keeper in pending & done:
                    await keeper
                pending -= done
        finally:
            for end in ends:
                end.cancel()
        if self._interrupted.is_set():
            raise RunInterruptedError(self._signal)

    async def _keep(self, spec: ServiceSpec, ready: asyncio.Event) -> None:
        """Start a service, and start it again after each death its policy allows."""
        policy = RestartPolicy()
        clock = asyncio.get_running_loop().time
        while True:
            self.states[spec.name] = "starting"
            service = await Service.start(spec, self._logs)
            self._live[spec.name] = service
            late = hung = False
            if up := await service.until_ready():
                policy.ready()
                ready.set()
                self.states[spec.name] = "up"
                hung = await self._hangs(service)
                if hung and not self._stopping.is_set():
                    self.states[spec.name] = SILENT
                    self._say(f"{spec.name} {_silence(service)} - killing it")
                    await service.stop()
            elif service.alive:
                late = True
                await service.stop()
            code = await service.wait()
            if self._stopping.is_set():
                return
            if spec.name == self._main and code == 0 and not late:
                self.states[spec.name] = "done"
                self._finished.set()
                return
            decision = policy.died(clock(), code, self._step(), late=late)
            self._raise_if_final(service, code, up, late, decision)
            assert isinstance(decision, Restart)
            self.states[spec.name] = f"restarting (death {decision.deaths})"
            how = "was killed" if hung else f"died ({describe_exit(code)})"
            words = "" if hung else _last_said(service.last_lines())
            self._say(f"{spec.name} {how}{words} - starting it again in {decision.delay_s:g} s")
            await asyncio.sleep(decision.delay_s)
            if self._stopping.is_set():
                return

    async def _hangs(self, service: Service) -> bool:
        """Wait for the end of the process or for it to hang; whether it hangs."""

        def answers(well: bool) -> None:
            self.states[service.spec.name] = "up" if well else SILENT

        ends: list[asyncio.Task[int] | asyncio.Task[None]]
        ends = [asyncio.create_task(service.wait()), asyncio.create_task(service.until_hung(answers))]
        try:
            done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in done:
                end.result()  # a probe must not raise: one that does is a defect, and no service that hangs
            return service.alive
        finally:
            for end in ends:
                end.cancel()

    def _raise_if_final(self, service: Service, code: int, up: bool, late: bool, decision: Restart | GiveUp) -> None:
        """End the run where the death, or the policy, says that a restart is pointless."""
        name, lines = service.spec.name, service.last_lines()
        if (trouble := storage_trouble(code, lines, self._logs.parent)) is not None:
            self.states[name] = "failed"
            way_out = "make room" if any(words in trouble for words in _FULL_DISK) else "mend it"
            raise RunFailedError(f"{trouble}; {name} ended: {way_out}, then continue with --resume")
        if not up and code > 0 and (known := service.spec.explain(lines)) is not None:
            self.states[name] = "failed"
            raise known
        if isinstance(decision, GiveUp):
            self.states[name] = "failed"
            how = f"was not ready within {service.deadline.s:g} s" if late else f"died ({describe_exit(code)})"
            raise RunFailedError(f"{name} {how} and {decision.reason}{_told(lines, service.log)}")

    async def _stop_all(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        for stage in reversed(self._stages):
            live = [self._live[spec.name] for spec in stage.services if spec.name in self._live]
            await asyncio.gather(*(service.stop() for service in live))
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        kill_descendants(self._foreign)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """A signal ends the run in order; a second one while stopping ends what is left at once."""
        loop = asyncio.get_running_loop()

        def on_signal(number: signal.Signals) -> None:
            if self._interrupted.is_set():
                kill_descendants(self._foreign, grace_s=0.5)
            elif not self._stopping.is_set():
                self._signal = number
                self._say(f"{number.name}: stopping everything in order (send it again to kill)")
            self._interrupted.set()

        # A signal that is ignored stays so: nohup starts a program with SIGHUP ignored.
        before = {number: signal.getsignal(number) for number in SIGNALS}
        heard = [number for number in SIGNALS if number == signal.SIGINT or before[number] is not signal.SIG_IGN]
        for number in heard:
            loop.add_signal_handler(number, on_signal, number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number] or signal.SIG_DFL)


def _told(lines: Sequence[str], log: Path) -> str:
    """What a log's last lines say of an end: the error line of a command says it all, else any of them may."""
    if (error := error_line(lines)) is not None:
        return f": {error}; its log is {log}"
    tail = "".join(f"\n  {line}" for line in lines)
    return f"; the end of {log}:{tail}" if tail else f"; nothing is in {log}"


def _last_said(lines: Sequence[str]) -> str:
    """The error of a command that died, else the end of its log: what a signal kills does not say why."""
    if error_line(lines) is not None:
        return f": {last_words(lines)}"
    return f"; its log ends with: {last_words(lines)}" if any(map(str.strip, lines)) else "; its log is empty"


def _silence(service: Service) -> str:
    """Why a service counts as hanging."""
    spec = service.spec
    lasted = f"for {spec.liveness.longest_s:g} s"
    if service.stopped:
        return f"has not answered {spec.asked or 'its probe'} {lasted} (the process was stopped by a signal)"
    if (below := service.stopped_below()) is not None:
        return f"has had a process that was stopped by a signal ({below}) {lasted}"
    return f"has not answered {spec.asked or 'its probe'} {lasted}"
