"""The worker beside an engine: turns leased prompts into groups, as long as the engine is on the announced weights.

One loop decides, in this order: is the engine there and on the weights we put there, are there newer ones (both are
the keeper's), may we lease. Groups, renewals and heartbeats run as tasks beside it; they only report back through
shared bookkeeping and `_wake`, so every decision is taken in one place.

Invariants:
- nothing is leased before the announced weights were loaded and read back, whatever the engine said about itself;
- nothing is leased while an update is due, while the engine is quarantined, or after a stop signal;
- on stop, every lease has been submitted, rejected or released before `run` returns;
- whatever the loop waits for is looked at again for ever, at a bounded rate, and said meanwhile; what no waiting can
  mend ends the worker with one line.
"""

import asyncio
import random
import time
import uuid
from contextlib import suppress
from functools import partial

import structlog

from golongrl.errors import InputError
from golongrl.heartbeat import heartbeat
from golongrl.queue import Lease, Stopped
from golongrl.queue.errors import NotDurableError, NotSetUpError, QueueError, QueueUnavailableError
from golongrl.rollout.backoff import Pause, Setbacks
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.engine_keeper import Keeper
from golongrl.rollout.groups.group_work import RELEASE_S, Bench
from golongrl.rollout.groups.leases import Training
from golongrl.rollout.groups.progress import LiveGroup
from golongrl.rollout.groups.validation import ValidationRows
from golongrl.rollout.observe.waits import WaitReport
from golongrl.rollout.sglang.errors import EngineError, EngineSilentError
from golongrl.rollout.weights.adopt import Confirmed

log = structlog.get_logger(__name__)

# First and longest pause between two looks at what is waited for. A look costs the queue a small read or two, so 256
# workers that wait are some thousand a second; a worker that looks less often leaves its engine idle after every step.
_PAUSE_S = (0.05, 0.25)
# A lease is renewed this often within its length, so that two lost renewals do not lose it.
_RENEWALS = 3


