"""The loop: look, decide, act, every PASS_S and whenever a run or a RayJob changes.

kopf watches and handles signals. Its timers and change handlers are not used, because they need finalizers and
annotations on the objects, and a finalizer would remain after the operator is uninstalled. Each pass lists all objects
instead: a missed event delays a run by PASS_S, and a restarted operator needs no memory.
"""

import asyncio
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import kopf
import structlog

from golongrl.kubernetes.cluster import ClusterMissingError, ClusterSilentError
from golongrl.kubernetes.kubeconfig import ClusterError
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl.serving import bind, served
from golongrl_operator.api import GROUP, PLURAL, RUN_LABEL, VERSION
from golongrl_operator.events import manifest, transitions
from golongrl_operator.kube import Kube, picture
from golongrl_operator.reconcile import ReconcileResult, Seen, reconcile, refused
from golongrl_operator.serve import create_app

log = structlog.get_logger()

# `kubectl get` is as fresh as this.
PASS_S: Final = 15.0
# Events come in bursts: one pass handles them all.
_SETTLE_S: Final = 1.0
# The server ends a watch after this and kopf starts another, so a connection that died silently lasts no longer.
_WATCH_S: Final = 300
# A pass of three lists, the queue and a few writes has ended by then, even if each takes its whole deadline.
LATEST_S: Final = 180.0


@dataclass
class Loop:
    """The passes over one release."""

    site: Site
    kube: Kube
    pass_s: float = PASS_S
    settle_s: float = _SETTLE_S

    def __post_init__(self) -> None:
        self.changed = asyncio.Event()
        self.last = asyncio.get_running_loop().time()
        self._me = socket.gethostname()

    @property
    def age(self) -> float:
        """Seconds since the last pass, successful or not."""
        return asyncio.get_running_loop().time() - self.last

    async def forever(self) -> None:
        """Run passes until cancelled. If the API server does not answer, the next pass tries again."""
        while True:
            try:
                ok = await self.once()
            except ClusterError as error:
                ok = False
                log.warning("pass", error=str(error))
            self.kube.metrics.passed(ok)
            self.last = asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pass_s):
                    await self.changed.wait()
                    await asyncio.sleep(self.settle_s)
            self.changed.clear()

    async def once(self) -> bool:
        """One pass; True if everything was done and reported. Raises ClusterError if the objects cannot be listed."""
        cluster = await self.kube.look(self.site.release)
        told, silence = await picture(self.site.redis_url, self.site.run)
        now = datetime.now(UTC)
        outcomes = reconcile(self.site, Seen(now, cluster.runs, cluster.jobs, cluster.pods, told, silence))
        self.kube.metrics.runs(outcome.status["phase"] for outcome in outcomes)
        ok = True
        for outcome in outcomes:
            try:
                await self._do(outcome, now)
            except ClusterSilentError:
                # The other runs would only wait for their deadlines too.
                raise
            except ClusterMissingError:
                log.info("run was deleted", name=outcome.run["metadata"]["name"])
            except ClusterError as error:
                # Only this run could not be written: continue with the others.
                ok = False
                log.warning("run", name=outcome.run["metadata"]["name"], error=str(error))
        return ok

    async def _do(self, outcome: ReconcileResult, now: datetime) -> None:
        status, written = outcome.status, outcome.run.get("status") or {}
        # The status is written before a deletion: a restart that is not counted would be free.
        if outcome.delete and any(status[key] != written.get(key) for key in ("phase", "restarts")):
            await self._tell(outcome.run, written, status, now)
            written = status
        try:
            for job in outcome.delete:
                await self.kube.delete(job)
            for item in outcome.apply:
                await self.kube.apply(item)
        except ClusterError as error:
            status = refused(outcome, str(error), now)
        if status != written:
            await self._tell(outcome.run, written, status, now)

    async def _tell(self, run: Manifest, written: Manifest, status: Manifest, now: datetime) -> None:
        """Events first: a pass that dies in between is repeated, and finds them already posted."""
        for event in transitions(written, status):
            log.info("run", name=run["metadata"]["name"], reason=event.reason, note=event.note)
            try:
                await self.kube.post(manifest(run, event, now, self._me))
            except ClusterError as error:
                # The status says the same.
                log.warning("event", name=run["metadata"]["name"], error=str(error))
        await self.kube.write_status(run, status)


def registry(loop: Loop) -> kopf.OperatorRegistry:
    """What kopf calls: the login, and two watches that start a pass."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        in_pod = loop.kube.calls.access.in_pod
        return kopf.login_with_service_account(**given) if in_pod else kopf.login_with_kubeconfig(**given)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def run_changed(meta: kopf.Meta, status: kopf.Status, **_: Any) -> None:
        # The loop's own writes change only the status.
        if meta.get("generation") != status.get("observedGeneration"):
            loop.changed.set()

    @kopf.on.event("ray.io", "v1", "rayjobs", labels={RUN_LABEL: kopf.PRESENT}, registry=handlers)
    async def job_changed(**_: Any) -> None:
        loop.changed.set()

    return handlers


def settings() -> kopf.OperatorSettings:
    """One namespace, no peering, nothing written by kopf itself."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = _WATCH_S
    chosen.watching.connect_timeout = 10.0
    return chosen


async def operate(loop: Loop, host: str, port: int, stop: threading.Event | None = None) -> None:
    """Run until a signal comes, or `stop` is set; /healthz and /metrics are served meanwhile.

    Raises:
        InputError: the address cannot be bound.
    """
    listener = bind(host, port)
    app = create_app(lambda: loop.age, LATEST_S, loop.kube.metrics.registry)
    passes = asyncio.create_task(loop.forever())
    watches = asyncio.create_task(
        kopf.operator(
            registry=registry(loop),
            settings=settings(),
            standalone=True,
            namespaces=[loop.kube.namespace],
            stop_flag=stop,
        )
    )
    try:
        async with served(app, listener):
            # If either ends, the process ends, and Kubernetes restarts it.
            await asyncio.wait({passes, watches}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (passes, watches):
            task.cancel()
        done = await asyncio.gather(passes, watches, return_exceptions=True)
    for result in done:
        if isinstance(result, Exception):
            raise result
