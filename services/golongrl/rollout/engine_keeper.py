"""Keeps one engine on the announced weights: finds it, watches it, brings it to what is announced.

Invariants:
- an engine counts as ready only on weights that this worker loaded, that were read back, and, where nothing else is
  being sampled, that it sampled a valid token from, whatever the engine says about itself;
- what the engine samples is given up as soon as its weights are unknown;
- an engine that answers nonsense is quarantined: its rows are given back, and its weights are loaded again. One that
  refuses a row is asked for one token first: where it gives that, the row was at fault, and the others continue;
- what fails is retried as long as it is wanted, and the answer says what is waited for and why;
- an announced version is copied and patched while the engine continues with the one it holds: the queue admits rows by
  the version they are sampled from.
"""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import structlog

from golongrl.queue import Lease, ValidationItem, WeightsRef
from golongrl.rollout.backoff import Pause, Tries
from golongrl.rollout.config import WorkerConfig
from golongrl.rollout.groups.assemble import ForeignWeightsError
from golongrl.rollout.groups.bench import Bench
from golongrl.rollout.groups.leases import Leases
from golongrl.rollout.observe.waits import WaitReport
from golongrl.rollout.sglang.errors import (
    AdoptionError,
    EngineBusyError,
    EngineError,
    EngineProtocolError,
    EngineRefusedError,
    EngineSilentError,
    EngineUnavailableError,
    WeightsMissingError,
)
from golongrl.rollout.weights.adopt import Confirmed, adopt, check_server, probe, settle
from golongrl.rollout.weights.local_copy import Fetched, LocalCopy
from golongrl.rollout.weights.policy import AdoptionDecision, AnnouncedWeights, Mode, Situation, decide
from golongrl.telemetry.tracing import of_version

log = structlog.get_logger(__name__)

# An engine that answers nothing this often in a row, and samples nothing meanwhile, is treated as gone.
_SILENT_CHECKS = 3
# The operator's pass is every 15 s.
_KV_EVERY_S = 5.0


