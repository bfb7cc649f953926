"""The loop: look, decide, act, every PASS_S and whenever a run or a RayJob changes.

No finalizer and no annotation is written on the runs: they would remain after the operator is uninstalled. Each pass
lists all objects instead, so that a missed event delays a run by PASS_S, and a restarted operator needs no memory.
"""

import asyncio
import math
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from golongrl.kubernetes.cluster_errors import (
    ClusterConflictError,
    ClusterError,
    ClusterMissingError,
    ClusterSilentError,
)
from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl.serving import bind, served
from golongrl_operator.cases import Seen
from golongrl_operator.conditions import NO_ANSWER, REFUSED
from golongrl_operator.events import manifest, transitions
from golongrl_operator.kube import ClusterLook, Kube, picture
from golongrl_operator.lease import LeaderLease, LeaseLostError
from golongrl_operator.reconcile import (
    ReconcileResult,
    adopted_notes,
    evaluation_unwritten,
    idle_pool,
    own_queues,
    reconcile,
    unwritten,
)
from golongrl_operator.refusals import Refusals
from golongrl_operator.serve import create_app
from golongrl_operator.turns import adopted
from golongrl_operator.watch import watch_all

log = structlog.get_logger()

Ask = Callable[[Sequence[Pod]], Awaitable[tuple[Manifest | None, str]]]

# `kubectl get` is as fresh as this.
PASS_S: Final = 15.0
# Events come in bursts: one pass handles them all.
_SETTLE_S: Final = 1.0
# Calls of one pass that may wait for their whole deadline in vain, as for a webhook that hangs for some runs' objects.
_MOST_SILENT: Final = 3
# A pass of three lists, the queue and those calls has ended by then, even if each takes its whole deadline.
LATEST_S: Final = 180.0


