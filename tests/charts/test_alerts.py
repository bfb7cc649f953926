"""Every alert: fired by the fault that it is for and by nothing else, silent on a run that is healthy.

promtool runs the chart's rules over fourteen hours of a healthy run with one thing changed.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from golongrl.cli import _register_commands, app
from golongrl.monitoring.dashboards.pages import PAGES
from support.chart_values import MATRIX
from support.helm import Helm

OBSERVED = MATRIX["everything-observed"]
ROOT = Path(__file__).parents[2]

A, B = 'pod="demo-golongrl-rollout-a"', 'pod="demo-golongrl-rollout-b"'
LEARNER, REWARD = 'pod="demo-golongrl-learner-1-head"', 'pod="demo-golongrl-reward-a"'
Series = Mapping[str, str | None]
# Labels by which an alert names the thing.
NAMING = "alertname, pod, task, worker, folder, reason, on"


def rollout(metric: str, pod: str, labels: str = "") -> str:
    return f"golongrl_rollout_{metric}{{{pod}{labels}}}"


def learner(metric: str, labels: str = "") -> str:
    return f"golongrl_learner_{metric}{{{LEARNER}{labels}}}"


def queue(metric: str, labels: str = "") -> str:
    return f"golongrl_queue_{metric}{{{LEARNER}{labels}}}"


def reward(metric: str, labels: str = "") -> str:
    return f"golongrl_reward_{metric}{{{REWARD}{labels}}}"


TAKE, UPDATE = learner("phase_seconds_total", ',phase="take"'), learner("phase_seconds_total", ',phase="update_actor"')
MEAN_STALENESS = learner("staleness", ',stat="mean"')
REFUSED = rollout("lease_refusals_total", A, ',reason="full"')
REJECTED = rollout("groups_rejected_total", A, ',reason="all_equal"')
RUNNING = "sglang:num_running_reqs{" + A + "}", "sglang:num_running_reqs{" + B + "}"
UNSCORED = reward("scores_total", ',task="T1",status="unscored"')
LATE = reward("lost_total", ',task="T1",kind="deadline"')
OUT = ',folder="out"'
# A sample and a step every five minutes, without an end.
HEALTHY: Series = {
    rollout("engine_version", A): "0+1x168",
    rollout("engine_version", B): "0+1x168",
    rollout("quarantined", A): "0x168",
    rollout("quarantined", B): "0x168",
    # One of two workers waits.
    rollout("waiting", A, ',reason="queue"'): "1x168",
    rollout("adoption_failures_total", B): "0x168",
    rollout("engine_restarts_total", B): "0x168",
    rollout("groups_submitted_total", A): "0+10x168",
    REJECTED: "0+5x168",
    REFUSED: "0+3x168",
    **dict.fromkeys(RUNNING, "8x168"),
    TAKE: "0+10x168",
    UPDATE: "0+50x168",
    MEAN_STALENESS: "1x168",
    learner("reward", ',task="T1"'): "0.6x168",
    learner("reward", ',task="T2"'): "0.02x168",
    learner("entropy"): "0.3x168",
    learner("grad_norm"): "0.5x168",
    learner("engine_k3_kl"): "0.0005x168",
    learner("step"): "0+1x168",
    learner("policy_version"): "0+1x168",
    learner("disk_free_bytes", OUT): "50000000000x168",
    learner("disk_size_bytes", OUT): "100000000000x168",
    learner("queue_up"): "1x168",
    learner("stalled_seconds", ',on="engine"'): "0x168",
    queue("bytes"): "1000x168",
    queue("reserved_bytes"): "1000x168",
    queue("max_bytes"): "64000x168",
    queue("oldest_lease_seconds", ',worker="w"'): "100x168",
    queue("redis_memory_bytes"): "1000x168",
    queue("redis_max_memory_bytes"): "4000x168",
    queue("redis_persisting"): "1x168",
    queue("version"): "0+1x168",
    queue("committed_step"): "0+1x168",
    queue("set_aside_groups"): "0x168",
    queue("rejected_total", ',reason="all_equal"'): "0+1x168",
    queue("rejected_total", ',reason="failed:x"'): "3x168",
    reward("scores_total", ',task="T1",status="scored"'): "0+1000x168",
    UNSCORED: "0+1x168",
    LATE: "0+1x168",
    reward("queue_depth"): "3x168",
}
# Ten hours as before, then nothing more.
STOPS = "0+1x120 120x47"
# Alert -> what is changed, and the labels by which the alert names the thing.
FAULTS: dict[str, tuple[Series, str]] = {
    "GolongrlNoOptimizerStep": ({rollout("engine_version", A): STOPS, rollout("engine_version", B): STOPS}, ""),
    "GolongrlStalled": ({learner("stalled_seconds", ',on="engine"'): "0x160 600x7"}, 'on="engine"'),
    "GolongrlEngineQuarantined": ({rollout("quarantined", B): "1x168"}, B),
    "GolongrlEngineBehind": ({rollout("engine_version", B): STOPS}, B),
    "GolongrlWeightUpdatesFail": ({rollout("adoption_failures_total", B): "0+1x168"}, B),
    "GolongrlWorkersWait": (
        {rollout("waiting", A, ',reason="engine"'): "1x168", rollout("waiting", B, ',reason="reward"'): "1x168"},
        "",
    ),
    "GolongrlEnginesRestart": ({rollout("engine_restarts_total", B): "0+1x168"}, B),
    "GolongrlGroupsAllEqual": ({REJECTED: "0+1000x168"}, ""),
    "GolongrlResponsesUnscored": ({UNSCORED: "0+100x168"}, ""),
    "GolongrlRewardQueueGrows": ({reward("queue_depth"): "4000x168"}, ""),
    "GolongrlRolloutGone": ({rollout("engine_version", A): None, rollout("engine_version", B): None}, ""),
    "GolongrlGroupsSetAside": ({queue("set_aside_groups"): "1x168"}, ""),
    "GolongrlRowsFail": ({queue("rejected_total", ',reason="failed:x"'): "0+1x168"}, ""),
    "GolongrlLearnerStarved": ({TAKE: "0+1000x168"}, ""),
    "GolongrlRolloutsRefused": (
        {rollout("groups_submitted_total", A): "0+10x120 1200x47", REJECTED: "0+5x120 600x47"},
        'reason="full"',
    ),
    "GolongrlStalenessAtBound": (dict.fromkeys(RUNNING, "0x168"), LEARNER),
    "GolongrlQueueNearBudget": ({queue("bytes"): "60000x168"}, ""),
    "GolongrlLeaseOld": ({queue("oldest_lease_seconds", ',worker="w"'): "9000x168"}, 'worker="w"'),
    "GolongrlRedisDown": ({learner("queue_up"): "0x168"}, ""),
    "GolongrlRedisFull": ({queue("redis_memory_bytes"): "3900x168"}, ""),
    "GolongrlRedisNotPersisting": ({queue("redis_persisting"): "0x168"}, ""),
    "GolongrlRewardTimeouts": ({LATE: "0+50x168"}, 'task="T1"'),
    "GolongrlTaskRewardCollapsed": ({learner("reward", ',task="T1"'): "0.6x96 0.1x71"}, 'task="T1"'),
    "GolongrlEntropyCollapsed": ({learner("entropy"): "0.3x96 0.01x71"}, ""),
    "GolongrlGradientExploded": ({learner("grad_norm"): "0.5x166 50x1"}, ""),
    "GolongrlEngineDrift": ({learner("engine_k3_kl"): "0.2x168"}, ""),
    "GolongrlCheckpointOld": ({queue("committed_step"): "5x168"}, ""),
    "GolongrlWeightsNotPublished": ({learner("policy_version"): STOPS}, ""),
    "GolongrlDiskNearlyFull": ({learner("disk_free_bytes", OUT): "5000000000x168"}, 'folder="out"'),
}
# Changes that look like a fault and are none, with the values that make them harmless.
HARMLESS: dict[str, tuple[dict[str, Any], Series]] = {
    "synchronous training waits for each batch": (
        {"recipe": {"queue": {"max_staleness": 0}}},
        {TAKE: "0+1000x168", MEAN_STALENESS: "0x168", **dict.fromkeys(RUNNING, "0x168")},
    ),
    "a Redis without maxmemory": ({}, {queue("redis_max_memory_bytes"): "0x168"}),
    "idle engines while staleness is below its bound": (
        {},
        {MEAN_STALENESS: "0.4x168", **dict.fromkeys(RUNNING, "0x168")},
    ),
    "a task that was always near 0": ({}, {learner("reward", ',task="T2"'): "0.02x96 0x71"}),
    "a small gradient that grows": ({}, {learner("grad_norm"): "0.001x166 0.5x1"}),
    "a sparse checkpoint": (
        {"recipe": {"learner": {"checkpoint_every": 50}}},
        {queue("committed_step"): "100x168"},
    ),
}


def fired(directory: Path, promtool: Path, cases: Mapping[str, tuple[Series, list[str]]]) -> str:
    """promtool's complaints: for each case exactly the alerts with these labels have to be firing after 14 hours."""
    tests = []
    for name, (changed, expected) in cases.items():
        series = {key: values for key, values in {**HEALTHY, **changed}.items() if values is not None}
        tests.append(
            {
                "name": name,
                "interval": "5m",
                "input_series": [
                    {"series": key.replace("{", '{namespace="rl",'), "values": values} for key, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f'group by ({NAMING}) (ALERTS{{alertstate="firing"}})',
                        "eval_time": "14h",
                        "exp_samples": [{"labels": f"{{{labels}}}", "value": 1} for labels in expected],
                    }
                ],
            }
        )
    file = directory / "test.yaml"
    # At most half of the time for which any fault lasts: promtool takes its time for each evaluation.
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "30m", "tests": tests}))
    done = subprocess.run(
        [str(promtool), "test", "rules", str(file)], capture_output=True, text=True, timeout=240, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def render(helm: Helm, directory: Path, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    spec = helm.template({**OBSERVED, **values}).one("PrometheusRule")["spec"]
    (directory / "rules.yaml").write_text(yaml.safe_dump(spec))
    rules: list[dict[str, Any]] = spec["groups"][0]["rules"]
    return rules


@pytest.mark.full
def test_each_fault_fires_its_alert_and_no_other(helm4: Helm, promtool: Path, tmp_path: Path) -> None:
    rules = render(helm4, tmp_path, {})
    assert {rule["alert"] for rule in rules} == set(FAULTS)
    cases: dict[str, tuple[Series, list[str]]] = {"healthy": ({}, [])}
    for alert, (changed, labels) in FAULTS.items():
        named = [f'alertname="{alert}"', *([labels] if labels else [])]
        cases[alert] = (changed, [",".join(named)])
    assert fired(tmp_path, promtool, cases) == ""


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_fault_is_silent(helm4: Helm, promtool: Path, tmp_path: Path, name: str) -> None:
    values, changed = HARMLESS[name]
    render(helm4, tmp_path, values)
    assert fired(tmp_path, promtool, {name: (changed, [])}) == ""


def test_summaries_name_the_thing(helm4: Helm, tmp_path: Path) -> None:
    for rule in render(helm4, tmp_path, {}):
        _, labels = FAULTS[rule["alert"]]
        if labels and labels != LEARNER:
            label = labels.partition("=")[0]
            assert f"$labels.{label}" in rule["annotations"]["summary"], rule["alert"]


SECTION = re.compile(r"^## (\w+)\n(.*?)(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)


def test_each_alert_has_its_section_in_the_runbook(helm4: Helm, tmp_path: Path) -> None:
    sections = dict(SECTION.findall((ROOT / "docs" / "runbook.md").read_text()))
    own = render(helm4, tmp_path, {})
    operator = helm4.template(MATRIX["operator"] | OBSERVED).one("PrometheusRule", "-operator")["spec"]
    rules = [*own, *operator["groups"][0]["rules"]]
    assert {rule["alert"] for rule in rules} == set(sections)
    for rule in rules:
        url = rule["annotations"]["runbook_url"]
        assert url == f"https://github.com/golongrl/golongrl/blob/main/docs/runbook.md#{rule['alert'].lower()}"
        for part in ("**Symptom.**", "**Look at.**", "```bash", "**Cure.**"):
            assert part in sections[rule["alert"]], (rule["alert"], part)


def test_the_runbook_names_what_exists() -> None:
    text = (ROOT / "docs" / "runbook.md").read_text()
    titles = {panel.title for page in PAGES for panel in page.panels}
    for looked in re.findall(r"\*\*Look at\.\*\*(.*?)\n\n", text, flags=re.DOTALL):
        quoted = re.findall(r'"([^"]+)"', looked.replace("\n", " "))
        assert set(quoted) <= titles
    for page in set(re.findall(r"(?<!\*)\*([A-Z][a-z ]+)\*(?!\*)", text)):
        assert page.lower() in {each.title for each in PAGES}
    _register_commands()
    known = typer.main.get_command(app)
    commands = re.findall(r"^golongrl (.*?)(?: *#.*)?$", text, flags=re.MULTILINE)
    assert len(commands) > 10
    for line in commands:
        command, words = known, line.split()
        while hasattr(command, "commands"):
            command = command.commands[words.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= options, line


def test_the_runbook_may_be_elsewhere(helm4: Helm, tmp_path: Path) -> None:
    metrics = {**OBSERVED["metrics"], "rules": {"enabled": True, "runbookUrl": "https://wiki.example/rl"}}
    for rule in render(helm4, tmp_path, {"metrics": metrics}):
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example/rl#{rule['alert'].lower()}"


@pytest.mark.parametrize(("text", "seconds"), [("90m", 5400), ("1h", 3600), ("12h", 43200)])
def test_the_age_of_a_lease_follows_the_longest_step(helm4: Helm, tmp_path: Path, text: str, seconds: int) -> None:
    metrics = {**OBSERVED["metrics"], "rules": {"enabled": True, "noStepFor": text}}
    (rule,) = [r for r in render(helm4, tmp_path, {"metrics": metrics}) if r["alert"] == "GolongrlLeaseOld"]
    assert rule["expr"].endswith(f"> {seconds}")
