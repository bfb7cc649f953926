"""The run as the display and the supervisor's decisions see it: looked at every second, whatever does not answer.

Invariant: no look waits longer than its deadline, so that a frozen Redis does not freeze what names it.
"""

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from golongrl.errors import InputError, no_space
from golongrl.heartbeat import GONE_S
from golongrl.local.plan import Options
from golongrl.local.progress import ENDING, Display, RunSnapshot
from golongrl.local.services import MAIN
from golongrl.local.supervisor import SILENT, RunFailedError, Supervisor
from golongrl.queue import Presence, QueueError, QueueStats, SampleQueue
from golongrl.queue.connection import Patience
from golongrl.queue.errors import last_reason
from golongrl.recipe import Recipe
from golongrl.telemetry import history, watchdog
from golongrl.telemetry.watch_record import WatchRecord
from golongrl.telemetry.watchdog import Process, Stall, Watch

# How often the display looks.
REFRESH_S = 1.0
# A look at the queue that takes longer counts as no answer.
LOOK_TIMEOUT_S = 2.0
# With less room than this no service can write a log line or a step's record.
LEAST_FREE_BYTES = 1 << 20
# Of the queue's calls in a look: a Redis that refuses them says why within the look.
LOOK_PATIENCE = Patience(total_s=LOOK_TIMEOUT_S / 2, longest_pause_s=LOOK_TIMEOUT_S / 8)


class Watched:
    """One run; `watch` shows it until cancelled. `another`: makes a client of the queue that has no connection yet."""

    def __init__(
        self,
        recipe: Recipe,
        options: Options,
        queue: SampleQueue,
        another: Callable[[], SampleQueue],
        display: Display,
        records: history.History,
    ) -> None:
        self._recipe = recipe
        self._options = options
        self._queue = queue
        self._another = another
        self._display = display
        self._records = records
        self._lasting = Watch()
        self._heard = time.monotonic()
        self._refusal = ""
        self._over = False

    def step(self) -> int:
        """The newest finished step."""
        return self._records.steps[-1] if self._records.steps else 0

    async def watch(self, supervisor: Supervisor) -> None:
        """Show the run's state until cancelled; end the run when its disk is full, or its folder is not there."""
        try:
            await self._watch(supervisor)
        except OSError as error:
            place = error.filename or self._options.folder.path
            supervisor.fail(
                RunFailedError(
                    f"{place}: {error.strerror or error}: somebody changed the run's folder; put it back, then "
                    "continue with --resume"
                )
            )
        except InputError as error:
            supervisor.fail(error)

    async def _watch(self, supervisor: Supervisor) -> None:
        folder, total = self._options.folder, self._recipe.learner.steps
        while True:
            if disk_full(folder.path):
                supervisor.fail(RunFailedError(f"{no_space(folder.path)}: make room, then continue with --resume"))
            stats, processes = await self._look()
            self._records = await asyncio.to_thread(history.read, folder.metrics)
            if stats is not None:  # a Redis that does not answer begins no run again
                self._over = stats.stopped is not None
            ended = supervisor.stopping or self._over
            stalls = self._stalls(supervisor, processes, ended=ended)
            states = _states(supervisor, ended=ended)
            with suppress(OSError):  # a full disk ends the run above
                WatchRecord(time.time(), states, [str(stall) for stall in stalls]).write(folder.path)
            self._display.show(
                RunSnapshot(self._options.run, total, self._records, stats, processes, states, tuple(stalls))
            )
            await asyncio.sleep(REFRESH_S)

    async def _look(self) -> tuple[QueueStats | None, Sequence[Presence]]:
        """What the queue says; nothing if it does not answer."""
        stats: QueueStats | None = None
        processes: Sequence[Presence] = ()
        before, refusal = self._heard, ""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                processes = await self._queue.services()
                self._heard = time.monotonic()
                stats = await self._queue.stats()
        except TimeoutError:
            pass
        except QueueError as error:
            if self._heard == before:  # a look is a script, which a replica, say, refuses
                refusal = f"does not serve the queue: {last_reason(error)}"
        silent = any(process.age_s > watchdog.SILENT_S for process in processes)
        self._refusal = await self._try_to_write() if silent else refusal
        return stats, processes

    async def _try_to_write(self) -> str:
        """Why Redis takes no writes now, a heartbeat being one; empty where it does.

        As a new client: ours stays connected where the server takes no others, or has another password by now.
        """
        try:
            async with asyncio.timeout(2 * LOOK_TIMEOUT_S), self._another() as queue:
                # One that has left when it came.
                await queue.beat("train", "supervisor", {}, GONE_S)
        except TimeoutError:
            return "takes no writes"
        except QueueError as error:
            return f"takes no writes: {last_reason(error)}"
        return ""

    def _stalls(self, supervisor: Supervisor, processes: Sequence[Presence], *, ended: bool = False) -> list[Stall]:
        """The stalls that last, and that the supervisor has not told of; of what ends, those that a signal stopped."""
        if ended:
            told = {name: (words, False) for name, words in supervisor.stopped().items()}
            stopped = {process.key: process for process in of_services(told, told)}
            return self._lasting.seen(watchdog.stalls(stopped), time.monotonic())
        troubles = of_services(supervisor.states, supervisor.troubles())
        if not any(process.key == "redis" and process.trouble for process in troubles) and (
            trouble := self._of_redis()
        ):
            troubles = [process for process in troubles if process.key != "redis"]
            outside = self._options.redis_url is not None
            place = f"at {self._queue.server} {trouble}" if outside else trouble
            troubles.append(Process("redis", "Redis" if outside else "redis", (), place))
            # Nobody can report.
            processes = [replace(process, age_s=0.0) for process in processes]
        seen = watchdog.with_troubles(watchdog.read(asdict(process) for process in processes), troubles)
        found = [stall for stall in watchdog.stalls(seen) if stall.culprit not in seen or not seen[stall.culprit].known]
        return self._lasting.seen(found, time.monotonic())

    def _of_redis(self) -> str:
        """Why nothing is to be expected of Redis although, where it is the run's own, it answers its probe."""
        silent_s = time.monotonic() - self._heard
        unanswered = silent_s >= watchdog.UNANSWERED_S
        return self._refusal or (f"has not answered the queue for {silent_s:.0f} s" if unanswered else "")


def _states(supervisor: Supervisor, *, ended: bool) -> dict[str, str]:
    """What the services do; `ended`: training is over, one way or another. Those that close answer no more."""
    if supervisor.stopping:
        return dict.fromkeys(supervisor.left(), ENDING)
    return {
        name: ENDING if ended and name == MAIN and state == SILENT else state
        for name, state in supervisor.states.items()
    }


def of_services(names: Iterable[str], troubles: Mapping[str, tuple[str, bool]]) -> list[Process]:
    """The supervisor's services as processes of the watchdog, which knows an engine by its worker."""
    found = []
    for name in names:
        kind, _, number = name.partition("-")
        key = f"{kind}/rollout-{number}" if number else name
        trouble, known = troubles.get(name, ("", False))
        found.append(Process(key, name, (), trouble, known=known))
    return found


def disk_full(folder: Path, least: int = LEAST_FREE_BYTES) -> bool:
    """Whether the disk of a folder has less room than `least` for this user."""
    found = os.statvfs(folder)
    blocks = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    # A file system without blocks (some network ones) does not know how full it is.
    return found.f_blocks > 0 and blocks * found.f_frsize < least
