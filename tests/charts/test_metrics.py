"""Rules fire when they should and ask for metrics that the services really export; dashboards and monitors install."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml

from golongrl.monitoring.catalogues import every
from golongrl.recipe import Queue, Reward
from support.chart_values import MATRIX, PRESETS, SGLANG
from support.helm import CHART, Helm
from support.promql import names

OBSERVED = MATRIX["everything-observed"]


@pytest.fixture
def rules(helm4: Helm, tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(helm4.template(OBSERVED).one("PrometheusRule")["spec"]))
    return path


def test_rules_are_good_and_fire_when_they_should(rules: Path, promtool: Path) -> None:
    shutil.copy(Path(__file__).parent / "rules_test.yaml", rules.parent)
    for command in (["check", "rules", str(rules)], ["test", "rules", str(rules.parent / "rules_test.yaml")]):
        done = subprocess.run([str(promtool), *command], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_to_do(rules: Path) -> None:
    for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]:
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_the_staleness_alert_follows_the_recipe(helm4: Helm) -> None:
    values = {**OBSERVED, "recipe": {"queue": {"max_staleness": 4}}}
    (rule,) = [
        rule
        for rule in helm4.template(values).one("PrometheusRule")["spec"]["groups"][0]["rules"]
        if rule["alert"] == "GolongrlEngineBehind"
    ]
    assert rule["expr"].endswith("> 4")
    assert "queue.max_staleness is 4" in rule["annotations"]["description"]
    assert "max_staleness" in rule["annotations"]["summary"]


def test_what_a_recipe_leaves_out_is_the_models_default(helm4: Helm) -> None:
    """The chart has no default of its own for what pods read from the recipe."""
    bare = {"recipePreset": "", "recipe": {"name": "x", "model": {"path": "/m", "context_length": 180224}, "data": {}}}
    objects = helm4.template({**OBSERVED, **bare})
    rules = {rule["alert"]: rule for rule in objects.one("PrometheusRule")["spec"]["groups"][0]["rules"]}
    assert rules["GolongrlEngineBehind"]["expr"].endswith(f"> {Queue().max_staleness}")
    reward = objects.one("Deployment", "-reward")["spec"]["template"]["spec"]["containers"][0]
    assert f"--deadline={Reward().deadline_s:g}" in reward["command"]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_long_step_is_no_alarm(helm4: Helm, preset: str) -> None:
    """The preset's own estimate of a step is hours."""
    (rule,) = [
        rule
        for rule in helm4.template(files=(preset,)).one("PrometheusRule")["spec"]["groups"][0]["rules"]
        if rule["alert"] == "GolongrlNoOptimizerStep"
    ]
    estimates = [float(hours) for hours in re.findall(r": ([\d.]+) hours", (CHART / preset).read_text())]
    (alerted,) = re.findall(r"offset (\d+)h", rule["expr"])
    assert estimates
    assert float(alerted) >= max(estimates) + 1


def test_rules_and_triggers_ask_for_metrics_that_exist(helm4: Helm, rules: Path) -> None:
    queries = [rule["expr"] for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]]
    scaled = helm4.template(MATRIX["autoscaled"]).one("ScaledObject")
    queries += [trigger["metadata"]["query"] for trigger in scaled["spec"]["triggers"]]
    known = {name for _, metric in every() for name in metric.series}
    for query in queries:
        promql_parser.parse(query)
        assert names(query) <= known, query


def test_dashboards_reach_grafana(helm4: Helm) -> None:
    objects = helm4.template(
        {"metrics": {"dashboards": {"labels": {"grafana_dashboard": "2"}, "annotations": {"f": "x"}}}}
    )
    config = objects.one("ConfigMap", "-dashboard-overview")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "2"
    assert json.loads(config["data"]["overview.json"])["uid"] == "golongrl-overview"
    assert not [
        item
        for item in helm4.template({"metrics": {"dashboards": {"enabled": False}}}).of("ConfigMap")
        if "dashboard" in item["metadata"]["name"]
    ]


def test_monitors_select_pods_and_ports_that_exist(helm4: Helm) -> None:
    from support.helm import containers, pod_specs

    objects = helm4.template({**OBSERVED, "evaluation": {"enabled": True}, "construction": {"enabled": True}})
    ports = {
        (metadata["labels"]["app.kubernetes.io/component"], port["name"])
        for _, metadata, spec in pod_specs(objects)
        for container in containers(spec)
        for port in container.get("ports", [])
    }
    for monitor in [*objects.of("PodMonitor"), *objects.of("ServiceMonitor")]:
        selector = monitor["spec"]["selector"]
        components = [selector["matchLabels"].get("app.kubernetes.io/component")]
        for rule in selector.get("matchExpressions", []):
            assert (rule["key"], rule["operator"]) == ("app.kubernetes.io/component", "In")
            components = rule["values"]
        for endpoint in monitor["spec"].get("podMetricsEndpoints") or monitor["spec"]["endpoints"]:
            assert {(component, endpoint["port"]) for component in components} <= ports


def test_series_of_a_run_carry_its_name(helm4: Helm) -> None:
    for run, values in (("demo", OBSERVED), ("q7", {**OBSERVED, "run": "q7"})):
        monitors = helm4.template(values).of("PodMonitor")
        assert len(monitors) == 3
        for monitor in monitors:
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                assert endpoint["relabelings"] == [{"targetLabel": "run", "replacement": run}]


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_observed_where_the_cluster_has_prometheus_operator(helm: Helm, preset: str) -> None:
    kinds = {item["kind"] for item in helm.template(files=(preset,))}
    assert {"ServiceMonitor", "PodMonitor", "PrometheusRule"} <= kinds
    done = helm.run("template", "demo", str(CHART), "-f", str(CHART / preset), "--api-versions", "ray.io/v1")
    assert done.returncode == 0, done.stderr
    assert "monitoring.coreos.com" not in done.stdout


def test_the_recipes_collector_reaches_every_process_that_traces(helm4: Helm) -> None:
    from support.helm import containers, pod_specs

    endpoint = "http://collector.monitoring:4318"
    recipe = {"recipe": {"telemetry": {"otlp_endpoint": endpoint}}}
    keys = {"metrics": {"traces": {"existingSecret": "otlp", "key": "h"}}}

    def found(values: dict[str, object]) -> dict[str, dict[str, object]]:
        made = {}
        for _, _, spec in pod_specs(helm4.template(values)):
            for container in containers(spec):
                env = {entry["name"]: entry for entry in container.get("env", [])}
                assert len(env) == len(container.get("env", [])), container["name"]
                if "OTEL_EXPORTER_OTLP_ENDPOINT" in env:
                    made[container["name"]] = env
        return made

    assert found(MATRIX["defaults"]) == {}
    for values, engine in ((MATRIX["defaults"], "embedded"), (SGLANG, "sglang")):
        traced = found({**values, **recipe, **keys})
        assert {"reward", "worker", "engine"} <= set(traced)
        assert len(traced) >= 4  # and the learner's driver
        for env in traced.values():
            assert env["OTEL_EXPORTER_OTLP_ENDPOINT"]["value"] == endpoint
            assert env["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"] == {"secretKeyRef": {"name": "otlp", "key": "h"}}
        assert ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" in traced["engine"]) == (engine == "sglang")
    text = helm4.run("template", "demo", str(CHART)).stdout
    assert "--enable-trace" not in text
