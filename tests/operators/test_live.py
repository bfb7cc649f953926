"""The whole operator in this process: real clients, a real queue, and an API server over HTTP."""

import asyncio
import json
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from golongrl.evaluation.report.summary import Score, Summary, fitted
from golongrl.kubernetes.cluster import connect
from golongrl.kubernetes.cluster_errors import ClusterSilentError
from golongrl.queue import SampleQueue
from golongrl_operator.app import Loop, operate
from golongrl_operator.kube import MANAGER, Kube
from golongrl_operator.lease import LeaderLease, identity
from support.api_http import serving
from support.groups import queue_settings
from support.helm import Helm, tool
from support.operator_server import OperatorApi, series
from support.redis_server import free_port
from support.training_runs import QUEUE, SERVICES, SITE

SETTINGS = queue_settings(groups_per_step=2, max_staleness=1, max_bytes=1 << 20, lease_s=3600, stall_s=3600)
SCORES = Summary(
    suite="general",
    model="step-10",
    report="/store/evals/own/general/report.html",
    scores=(Score(benchmark="mmlu-pro", score=53.1, samples=96, expected=100),),
)
# Ends a test that hangs; everything waited for takes a second or two on an idle machine.
PATIENCE_S = 120


@pytest.fixture
def helm4() -> Helm:
    return Helm(tool("helm4"))


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[OperatorApi]:
    server = OperatorApi()
    with serving(server):
        monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "kubeconfig", "rl", token="secret")))
        yield server


@asynccontextmanager
async def operator(redis_url: str, run: str) -> AsyncIterator[str]:
    """The operator of release `demo`; gives the address of its endpoints.

    In a thread: its loop is its own, as in its process.
    """
    stop, port = threading.Event(), free_port()

    async def main() -> None:
        async with connect(manager=MANAGER) as calls:
            site = replace(SITE, namespace=calls.namespace, redis_url=redis_url, run=run)
            lease = LeaderLease(calls, "golongrl-operator-demo", identity())
            await operate(Loop(site, Kube(calls), lease, pass_s=0.2, settle_s=0.02), "127.0.0.1", port, stop)

    task = asyncio.create_task(asyncio.to_thread(asyncio.run, main()))
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await task


