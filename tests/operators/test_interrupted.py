"""An operator that dies at any call, a spec that is edited at any moment, objects that somebody deletes: it converges.

Against the API server in memory: the passes are the operator's own, with a new process (a new Loop) after each death.
"""

import copy
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.cluster_errors import ClusterError
from golongrl_operator.app import Loop
from golongrl_operator.kube import MANAGER, Kube
from golongrl_operator.lease import LeaderLease, LeaseLostError
from support.api_http import serving
from support.operator_server import OperatorApi
from support.training_runs import SITE

SPEC: dict[str, Any] = {"release": "demo", "recipePreset": "quickstart", "rollout": {"dedicated": True, "replicas": 3}}
EDITED = {**SPEC, "rollout": {"dedicated": True, "replicas": 5}, "recipe": {"learner": {"steps": 7}}}
TRAINS = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
# More passes than any of these needs.
_PASSES = 12


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OperatorApi]:
    server = OperatorApi()
    server.pool(replicas=0)
    with serving(server):
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig", "rl", token="secret")))
        yield server


class DiedError(Exception):
    """The process was killed."""


async def passes(
    api: OperatorApi,
    calls_left: int | None = None,
    number: int = 1,
    before: tuple[str, Callable[[], Awaitable[None] | None]] | None = None,
    lease: LeaderLease | None = None,
) -> None:
    """Passes of a new operator, which dies after so many writes.

    Args:
        before: what happens once before a call of this name.
        lease: which says whether it acts; without one it always does.
    """
    happens = [before] if before else []

    async def silent(_: object) -> tuple[None, str]:
        return None, "the queue: not asked"

    async with connect(manager=MANAGER) as calls:
        left, real = [calls_left], calls._call

        async def counted(what: str, *rest: Any, **more: Any) -> Any:
            if happens and what.startswith(happens[0][0]) and (waits := happens.pop()[1]()):
                await waits
            if left[0] is not None and not what.startswith("list of"):
                if left[0] == 0:
                    raise DiedError
                left[0] -= 1
            return await real(what, *rest, **more)

        calls._call = counted  # type: ignore[method-assign]
        loop = Loop(replace(SITE, namespace="rl"), Kube(calls), lease, silent)
        for _ in range(number):
            await loop.once()


async def settled(api: OperatorApi) -> None:
    """Passes, with KubeRay and the garbage collector between them, until one writes nothing."""
    for _ in range(_PASSES):
        writes = len(api.log)
        await passes(api)
        for name, job in list(api.live("RayJob").items()):
            if "deletionTimestamp" in job["metadata"]:
                api.let_go(name)
            elif "status" not in job:
                api.kuberay(name, **TRAINS)
        if len(api.log) == writes:
            return
    raise AssertionError("it never settles")


def state(api: OperatorApi) -> dict[str, Any]:
    """What is left of a run: its objects, without what counts changes."""
    (status,) = [item["status"] for item in api.live("TrainingRun").values()]
    pools = {name: item["spec"]["replicas"] for name, item in api.live("Deployment").items()}
    return {
        "phase": status["phase"], "restarts": status["restarts"], "job": list(api.live("RayJob")), "pools": pools,
        "configs": sorted(api.live("ConfigMap")),
        "recipes": {name: item["data"]["recipe.yaml"] for name, item in api.live("ConfigMap").items()},
    }  # fmt: skip


async def reached(api: OperatorApi, spec: dict[str, Any]) -> dict[str, Any]:
    api.submit("r", spec)
    await settled(api)
    return state(api)


async def dies(api: OperatorApi, writes: int) -> bool:
    try:
        await passes(api, writes)
    except DiedError:
        return True
    return False


