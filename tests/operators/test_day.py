"""A day in a run's life, in virtual time, with the operator's own decisions, columns and Events.

operators/README.md shows what this prints; the test holds the two together.
"""

import copy
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from golongrl.evaluation.report.summary import Score, Summary, fitted
from golongrl.kubernetes.look.pods import Pod
from golongrl_operator.cases import Seen
from golongrl_operator.crd import crd
from golongrl_operator.events import transitions
from golongrl_operator.reconcile import idle_pool, reconcile
from support.training_runs import QUEUE, SITE, a_run

POOL = SITE.pool.name
MORNING = datetime(2026, 1, 2, 8, 0, tzinfo=UTC)
README = Path(__file__).parents[2] / "operators" / "README.md"
# Hashes of the recipe and of the test's objects.
HASH = re.compile(r"((?:demo-golongrl-learner|demo-golongrl-evaluation|long-context)-)[0-9a-f]{8}")


class Day:
    """A release with one run; every minute the operator passes."""

    def __init__(self) -> None:
        self.run = a_run("long-context", maxRestarts=3, stallSeconds=1800, rollout={"maxReplicas": 4})
        self.run["spec"]["recipe"] = {"learner": {"steps": 1000}}
        self.run["spec"] |= {"schedule": {"queue": "research"}, "evaluation": {"suite": "long-context"}}
        self.run["metadata"]["creationTimestamp"] = "2026-01-02T08:00:00Z"
        self.now = MORNING
        self.jobs: dict[str, dict[str, Any]] = {}
        self.pool = {**copy.deepcopy(SITE.pool.workload), "spec": {"replicas": 0}, "status": {}}
        self.admissions: dict[str, dict[str, Any]] = {}
        self.evaluations: dict[str, dict[str, Any]] = {}
        self.answers = ""
        self.names: list[str] = []
        self.made = 0
        self.version = 0
        self.moves = True
        self.up_s = self.waited_s = 0.0
        self.quarantined = self.slow = ""
        self.lines: list[str] = []

    def pass_until(self, hour: int, minute: int = 0) -> None:
        """Minutes go by."""
        until = MORNING.replace(hour=hour, minute=minute)
        while self.now < until:
            self.now += timedelta(minutes=1)
            self.once()

    def job(self, **status: str) -> None:
        """KubeRay writes the status of the RayJob."""
        (job,) = self.jobs.values()
        job["status"] = status

    def kueue(self, **said: str) -> None:
        """Kueue writes conditions of the Workload: type -> status."""
        (found,) = self.admissions.values()
        old = {one["type"]: one for one in found.setdefault("status", {}).get("conditions", [])}
        for kind, value in said.items():
            why = "Preempted to accommodate a workload of a higher priority"
            old[kind] = {"type": kind, "status": value, "reason": "Preempted", "message": why}
            old[kind]["lastTransitionTime"] = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        found["status"] |= {"conditions": list(old.values()), "admission": {"clusterQueue": "gpus"}}

    def evaluation(self, words: str = "", **status: Any) -> None:
        """Kubernetes writes the status of the evaluation's Job; `words` is what its pod said at the end."""
        (found,) = self.evaluations.values()
        found["status"], self.answers = status, words

    def scores(self) -> None:
        """`kubectl get trun -o json`, the part about the scores."""
        command = "kubectl get trun long-context -o jsonpath='{.status.evaluation.scores}' | jq -c '.[]'"
        self.lines.append(f"$ {command}")
        self.lines += [json.dumps(one, separators=(",", ":")) for one in self.run["status"]["evaluation"]["scores"]]

    def edit(self, **spec: Any) -> None:
        """`kubectl patch`."""
        self.run["spec"].update(spec)
        self.run["metadata"]["generation"] += 1

    def table(self) -> None:
        """`kubectl get trun`."""
        (version,) = crd()["spec"]["versions"]
        columns = [column for column in version["additionalPrinterColumns"] if not column.get("priority")]
        cells = [("NAME", "long-context"), *((item["name"].upper(), self.cell(item["jsonPath"])) for item in columns)]
        widths = [max(len(head), len(value)) for head, value in cells]
        self.lines.append(f"$ kubectl get trun                                                       # {self.clock}")
        for row in zip(*cells, strict=True):
            self.lines.append("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        self.lines.append("")

    def cell(self, path: str) -> str:
        if path == ".metadata.creationTimestamp":
            return f"{int((self.now - MORNING).total_seconds() // 3600)}h"
        value: Any = self.run
        for key in path.strip(".").split("."):
            value = value.get(key, {}) if isinstance(value, dict) else {}
        return "" if value == {} else str(value)

    @property
    def clock(self) -> str:
        return self.now.strftime("%H:%M")

    @property
    def trains(self) -> bool:
        return any(job.get("status", {}).get("jobDeploymentStatus") == "Running" for job in self.jobs.values())

    def picture(self) -> dict[str, Any] | None:
        if not self.trains:
            return None
        # The learner needs three and a half engines.
        wait = max(0.02, 1 - len(self.names) / 3.5)
        self.up_s, self.waited_s = self.up_s + 60, self.waited_s + 60 * wait
        self.version += self.moves
        learner = {
            "doing": "waiting for step: 5 of 8 groups", "up_s": f"{self.up_s:.1f}", "waited_s": f"{self.waited_s:.1f}",
            "step_s": "60", "reward": "0.41", "tokens_per_s": "5210",
        }  # fmt: skip
        services = [{"service": "learner", "id": "head", "age_s": 1.0, "fields": learner}]
        for name in self.names:
            bad = {"phase": "quarantined", "quarantine": "it answered version 17 for 181", "wait": "quarantine"}
            well = {"phase": "generating", "groups": "4", "engine_version": str(self.version), "wait": ""}
            fields = bad if name == self.quarantined else well
            services.append({"service": "rollout", "id": name, "age_s": 1.0, "fields": fields})
        queue = {
            **QUEUE, "version": self.version, "committed": self.version // 20 * 20, "bytes": 3 << 20,
            "max_bytes": 64 << 20, "trained": self.version * 2, "weights": {"version": self.version},
            "blocking": {"uid": "0-9", "worker": self.slow, "progress_age_s": 60.0} if self.slow else None,
        }  # fmt: skip
        return {"queue": queue, "services": services}

    def once(self) -> None:
        size = int(self.pool["spec"]["replicas"])
        self.names = self.names[:size]
        while len(self.names) < size:
            self.made += 1
            self.names.append(f"{POOL}-{self.made}")
        self.pool["status"] = {"replicas": size, "readyReplicas": size}
        pods = [Pod(name, "rollout", "Running", True, 0, "") for name in self.names]
        ended = [f"{name}-x7k2p" for name in self.evaluations if self.answers]
        pods += [Pod(name, "evaluation", "Succeeded", False, 0, "", last_words=self.answers) for name in ended]
        jobs = list(copy.deepcopy(self.jobs).values())
        seen = Seen(
            self.now, [copy.deepcopy(self.run)], jobs, pods, self.picture(), workloads=[self.pool],
            evaluations=list(self.evaluations.values()), admissions=list(copy.deepcopy(self.admissions).values()),
        )  # fmt: skip
        (outcome,) = reconcile(SITE, seen)
        for event in transitions(self.run.get("status") or {}, outcome.status):
            note = HASH.sub(r"\1xxxxxxxx", event.note)
            self.lines.append(f"{self.clock}  {event.type:<7}  {event.reason:<19}  {note}")
        self.run["status"] = outcome.status
        self.jobs = {name: job for name, job in self.jobs.items() if name not in outcome.delete}
        for item in outcome.apply:
            if item["kind"] == "RayJob":
                self.jobs[item["metadata"]["name"]] = copy.deepcopy(item)
        self.admissions |= {item["metadata"]["name"]: copy.deepcopy(item) for item in outcome.admission.apply}
        for name in outcome.admission.delete:
            del self.admissions[name]
        for name, change in (outcome.admission.report or {}).items():
            self.admissions[name]["status"] = change["status"]
        self.evaluations |= {item["metadata"]["name"]: copy.deepcopy(item) for item in outcome.evaluation.apply}
        for size in [*outcome.pool.scale.values(), *idle_pool(SITE, [outcome], seen).values()]:
            self.pool["spec"]["replicas"] = size
        for pod in outcome.pool.evict:
            self.names.remove(pod)
            self.quarantined = self.quarantined.replace(pod, "")
            self.slow = self.slow.replace(pod, "")


SCORES = Summary(
    suite="long-context",
    model="step-580",
    report="/store/evals/long-context/long-context/report.html",
    scores=(
        Score(benchmark="mrcr-128k", score=41.3, stderr=1.1, samples=2400, expected=2400),
        Score(benchmark="longbench-v2", score=38.8, stderr=2.2, samples=499, expected=503, note="4 failed"),
    ),
)
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}


