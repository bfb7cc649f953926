"""Keeps a run's processes alive on one machine, as Kubernetes would, and ends them in order.

Invariants:
- the run ends with the learner's exit 0, a service that cannot be kept alive, or a signal; never silently;
- whatever way it ends, no process of the run is left;
- every death is one line: which service, how it ended, its last words, and what happens now.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from golongrl.errors import GolongrlError
from golongrl.local.process import (
    Service,
    ServiceSpec,
    adopt_orphans,
    descendants,
    describe_exit,
    kill_descendants,
    last_lines,
    last_words,
)
from golongrl.local.restart import GiveUp, RestartPolicy

# What a shell reports for a program that Ctrl-C ended.
INTERRUPTED_EXIT = 130


class RunFailedError(GolongrlError):
    """A service could not be kept alive."""


class RunInterruptedError(GolongrlError):
    """The run was stopped by a signal; it can be resumed."""

    exit_code = INTERRUPTED_EXIT


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
    """

    def __init__(self, stages: Sequence[Stage], main: str, logs: Path, say: Callable[[str], None]) -> None:
        self._stages = stages
        self._main = main
        self._logs = logs
        self._say = say
        self._live: dict[str, Service] = {}
        self._foreign: set[psutil.Process] = set()
        self._finished = asyncio.Event()
        self._interrupted = asyncio.Event()
        self._stopping = asyncio.Event()
        self.states: dict[str, str] = {spec.name: "waiting" for stage in stages for spec in stage.services}

    async def run(self) -> None:
        """Run to the end.

        Raises:
            RunFailedError: a service could not be kept alive; the message has its last log lines.
            RunInterruptedError: SIGINT or SIGTERM came.
        """
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
            finally:
                self._stopping.set()
                await self._stop_all(keepers)

    async def _watch(self, keepers: Sequence[asyncio.Task[None]], goals: Sequence[asyncio.Event]) -> None:
        """Wait until all goals are set, or until a keeper fails, the run finishes or a signal comes."""

        async def reached() -> None:
            for goal in goals:
                await goal.wait()

        ends = [asyncio.create_task(wait) for wait in (reached(), self._finished.wait(), self._interrupted.wait())]
        pending = {keeper for keeper in keepers if not keeper.done()}
        try:
            while not any(end.done() for end in ends):
                done, _ = await asyncio.wait([*ends, *pending], return_when=asyncio.FIRST_COMPLETED)
                for keeper in done & pending:
                    await keeper
                pending -= done
        finally:
            for end in ends:
                end.cancel()
        if self._interrupted.is_set():
            raise RunInterruptedError("stopped by a signal; go on with --resume")

    async def _keep(self, spec: ServiceSpec, ready: asyncio.Event) -> None:
        """Start a service, and start it again after each death its policy allows."""
        policy = RestartPolicy()
        clock = asyncio.get_running_loop().time
        while True:
            self.states[spec.name] = "starting"
            service = await Service.start(spec, self._logs)
            self._live[spec.name] = service
            late = False
            if await service.until_ready():
                policy.ready()
                ready.set()
                self.states[spec.name] = "up"
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
            how = f"was not ready within {spec.start_deadline_s:g} s" if late else f"died ({describe_exit(code)})"
            words = last_words(last_lines(service.log))
            decision = policy.died(clock(), code)
            if isinstance(decision, GiveUp):
                self.states[spec.name] = "failed"
                tail = "\n".join(f"  {line}" for line in last_lines(service.log))
                raise RunFailedError(f"{spec.name} {how} and {decision.reason}; the end of {service.log}:\n{tail}")
            self.states[spec.name] = f"restarting (death {decision.deaths})"
            self._say(f"{spec.name} {how}: {words} - starting it again in {decision.delay_s:g} s")
            await asyncio.sleep(decision.delay_s)
            if self._stopping.is_set():
                return

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
        """SIGINT and SIGTERM end the run in order; a second one while stopping ends what is left at once."""
        loop = asyncio.get_running_loop()

        def on_signal() -> None:
            if self._interrupted.is_set():
                kill_descendants(self._foreign, grace_s=0.5)
            elif not self._stopping.is_set():
                self._say("stopping everything in order (once more to kill)")
            self._interrupted.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, on_signal)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