@pytest.mark.parametrize(
    "writes", [1, 4, *(pytest.param(writes, marks=pytest.mark.full) for writes in (0, 2, 3, 5, 6, 7))]
)
async def test_a_death_at_any_write_of_a_start_a_scaling_and_a_replacement(api: OperatorApi, writes: int) -> None:
    api.submit("r", SPEC)
    await dies(api, writes)
    await settled(api)
    begun = state(api)
    assert (begun["phase"], begun["restarts"], len(begun["job"])) == ("Running", 0, 1)
    pool = next(name for name in begun["pools"] if name != SITE.pool.name)
    assert begun["pools"] == {SITE.pool.name: 0, pool: 3}
    assert begun["configs"] == sorted([*begun["job"], pool])
    for size in (5, 1):
        api.submit("r", {**SPEC, "rollout": {**SPEC["rollout"], "replicas": size}})
        await dies(api, writes)
        await settled(api)
        assert state(api)["pools"][pool] == size
        assert state(api)["job"] == begun["job"], "to scale a pool restarts no learner"
    api.submit("r", EDITED)
    await dies(api, writes)
    await settled(api)
    changed = state(api)
    assert changed["pools"][pool] == 5
    assert (changed["phase"], len(changed["job"])) == ("Running", 1)
    assert changed["job"] != begun["job"]
    assert changed["configs"] == sorted([*changed["job"], pool])
    assert all("steps: 7" in text for text in changed["recipes"].values())


@pytest.mark.parametrize(
    "after", [pytest.param(after, marks=[] if after == 2 else [pytest.mark.full]) for after in range(4)]
)
async def test_an_edit_while_the_run_starts(api: OperatorApi, after: int) -> None:
    """After so many passes, KubeRay silent, starting or at work."""
    api.submit("r", SPEC)
    for number in range(after):
        await passes(api)
        for name in list(api.live("RayJob")) if number else ():
            api.kuberay(name, jobDeploymentStatus=["", "Initializing", "Running"][number])
    found = await reached(api, EDITED)
    assert (found["phase"], found["restarts"], len(found["job"])) == ("Running", 0, 1)
    assert all("steps: 7" in text for text in found["recipes"].values())
    back = await reached(api, {**EDITED, "suspend": True})
    assert (back["phase"], back["job"]) == ("Suspended", [])
    assert set(back["pools"].values()) == {0}


REMOVALS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "RayJob": lambda item: item["kind"] == "RayJob",
    "pool": lambda item: item["kind"] == "Deployment" and item["metadata"]["name"] != SITE.pool.name,
    "recipe-of-the-learner": lambda item: item["kind"] == "ConfigMap" and "learner" in item["metadata"]["name"],
    "recipe-of-the-pool": lambda item: item["kind"] == "ConfigMap" and "rollout" in item["metadata"]["name"],
    "all": lambda item: (
        item["kind"] in ("RayJob", "ConfigMap")
        or (item["kind"] == "Deployment" and item["metadata"]["name"] != SITE.pool.name)
    ),
}


@pytest.mark.parametrize("what", REMOVALS)
async def test_what_somebody_deletes_is_made_again(api: OperatorApi, what: str) -> None:
    before = await reached(api, SPEC)
    removed = [key for key, item in list(api.objects.items()) if REMOVALS[what](item)]
    assert removed
    for key in removed:
        api.remove(key)
        api._applied.pop(key, None)
    await settled(api)
    assert state(api) == before


async def test_a_pool_of_the_release_that_is_gone_is_helms_to_make(api: OperatorApi) -> None:
    """It is no object of the operator's: the run says so, and trains once it is back."""
    shared = {**SPEC, "rollout": {}}
    await reached(api, shared)
    kept = copy.deepcopy(api.live("Deployment")[SITE.pool.name])
    api.remove(("apps/v1", "deployments", "rl", SITE.pool.name))
    await settled(api)
    api.put(kept | {"spec": {"replicas": 0}})
    await settled(api)
    assert api.replicas() == 2


async def test_writes_that_fail_half_way_are_made_again(api: OperatorApi) -> None:
    api.refuse["deployments", "patch"] = 500
    api.submit("r", SPEC)
    for _ in range(3):
        await passes(api)
    del api.refuse["deployments", "patch"]
    await settled(api)
    assert state(api)["phase"] == "Running"
    api.refuse["trainingruns", "list"] = 500
    with pytest.raises(ClusterError):
        await passes(api)
    del api.refuse["trainingruns", "list"]
    await settled(api)


