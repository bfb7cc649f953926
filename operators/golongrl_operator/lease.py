"""Which operator of a release acts: a Lease of Kubernetes, so that two never do (a second replica, `--dev` next to it).

The decision is pure. As in Kubernetes' own leader election, another's lease counts as expired when it has not changed
for its duration by the reader's own clock, so clocks that differ do no harm.
"""

import asyncio
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import structlog

from golongrl.errors import GolongrlError
from golongrl.kubernetes import kinds
from golongrl.kubernetes.cluster import Cluster
from golongrl.kubernetes.cluster_errors import ClusterConflictError, ClusterError, ClusterMissingError

log = structlog.get_logger()

Json = dict[str, Any]
# Long enough for two calls that take their whole deadline, short enough that a crash is no outage.
DURATION_S: Final = 30
_RENEW_S: Final = 5.0


def lease_name(release: str) -> str:
    """Of the Lease that the operators of a release share; the chart's notes name it, for it outlives the release."""
    return f"golongrl-operator-{release}"


class LeaseLostError(GolongrlError):
    """Another operator may act by now: what this one has seen is old, and it writes nothing more."""


@dataclass(frozen=True, slots=True)
class Observed:
    """The last state of the Lease, and since when it is so (monotonic)."""

    state: tuple[str, str] = ("", "")
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class LeaseDecision:
    """What to do about the Lease."""

    action: Literal["create", "take", "renew", "wait"]
    observed: Observed
    holder: str = ""


def decide(found: Json | None, me: str, observed: Observed, now: float) -> LeaseDecision:
    """Whether this process may act.

    Args:
        found: the Lease; None if there is none.
        now: monotonic clock.
    """
    if found is None:
        return LeaseDecision("create", observed)
    spec = found.get("spec") or {}
    holder, state = spec.get("holderIdentity") or "", (spec.get("holderIdentity") or "", spec.get("renewTime") or "")
    if state != observed.state:
        observed = Observed(state, now)
    if holder == me:
        return LeaseDecision("renew", observed, me)
    expired = now - observed.since >= float(spec.get("leaseDurationSeconds") or DURATION_S)
    return LeaseDecision("take" if not holder or expired else "wait", observed, holder)


def identity() -> str:
    """Who this process is: its pod or machine, and a word that another process there does not have."""
    return f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"


class LeaderLease:
    """The Lease of one release, kept by a task of its own."""

    def __init__(self, calls: Cluster, name: str, me: str) -> None:
        self._calls = calls
        self._name = name
        self._me = me
        self._observed = Observed()
        self._item: Json = {}
        self._until = 0.0
        self.holder = ""

    @property
    def held(self) -> bool:
        """Whether this process may act now: nobody else takes the Lease before it has expired."""
        return asyncio.get_running_loop().time() < self._until

    async def keep(self) -> None:
        """Take and renew it until cancelled; then give it back."""
        try:
            while True:
                await self.once()
                await asyncio.sleep(_RENEW_S)
        finally:
            await self._release()

    async def once(self) -> None:
        """Look at the Lease, and take or renew it if that is possible."""
        asked = asyncio.get_running_loop().time()
        try:
            found = await self._find()
            decision = decide(found, self._me, self._observed, asked)
            self._observed = decision.observed
            if decision.action == "wait":
                if decision.holder != self.holder:
                    log.info("another operator acts", holder=decision.holder, lease=self._name)
                self.holder, self._until = decision.holder, 0.0
                return
            self._item = self._lease(found, self._me)
            if found is None:
                await self._calls.create(kinds.LEASE, self._item)
            else:
                await self._calls.replace(kinds.LEASE, self._item)
        except (ClusterConflictError, ClusterMissingError):
            # Somebody else was faster; the next look shows who.
            return
        except ClusterError as error:
            log.warning("lease", error=str(error))
            return
        if self.holder != self._me:
            log.info("this operator acts", lease=self._name)
        # Counted from before the call: the server may have taken it at once.
        self.holder, self._until = self._me, asked + DURATION_S

    async def _find(self) -> Json | None:
        try:
            return await self._calls.get(kinds.LEASE, self._name)
        except ClusterMissingError:
            return None

    async def _release(self) -> None:
        if self.holder != self._me:
            return
        try:
            found = await self._find()
            if found is not None and (found.get("spec") or {}).get("holderIdentity") == self._me:
                await self._calls.replace(kinds.LEASE, self._lease(found, ""))
        except ClusterError as error:
            log.warning("lease", error=str(error))
        self._until = 0.0

    def _lease(self, found: Json | None, holder: str) -> Json:
        old = (found or {}).get("spec") or {}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = old.get("holderIdentity") == holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": now,
            "acquireTime": old.get("acquireTime", now) if same else now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (0 if same or found is None else 1),
        }
        metadata: Json = {"name": self._name, "namespace": self._calls.namespace}
        if found is not None:
            metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
