"""The loop: look, decide, do, every PASS_S and whenever a run or a RayJob changes.

kopf watches and handles signals. It keeps nothing on the objects: its own timers and change handlers need a finalizer
and annotations, and a finalizer outlives an operator that was uninstalled. Each pass lists afresh instead, so that a
missed event costs PASS_S and a restarted operator needs no memory.
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
# Events come in bursts: one pass answers them all.
_SETTLE_S: Final = 1.0
# The server ends a watch after this and kopf starts another: a connection that died silently costs no more.
_WATCH_S: Final = 300
# A pass of three lists, the queue and a few writes, each at its deadline, is over by then: a later loop is dead.
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
        """Seconds since the last pass, whatever came of it."""
        return asyncio.get_running_loop().time() - self.last

    async def forever(self) -> None:
        """Pass after pass; a server that does not answer is asked again at the next."""
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
        """One pass; whether all it found was done and told. Raises ClusterError if the cluster cannot be looked at."""
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
                # Nor would it answer the other runs, each at its deadline.
                raise
            except ClusterMissingError:
                log.info("run deleted since", name=outcome.run["metadata"]["name"])
            except ClusterError as error:
                # Not writable: the other runs do not wait for it.
                ok = False
                log.warning("run", name=outcome.run["metadata"]["name"], error=str(error))
        return ok

    async def _do(self, outcome: ReconcileResult, now: datetime) -> None:
        status, written = outcome.status, outcome.run.get("status") or {}
        # What is taken away is counted first: a restart that was not counted would be free.
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
        """Events first: a pass that dies in between is repeated, and finds them told."""
        for event in transitions(written, status):
            log.info("run", name=run["metadata"]["name"], reason=event.reason, note=event.note)
            try:
                await self.kube.post(manifest(run, event, now, self._me))
            except ClusterError as error:
                # The status says the same, and lasts.
                log.warning("event", name=run["metadata"]["name"], error=str(error))
        await self.kube.write_status(run, status)


def registry(loop: Loop) -> kopf.OperatorRegistry:
    """What kopf calls: the login, and two watches that wake the loop."""
    handlers = kopf.OperatorRegistry()

    @kopf.on.login(registry=handlers)
    def login(**given: Any) -> kopf.ConnectionInfo | None:
        in_pod = loop.kube.calls.access.in_pod
        return kopf.login_with_service_account(**given) if in_pod else kopf.login_with_kubeconfig(**given)

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)
    async def run_changed(meta: kopf.Meta, status: kopf.Status, **_: Any) -> None:
        # The loop's own writes change the status alone.
        if meta.get("generation") != status.get("observedGeneration"):
            loop.changed.set()

    @kopf.on.event("ray.io", "v1", "rayjobs", labels={RUN_LABEL: kopf.PRESENT}, registry=handlers)
    async def job_changed(**_: Any) -> None:
        loop.changed.set()

    return handlers


def settings() -> kopf.OperatorSettings:
    """One namespace, no peers, nothing written by kopf itself."""
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
            # Either of them ending ends the process: Kubernetes starts it anew.
            await asyncio.wait({passes, watches}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (passes, watches):
            task.cancel()
        done = await asyncio.gather(passes, watches, return_exceptions=True)
    for result in done:
        if isinstance(result, Exception):
            raise result
