"""KEDA's triggers and the operator's controller on the same observations: real PromQL, real heartbeats."""

import math
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from golongrl_operator.scaling.controller import Memory, PoolLimits, resize
from golongrl_operator.scaling.signals import read_signals
from support.helm import Helm

SLOTS = 4
NAMES = "namespace='rl',pod='demo-golongrl-{}'"
# Kubernetes' HorizontalPodAutoscaler changes nothing for a ratio within this of 1.
TOLERANCE = 0.1


@dataclass(frozen=True)
class Worker:
    """One engine's worker, the same all the time."""

    groups: int = SLOTS
    lost: float | None = 0.0
    kv: float = 0.5
    wait: str = ""

    def fields(self) -> dict[str, str]:
        phase = "waiting" if self.wait else "generating"
        lost = "" if self.lost is None else str(self.lost)
        said = {"kv_use": str(self.kv), "kv_waiting": "0", "adoption_share": lost}
        return {"phase": phase, "groups": str(self.groups), "wait": self.wait, **said}


WORKS = Worker()
IDLE = Worker(groups=0, kv=0.0, wait="full")


@dataclass(frozen=True)
class Observed:
    """What a pool and its learner do; `wait` is the share of its time that the learner waits, None without one."""

    workers: tuple[Worker, ...]
    wait: float | None

    @property
    def need(self) -> float | None:
        """The first trigger's answer."""
        blocked = sum(worker.wait in ("reward", "queue", "source", "engine") for worker in self.workers)
        if self.wait is None or blocked > 0.25 * len(self.workers):
            return None
        lost = [worker.lost for worker in self.workers if worker.lost is not None]
        busy = sum(worker.groups > 0 for worker in self.workers) - sum(lost)
        return busy / max(0.1, 1 - self.wait - (sum(lost) / len(lost) if lost else 0))

    @property
    def in_flight(self) -> float:
        """The second one's."""
        caches = sum(worker.kv for worker in self.workers) / 0.9
        return max(sum(worker.groups for worker in self.workers) / SLOTS, caches)

    def series(self) -> list[dict[str, str]]:
        """As Prometheus has them after half an hour of scrapes, four a minute."""
        found = {}
        for number, worker in enumerate(self.workers):
            names = NAMES.format(f"rollout-{number}")
            found[f"golongrl_rollout_groups_in_progress{{{names}}}"] = f"{worker.groups}x120"
            found[f"sglang:token_usage{{{names}}}"] = f"{worker.kv}x120"
            if worker.lost is not None:
                found[f"golongrl_rollout_adoption_lost_ratio{{{names}}}"] = f"{worker.lost}x120"
            if worker.wait:
                found[f"golongrl_rollout_waiting{{{names},reason='{worker.wait}'}}"] = "1x120"
        if self.wait is not None:
            found[f"golongrl_learner_waited_seconds_total{{{NAMES.format('learner-abc')}}}"] = f"0+{15 * self.wait}x120"
        return [{"series": series, "values": values} for series, values in found.items()]


# What is observed, and whether the pool should grow (1), shrink (-1) or stay.
CASES: dict[str, tuple[Observed, int]] = {
    "a hungry learner": (Observed((WORKS,) * 4, 0.5), 1),
    "enough": (Observed((WORKS,) * 10, 0.0), 0),
    "a wait that is allowed": (Observed((WORKS,) * 10, 0.02), 0),
    "too many": (Observed((WORKS,) * 4 + (IDLE,) * 6, 0.0), -1),
    "too many, and they wait for rewards": (Observed((WORKS,) * 2 + (replace(IDLE, wait="reward"),) * 8, 0.0), 0),
    "it waits for rewards": (Observed((WORKS,) * 3 + (replace(IDLE, wait="reward"),) * 2, 0.5), 0),
    "slow weights": (Observed((replace(WORKS, lost=0.2),) * 10, 0.2), 1),
    "losses that are not known yet": (Observed((replace(WORKS, lost=None),) * 10, 0.3), 1),
    "few busy, but the caches are full": (Observed((WORKS,) * 5 + (replace(WORKS, groups=1, kv=0.95),) * 5, 0.0), 0),
    "idle engines whose caches are in use": (Observed((replace(WORKS, kv=0.97),) * 8 + (IDLE,) * 2, 0.0), -1),
    "caches that fill all of them": (Observed((WORKS,) * 4 + (replace(IDLE, kv=1.0),) * 8, 0.0), 0),
    "no learner": (Observed((WORKS,) * 4 + (IDLE,) * 6, None), 0),
}