@dataclass
class Loop:
    """The passes over one release."""

    site: Site
    kube: Kube
    lease: LeaderLease | None = None
    """Without one, this process always acts."""
    ask: Ask | None = None
    """How a queue is asked; directly by default."""
    pass_s: float = PASS_S
    settle_s: float = _SETTLE_S
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.changed = asyncio.Event()
        self.last = asyncio.get_running_loop().time()
        self._me = socket.gethostname()
        self._refusals = Refusals(self.pass_s)
        # How often a run, or a pool, had no answer of the API server, in one pass after the other.
        self._silences = Counter[str]()
        self.kube.acts = self._acts

    def _acts(self) -> bool:
        return self.lease is None or self.lease.held

    @property
    def age(self) -> float:
        """Seconds since the last pass, successful or not."""
        return asyncio.get_running_loop().time() - self.last

    async def forever(self) -> None:
        """Run passes until cancelled. If the API server does not answer, the next pass tries again."""
        while True:
            acts = self._acts()
            self.kube.metrics.leads(acts)
            # One that waits for the lease is as healthy as one that acts.
            ok = True
            if acts:
                try:
                    ok = await self.once()
                except (ClusterError, LeaseLostError) as error:
                    ok = False
                    log.warning("pass", error=str(error))
            self.kube.metrics.passed(ok)
            self.last = asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                # Soon after the lease is free, but without asking for nothing all the time.
                async with asyncio.timeout(self.pass_s if acts else min(self.pass_s, _SETTLE_S)):
                    await self.changed.wait()
                    await asyncio.sleep(self.settle_s)
            self.changed.clear()

    async def once(self) -> bool:
        """One pass; True if everything was done and reported.

        Raises:
            ClusterError: the objects cannot be listed.
            LeaseLostError: another operator may act by now.
        """
        kind = str(self.site.pool.workload.get("kind", "Deployment"))
        cluster = await self.kube.look(self.site.release, kind)
        seen = await self._see(cluster)
        # Thousands of runs take seconds, and the lease is renewed meanwhile.
        outcomes = await asyncio.to_thread(reconcile, self.site, seen)
        self.kube.metrics.runs(outcome.status["phase"] for outcome in outcomes)
        self.kube.metrics.pools(outcome.status.get("rollout") or {} for outcome in outcomes)
        tasks = [
            (name, self._do(outcome, kind, seen.now, cluster.written[name]))
            for outcome in outcomes
            for name in [outcome.run["metadata"]["name"]]
        ]
        idle = idle_pool(self.site, outcomes, seen)
        tasks += [(name, self.kube.scale(kind, name, size)) for name, size in idle.items()]
        tasks += [
            (job["metadata"]["name"], self.kube.note(job["metadata"]["name"], notes))
            for job in adopted(self.site, seen.jobs)
            if (notes := adopted_notes(self.site, job, seen))
        ]
        # Last what had no answer in the passes before: a webhook that hangs for one run's objects holds up no other.
        tasks.sort(key=lambda task: self._silences[task[0]])
        self._silences = Counter({name: self._silences[name] for name, _ in tasks})
        try:
            return await self._all(tasks)
        finally:
            for _, task in tasks:
                task.close()

    async def _all(self, tasks: Sequence[tuple[str, Coroutine[Any, Any, None]]]) -> bool:
        """Do all of a pass; True if everything was done and reported. Raises LeaseLostError."""
        ok, silent = True, 0
        for name, task in tasks:
            known = self._silences[name]
            try:
                await task
            except ClusterSilentError as error:
                self._silences[name] += 1
                log.warning("run", name=name, error=str(error))
            except ClusterMissingError:
                log.info("object was deleted", name=name)
            except ClusterConflictError:
                # The next pass sees what it is now.
                log.info("object was changed", name=name)
            except ClusterError as error:
                # Only this one could not be written: continue with the others.
                ok = False
                log.warning("run", name=name, error=str(error))
            if self._silences[name] == known:
                del self._silences[name]
                continue
            ok, silent = False, silent + 1
            if silent == _MOST_SILENT:
                log.warning(
                    "pass", error=f"no answer for {silent} runs or pools: the others come first in the next pass"
                )
                break
        return ok

    async def _see(self, cluster: ClusterLook) -> Seen:
        """The cluster, and the queue of each run that has one of its own."""
        told, silence = await self._ask(self.site.run, [pod for pod in cluster.pods if not pod.run])
        pictures = {
            name: await self._ask(run, [pod for pod in cluster.pods if pod.run == name])
            for name, run in own_queues(self.site, cluster.runs).items()
        }
        now = datetime.now(UTC)
        return Seen(
            now=now,
            runs=cluster.runs,
            jobs=cluster.jobs,
            pods=cluster.pods,
            picture=told,
            silence=silence,
            workloads=cluster.workloads,
            evaluations=cluster.evaluations,
            admissions=cluster.admissions,
            pictures=pictures,
            configs=cluster.configs,
        )

    async def _ask(self, run: str, pods: Sequence[Pod]) -> tuple[Manifest | None, str]:
        """What a run's queue reports, or None and why it did not answer."""
        return await (self.ask(pods) if self.ask else picture(self.site.redis_url, run))

    async def _do(self, outcome: ReconcileResult, kind: str, now: datetime, written: Manifest) -> None:
        run, status, old = outcome.run, outcome.status, outcome.run.get("status") or {}
        # The status is written before a deletion: a restart, or a replacement, that is not counted would be free.
        if outcome.expired:
            await self.kube.delete_run(run)
            return
        counted = ("phase", "restarts", "replaced")
        waits = self._refusals.pending(("run", outcome.run["metadata"]["name"]), outcome.writes, self.clock())
        if (
            not waits
            and (outcome.delete or outcome.pool.evict)
            and any(status.get(key) != old.get(key) for key in counted)
        ):
            run = await self._tell(run, old, status, now)
            written = old = status
        reason, why = await self._tried("run", outcome, lambda: self._train(outcome, kind))
        if why:
            status = unwritten(outcome, reason, why, now)
        reason, why = await self._tried("evaluation", outcome, lambda: self._evaluate(outcome))
        if why and "evaluation" in status:
            status = evaluation_unwritten(status, reason, why)
        if status != written:
            await self._tell(run, old, status, now)

    async def _tried(
        self, part: str, outcome: ReconcileResult, writes: Callable[[], Awaitable[None]]
    ) -> tuple[str, str]:
        """Make the writes, or leave them for later if the API server has refused them; why they are not made."""
        name = outcome.run["metadata"]["name"]
        if why := self._refusals.pending((part, name), outcome.writes, self.clock()):
            return REFUSED, why
        try:
            await writes()
        except ClusterSilentError as error:
            # Nothing is known of the object: the next pass looks, and tries again.
            self._silences[name] += 1
            return NO_ANSWER, str(error)
        except ClusterError as error:
            self._refusals.refused((part, name), outcome.writes, str(error), self.clock())
            return REFUSED, str(error)
        self._refusals.accepted((part, name))
        return "", ""

    async def _train(self, outcome: ReconcileResult, kind: str) -> None:
        for job in outcome.delete:
            await self.kube.delete(job)
        for item in (*outcome.admission.apply, *outcome.apply):
            await self.kube.apply(item)
        for name in outcome.admission.delete:
            await self.kube.delete_admission(name)
        for name, change in (outcome.admission.report or {}).items():
            await self.kube.tell_kueue(name, change)
        await self._pool(outcome, kind)

    async def _evaluate(self, outcome: ReconcileResult) -> None:
        for job in outcome.evaluation.delete:
            await self.kube.delete_evaluation(job)
        for item in outcome.evaluation.apply:
            await self.kube.apply(item)

    async def _pool(self, outcome: ReconcileResult, kind: str) -> None:
        for item in outcome.pool.apply:
            await self.kube.apply(item)
        for pod, cost in outcome.pool.costs.items():
            await self.kube.price(pod, cost)
        for name, size in outcome.pool.scale.items():
            await self.kube.scale(kind, name, size)
        for pod, uid in outcome.pool.evict.items():
            await self.kube.evict(pod, uid)
        if outcome.drop_pool:
            await self.kube.delete_pool(kind, outcome.drop_pool)

    async def _tell(self, run: Manifest, written: Manifest, status: Manifest, now: datetime) -> Manifest:
        """The run as it is then.

        Events first: a pass that dies in between is repeated, and finds them already posted.
        """
        for event in transitions(written, status):
            log.info("run", name=run["metadata"]["name"], reason=event.reason, note=event.note)
            try:
                await self.kube.post(manifest(run, event, now, self._me))
            except ClusterError as error:
                # The status says the same.
                log.warning("event", name=run["metadata"]["name"], error=str(error))
                self._silences[run["metadata"]["name"]] += isinstance(error, ClusterSilentError)
        return await self.kube.write_status(run, status)