def made_again(api: OperatorApi, spec: dict[str, Any]) -> None:
    """`kubectl replace --force`: another run of that name, with what the first one made still there."""
    key = ("golongrl.io/v1alpha1", "trainingruns", "rl", "r")
    api.remove(key)
    api._applied.pop(key, None)
    api.submit("r", spec)


@pytest.mark.parametrize("call", ["list of rayjobs", "list of configmaps", "Event ", "status of TrainingRun"])
async def test_another_run_of_the_name_has_not_the_end_of_the_one_before(api: OperatorApi, call: str) -> None:
    """It came between the look of a pass and its writes, and would never have trained."""
    await reached(api, SPEC)
    (job,) = api.live("RayJob")
    api.kuberay(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    await passes(api, before=(call, lambda: made_again(api, SPEC)))
    assert "phase" not in (api.live("TrainingRun")["r"].get("status") or {})
    # Kubernetes' garbage collector.
    api.remove(("ray.io/v1", "rayjobs", "rl", job))
    await settled(api)
    assert (state(api)["phase"], state(api)["restarts"]) == ("Running", 0)
    assert job not in api.live("RayJob")


async def test_another_run_of_the_name_is_not_deleted_when_the_time_of_the_one_before_is_over(api: OperatorApi) -> None:
    spec = {**SPEC, "ttlSecondsAfterFinished": 0}
    await reached(api, spec)
    (job,) = api.live("RayJob")
    api.kuberay(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    await passes(api, before=("deletion of TrainingRun", lambda: made_again(api, spec)))
    assert "r" in api.live("TrainingRun")


async def test_an_edit_between_the_look_and_the_write_is_the_next_pass_s(api: OperatorApi) -> None:
    api.submit("r", SPEC)
    await passes(api, before=("status of TrainingRun", lambda: api.submit("r", EDITED)))
    await settled(api)
    (run,) = api.live("TrainingRun").values()
    assert run["status"]["observedGeneration"] == run["metadata"]["generation"]
    assert all("steps: 7" in text for text in state(api)["recipes"].values())


async def test_an_engine_that_has_taken_a_sick_ones_name_is_not_evicted(api: OperatorApi) -> None:
    """A LeaderWorkerSet gives its pods the same names again."""
    name = "demo-golongrl-rollout-0"

    def made_again() -> None:
        api.remove(("v1", "pods", "rl", name))
        api.engine(name)

    api.submit("r", {"release": "demo", "recipePreset": "quickstart"})
    await settled(api)
    api.engine(name, trouble=True)
    await passes(api, number=2, before=("deletion of Pod", made_again))
    assert api.count("delete", plural="pods") == 1
    assert api.live("Pod")[name]["status"]["containerStatuses"][0]["restartCount"] == 0


class Frozen(LeaderLease):
    """A lease that another operator has taken since this process stood still."""

    def __init__(self) -> None:
        self.lost = False

    @property
    def held(self) -> bool:
        return not self.lost


@pytest.mark.parametrize("call", ["list of pods", "ConfigMap ", "Event "])
async def test_an_operator_that_stood_still_in_its_pass_writes_nothing_after_another_has_taken_over(
    api: OperatorApi, call: str
) -> None:
    """It would make a second RayJob of the run, from a spec that has changed since."""
    api.submit("r", SPEC)
    lease = Frozen()
    others: list[int] = []

    async def another_acts() -> None:
        lease.lost = True
        await reached(api, EDITED)
        others.append(len(api.log))

    with pytest.raises(LeaseLostError):
        await passes(api, before=(call, another_acts), lease=lease)
    assert len(api.log) - others[0] <= 1, "at most the call that was being made"
    assert len([job for job in api.live("RayJob").values() if "deletionTimestamp" not in job["metadata"]]) == 1
