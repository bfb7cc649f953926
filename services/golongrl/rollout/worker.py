"""The worker beside an engine: turns leased rows into groups while the engine holds the announced weights.

One loop decides, in this order: what did groups find wrong with the engine, is it there and on the weights we put
there, are there newer ones (these are the keeper's), may we lease. Rows, renewals and heartbeats run as tasks beside
it; they only report back through shared bookkeeping and `_wake`, so every decision is taken in one place.

Invariants:
- nothing is leased before the announced weights were loaded and read back, whatever the engine said about itself;
- nothing is leased while an update is due, while the engine is quarantined, or after a stop signal;
- on stop, every lease has been submitted, rejected or released before `run` returns;
- the loop polls at a bounded rate, never gives up, and reports what it waits for; errors that waiting cannot fix end
  the worker with one line.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import structlog

from golongrl.errors import InputError
from golongrl.heartbeat import heartbeat
from golongrl.queue import Lease, Stopped, ValidationItem
from golongrl.queue.errors import NotDurableError, NotSetUpError, QueueError, QueueUnavailableError
from golongrl.rollout.backoff import Pause, Setbacks
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.engine_keeper import Keeper
from golongrl.rollout.groups.bench import Bench
from golongrl.rollout.groups.kinds import TrainingKind, ValidationKind
from golongrl.rollout.groups.leases import Leases
from golongrl.rollout.groups.work import RELEASE_S
from golongrl.rollout.observe.waits import WaitReport
from golongrl.rollout.sglang.errors import EngineError
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
        self._report = WaitReport(bench.state, bench.metrics, bench.recipe.rollout.concurrent_groups)
        self.training: Leases[Lease] = Leases(TrainingKind(bench), self._changed)
        self.validation: Leases[ValidationItem] | None = None
        if bench.validation is not None:
            self.validation = Leases(ValidationKind(bench, bench.validation), self._changed)
        self._leases: list[Leases[Any]] = [each for each in (self.training, self.validation) if each is not None]
        self._keeper = Keeper(config, bench, self._report, self.training, self.validation)
        self._setbacks = Setbacks()
        self._stop = asyncio.Event()
        self._stop_by = 0.0
        self._idle_turns = 0
        self._request_id: str | None = None

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
                beside = [tasks.create_task(task) for task in (self._renew(), *self._pulses())]
                try:
                    await self._until_stopped(tasks)
                finally:
                    self._report.does("stopping")
                    await self._finish()
                    for task in beside:
                        task.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

    def _pulses(self) -> Iterator[Coroutine[Any, Any, None]]:
        """Whether engine and reward service answer while something is expected of them."""
        state = self.bench.state
        yield state.engine_pulse.follow(self._keeper.answers, starts=True)
        yield self._keeper.follow_kv()
        yield state.reward_pulse.follow(
            self._reward_answers, lambda: any(wait.on == "reward" for wait in state.current())
        )

    async def _reward_answers(self) -> bool:
        """Whether the reward service answers; notes what it waits for itself."""
        answers = await self.bench.reward.answers()
        self.bench.state.reward_waits = self.bench.reward.waits if answers else ""
        return answers

    async def _renew(self) -> None:
        """Prolong the leases of groups and of validation rows until cancelled."""
        while True:
            await asyncio.sleep(self.bench.recipe.queue.lease_s / _RENEWALS)
            for leases in self._leases:
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
                pause = await self._turn(tasks)
            except NotSetUpError:
                pause = Pause("waiting", "setup", "the learner to set up the run")
            except (QueueUnavailableError, NotDurableError) as error:
                pause = Pause("waiting", "queue", f"the queue: {error}")
            if pause is None:
                self._report.does("generating")
                self._idle_turns = 0
            else:
                self._report.waits(pause)
                self._idle_turns += 1
            await self._pause()

    async def _turn(self, tasks: asyncio.TaskGroup) -> Pause | None:
        """One look at everything; None if a row was leased and there may be more to lease at once."""
        for leases in self._leases:
            while leases.troubles:
                self._suspect(leases.troubles.pop(0))
        held = await self._keeper.ready()
        return held if isinstance(held, Pause) else await self._lease(tasks, held)

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

    def _changed(self) -> None:
        """A row has ended or something is wrong with the engine: look at once."""
        state = self.bench.state
        state.groups = len(self.training)
        state.validation_rows = len(self.validation or ())
        self.bench.metrics.groups.set(state.groups)
        self._wake.set()

    async def _lease(self, tasks: asyncio.TaskGroup, held: Confirmed) -> Pause | None:
        rollout, now = self.bench.recipe.rollout, time.monotonic()
        rows = len(self.validation or ())
        room = (rollout.concurrent_groups - len(self.training)) * rollout.n - rows
        # Finished groups that cannot be handed in take places, too.
        held_up = self.training.held_up(now, patience_s=2 * self.bench.recipe.reward.deadline_s)
        if room <= 0:
            return held_up or Pause("generating", "slots", "a response to end")
        if (pause := self._setbacks.pause(now)) is not None:
            return pause
        if self.validation is not None and await self._lease_validation(self.validation, tasks, held, room):
            return None
        if room < rollout.n:
            return held_up or Pause("generating", "slots", "a group to end")
        # The id stays until an answer came: a lease whose reply was lost is then asked for again, not a second one.
        self._request_id = self._request_id or uuid.uuid4().hex
        answer = await self.bench.queue.lease(
            self.bench.worker,
            held.ref.version,
            request_id=self._request_id,
            lineage=held.ref.lineage,
            data=self.bench.data.digest,
        )
        self._request_id = None
        if isinstance(answer, Lease):
            await self.training.begin(tasks, answer, held)
            self._changed()
            return None
        if isinstance(answer, Stopped):
            return Pause("idle", "stopped", f"the run is over: {answer.detail}")
        self.bench.metrics.refusals.labels(answer.reason).inc()
        if answer.reason == "superseded":
            raise InputError(f"worker {self.bench.worker}: {answer.detail}; give every worker an id of its own")
        phase = "generating" if self.training else "waiting"
        return held_up or Pause(phase, answer.reason, f"{answer.reason}: {answer.detail}")

    async def _lease_validation(
        self, validation: Leases[ValidationItem], tasks: asyncio.TaskGroup, held: Confirmed, room: int
    ) -> bool:
        """Take up to `room` validation rows, if a round for the held weights has any left; whether it had."""
        rows = self.bench.validation
        items = await self.bench.queue.validation.lease(
            held.ref.version, held.ref.lineage, room, rows.digest if rows is not None else ""
        )
        for item in items:
            await validation.begin(tasks, item, held)
        self._changed()
        return bool(items)

    def _suspect(self, error: EngineError) -> None:
        """The engine failed a row: look at it at once, and lease no more for a while."""
        ended = self.bench.state.submitted + sum(self.bench.state.rejected.values())
        self._setbacks.fail(time.monotonic(), ended, str(error))
        self._keeper.suspect(error)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _grace_left(self) -> float:
        return max(0.0, self._stop_by - time.monotonic())

    async def _finish(self) -> None:
        """Let groups end within the grace period, then release the rest; validation rows go back at once."""
        if self.validation is not None:
            await self.validation.finish(grace_s=0.0)
        await self._return_unanswered()
        await self.training.finish(self._grace_left())

    async def _return_unanswered(self) -> None:
        """Give back the row of a lease that was asked for and not answered, if there is one."""
        if self._request_id is None:
            return
        try:
            async with asyncio.timeout(RELEASE_S):
                # If it was granted, the same lease is returned for any version; else version 0 rarely gets one.
                answer = await self.bench.queue.lease(self.bench.worker, 0, request_id=self._request_id)
                if isinstance(answer, Lease):
                    await self.bench.queue.release(answer, "stopped")
        except (QueueError, TimeoutError) as error:
            log.warning("a row may still be leased to this stopped worker; its lease will expire", error=str(error))