async def _told_to_end(stop: threading.Event | None) -> None:
    """Wait for a signal, or until `stop` is set."""
    if stop is not None:
        await asyncio.to_thread(stop.wait)
        return
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await ended.wait()


async def operate(loop: Loop, host: str, port: int, stop: threading.Event | None = None) -> None:
    """Run until a signal comes, or `stop` is set; /healthz and /metrics are served meanwhile.

    Raises:
        InputError: the address cannot be bound.
    """
    listener = bind(host, port)
    app = create_app(lambda: loop.age, LATEST_S, loop.kube.metrics.registry)
    if loop.lease is not None:
        await loop.lease.once()
    ends = asyncio.create_task(_told_to_end(stop))
    passes = asyncio.create_task(loop.forever())
    keeping = asyncio.create_task(loop.lease.keep() if loop.lease else asyncio.sleep(math.inf))
    watches = asyncio.create_task(watch_all(loop.kube.calls, loop.site.release, loop.changed, loop.pass_s))
    try:
        async with served(app, listener):
            # If one ends, the process ends, and Kubernetes restarts it.
            await asyncio.wait({ends, passes, watches, keeping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # The lease is given back only when nothing acts any more.
        done: list[object] = await _cancelled(passes, watches)
        done += await _cancelled(keeping, ends)
    for result in done:
        if isinstance(result, Exception):
            raise result


async def _cancelled(*tasks: "asyncio.Task[None]") -> list[object]:
    """How the tasks end."""
    for task in tasks:
        task.cancel()
    return [*await asyncio.gather(*tasks, return_exceptions=True)]
