"""From any state that a crash, a person or a conflict can leave, the operator reaches the state that the specs ask for.

The world has what a cluster has: RayJobs that take time to go, writes that are refused or cut short between two calls,
children that somebody deletes, KubeRay that trains, fails and completes.
"""

import asyncio
import copy
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.look.pods import Pod
from golongrl.kubernetes.rayjob.site import patch
from golongrl_operator.app import Loop
from golongrl_operator.cases import Seen
from golongrl_operator.kube import MANAGER, Kube
from golongrl_operator.reconcile import idle_pool, reconcile
from support.api_http import serving
from support.operator_server import OperatorApi
from support.training_runs import NOW, SITE, a_run

BUDGETED = replace(SITE, pool=SITE.pool.model_copy(update={"gpus": 8}), gpu_budget=40)
# Learners of 8 GPUs, and engines of 8.
RANKS = 8
_WORKERS = {"containers": [{"name": "ray-worker", "resources": {"limits": {"nvidia.com/gpu": str(RANKS)}}}]}
ON_GPUS = replace(
    BUDGETED,
    rayjob=patch(SITE.rayjob, {
        "spec": {"rayClusterSpec": {"workerGroupSpecs": [{"groupName": "ranks", "template": {"spec": _WORKERS}}]}}
    }),
)  # fmt: skip
BUDGETS = (16, 24, 40, 80)
POOL = SITE.pool.name
FAILURE = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}


@dataclass
class World:
    """A namespace, and what happens in it."""

    site: Any
    runs: dict[str, dict[str, Any]]
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = field(default_factory=dict)
    now: datetime = NOW
    pods: list[Pod] = field(default_factory=list)

    def seen(self) -> Seen:
        state = copy.deepcopy([list(self.runs.values()), list(self.jobs.values()), list(self.pools.values())])
        return Seen(self.now, state[0], state[1], list(self.pods), workloads=state[2])

    def once(self, calls: int | None = None) -> int:
        """One pass, cut off after so many writes; how many it made."""
        self.now += timedelta(seconds=15)
        seen = self.seen()
        outcomes = reconcile(self.site, seen)
        writes: list[Any] = []
        for outcome in outcomes:
            name = outcome.run["metadata"]["name"]
            if outcome.status != outcome.run.get("status"):
                writes.append(lambda name=name, status=outcome.status: self.runs[name].update(status=status))
            writes += [lambda job=job: self.delete(job) for job in outcome.delete]
            writes += [lambda item=item: self.apply(item) for item in (*outcome.apply, *outcome.pool.apply)]
            scale = {**outcome.pool.scale}
            writes += [lambda pool=pool, size=size: self.scale(pool, size) for pool, size in scale.items()]
            if outcome.drop_pool:
                writes.append(lambda pool=outcome.drop_pool: self.pools.pop(pool, None))
        idle = idle_pool(self.site, outcomes, seen)
        writes += [lambda pool=pool, size=size: self.scale(pool, size) for pool, size in idle.items()]
        for write in writes[:calls]:
            write()
        self.check()
        return len(writes)

    def check(self) -> None:
        """What holds at every moment."""
        shared = [job for job in self.jobs.values() if self.shared(job) and not self.ended(job)]
        assert len(shared) <= 1, "one RayJob at a time trains with the release's pool"

    def shared(self, job: dict[str, Any]) -> bool:
        template = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
        return "golongrl.io/training-run" not in template.get("metadata", {}).get("labels", {})

    @staticmethod
    def ended(job: dict[str, Any]) -> bool:
        """Its learner is no more, also if it is deleted afterwards."""
        return job.get("status", {}).get("jobDeploymentStatus") in ("Complete", "Failed")

    def delete(self, name: str) -> None:
        if name in self.jobs:
            self.jobs[name]["metadata"].setdefault("deletionTimestamp", "2026-01-02T03:04:05Z")

    def apply(self, item: dict[str, Any]) -> None:
        name = item["metadata"]["name"]
        if item["kind"] == "RayJob":
            self.jobs.setdefault(name, copy.deepcopy(item))
            held = sum(RANKS for job in self.jobs.values() if not self.ended(job))
            if self.site.rayjob is ON_GPUS.rayjob:
                assert held <= self.site.gpu_budget, "a learner starts only when its GPUs are free"
        elif item["kind"] == "Deployment":
            self.pools[name] = copy.deepcopy(item)

    def scale(self, pool: str, size: int) -> None:
        if pool in self.pools:
            self.pools[pool]["spec"]["replicas"] = size

    def garbage(self) -> None:
        """Kubernetes ends what is deleted."""
        self.jobs = {name: job for name, job in self.jobs.items() if "deletionTimestamp" not in job["metadata"]}

    def settle(self) -> None:
        """Passes until nothing is left to do."""
        for _ in range(400):
            self.garbage()
            for job in self.jobs.values():
                job.setdefault("status", {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"})
            writes = self.once()
            waiting = any(run.get("status", {}).get("phase") == "BackingOff" for run in self.runs.values())
            if not writes and not waiting:
                return
        raise AssertionError("it never settles")


rollouts = st.fixed_dictionaries(
    {"dedicated": st.booleans()}, optional={"replicas": st.integers(0, 4), "minReplicas": st.integers(1, 3)}
)
specs = st.fixed_dictionaries(
    {"rollout": rollouts},
    optional={
        "suspend": st.booleans(),
        "maxRestarts": st.integers(0, 3),
        "schedule": st.fixed_dictionaries({"priority": st.integers(-1, 1)}),
        "deletionPolicy": st.sampled_from(["Retain", "Delete"]),
    },
)
happenings = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "cut",
                "fail",
                "complete",
                "delete job",
                "delete pool",
                "scale",
                "forget",
                "suspend",
                "garbage",
                "budget",
                "evict",
                "hour",
            ]
        ),
        st.integers(0, 6),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(st.lists(specs, min_size=1, max_size=4), happenings, st.sampled_from([SITE, BUDGETED, ON_GPUS]))