@pytest.fixture
def triggers(helm4: Helm) -> dict[str, dict[str, Any]]:
    objects = helm4.template(
        {"rollout": {"autoscaling": {"enabled": True}}, "recipe": {"rollout": {"concurrent_groups": SLOTS}}}
    )
    return {trigger["name"]: trigger["metadata"] for trigger in objects.one("ScaledObject")["spec"]["triggers"]}


def test_the_queries_answer_what_the_operator_computes(
    triggers: dict[str, dict[str, Any]], promtool: Path, tmp_path: Path
) -> None:
    def asked(name: str, value: float | None) -> dict[str, Any]:
        found = [] if value is None else [{"labels": "{}", "value": math.floor(100 * value + 0.5) / 100}]
        return {"expr": f"round({triggers[name]['query']}, 0.01)", "eval_time": "25m", "exp_samples": found}

    tests = [
        {
            "name": name,
            "interval": "15s",
            "input_series": seen.series(),
            "promql_expr_test": [asked("need", seen.need), asked("in-flight", seen.in_flight)],
        }
        for name, (seen, _) in CASES.items()
    ]
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"tests": tests}))
    done = subprocess.run(
        [str(promtool), "test", "rules", "test.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def kedas_direction(seen: Observed, triggers: dict[str, dict[str, Any]]) -> int:
    """What the autoscaler makes of the answers: the largest wish; with an error among them it removes nothing."""
    engines, wishes = len(seen.workers), []
    for name, value in (("need", seen.need), ("in-flight", seen.in_flight)):
        assert triggers[name]["ignoreNullValues"] == "false", "no answer is an error"
        if value is not None:
            threshold = float(triggers[name]["threshold"])
            near = abs(value / threshold / engines - 1) <= TOLERANCE
            wishes.append(engines if near else math.ceil(value / threshold))
    wish = max(wishes)
    if len(wishes) < 2:
        wish = max(wish, engines)
    return (wish > engines) - (wish < engines)


def operators_direction(seen: Observed) -> int:
    """What the controller does first, if nothing changes for two hours."""
    memory, counters, engines = Memory(), "", len(seen.workers)
    workers = [
        {"service": "rollout", "id": f"w{number}", "age_s": 0.0, "fields": worker.fields()}
        for number, worker in enumerate(seen.workers)
    ]
    held = sum(worker.groups for worker in seen.workers)
    for tick in range(480):
        up = 100.0 + 15.0 * tick
        said = {"up_s": str(up), "waited_s": str(up * (seen.wait or 0.0)), "step_s": "60"}
        learner = {"service": "learner", "id": "head", "age_s": 0.0, "fields": said}
        services = [*workers, *([] if seen.wait is None else [learner])]
        picture = {"queue": {"leased": held}, "services": services}
        signals, counters = read_signals(picture, engines, SLOTS, counters)
        size = resize(signals, PoolLimits(1, 100), memory, up)
        if size.engines != engines:
            return 1 if size.engines > engines else -1
        memory = size.memory
    return 0


@pytest.mark.parametrize("name", CASES)
def test_keda_and_the_operator_go_the_same_way(triggers: dict[str, dict[str, Any]], name: str) -> None:
    seen, direction = CASES[name]
    assert operators_direction(seen) == direction
    assert kedas_direction(seen, triggers) == direction