class RolloutWorker:
    """One engine's worker. `run` returns after `stop`; see the module for what it promises."""

    def __init__(self, config: WorkerConfig, bench: Bench) -> None:
        self.config = config
        self.bench = bench
        self._wake = asyncio.Event()
        self._report = WaitReport(bench.state, bench.metrics)
        self.training = Training(bench, self._wake.set, self._stalled)
        self._validation = ValidationRows(bench, self._wake.set)
        self._keeper = Keeper(config, bench, self._report, self.training, self._validation)
        self._setbacks = Setbacks()
        self._stop = asyncio.Event()
        self._stop_by = 0.0
        self._idle_turns = 0
        self._request_id: str | None = None
        bench.suspect = self._suspect

    def stop(self) -> None:
        """Lease nothing more; `run` then ends within the grace period."""
        self._stop_by = time.monotonic() + self.config.grace_s
        self._stop.set()
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`.

        Raises:
            InputError: recipe, data and model do not fit together.
        """
        bench = self.bench
        fields = partial(bench.state.heartbeat, self.config.engine_url)
        try:
            async with heartbeat(bench.queue, "rollout", bench.worker, fields), asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(self._renew())
                try:
                    await self._until_stopped(tasks)
                finally:
                    self._report.does("stopping")
                    await self._finish()
                    renewing.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    async def _renew(self) -> None:
        """Prolong the leases of groups and of validation rows until cancelled."""
        while True:
            await asyncio.sleep(self.bench.recipe.queue.lease_s / _RENEWALS)
            for leases in (self.training, self._validation):
                try:
                    await leases.renew()
                except QueueError as error:
                    log.warning("leases could not be renewed", error=str(error))

    # -- the loop ---------------------------------------------------------------------------------------------------

    async def _until_stopped(self, tasks: asyncio.TaskGroup) -> None:
        """Turns until `stop`; the last one (an update, a queue that is down) has the grace period to end."""
        turns = tasks.create_task(self._turns(tasks))
        stopped = tasks.create_task(self._stop.wait())
        await asyncio.wait({turns, stopped}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({turns}, timeout=self._grace_left())
        turns.cancel()

    async def _turns(self, tasks: asyncio.TaskGroup) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                busy = await self._turn(tasks)
            except NotSetUpError:
                busy = self._report.waits(Pause("waiting", "setup", "the learner to set up the run"))
            except (QueueUnavailableError, NotDurableError) as error:
                busy = self._report.waits(Pause("waiting", "queue", f"the queue: {error}"))
            self._idle_turns = 0 if busy else self._idle_turns + 1
            await self._pause()

    async def _turn(self, tasks: asyncio.TaskGroup) -> bool:
        """One look at everything; True if something was begun and there may be more to begin at once."""
        held = await self._keeper.ready()
        return held is not None and await self._lease(tasks, held)

    async def _pause(self) -> None:
        """Until something happens, but not for long: announcements are only found by looking."""
        if not self._idle_turns:
            await asyncio.sleep(0)
            return
        first, longest = _PAUSE_S
        pause = min(longest, first * 2 ** min(self._idle_turns - 1, 10)) * random.uniform(0.8, 1.2)
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wake.wait()

    # -- groups -----------------------------------------------------------------------------------------------------

    async def _lease(self, tasks: asyncio.TaskGroup, held: Confirmed) -> bool:
        rollout = self.bench.recipe.rollout
        room = (rollout.concurrent_groups - len(self.training)) * rollout.n - len(self._validation)
        if room <= 0:
            return self._full("a response to end")
        if (pause := self._setbacks.pause(time.monotonic())) is not None:
            return self._report.waits(pause)
        if await self._validation.lease(tasks, held, room):
            self._report.does("generating")
            return True
        if room < rollout.n:
            return self._full("a group to end")
        # The id stays until an answer came: a lease whose reply was lost is then asked for again, not a second one.
        self._request_id = self._request_id or uuid.uuid4().hex
        answer = await self.bench.queue.lease(
            self.bench.worker, held.ref.version, request_id=self._request_id, lineage=held.ref.lineage
        )
        self._request_id = None
        if isinstance(answer, Lease):
            self.training.begin(tasks, answer, held)
            self._report.does("generating")
            return True
        if isinstance(answer, Stopped):
            return self._report.waits(Pause("idle", "stopped", f"the run is over: {answer.detail}"))
        if answer.reason == "superseded":
            raise InputError(f"worker {self.bench.worker}: {answer.detail}; give every worker an id of its own")
        phase = "generating" if self.training else "waiting"
        return self._report.waits(Pause(phase, answer.reason, f"{answer.reason}: {answer.detail}"))

    def _full(self, until: str) -> bool:
        # Groups that are done and cannot be handed in take places, too.
        pause = self.training.held_up or Pause("generating", "slots", until)
        return self._report.waits(pause)

    def _suspect(self, error: EngineError) -> None:
        """A group saw something wrong: look at the engine at once, and lease no more for a while."""
        ended = self.bench.state.submitted + sum(self.bench.state.rejected.values())
        self._setbacks.fail(time.monotonic(), ended, str(error))
        self._keeper.suspect(error)
        self._wake.set()

    def _stalled(self, live: LiveGroup) -> None:
        self._suspect(EngineSilentError(f"group {live.uid} lost its lease at {live.progress} tokens"))

    # -- the end ----------------------------------------------------------------------------------------------------

    def _grace_left(self) -> float:
        return max(0.0, self._stop_by - time.monotonic())

    async def _finish(self) -> None:
        """Let groups end within the grace period, then release the rest; validation rows go back at once."""
        await self._validation.finish()
        await self._return_unanswered()
        await self.training.finish(self._grace_left())

    async def _return_unanswered(self) -> None:
        """Give back the row of a lease that was asked for and not answered, if there is one."""
        if self._request_id is None:
            return
        try:
            async with asyncio.timeout(RELEASE_S):
                # Granted, it is the same one whatever is said of the engine; else version 0 is hardly given another.
                answer = await self.bench.queue.lease(self.bench.worker, 0, request_id=self._request_id)
                if isinstance(answer, Lease):
                    await self.bench.queue.release(answer, "stopped")
        except (QueueError, TimeoutError) as error:
            log.warning("a row may be leased that nobody works on; it will expire", error=str(error))