def test_it_converges_from_any_state(wanted: list[dict[str, Any]], events: list[tuple[str, int]], site: Any) -> None:
    ranks = {"recipe": {"learner": {"ranks": RANKS}}} if site is ON_GPUS else {}
    runs = {f"r{number}": a_run(f"r{number}", number, **spec, **ranks) for number, spec in enumerate(wanted)}
    pool = {**copy.deepcopy(SITE.pool.workload), "spec": {"replicas": 1}}
    world = World(site, runs, pools={POOL: pool})
    for what, number in events:
        happen(world, what, number)
    world.settle()
    assert world.once() == 0, "a pass over what is as it should be writes nothing"
    check_settled(world)


def happen(world: World, what: str, number: int) -> None:
    jobs, names = list(world.jobs), list(world.runs)
    run = world.runs[names[number % len(names)]]
    job = world.jobs[jobs[number % len(jobs)]] if jobs else {}
    match what:
        case "cut":
            world.once(number)
        case "fail" if job:
            job["status"] = dict(FAILURE)
        case "complete" if job:
            job["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
        case "delete job" if job:
            world.delete(job["metadata"]["name"])
        case "delete pool":
            world.pools = {name: item for name, item in world.pools.items() if name == POOL}
        case "scale":
            world.scale(list(world.pools)[number % len(world.pools)], number)
        case "forget":
            run.pop("status", None)
        case "suspend":
            run["spec"]["suspend"] = not run["spec"].get("suspend", False)
            run["metadata"]["generation"] += 1
        case "garbage":
            world.garbage()
        case "budget" if world.site.gpu_budget:
            world.site = replace(world.site, gpu_budget=BUDGETS[number % len(BUDGETS)])
        case "evict":
            at = world.now.strftime("%Y-%m-%dT%H:%M:%SZ")
            low = "The node was low on resource: memory"
            world.pods.append(
                Pod(
                    f"p-{number}",
                    "rollout",
                    "Failed",
                    False,
                    0,
                    low,
                    "",
                    "",
                    node=f"n{number}",
                    pressure=low,
                    pressure_at=at,
                )
            )
        case "hour":
            world.now += timedelta(hours=1)


def check_settled(world: World) -> None:
    trains = [run for run in world.runs.values() if run["status"]["phase"] in ("Pending", "Running")]
    shared = [run for run in trains if not run["spec"]["rollout"]["dedicated"]]
    assert len(shared) <= 1
    asked = shared[0]["status"]["rollout"]["desired"] if shared else 0
    assert world.pools[POOL]["spec"]["replicas"] == asked
    for name, pool in world.pools.items():
        owner = next((run for run in trains if run["status"].get("rollout", {}).get("name") == name), None)
        assert pool["spec"]["replicas"] == (owner["status"]["rollout"]["desired"] if owner else 0)
    if world.site.gpu_budget:
        engines = sum(pool["spec"]["replicas"] for pool in world.pools.values())
        assert engines * world.site.pool.gpus <= world.site.gpu_budget
    for run in world.runs.values():
        if run["spec"].get("suspend") and run["status"]["phase"] not in ("Succeeded", "Failed"):
            assert run["status"]["phase"] == "Suspended"


async def test_two_hundred_runs_cost_as_many_calls_as_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = OperatorApi()
    server.pool()
    for number in range(200):
        server.submit(f"r{number:03}", {"release": "demo", "recipePreset": "quickstart"})
    with serving(server):
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig", "rl", token="secret")))
        async with connect(manager=MANAGER) as calls:
            site = replace(SITE, namespace="rl")

            async def silent(_: object) -> tuple[None, str]:
                return None, "the queue: not asked"

            loop = Loop(site, Kube(calls), ask=silent)
            counted = []
            for _ in range(3):
                before = len(server.calls)
                async with asyncio.timeout(120):
                    assert await loop.once()
                counted.append(len(server.calls) - before)
    # Once an event and a status each, and the first one's RayJob, ConfigMap and engines; then five lists.
    assert counted[0] <= 5 + 2 * 200 + 3
    assert counted[1] <= 5 + 2
    assert counted[2] == 5
    assert len(server.live("RayJob")) == 1
