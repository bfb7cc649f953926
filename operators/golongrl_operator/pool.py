"""The pool of one run: how many engines, which goes first, which is replaced. Pure: observations in, a plan out.

Invariants:
- only the run that trains has engines; a suspended, waiting or ended one has none;
- what KEDA sizes is left to KEDA, and what could not be observed is left as it is;
- a plan that was carried out, and observed, gives an empty plan.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from golongrl.kubernetes.look.objects import conditions
from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.site import Manifest, Site
from golongrl_operator.api import CONTENT, RUN_LABEL, AvoidedNode, Replacement, RolloutStatus, ScalingStatus, Suspicion
from golongrl_operator.build import Meaning, pool, pool_name, workload_templates
from golongrl_operator.conditions import short, stamp
from golongrl_operator.decide import RunPhase
from golongrl_operator.healing import HOUR_S, Healing, costs, heal
from golongrl_operator.nodes import avoid
from golongrl_operator.scaling.controller import Memory, PoolLimits, resize
from golongrl_operator.scaling.signals import read_signals

Json = Mapping[str, Any]

# In these phases the run trains, is about to, or will again within minutes.
TRAINS: Final = frozenset(
    {RunPhase.PENDING, RunPhase.RUNNING, RunPhase.REPLACING, RunPhase.RESTARTING, RunPhase.BACKING_OFF}
)
# Kueue holds such a RayJob back, and its engines would wait on GPUs that others could use.
_NOT_ADMITTED: Final = frozenset({"Suspended", "Suspending"})
# A pool without limits of its own may have so many.
_MOST: Final = 1000
_MOST_LISTED: Final = 20


@dataclass(frozen=True)
class PoolPlan:
    """What to do about a pool."""

    status: RolloutStatus | None = None
    replaced: tuple[Replacement, ...] = ()
    """In the last hour, and now."""
    scale: Mapping[str, int] = field(default_factory=dict)
    """Workload -> engines."""
    costs: Mapping[str, int] = field(default_factory=dict)
    """Pod -> what its deletion would lose; before the workload is scaled down."""
    apply: tuple[Manifest, ...] = ()
    evict: Mapping[str, str] = field(default_factory=dict)
    """Pods to delete, so that new ones take their places -> their UIDs."""
    trouble: str = ""
    """What a person should know."""


@dataclass(frozen=True)
class View:
    """What is known of a run when its pool is planned."""

    run: Manifest
    meaning: Meaning
    phase: RunPhase
    now: datetime
    workloads: Sequence[Manifest]
    pods: Sequence[Pod]
    picture: Json | None
    deployment: str = ""
    """KubeRay's status of the RayJob."""
    most: int | None = None
    """Engines that the GPU budget, or Kueue, leaves to it."""
    limited_by: str = "the GPU budget"
    evict: tuple[str, ...] = ()
    """Pods that hold up the queue, to be replaced whether they seem sick or not."""
    nodes: Sequence[AvoidedNode] = ()
    configs: Collection[str] | None = None
    """Names of the runs' ConfigMaps; None if they are not known."""


def plan(site: Site, view: View) -> PoolPlan:
    """What to do about the pool of a run that may use it."""
    name = pool_name(site, view.run) if view.meaning.dedicated else site.pool.name
    old = (view.run.get("status") or {}).get("rollout") or {}
    old = old if old.get("name") == name else {}
    work = next((item for item in view.workloads if item["metadata"]["name"] == name), None)
    if work is None and not view.meaning.dedicated:
        return PoolPlan(replaced=_recent(view))
    pods = [pod for pod in view.pods if _belongs(pod, view, name)]
    asked = 0 if work is None else int(work["spec"].get("replicas", 1))
    size, status = _size(site, view, asked, old)
    healing, replaced = _heal(view, pods, old) if size else (Healing(), _recent(view))
    sick = [Suspicion(pod=one.pod, since=_stamp(one.since), reason=short(one.reason)) for one in healing.suspects]
    observed = (work or {}).get("status") or {}
    status = status.model_copy(
        update={
            "name": name,
            "replicas": int(observed.get("replicas", 0)),
            "ready_replicas": int(observed.get("readyReplicas", 0)),
            "desired": size,
            "selector": _selector(site, view),
            "sick": sick[:_MOST_LISTED],
        }
    )
    sick_pods = (healing.replace.pod,) if healing.replace else ()
    uids = {pod.name: pod.uid for pod in view.pods}
    evict = {pod: uids.get(pod, "") for pod in view.evict or sick_pods} if size else {}
    apply = _own(site, view, work, size) if view.meaning.dedicated else ()
    keda = site.pool.autoscaled and not view.meaning.dedicated
    scale = {name: size} if not (apply or keda) and work is not None and size != asked else {}
    least = costs(pods, view.picture) if 0 < size < asked else {}
    trouble = _refusal(work or {}) if size else ""
    return PoolPlan(status, replaced, scale, least, apply, evict, trouble or healing.reason)


def _refusal(work: Json) -> str:
    """Why no pod may be made: a quota, Pod Security, a webhook. A Deployment says so, no pod does."""
    failure = conditions(work).get("ReplicaFailure", {})
    if failure.get("status") != "True":
        return ""
    return short(f"no engine may be made ({failure.get('reason', '')}): {failure.get('message', '')}")


