"""The worker beside an engine: keeps the engine on announced weights, and turns leased prompts into groups.

One loop decides, in this order: is the engine there and on the weights we put there, are there newer weights, may we
lease. Groups, renewals and heartbeats run as tasks beside it; they only report back through shared bookkeeping and
`_wake`, so every decision is taken in one place.

Invariants:
- nothing is leased before the announced weights were loaded and read back, whatever the engine said about itself;
- nothing is leased while an update is due, while the engine is quarantined, or after a stop signal;
- on stop, every lease has been submitted, rejected or released before `run` returns.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

import structlog

from golongrl.errors import InputError
from golongrl.queue import Lease, Refusal, Stopped, WeightsRef
from golongrl.queue.errors import NotDurable, NotSetUp, Unavailable
from golongrl.rollout.adopter import Confirmed, adopt, settle
from golongrl.rollout.adoption import Decision, Mode, Situation, Weights, decide
from golongrl.rollout.beside import beat, renew
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.errors import AdoptionFailed, EngineError, EngineSilent, EngineUnavailable, WeightsMissing
from golongrl.rollout.live import LiveGroup
from golongrl.rollout.produce import Bench, ForeignWeights, produce
from golongrl.rollout.tries import Pause, Tries
from golongrl.rollout.validate import Validation

log = structlog.get_logger(__name__)

# First and longest pause between two looks at what is waited for. A look costs the queue a small read or two, so 256
# workers that wait are some thousand a second; a worker that looks less often leaves its engine idle after every step.
_PAUSE_S = (0.05, 0.25)
# An engine that answers nothing this often in a row is treated as gone.
_SILENT_CHECKS = 3
# An engine that answers but fails every group is asked again ever later, up to this.
_LONGEST_BACKOFF_S = 10.0


class Worker:
    """One engine's worker. `run` returns after `stop`; see the module for what it promises."""

    def __init__(self, config: WorkerConfig, bench: Bench) -> None:
        self.config = config
        self.bench = bench
        self.state = bench.state
        self._held: Confirmed | None = None
        self._announced: WeightsRef | None = None
        self._announced_at: float | None = None
        self._live: dict[str, tuple[LiveGroup, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._validation = Validation(bench, self._wake.set)
        self._stop = asyncio.Event()
        self._stop_by = 0.0
        self._settled = False
        self._check_due = 0.0
        self._silent = 0
        self._suspected = False
        self._failures = 0
        self._ended_before = 0
        self._lease_not_before = 0.0
        self._tries = Tries(config.adoption_attempts)
        self._idle_turns = 0
        self._waited_for: str | None = None
        self._request_id: str | None = None
        bench.suspect = self._suspect

    @property
    def groups(self) -> list[LiveGroup]:
        """The groups in progress."""
        return [live for live, _ in self._live.values()]

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
        try:
            async with asyncio.TaskGroup() as tasks:
                side = [
                    tasks.create_task(renew(self.bench, self._validation, self._by_token, self._lose)),
                    tasks.create_task(beat(self.bench, self.config, self._validation)),
                ]
                try:
                    await self._until_stopped(tasks)
                finally:
                    self._phase("stopping", None)
                    await self._finish()
                    for task in side:
                        task.cancel()
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures

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
            except NotSetUp:
                busy = self._wait("waiting", "setup", "the learner to set up the run")
            except (Unavailable, NotDurable) as error:
                busy = self._wait("waiting", "queue", f"the queue: {error}")
            self._idle_turns = 0 if busy else self._idle_turns + 1
            await self._pause()

    async def _turn(self, tasks: asyncio.TaskGroup) -> bool:
        """One look at everything; True if something was done and there may be more to do at once."""
        if not await self._engine_is_ours():
            return False
        await self._hear()
        decision = decide(self._situation())
        self._drop(decision.doomed, "too_stale")
        if decision.mode is not Mode.WAIT:
            return await self._take_weights(decision)
        if not decision.lease:
            return self._wait("waiting", "weights", decision.reason)
        return await self._lease(tasks)

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

    def _wait(self, phase: str, label: str, reason: str) -> bool:
        # Counts inside a reason change all the time, and full slots are no news; what ails an engine is.
        if label not in (self._waited_for, "slots") or (label == "engine" and reason != self.state.waiting_for):
            log.info("waiting", phase=phase, waiting_for=reason)
        self._phase(phase, reason, label)
        return False

    def _phase(self, phase: str, reason: str | None, label: str | None = None) -> None:
        self.state.phase = phase
        self.state.waiting_for = reason
        self._waited_for = label
        self.bench.metrics.wait_for(label)

    # -- the engine -------------------------------------------------------------------------------------------------

    def _suspect(self, error: EngineError) -> None:
        """A group saw something wrong: look at the engine at once."""
        self._check_due = 0.0
        self._suspected = True
        ended = self.state.submitted + sum(self.state.rejected.values())
        self._failures = 1 if ended > self._ended_before else self._failures + 1
        self._ended_before = ended
        self._lease_not_before = time.monotonic() + min(_LONGEST_BACKOFF_S, 0.1 * 2.0 ** min(self._failures, 10))
        if isinstance(error, ForeignWeights):
            self._distrust(str(error))
        self._wake.set()

    async def _engine_is_ours(self) -> bool:
        """Whether the engine answers and still names the weights we put there; settles a new or restarted one."""
        if time.monotonic() < self._check_due and self._settled:
            return True
        engine = self.bench.engine
        try:
            if not self._settled:
                if not await engine.healthy():
                    return self._wait("waiting", "engine", f"the engine at {engine.url}")
                await settle(engine)
                self._suspected = False
                self._settled = True
                log.info("engine found", url=engine.url)
            if self._suspected and not await engine.healthy():
                return self._gone(EngineUnavailable(f"{engine.url}/health says it is not well"))
            self._suspected = False
            info = await engine.model_info()
        except EngineSilent as error:
            self._silent += 1
            if self._silent < _SILENT_CHECKS:
                return self._wait("waiting", "engine", f"the engine is slow: {error}")
            return self._gone(error)
        except EngineError as error:
            return self._gone(error)
        self._silent = 0
        self.state.engine_up = True
        self._check_due = time.monotonic() + self.config.engine_check_s
        if self._held is not None and info != self._held.info:
            self._distrust(f"the engine holds {info}, not {self._held.info}")
        return True

    def _gone(self, error: EngineError) -> bool:
        """The engine does not answer: whatever comes back at its address is a stranger."""
        if self._settled:
            log.warning("engine lost", error=str(error))
            self.bench.metrics.engine_restarts.inc()
        self._settled = False
        self.state.engine_up = False
        self._silent = 0
        self._quarantine(None)
        self._tries.reset()
        self._forget("engine_lost")
        return self._wait("waiting", "engine", f"the engine: {error}")

    def _distrust(self, reason: str) -> None:
        if self._held is not None:
            log.warning("the engine's weights are not the ones it was given", reason=reason)
            self.bench.metrics.engine_restarts.inc()
        self._tries.reset()
        self._forget("foreign_weights")

    def _forget(self, reason: str) -> None:
        """The engine's weights are unknown: nothing it is sampling can be used."""
        self._hold(None)
        self._drop(tuple(live.uid for live in self.groups), reason)
        self._validation.drop(reason)

    def _hold(self, held: Confirmed | None) -> None:
        self._held = held
        self.state.engine_version = None if held is None else held.ref.version
        self.bench.metrics.version.set(-1 if held is None else held.ref.version)

    # -- weights ----------------------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        """Look up the announced weights."""
        ref = await self.bench.queue.weights()
        if ref is None or ref == self._announced:
            return
        now = time.monotonic()
        if self._announced is None or ref.version > self._announced.version:  # not one that is announced again
            if self._announced_at is not None:
                self.bench.pace.saw_version(now - self._announced_at)
            self._announced_at = now
        self._announced = ref
        self.state.announced_version = ref.version
        self._tries.reset()

    def _situation(self) -> Situation:
        pace, announced, held = self.bench.pace, self._announced, self._held
        return Situation(
            engine=None if held is None else Weights(held.ref.version, held.ref.lineage),
            announced=None if announced is None else Weights(announced.version, announced.lineage),
            eta=self.bench.recipe.queue.max_staleness,
            policy=self.bench.recipe.rollout.adoption,
            in_flight=[
                live.in_flight(pace.response_tokens)
                for live in self.groups
                if live.phase == "generating" and not live.lost
            ],
            speed=pace.speed,
            deadline_s=self.config.adoption_share * (pace.version_s or 0.0),
        )

    async def _take_weights(self, decision: Decision) -> bool:
        ref = self._announced
        assert ref is not None  # the decision follows from it
        if self._validation.drop("other_weights"):
            return self._wait("waiting", "drain", "validation rows of older weights to be given back")
        generating = any(live.phase == "generating" and not live.lost for live in self.groups)
        if decision.mode is Mode.DRAIN and generating:
            return self._wait("waiting", "drain", f"groups in flight, before version {ref.version} is taken")
        if (pause := self._tries.pause(time.monotonic(), ref.version)) is not None:
            return self._wait(*pause)
        self._phase("adopting", f"the engine to take version {ref.version}", "adoption")
        begun = time.monotonic()
        try:
            await adopt(self.bench.engine, ref, decision.mode, self._held, self._hold, worker=self.config.worker)
        except WeightsMissing as missing:
            return await self._weights_missing(ref, missing)
        except AdoptionFailed as failure:
            return self._adoption_failed(ref, failure)
        seconds = time.monotonic() - begun
        self.bench.metrics.adoption.labels(str(decision.mode)).observe(seconds)
        log.info("weights taken", version=ref.version, mode=str(decision.mode), why=decision.reason, seconds=seconds)
        self._quarantine(None)
        self._tries.reset()
        self._check_due = time.monotonic() + self.config.engine_check_s
        return True

    async def _weights_missing(self, ref: WeightsRef, missing: WeightsMissing) -> bool:
        """Wait for weights that cannot be had: the next version may need this engine's groups first."""
        # A learner that has ended has taken its sender with it.
        stopped = (await self.bench.queue.stats()).stopped
        pause = (
            Pause("idle", "stopped", f"the run is over: {stopped.detail}")
            if stopped is not None
            else Pause("waiting", "source", f"version {ref.version}: {missing}")
        )
        self._tries.miss(time.monotonic(), pause)
        return self._wait(*pause)

    def _adoption_failed(self, ref: WeightsRef, failure: AdoptionFailed) -> bool:
        self._tries.fail(time.monotonic())
        self.bench.metrics.adoption_failures.inc()
        log.error("weights not confirmed", version=ref.version, tries=self._tries.failed, error=str(failure))
        if not failure.unchanged:
            self._forget("unconfirmed_weights")
        self._check_due = 0.0
        self._quarantine(f"version {ref.version}: {failure}")
        return self._wait("quarantined", "quarantine", f"the next try to take version {ref.version}")

    def _quarantine(self, reason: str | None) -> None:
        self.state.quarantine = reason
        self.bench.metrics.quarantined.set(reason is not None)

    # -- groups -----------------------------------------------------------------------------------------------------

    async def _lease(self, tasks: asyncio.TaskGroup) -> bool:
        held = self._held
        assert held is not None  # nothing is leased otherwise
        rollout = self.bench.recipe.rollout
        room = (rollout.concurrent_groups - len(self._live)) * rollout.n - len(self._validation)
        if room <= 0:
            return self._wait("generating", "slots", "a response to end")
        if time.monotonic() < self._lease_not_before:
            return self._wait("waiting", "engine", f"an engine that failed {self._failures} groups in a row")
        if await self._validation.lease(tasks, held, room):
            self._phase("generating", None)
            return True
        if room < rollout.n:
            return self._wait("generating", "slots", "a group to end")
        # The id stays until an answer came: a lease whose reply was lost is then asked for again, not a second one.
        self._request_id = self._request_id or uuid.uuid4().hex
        answer = await self.bench.queue.lease(
            self.config.worker, held.ref.version, request_id=self._request_id, lineage=held.ref.lineage
        )
        self._request_id = None
        if isinstance(answer, Lease):
            self._begin(tasks, answer, held)
            return True
        if isinstance(answer, Stopped):
            return self._wait("idle", "stopped", f"the run is over: {answer.detail}")
        if answer.reason == "superseded":
            self._superseded(answer)
        return self._wait("generating" if self._live else "waiting", answer.reason, f"{answer.reason}: {answer.detail}")

    def _superseded(self, refusal: Refusal) -> NoReturn:
        raise InputError(f"worker {self.config.worker}: {refusal.detail}; give every worker an id of its own")

    def _begin(self, tasks: asyncio.TaskGroup, lease: Lease, held: Confirmed) -> None:
        rollout = self.bench.recipe.rollout
        live = LiveGroup.begin(
            uid=lease.uid,
            token=lease.token,
            version=lease.engine_version,
            prompt_tokens=self.bench.data.row(lease.row).prompt_ids.size,
            n=rollout.n,
            max_response_tokens=rollout.max_response_tokens,
        )
        task = tasks.create_task(produce(self.bench, lease, live, held), name=f"group {lease.uid}")
        self._live[lease.token] = (live, task)
        task.add_done_callback(self._ended(lease.token))
        self._phase("generating", None)
        self._gauge()

    def _ended(self, token: str) -> Callable[[asyncio.Task[None]], None]:
        def ended(_: asyncio.Task[None]) -> None:
            self._live.pop(token, None)
            self._gauge()
            self._wake.set()

        return ended

    def _gauge(self) -> None:
        self.state.groups = len(self._live)
        self.bench.metrics.groups.set(len(self._live))

    def _drop(self, uids: tuple[str, ...], reason: str) -> None:
        """Give up these groups; a group that is already being scored keeps what it has sampled."""
        for live, task in self._live.values():
            if live.uid in uids and live.phase == "generating" and not live.ending:
                live.give_back = reason
                # Soon, not now: a task cancelled before its first step would never give its row back.
                asyncio.get_running_loop().call_soon(task.cancel)

    # -- beside the loop --------------------------------------------------------------------------------------------

    def _by_token(self) -> dict[str, LiveGroup]:
        return {token: live for token, (live, _) in self._live.items()}

    def _lose(self, token: str) -> None:
        live, task = self._live.get(token, (None, None))
        if live is None or task is None or live.ending:
            return
        log.warning("lease lost", uid=live.uid, phase=live.phase, progress=live.progress)
        live.lost = True
        task.cancel()

    def _grace_left(self) -> float:
        return max(0.0, self._stop_by - time.monotonic())

    async def _finish(self) -> None:
        """Let groups end within the grace period, then release the rest; validation rows go back at once."""
        await self._validation.finish()
        pairs = list(self._live.values())
        tasks = [task for _, task in pairs]
        if not tasks:
            return
        log.info("stopping", groups=len(tasks), grace_s=self._grace_left())
        _, late = await asyncio.wait(tasks, timeout=self._grace_left())
        for live, task in pairs:
            if task in late and not live.ending:
                task.cancel()
        if late:
            await asyncio.wait(late)