def lines() -> Iterator[str]:
    day = Day()
    day.pass_until(8, 3)
    day.kueue(QuotaReserved="True", Admitted="True")
    day.pass_until(8, 5)
    day.job(**RUNNING)
    day.pass_until(10)
    day.table()
    day.quarantined = day.names[1]
    day.pass_until(11)
    day.kueue(Evicted="True")
    day.pass_until(11, 30)
    day.kueue(QuotaReserved="True", Admitted="True", Evicted="False")
    day.pass_until(11, 35)
    day.job(**RUNNING)
    day.pass_until(13)
    day.job(
        jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed",
        message="Job entrypoint command failed with exit code 137",
    )  # fmt: skip
    day.pass_until(13, 3)
    day.job(**RUNNING)
    day.pass_until(15)
    day.edit(suspend=True)
    day.pass_until(15, 5)
    day.table()
    day.pass_until(16)
    day.edit(suspend=False)
    day.pass_until(16, 2)
    day.kueue(QuotaReserved="True", Admitted="True")
    day.pass_until(16, 5)
    day.job(**RUNNING)
    day.pass_until(18)
    day.moves, day.slow = False, day.names[0]
    day.pass_until(18, 32)
    day.moves = True
    day.pass_until(20)
    day.job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    day.pass_until(20, 5)
    day.evaluation(startTime="2026-01-02T20:04:00Z", ready=1)
    day.pass_until(21, 10)
    day.evaluation(fitted(SCORES), conditions=[{"type": "Complete", "status": "True"}])
    day.pass_until(21, 15)
    day.table()
    day.scores()
    yield from day.lines


def test_the_readme_shows_the_day_as_it_is() -> None:
    text = "\n".join(lines()).rstrip()
    assert f"```console\n{text}\n```" in README.read_text("utf-8"), text