def _own(site: Site, view: View, work: Manifest | None, size: int) -> tuple[Manifest, ...]:
    """The objects of a pool of the run's own, if they are not there as they should be."""
    if work is None and not size:
        return ()
    made = pool(site, view.run, view.meaning, size)
    avoid(workload_templates(made[1]), view.nodes)
    if work is None:
        return tuple(made)
    same = (work["metadata"].get("annotations") or {}).get(CONTENT) == made[1]["metadata"]["annotations"][CONTENT]
    # Another template replaces all engines: for nodes to avoid, only when there are none.
    if not int(work["spec"].get("replicas", 1)):
        same = same and _affinities(work) == _affinities(made[1])
    # Without its recipe no further pod of it would start.
    lacks = view.configs is not None and made[0]["metadata"]["name"] not in view.configs
    return tuple(made) if size and (lacks or not same) else ()


def _affinities(work: Manifest) -> list[Json | None]:
    return [template["spec"].get("affinity") for template in workload_templates(work)]


def _size(site: Site, view: View, asked: int, old: Json) -> tuple[int, RolloutStatus]:
    """How many engines, with what the status remembers of why."""
    spec, none = view.meaning.spec.rollout, RolloutStatus(name="")
    if view.phase not in TRAINS:
        return 0, none.model_copy(update={"reason": f"the run is {view.phase}"})
    if view.deployment in _NOT_ADMITTED:
        return 0, none.model_copy(update={"reason": "the RayJob is not admitted yet"})
    if site.pool.autoscaled and not view.meaning.dedicated:
        return asked, none.model_copy(update={"reason": "KEDA sizes the pool"})
    limits = PoolLimits(spec.min_replicas or 1, spec.max_replicas or _MOST)
    if view.most is not None:
        limits = PoolLimits(min(limits.least, view.most), min(limits.most, view.most))
    fixed = spec.replicas
    if fixed is None and spec.max_replicas is None:
        fixed = max(spec.min_replicas or 0, site.pool.replicas)
    if fixed is not None:
        size = fixed if view.most is None else min(fixed, view.most)
        why = "a fixed number" if size == fixed else f"{view.limited_by} leaves {size} of {fixed}"
        return size, none.model_copy(update={"reason": why})
    if not asked:
        # It begins, or begins again.
        size = limits.clamp(int(old.get("desired") or 0) or site.pool.replicas)
        return size, none.model_copy(update={"reason": "the run begins"})
    slots = view.meaning.recipe.rollout.concurrent_groups
    picture = view.picture if view.phase == RunPhase.RUNNING else None
    signals, counters = read_signals(picture, asked, slots, str(old.get("learner", "")))
    found = resize(signals, limits, _memory(old.get("scaling")), view.now.timestamp())
    update = {"reason": found.reason, "learner": counters, "scaling": _remember(found.memory)}
    return found.engines, none.model_copy(update=update)


def _memory(old: Json | None) -> Memory:
    if not old:
        return Memory()
    times = {key: datetime.fromisoformat(old[key]).timestamp() for key in ("at", "changed", "low") if old.get(key)}
    return Memory(busy=float(old["busy"]), wait=float(old["wait"]), lost=float(old.get("lost", 0.0)), **times)


def _remember(memory: Memory) -> ScalingStatus | None:
    if memory.busy is None or memory.need is None or memory.at is None:
        return None
    return ScalingStatus(
        need=round(memory.need, 2),
        busy=round(memory.busy, 3),
        wait=round(memory.wait, 4),
        lost=round(memory.lost, 4),
        at=_stamp(memory.at),
        changed=None if memory.changed is None else _stamp(memory.changed),
        low=None if memory.low is None else _stamp(memory.low),
    )


def _heal(view: View, pods: Sequence[Pod], old: Json) -> tuple[Healing, tuple[Replacement, ...]]:
    recent, now = _recent(view), view.now.timestamp()
    before = {one["pod"]: (one["reason"], _seconds(one["since"])) for one in old.get("sick") or []}
    times = [_seconds(one.time) for one in recent]
    picture = view.picture if view.phase == RunPhase.RUNNING else None
    healing = heal(pods, picture, before, times, view.meaning.spec.max_engine_replacements, now)
    found = [(pod, "the queue waits for it without progress") for pod in view.evict]
    if not found and healing.replace is not None:
        found = [(healing.replace.pod, healing.replace.reason)]
    new = (Replacement(pod=pod, time=stamp(view.now), reason=short(reason)) for pod, reason in found)
    return healing, (*recent, *new)


def _recent(view: View) -> tuple[Replacement, ...]:
    listed = (view.run.get("status") or {}).get("replaced") or []
    now = view.now.timestamp()
    kept = [Replacement.model_validate(one) for one in listed if now - _seconds(one["time"]) < HOUR_S]
    return tuple(kept[-_MOST_LISTED:])


def _belongs(pod: Pod, view: View, name: str) -> bool:
    """By name: a ReplicaSet and a LeaderWorkerSet begin their pods' names with the workload's."""
    if pod.component != "rollout" or pod.follower:
        return False
    mine = pod.run == view.run["metadata"]["name"] if view.meaning.dedicated else not pod.run
    return mine and pod.name.startswith(f"{name}-")


def _selector(site: Site, view: View) -> str:
    own = f",{RUN_LABEL}={view.run['metadata']['name']}" if view.meaning.dedicated else f",!{RUN_LABEL}"
    role = "golongrl.io/role=leader"
    return f"app.kubernetes.io/instance={site.release},app.kubernetes.io/component=rollout,{role}{own}"


def _seconds(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _stamp(seconds: float) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))