async def until(told: Callable[[], Any], what: str) -> Any:
    """What `told` gives once it is true."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not (value := told()):
                await asyncio.sleep(0.05)
            return value
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


class Watched:
    """One run and its RayJobs, as a person sees them."""

    def __init__(self, api: OperatorApi, name: str = "r") -> None:
        self.api, self.name = api, name

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.api.live("TrainingRun")[self.name].get("status", {}))

    def condition(self, kind: str) -> str:
        return self._told(kind, "status")

    def reason(self, kind: str) -> str:
        return self._told(kind, "reason")

    def _told(self, kind: str, key: str) -> str:
        found = {entry["type"]: entry[key] for entry in self.status.get("conditions", [])}
        return str(found.get(kind, ""))

    @property
    def jobs(self) -> list[str]:
        return list(self.api.live("RayJob"))

    @property
    def events(self) -> list[str]:
        """Reasons, as `kubectl describe trainingrun` lists them."""
        return [
            event["reason"]
            for event in self.api.live("Event").values()
            if event["regarding"]["uid"] == self.api.live("TrainingRun")[self.name]["metadata"]["uid"]
        ]

    async def phase(self, wanted: str) -> dict[str, Any]:
        await until(lambda: self.status.get("phase") == wanted, f"phase {wanted}, but {self.status}")
        return self.status

    async def new_job(self, *old: str) -> str:
        (name,) = await until(lambda: [job for job in self.jobs if job not in old], "a RayJob")
        return str(name)

    async def taken_away(self, job: str) -> None:
        """The operator deletes it, and nothing else is made until its pods are gone."""
        await until(lambda: "deletionTimestamp" in self.api.live("RayJob")[job]["metadata"], f"{job} is deleted")
        await self.passes()
        assert self.jobs == [job]
        self.api.let_go(job)

    async def passes(self) -> None:
        """Two whole passes of the loop: each begins with the list of runs, and one is under way."""
        begun = self.api.count("list", plural="trainingruns")
        await until(lambda: self.api.count("list", plural="trainingruns") > begun + 2, "two passes")


Beat = Callable[[str, str, dict[str, str]], Awaitable[None]]


@asynccontextmanager
async def beating(redis_url: str, run: str) -> AsyncIterator[Beat]:
    """Services that send their heartbeats until the end: one that is silent for seconds counts as gone."""
    living: dict[tuple[str, str], dict[str, str]] = {}
    async with SampleQueue.from_url(redis_url, run) as queue:

        async def beat(service: str, name: str, fields: dict[str, str]) -> None:
            living[service, name] = fields
            await queue.beat(service, name, fields, 3600)

        async def go_on() -> None:
            while True:
                await asyncio.sleep(0.5)
                for (service, name), fields in list(living.items()):
                    await queue.beat(service, name, fields, 3600)

        task = asyncio.create_task(go_on())
        yield beat
        task.cancel()
        await asyncio.wait([task])


async def test_a_run_from_submission_to_its_end(api: OperatorApi, redis_url: str, run_name: str, helm4: Helm) -> None:
    """Made, restarted, replaced, suspended, resumed, done; at last every call is held against the chart's Role."""
    api.pool(replicas=1)
    spec: dict[str, Any] = {"release": "demo", "recipePreset": "quickstart", "maxRestarts": 1}
    run = Watched(api)
    async with (
        operator(redis_url, run_name),
        SampleQueue.from_url(redis_url, run_name) as queue,
        beating(redis_url, run_name) as beat,
    ):
        api.submit("r", spec)
        first = await run.new_job()
        made = api.live("RayJob")[first]
        (owner,) = made["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("TrainingRun", api.live("TrainingRun")["r"]["metadata"]["uid"])
        ((name, config),) = api.live("ConfigMap").items()
        assert (name, config["metadata"]["ownerReferences"]) == (first, made["metadata"]["ownerReferences"])
        assert made["metadata"]["labels"]["golongrl.io/training-run"] == "r"
        assert (await run.phase("Pending"))["job"] == first
        # The release's rollout.replicas.
        await until(lambda: api.replicas() == 2, "two engines")

        await queue.setup(SETTINGS, [[0, 1, 2, 3]], ["T1"] * 4)
        await queue.lease("pod-a", 0)
        await beat("learner", "head", {"doing": "updating"})
        await beat("rollout", "pod-a", {"phase": "generating"})
        api.kuberay(first, jobDeploymentStatus="Running", jobStatus="RUNNING")
        running = await run.phase("Running")
        assert (running["step"], running["staleness"], running["observedGeneration"]) == ("0/40", "0 of 1", 1)
        assert run.condition("Stuck") == "False"

        failed = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": "boom"}
        api.kuberay(first, **failed)
        await run.phase("Restarting")
        # The first words: a pass later it waits for the RayJob to go.
        written = [call.body.get("status", {}) for call in list(api.calls)]
        told = next(status for status in written if status.get("phase") == "Restarting")
        assert "AppFailed" in told["message"]
        assert "boom; restart 1 of 1" in told["message"]
        await run.taken_away(first)
        # Counted before it is done: an operator that dies in between gives no restart away.
        (deleted,) = [at for at, call in enumerate(api.calls) if (call.verb, call.plural) == ("delete", "rayjobs")]
        counted = [at for at, call in enumerate(api.calls) if call.body.get("status", {}).get("restarts") == 1]
        assert min(counted) < deleted
        second = await run.new_job(first)
        assert (await run.phase("Pending"))["restarts"] == 1

        api.submit("r", spec | {"recipe": {"learner": {"steps": 7}}})
        await run.phase("Replacing")
        await run.taken_away(second)
        third = await run.new_job(first, second)
        assert "steps: 7" in api.live("ConfigMap")[third]["data"]["recipe.yaml"]
        assert (await run.phase("Pending"))["restarts"] == 0
        assert list(api.live("ConfigMap")) == [third]

        api.submit("r", spec | {"recipe": {"learner": {"steps": 7}}, "suspend": True})
        await run.phase("Suspending")
        await run.taken_away(third)
        await run.phase("Suspended")
        await run.passes()
        assert run.jobs == []
        assert api.replicas() == 0

        api.submit("r", spec | {"recipe": {"learner": {"steps": 7}}})
        last = await run.new_job()
        await until(lambda: api.replicas() == 2, "the engines are back")

        # One engine fewer: that with the least to lose. Then one crashes again and again.
        for name in ("a", "b"):
            api.engine(f"demo-golongrl-rollout-{name}")
            await beat("rollout", f"demo-golongrl-rollout-{name}", {"phase": "generating", "groups": "1"})
        api.kuberay(last, jobDeploymentStatus="Running", jobStatus="RUNNING")
        await run.phase("Running")
        api.submit("r", spec | {"recipe": {"learner": {"steps": 7}}, "rollout": {"replicas": 1}})
        await until(lambda: api.replicas() == 1, "one engine")
        annotated = api.live("Pod")["demo-golongrl-rollout-b"]["metadata"]["annotations"]
        assert annotated == {"controller.kubernetes.io/pod-deletion-cost": "1"}
        api.engine("demo-golongrl-rollout-a", trouble=True)
        await until(lambda: "demo-golongrl-rollout-a" not in api.live("Pod"), "the sick engine is replaced")
        assert run.status["replaced"][0]["reason"].startswith("crashing: engine ended with 1")
        api.evict("demo-golongrl-rollout-b", "node-7")
        await until(
            lambda: [one["node"] for one in run.status.get("avoidedNodes", [])] == ["node-7"], "a node to avoid"
        )
        api.kuberay(last, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
        await run.phase("Succeeded")
        assert run.condition("Complete") == "True"
        await run.passes()
        assert run.jobs == [last]
        assert api.replicas() == 0

        # Another run, at the same time, with a pool of its own, which goes with it when it has ended.
        mine = Watched(api, "own")
        own = {**spec, "rollout": {"dedicated": True}, "deletionPolicy": "Delete", "ttlSecondsAfterFinished": 3600}
        own |= {"evaluation": {"suite": "general"}, "schedule": {"queue": "research"}}
        api.submit("own", own)
        # Learner and engines begin together, once Kueue has admitted both.
        queued = await until(lambda: next(iter(api.live("Workload")), ""), "a Workload")
        await mine.phase("Waiting")
        await mine.passes()
        assert run.jobs == [last]
        assert {one["name"]: one["count"] for one in api.live("Workload")[queued]["spec"]["podSets"]} == {
            "head": 1, "ranks": 1, "engines": 2,
        }  # fmt: skip
        api.kueue(queued, QuotaReserved="True", Admitted="True")
        evicted = await mine.new_job(last)
        await until(lambda: mine.condition("Admitted") == "True", "admitted")
        api.kuberay(evicted, jobDeploymentStatus="Running", jobStatus="RUNNING")
        await until(lambda: api.kueue_was_told(queued, "PodsReady") == "True", "Kueue is told that the run trains")
        api.kueue(queued, Evicted="True")
        await until(lambda: "deletionTimestamp" in api.live("RayJob")[evicted]["metadata"], "it is suspended")
        assert api.kueue_was_told(queued, "QuotaReserved") == "True", "its pods are still there"
        api.let_go(evicted)
        await until(lambda: api.kueue_was_told(queued, "QuotaReserved") == "False", "the quota is given back")
        await mine.phase("Waiting")
        api.kueue(queued, QuotaReserved="True", Admitted="True", Evicted="False")
        job = await mine.new_job(last)
        head = api.live("RayJob")[job]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        (term,) = head["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert term["preference"]["matchFields"][0]["values"] == ["node-7"]
        pool = await until(lambda: (mine.status.get("rollout") or {}).get("name"), "a pool")
        await until(lambda: api.replicas(pool) == 2, "its engines")
        assert api.live("ConfigMap").keys() >= {job, pool}
        # Its evaluation: first the Job is refused, then it ends, and the run's time begins.
        api.refuse["jobs", "patch"] = 403
        api.kuberay(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
        await until(lambda: not api.live("Workload"), "an ended run holds no quota")
        await until(lambda: mine.condition("Evaluated") == "False" and mine.reason("Evaluated") == "Refused", "refused")
        assert mine.condition("Progressing") == "False"
        assert mine.reason("Complete") == "Succeeded"
        del api.refuse["jobs", "patch"]
        asked = await until(lambda: next(iter(api.live("Job")), ""), "an evaluation")
        assert "/store/runs/own/run" in api.live("Job")[asked]["spec"]["template"]["spec"]["containers"][0]["command"]
        api.evaluated(asked, fitted(SCORES))
        await until(lambda: mine.condition("Evaluated") == "True", "the scores")
        assert mine.status["evaluation"]["scores"] == [
            {"benchmark": "mmlu-pro", "score": 53.1, "samples": 96, "expected": 100, "note": ""}
        ]
        assert mine.events[-3:] == ["EvaluationRefused", "EvaluationPending", "EvaluationSucceeded"]
        await until(lambda: asked not in api.live("Job"), "its Job goes by the deletion policy")
        api.submit("own", own | {"ttlSecondsAfterFinished": 1})
        await until(lambda: "own" not in api.live("TrainingRun"), "its time is over")
        assert pool not in api.live("Deployment")
        assert pool not in api.live("ConfigMap")
    (lease,) = api.live("Lease").values()
    assert lease["spec"]["holderIdentity"] == "", "given back at the end"
    assert api.rules == granted(helm4)
    assert run.events == [
        "Pending", "Running", "Restarting", "Pending", "Replacing", "Pending", "Suspending", "Suspended", "Pending",
        "Running", "Scaled", "EngineReplaced", "NodeAvoided", "Succeeded",
    ]  # fmt: skip
    warnings = {event["reason"]: event["note"] for event in api.live("Event").values() if event["type"] == "Warning"}
    assert warnings.keys() == {"Restarting", "EngineReplaced", "NodeAvoided", "EvaluationRefused"}
    assert warnings["Restarting"] == told["message"]


def granted(helm: Helm) -> set[tuple[str, str, str]]:
    """What the chart's Role lets the operator do."""
    role = helm.template({"operator": {"enabled": True}}).one("Role", "-operator")
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


async def test_what_the_api_server_refuses_is_in_the_status_and_tried_again(
    api: OperatorApi, redis_url: str, run_name: str
) -> None:
    api.refuse["rayjobs", "patch"] = 403
    run = Watched(api)
    async with operator(redis_url, run_name):
        api.submit("r", {"release": "demo", "recipePreset": "quickstart"})
        await until(lambda: "rayjobs is forbidden" in run.status.get("message", ""), "the refusal")
        assert run.condition("Progressing") == "False"
        assert run.jobs == []
        patches = api.count("patch", "status")
        await run.passes()
        assert api.count("patch", "status") == patches
        assert run.events == ["Refused"]
        del api.refuse["rayjobs", "patch"]
        await run.new_job()
        await until(lambda: run.condition("Progressing") == "True", "it goes on")
        assert run.events == ["Refused", "Pending"]


@pytest.mark.parametrize(
    ("plural", "code"),
    [("configmaps", 403), ("rayjobs", 400), ("rayjobs", 422), ("rayjobs", 500), ("deployments", 409)],
)
async def test_the_same_refusal_is_not_met_at_every_pass(api: OperatorApi, plural: str, code: int) -> None:
    """Quotas, webhooks, Pod Security, LimitRanges, conflicts: ten minutes of passes, and what an edit then does."""
    api.pool(replicas=2)
    api.refuse[plural, "patch"] = code
    spec: dict[str, Any] = {"release": "demo", "recipePreset": "quickstart", "rollout": {"dedicated": True}}
    api.submit("r", spec)
    run, now = Watched(api), [0.0]

    async def silent(_: object) -> tuple[None, str]:
        return None, "the queue: not asked"

    def tries() -> int:
        return sum((call.verb, call.plural, call.subresource) == ("patch", plural, "") for call in api.calls)

    async with connect(manager=MANAGER) as calls:
        loop = Loop(replace(SITE, namespace="rl"), Kube(calls), ask=silent, clock=lambda: now[0])
        for _ in range(40):
            await loop.once()
            now[0] += 15
        # At once, after pauses of 15 and 30 s, then each minute.
        assert tries() == 12
        assert run.reason("Progressing") == "Refused"
        assert f": {code} " in run.status["message"]
        assert run.events == ["Refused"]
        before = tries()
        api.submit("r", spec | {"maxRestarts": 1})
        await loop.once()
        assert tries() == before + 1, "an edit is tried at once"
        del api.refuse[plural, "patch"]
        now[0] += 60
        await loop.once()
        await loop.once()
        assert run.condition("Progressing") == "True"
        assert run.jobs


@pytest.mark.parametrize("call", ["apply", "write_status", "post"])
async def test_what_hangs_for_some_runs_stops_no_other_and_is_tried_at_every_pass(
    api: OperatorApi, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook that does not answer for the objects of four runs, which come before the fifth."""
    spec: dict[str, Any] = {"release": "demo", "recipePreset": "quickstart", "rollout": {"dedicated": True}}
    for name in ("a", "b", "c", "d", "e"):
        api.submit(name, spec)
    asked, real = Counter[str](), getattr(Kube, call)

    async def hangs(kube: Kube, item: Any, *more: Any) -> Any:
        whose = item.get("regarding") or item["metadata"]
        name = whose.get("labels", {}).get("golongrl.io/training-run", whose["name"])
        if name == "e":
            return await real(kube, item, *more)
        asked[name] += 1
        raise ClusterSilentError(f"{item['kind']} of {name}: no answer in 10 s")

    monkeypatch.setattr(Kube, call, hangs)

    async def silent(_: object) -> tuple[None, str]:
        return None, "the queue: not asked"

    def owners() -> set[str]:
        return {item["metadata"]["labels"]["golongrl.io/training-run"] for item in api.live("RayJob").values()}

    async with connect(manager=MANAGER) as calls:
        loop = Loop(replace(SITE, namespace="rl"), Kube(calls), ask=silent)
        for number in range(1, 4):
            await loop.once()
            assert asked.total() <= 3 * number, "a pass waits for a few of them"
        assert asked.keys() == {"a", "b", "c", "d"}
        assert "e" in owners()
        if call == "apply":
            status = api.live("TrainingRun")["a"]["status"]
            told = next(one for one in status["conditions"] if one["type"] == "Progressing")
            assert (told["status"], told["reason"]) == ("False", "NoAnswer")
            assert status["message"] == "ConfigMap of a: no answer in 10 s"
            assert Watched(api, "a").events == ["NoAnswer"]
        monkeypatch.setattr(Kube, call, real)
        assert await loop.once()
        assert owners() == {"a", "b", "c", "d", "e"}


async def test_a_removal_that_is_refused_is_told_once(api: OperatorApi, redis_url: str, run_name: str) -> None:
    run, spec = Watched(api), {"release": "demo", "recipePreset": "quickstart"}
    async with operator(redis_url, run_name):
        api.submit("r", spec)
        job = await run.new_job()
        api.refuse["rayjobs", "delete"] = 403
        api.submit("r", spec | {"suspend": True})
        await until(lambda: "Refused" in run.events, "the refusal")
        posts = api.count("create")
        await run.passes()
        assert run.events == ["Pending", "Suspending", "Refused"]
        assert api.count("create") == posts
        del api.refuse["rayjobs", "delete"]
        await run.taken_away(job)
        await run.phase("Suspended")


async def test_events_that_cannot_be_posted_hold_nothing_up(api: OperatorApi, redis_url: str, run_name: str) -> None:
    api.refuse["events", "create"] = 403
    run = Watched(api)
    async with operator(redis_url, run_name) as served:
        api.submit("r", {"release": "demo", "recipePreset": "quickstart"})
        await run.new_job()
        await run.phase("Pending")
        assert run.events == []
        told = await scrape(served)
        assert told["golongrl_operator_api_errors_total 403"] >= 1


async def test_metrics_tell_what_the_operator_does(api: OperatorApi, redis_url: str, run_name: str) -> None:
    run = Watched(api)
    async with operator(redis_url, run_name) as served:
        api.submit("r", {"release": "demo", "recipePreset": "quickstart"})
        api.submit("second", {"release": "demo", "recipePreset": "quickstart"})
        await Watched(api, "second").phase("Waiting")
        told = await scrape(served)
        assert (told["golongrl_operator_runs Pending"], told["golongrl_operator_runs Waiting"]) == (1, 1)
        assert told["golongrl_operator_passes_total ok"] > 0
        assert told["golongrl_operator_passes_total failed"] == 0
        api.refuse["trainingruns", "list"] = 429
        await until_series(served, "golongrl_operator_passes_total failed", 3)
        told = await scrape(served)
        assert told["golongrl_operator_api_errors_total 429"] >= 3
        # Passes go on, but none succeeds: no reason for a restart, and one for an alert.
        before = told["golongrl_operator_seconds_since_pass"]
        assert before > 0.2
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            assert (await client.get(f"{served}/healthz")).status_code == 200
        del api.refuse["trainingruns", "list"]
        ok = told["golongrl_operator_passes_total ok"]
        await until_series(served, "golongrl_operator_passes_total ok", ok + 1)
        assert run.status["phase"] == "Pending"


async def scrape(served: str) -> dict[str, float]:
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return series((await client.get(f"{served}/metrics")).text)


async def until_series(served: str, name: str, least: float) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await scrape(served)).get(name, 0) < least:
            await asyncio.sleep(0.05)


async def test_a_silent_queue_is_unknown_and_a_wrong_spec_is_named(
    api: OperatorApi, redis_url: str, run_name: str
) -> None:
    run = Watched(api)
    async with operator(redis_url, run_name) as served:
        api.submit("r", {"release": "demo", "recipePreset": "quickstart", "stallSeconds": 1})
        job = await run.new_job()
        api.kuberay(job, jobDeploymentStatus="Running", jobStatus="RUNNING")
        await run.phase("Running")
        assert run.condition("Stuck") == "Unknown"
        assert "the queue:" in run.status["stuck"][0]
        api.submit("r", {"release": "demo", "recipe": {"learner": {"lrr": 1}}})
        assert "learner.lrr" in (await run.phase("Invalid"))["message"]
        assert run.jobs == [job], "a typing error ends no training"
        async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
            answer = await client.get(f"{served}/healthz")
        assert 0 <= answer.json()["seconds_since_pass"] < PATIENCE_S


async def test_another_releases_runs_are_left_alone(api: OperatorApi, redis_url: str, run_name: str) -> None:
    mine, other = Watched(api), Watched(api, "other")
    async with operator(redis_url, run_name):
        api.submit("other", {"release": "prod", "recipePreset": "quickstart"})
        api.submit("r", {"release": "demo", "recipePreset": "quickstart"})
        api.submit("second", {"release": "demo", "recipePreset": "quickstart"})
        job = await mine.new_job()
        waiting = await Watched(api, "second").phase("Waiting")
        assert "trains TrainingRun r" in waiting["message"]
        assert other.status == {}
        api.kuberay(job, jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
        await mine.new_job(job)
        await Watched(api, "second").phase("Pending")


async def test_the_process_works_and_ends_at_sigterm(api: OperatorApi, helm4: Helm, tmp_path: Path) -> None:
    """`golongrl operator` itself, with what the chart mounts, here of a learner that names an image."""
    values = {
        "operator": {"enabled": True},
        "learner": {"image": {"tag": "mine"}},
        "redis": {"external": {"host": "127.0.0.1", "port": 1}},
    }
    site = tmp_path / "release.json"
    site.write_text(helm4.template(values).one("ConfigMap", "-operator")["data"][site.name])
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "golongrl", "operator", "--release=demo", f"--site={site}", f"--port={free_port()}",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        api.submit("r", {"release": "demo"})
        job = await Watched(api).new_job()
        head = api.live("RayJob")[job]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        assert head["containers"][0]["image"].endswith("golongrl-learner:mine")
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            _, told = await process.communicate()
        assert process.returncode == 0, told
        assert b"Traceback" not in told
        assert b"HTTP Request" not in told
        assert b"GET /" not in told
    finally:
        if process.returncode is None:
            process.kill()


async def test_it_runs_on_a_laptop_too(api: OperatorApi, helm4: Helm) -> None:
    """`golongrl operator --dev`: the release's document from the cluster, the queue through the run's pods."""
    api.put(helm4.template({"operator": {"external": True}}).one("ConfigMap", "-operator"))
    api.pool()
    api.engine("demo-golongrl-rollout-a")
    picture = {"queue": {**QUEUE, "leases": []}, "services": SERVICES}
    asked = list[tuple[str, str]]()

    def command(pod: str, container: str, words: list[str]) -> tuple[int, str, str]:
        asked.append((pod, container))
        return 0, json.dumps(picture), "" if words == ["golongrl", "status", "--json"] else "?"

    api.commands = command
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "golongrl", "operator", "--dev", "--release=demo", f"--port={free_port()}",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        api.submit("r", {"release": "demo", "recipePreset": "quickstart"})
        run = Watched(api)
        job = await run.new_job()
        api.kuberay(job, jobDeploymentStatus="Running", jobStatus="RUNNING")
        assert (await run.phase("Running"))["step"] == "12/40"
        assert ("demo-golongrl-rollout-a", "worker") in asked
        assert api.replicas() == 1, "rollout.replicas of the chart"
        process.terminate()
        async with asyncio.timeout(PATIENCE_S):
            _, told = await process.communicate()
        assert process.returncode == 0, told
        assert b"Traceback" not in told
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_release_that_is_not_ready_for_it_is_named(api: OperatorApi) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "golongrl", "operator", "--dev", "--release=demo", stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(PATIENCE_S):
        _, told = await process.communicate()
    assert process.returncode in (1, 2)
    assert b"operator.enabled=true or operator.external=true" in told
    assert b"Traceback" not in told