class Keeper:
    """The engine's side of a worker. `held` are the weights that it was last confirmed to hold; None when unknown."""

    def __init__(
        self,
        config: WorkerConfig,
        bench: Bench,
        report: WaitReport,
        training: Leases[Lease],
        validation: Leases[ValidationItem] | None,
    ) -> None:
        self.held: Confirmed | None = None
        self._config = config
        self._bench = bench
        self._state = bench.state
        self._report = report
        self._training = training
        self._validation = validation
        self._announced: WeightsRef | None = None
        self._announced_at: float | None = None
        self._lag_of: int | None = None  # the version whose adoption lag was counted last
        self._settled = False
        self._suspected = False
        self._refusal = ""  # of a row, until the engine was tried with something else
        self._silent = 0
        self._progress = 0
        self._check_due = 0.0
        self._tries = Tries()
        self._copy = LocalCopy(config.weights_copy)
        self._fetch: asyncio.Task[Fetched] | None = None
        self._fetched: WeightsRef | None = None  # what `_fetch` is of

    async def ready(self) -> Confirmed | Pause:
        """What the engine holds if rows may be sampled from it now; else what is waited for, after one step towards it.

        Raises:
            QueueError: the queue cannot be asked now.
        """
        if (pause := await self._find()) is not None:
            return pause
        await self._hear()
        if self._fetching():
            if self.held is not None:
                return self.held
            return Pause(
                "waiting", "weights", f"version {self._fetched.version if self._fetched else '?'} to be copied"
            )
        decision = decide(self._situation())
        self._training.drop("too_stale", decision.doomed)
        if decision.mode is not Mode.WAIT:
            if (pause := await self._take(decision)) is not None:
                return pause
        elif not decision.lease:
            return Pause("waiting", "weights", decision.reason)
        assert self.held is not None  # taken, or leasing would not be allowed
        return self.held

    # -- is it there, and ours --------------------------------------------------------------------------------------

    def suspect(self, error: EngineError) -> None:
        """A row saw something wrong: look at the engine at once."""
        self._check_due = 0.0
        # A busy engine is well.
        self._suspected |= not isinstance(error, EngineBusyError)
        if isinstance(error, EngineRefusedError):
            self._refusal = str(error)
        if isinstance(error, EngineProtocolError | ForeignWeightsError):
            self._distrust(str(error))
        if isinstance(error, EngineProtocolError):
            self._quarantine(str(error))

    async def answers(self) -> bool:
        """Whether the engine answers at all; notes whether it is paused."""
        engine, state = self._bench.engine, self._state
        try:
            await engine.model_info()
            paused = not await engine.ready()
            state.engine_waits = await engine.waits()
        except (EngineSilentError, EngineUnavailableError):
            state.engine_waits = ""
            return False
        except EngineError:
            return True
        taking = state.phase == "adopting"
        by = f"{self._bench.worker} for version {state.announced_version}" if taking else "somebody else"
        state.paused(by if paused else None)
        return True

    async def follow_kv(self) -> None:
        """Ask how full the engine's KV cache is, until cancelled."""
        state = self._state
        while True:
            found = None
            with suppress(EngineError):
                found = await self._bench.engine.kv_use() if state.engine_up else None
            state.kv_use, state.kv_waiting = (None, 0) if found is None else (found.share, found.waiting)
            await asyncio.sleep(_KV_EVERY_S)

    async def _find(self) -> Pause | None:
        """Nothing to wait for if the engine answers and still names the weights we put there; settles a new one."""
        if time.monotonic() < self._check_due and self._settled:
            return None
        engine = self._bench.engine
        try:
            if not self._settled:
                await engine.health()
                await check_server(engine, routes=self._bench.recipe.learner.routing_replay)
                await settle(engine)
                self._settled = True
                log.info("engine found", url=engine.url)
            elif self._suspected:
                await engine.health()
                # Groups without progress may wait for an engine that somebody else has paused.
                await engine.resume()
            self._suspected = False
            info = await engine.model_info()
        except EngineSilentError as error:
            # An engine whose groups make progress is there.
            seen, self._progress = self._progress, self._training.progress
            self._silent = 1 if self._progress > seen else self._silent + 1
            if self._silent < _SILENT_CHECKS:
                return Pause("waiting", "engine", f"the engine is slow: {error}")
            return self._gone(error)
        except EngineError as error:
            return self._gone(error)
        self._silent = 0
        self._state.engine_up = True
        self._check_due = time.monotonic() + self._config.engine_check_s
        if self.held is not None and info != self.held.info:
            self._distrust(f"the engine holds {info}, not {self.held.info}")
        refusal, self._refusal = self._refusal, ""
        if refusal and self.held is not None:
            await self._try(self.held, refusal)
        return None

    async def _try(self, held: Confirmed, refusal: str) -> None:
        """Whether the engine refuses every request, or had a row that it cannot do."""
        try:
            await probe(self._bench.engine, held, routes=self._bench.recipe.learner.routing_replay)
        except AdoptionError as error:
            # A good request that is refused is as wrong as an answer that contradicts itself.
            self._distrust(f"{refusal}; {error}")
            self._quarantine(str(error))

    def _gone(self, error: EngineError) -> Pause:
        """The engine does not answer: whatever answers here next is treated as a new engine."""
        if self._settled:
            log.warning("engine lost", error=str(error))
            self._bench.metrics.engine_restarts.inc()
        self._settled = False
        self._state.engine_up = False
        self._silent = 0
        self._quarantine(None)
        self._tries.reset()
        self._forget("engine_lost")
        return Pause("waiting", "engine", f"the engine: {error}")

    def _distrust(self, reason: str) -> None:
        if self.held is not None:
            log.warning("the engine's weights are not the ones it was given", reason=reason)
            self._bench.metrics.engine_restarts.inc()
        self._tries.reset()
        self._forget("foreign_weights")

    def _forget(self, reason: str) -> None:
        """The engine's weights are unknown: nothing it is sampling can be used."""
        self._hold(None)
        for leases in (self._training, self._validation):
            if leases is not None:
                leases.drop(reason)

    def _hold(self, held: Confirmed | None) -> None:
        self.held = held
        self._state.engine_version = None if held is None else held.ref.version
        self._bench.metrics.version.set(-1 if held is None else held.ref.version)

    # -- the announced weights --------------------------------------------------------------------------------------

    async def _hear(self) -> None:
        """Look up the announced weights."""
        ref, before = await self._bench.queue.weights(), self._announced
        if ref == before:
            return
        if before is not None and (ref is None or ref.version < before.version):
            # Announcements never fall, and none is taken back: this is another run under the old name. It may need this
            # engine's groups before it gets to the version that the engine is at, and knows nothing of its weights.
            log.warning("the queue lost its run", version=ref.version if ref else None, was=before.version)
            self._announced_at = None
            self._forget("queue_lost")
        elif ref is not None and (before is None or ref.version > before.version):  # not one that is announced again
            now = time.monotonic()
            if self._announced_at is not None:
                self._training.pace.saw_version(now - self._announced_at)
            self._announced_at = now
        self._announced = ref
        self._begin_fetch()
        self._state.announced_version = ref.version if ref else None
        self._tries.reset()

    def _begin_fetch(self) -> None:
        """Copy and patch the announced version in the background; one at a time, the latest one last."""
        ref = self._announced
        if ref is None or ref.source or self._fetching():
            return
        self._fetched, self._fetch = ref, asyncio.create_task(asyncio.to_thread(self._copy.fetch, ref))

    def _fetching(self) -> bool:
        return self._fetch is not None and not self._fetch.done()

    async def _local_folder(self, ref: WeightsRef) -> Path | None:
        """The version's local copy; None where it is sent to the engine.

        Raises:
            WeightsMissingError: it cannot be read now.
        """
        if ref.source:
            return None
        if self._fetch is None or self._fetched != ref:
            self._begin_fetch()
        assert self._fetch is not None
        fetch, self._fetch = self._fetch, None  # a failed one is tried again
        fetched = await fetch
        if fetched.bytes:
            kind = "base" if fetched.from_base else "delta"
            self._bench.metrics.weight_bytes.labels(kind).inc(fetched.bytes)
            log.info("weights copied", version=ref.version, lineage=ref.lineage, bytes=fetched.bytes, source=kind)
        return fetched.folder

    def _situation(self) -> Situation:
        pace, announced, held = self._training.pace, self._announced, self.held
        return Situation(
            engine=None if held is None else AnnouncedWeights(held.ref.version, held.ref.lineage),
            announced=None if announced is None else AnnouncedWeights(announced.version, announced.lineage),
            max_staleness=self._bench.recipe.queue.max_staleness,
            policy=self._bench.recipe.rollout.adoption,
            in_flight=[live.in_flight(pace.response_tokens) for live in self._training.sampling],
            speed=pace.speed,
            deadline_s=self._config.adoption_share * (pace.version_s or 0.0),
        )

    async def _take(self, decision: AdoptionDecision) -> Pause | None:
        """Nothing to wait for if the engine holds the announced weights now."""
        ref = self._announced
        assert ref is not None  # the decision follows from it
        if self._validation is not None and self._validation.drop("other_weights"):
            return Pause("waiting", "drain", "validation rows of older weights to be given back")
        if decision.mode is Mode.DRAIN and self._training.sampling:
            return Pause("waiting", "drain", f"groups in flight, before version {ref.version} is taken")
        if (pause := self._tries.pause(time.monotonic())) is not None:
            return pause
        self._report.does("adopting", f"the engine to take version {ref.version}", "adoption")
        begun = time.monotonic()
        try:
            await self._adopt(ref, decision.mode)
        except AdoptionError as failure:
            return await self._not_taken(ref, failure)
        seconds = time.monotonic() - begun
        self._bench.metrics.adoption.labels(str(decision.mode)).observe(seconds)
        self._traced(ref, decision.mode, seconds)
        # Once a version: a restarted engine takes it again, long after it was announced.
        if self._announced_at is not None and ref.version != self._lag_of:
            self._bench.metrics.adoption_lag.observe(time.monotonic() - self._announced_at)
            self._lag_of = ref.version
        log.info(
            "weights taken", version=ref.version, lineage=ref.lineage, mode=str(decision.mode), why=decision.reason,
            seconds=seconds,
        )  # fmt: skip
        self._quarantine(None)
        self._tries.reset()
        self._check_due = time.monotonic() + self._config.engine_check_s
        return None

    def _traced(self, ref: WeightsRef, mode: Mode, seconds: float) -> None:
        now, context = time.time(), of_version(self._bench.queue.run, ref.lineage, ref.version)
        told = {
            "rl.policy.version": ref.version, "rl.sync.destination": self._bench.worker, "rl.sync.mode": str(mode),
        }  # fmt: skip
        self._bench.tracing.record("rl.sync.adopt", context, now - seconds, now, told)

    async def _adopt(self, ref: WeightsRef, mode: Mode) -> None:
        """Bring the engine to `ref`. Raises AdoptionError."""
        engine, worker = self._bench.engine, self._bench.worker
        folder = await self._local_folder(ref)
        if self._training.sampling:  # whose answers are checked in any case
            await adopt(engine, ref, mode, self.held, self._hold, worker=worker, folder=folder)
            return
        confirmed: list[Confirmed] = []
        await adopt(engine, ref, mode, self.held, confirmed.append, worker=worker, folder=folder)
        await probe(engine, confirmed[0], routes=self._bench.recipe.learner.routing_replay)
        self._hold(confirmed[0])

    async def _not_taken(self, ref: WeightsRef, failure: AdoptionError) -> Pause:
        """Try again later: the next version may need this engine's groups first."""
        missing = isinstance(failure, WeightsMissingError)
        tries = self._tries.count + 1
        log.error(
            "weights not taken", version=ref.version, lineage=ref.lineage, tries=tries, missing=missing,
            error=str(failure),
        )  # fmt: skip
        if not missing:
            self._bench.metrics.adoption_failures.inc()
            self._quarantine(f"version {ref.version}: {failure}")
            self._check_due = 0.0
        if not failure.unchanged:
            self._forget("unconfirmed_weights")
        phase, label = ("waiting", "source") if missing else ("quarantined", "quarantine")
        pause = Pause(phase, label, f"version {ref.version}, not taken in {tries} tries: {failure}")
        self._tries.fail(time.monotonic(), pause)
        # A learner that has ended may have removed the weights; nobody waits for them then.
        stopped = (await self._bench.queue.stats()).stopped
        if stopped is not None:
            pause = Pause("idle", "stopped", f"the run is over: {stopped.detail}")
            self._tries.explain(pause)
        return pause

    def _quarantine(self, reason: str | None) -> None:
        self._state.quarantine = reason
        self._bench.metrics.quarantined.set(reason is not None)
