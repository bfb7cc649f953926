"""A real Prometheus scrapes a run of the quickstart, and a collector gets its spans.

Every panel and each rule finds its data, or says why not here; a trace leads from a lease to the step that trained it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest
import yaml

from golongrl.data.construct import metrics as data
from golongrl.evaluation import metrics as evaluation
from golongrl.learner.observe import catalogue as learner
from golongrl.monitoring.dashboards.pages import PAGES
from golongrl.monitoring.dashboards.render import ANNOTATIONS
from golongrl.monitoring.scrape import NAMESPACE, config, pod
from golongrl.telemetry.history import read
from golongrl.telemetry.run_info import RunInfo
from golongrl.telemetry.tracing import ENDPOINT, of_group
from support.chart_values import MATRIX
from support.helm import Helm, tool
from support.otlp import Collector, collector
from support.promql import concrete, names, selectors
from support.redis_server import free_port

RUN = "demo-golongrl"
STEPS = 16
# Ray, verl and torch on a machine that is busy with other tests.
PATIENCE_S = 900.0
SETTINGS = (
    f"learner.steps={STEPS}",
    "learner.test_freq=5",
    "learner.checkpoint_every=4",
    "data.validation_prompts=9",
    "rollout.n=4",
    "queue.groups_per_step=9",
)
# Metrics that stay empty in a healthy run on one machine, and why.
NOT_HERE = {
    "ALERTS": "nothing is wrong",
    "golongrl_operator_runs": "the operator runs on a cluster",
    "golongrl_operator_engines": "the operator runs on a cluster",
    "golongrl_operator_leader": "the operator runs on a cluster",
    "golongrl_operator_seconds_since_pass": "the operator runs on a cluster",
    "golongrl_operator_passes_total": "the operator runs on a cluster",
    "golongrl_operator_api_errors_total": "the operator runs on a cluster",
    "golongrl_learner_mfu_ratio": "the peak of a CPU is not known",
    "golongrl_learner_routes_replayed_ratio": "the quickstart's model is no mixture of experts",
    "golongrl_learner_routes_changed_ratio": "the quickstart's model is no mixture of experts",
    "golongrl_reward_lost_total": "no item hangs or crashes",
    "golongrl_reward_refused_total": "no request is wrong",
    "golongrl_rollout_groups_rejected_total": "the quickstart keeps every group",
    "golongrl_queue_rejected_total": "the quickstart keeps every group",
    "sglang:num_aborted_requests_total": "no request is aborted",
    "golongrl_rollout_groups_released_total": "no row is given back",
    "golongrl_queue_redone_total": "no row is given back",
    **dict.fromkeys(
        (metric.exported for metric in learner.CATALOGUE.metrics.values() if "_suite_" in metric.name),
        "the run validates on no suite",
    ),
    **dict.fromkeys(
        (
            series
            for jobs in (evaluation, data)
            for metric in jobs.CATALOGUE.metrics.values()
            for series in metric.series
        ),
        "jobs export it while they run",
    ),
}
# Labels of faults that a healthy run has not.
FAULTS = ('status="unscored"', 'reason="stopped"', 'reason=~"setup|', 'reason=~"failed')


def test_a_local_process_is_a_pod_of_its_release() -> None:
    ports = {"redis": 1, "reward": 2, "engine-0": 3, "rollout-0": 4, "learner": 5}
    (job,) = yaml.safe_load(config("mine", ports))["scrape_configs"]
    found = {target["targets"][0]: target["labels"]["pod"] for target in job["static_configs"]}
    assert found == {
        "127.0.0.1:2": "mine-reward-0",
        "127.0.0.1:3": "mine-rollout-0",
        "127.0.0.1:4": "mine-rollout-0",
        "127.0.0.1:5": "mine-learner-0",
    }
    assert pod("mine", "rollout-11") == "mine-rollout-11"
    assert pod("mine", "evaluation") == "mine-evaluation-0"


@dataclass
class Scraped:
    """A Prometheus that scraped a run from `start` to `end`."""

    url: str
    start: float
    end: float
    folder: Path
    collector: Collector

    def has_data(self, expression: str) -> bool:
        """Whether an expression gave a number at some moment of the run."""
        window = {"start": self.start, "end": self.end, "step": 2}
        answer = httpx.get(f"{self.url}/api/v1/query_range", params={"query": expression, **window}, timeout=60).json()
        assert answer["status"] == "success", (expression, answer)
        return any(value != "NaN" for series in answer["data"]["result"] for _, value in series["values"])

    def get(self, path: str) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", timeout=60).json()
        assert answer["status"] == "success"
        return answer["data"]


def until(what: str, look: Callable[[], bool], train: "subprocess.Popen[bytes]") -> None:
    limit = time.monotonic() + PATIENCE_S
    while not look():
        assert time.monotonic() < limit, f"waited {PATIENCE_S:g} s for {what}"
        assert train.poll() in (None, 0), f"the run ended with {train.returncode} before {what}"
        time.sleep(0.5)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    objects = Helm(tool("helm4")).template(MATRIX["everything-observed"], namespace=NAMESPACE)
    path.write_text(yaml.safe_dump(objects.one("PrometheusRule")["spec"]))
    return path


@pytest.fixture(scope="module")
def scraped(rules: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    binary, out = tool("prometheus"), tmp_path_factory.mktemp("scraped")
    folder = out / RUN
    words = ["train", "quickstart", "--name", RUN, "--out", str(out), "--plain"]
    for setting in SETTINGS:
        words += ["--set", setting]
    log = (out / "train.log").open("wb")
    with collector() as spans:
        environment = {**os.environ, ENDPOINT: spans.endpoint}
        train = subprocess.Popen(
            [sys.executable, "-m", "golongrl", *words], stdout=log, stderr=log, start_new_session=True, env=environment
        )
        yield from _watched(train, folder, out, rules, binary, log, spans)


def _watched(
    train: "subprocess.Popen[bytes]",
    folder: Path,
    out: Path,
    rules: Path,
    binary: Path,
    log: BinaryIO,
    spans: Collector,
) -> Iterator[Scraped]:
    server = None
    try:
        until("the run's ports", lambda: bool((info := RunInfo.read(folder)) and info.ports), train)
        info = RunInfo.read(folder)
        assert info is not None
        settings = yaml.safe_load(config(RUN, info.ports, interval="1s"))
        settings |= {"rule_files": [str(rules)], "global": {"evaluation_interval": "2s"}}
        (out / "prometheus.yml").write_text(yaml.safe_dump(settings))
        url = f"http://127.0.0.1:{(port := free_port())}"
        start = time.time()
        server = subprocess.Popen(
            [
                str(binary),
                f"--config.file={out / 'prometheus.yml'}",
                f"--storage.tsdb.path={out / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage",
            ],
            stdout=log,
            stderr=log,
        )
        until("Prometheus", lambda: answers(url), train)
        until("the run's end", lambda: train.poll() == 0, train)
        assert read(folder / "metrics.jsonl").steps[-1] == STEPS
        yield Scraped(url, start, time.time(), folder, spans)
    finally:
        for process in (train, server):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(timeout=120)
        log.close()


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_every_panel_finds_data(scraped: Scraped) -> None:
    empty = {}
    for page in PAGES:
        for panel in page.panels:
            for query in panel.queries:
                asked = concrete(query.expr, namespace=NAMESPACE, release=RUN, run=RUN)
                if not any(fault in asked for fault in FAULTS) and not scraped.has_data(asked):
                    empty[f"{page.slug} / {panel.title} / {query.legend}"] = names(query.expr)
    unexplained = {where: asked for where, asked in empty.items() if not asked & set(NOT_HERE)}
    assert unexplained == {}, json.dumps({key: sorted(value) for key, value in unexplained.items()}, indent=1)


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_every_rule_finds_the_series_it_asks_for_and_none_fires(scraped: Scraped, rules: Path) -> None:
    loaded = {rule["name"]: rule for group in scraped.get("rules")["groups"] for rule in group["rules"]}
    written = {rule["alert"]: rule["expr"] for rule in yaml.safe_load(rules.read_text())["groups"][0]["rules"]}
    assert set(loaded) == set(written)
    assert {name for name, rule in loaded.items() if rule["health"] != "ok"} == set()
    assert [alert for alert in scraped.get("alerts")["alerts"] if alert["state"] == "firing"] == []
    missing = {}
    for name, expression in written.items():
        for selector in selectors(expression):
            metric = selector.partition("{")[0]
            if metric not in NOT_HERE and not scraped.has_data(selector):
                missing[selector] = name
    assert {each: name for each, name in missing.items() if not any(fault in each for fault in FAULTS)} == {}


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_annotations_and_variables_find_data(scraped: Scraped) -> None:
    found = {
        name: scraped.has_data(concrete(expression, namespace=NAMESPACE, release=RUN, run=RUN))
        for name, _, expression, _ in ANNOTATIONS
    }
    healthy = {"Optimizer steps": True, "Weights adopted": True}
    assert found == {name: healthy.get(name, False) for name in found}
    assert scraped.get("label/run/values") == [RUN]
    assert NAMESPACE in scraped.get("label/namespace/values")


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_a_trace_leads_from_the_lease_to_the_step_and_from_the_step_to_the_engines(scraped: Scraped) -> None:
    assert {span.service for span in scraped.collector.spans} == {
        "golongrl-rollout",
        "golongrl-engine",
        "golongrl-reward",
        "golongrl-learner",
    }
    traces = scraped.collector.traces()
    trained = {
        str(root.attributes["rl.group.uid"]): root
        for spans in traces.values()
        for root in spans
        if root.name == "rl.group" and "rl.loop.iteration" in root.attributes
    }
    assert len(trained) >= STEPS * 9
    way = ["rl.sample", "rl.reward", "rl.queue.wait", "rl.batch.wait", "rl.train"]
    engine = {"engine.queue", "engine.prefill", "engine.decode"}
    for uid, root in trained.items():
        context = of_group(RUN, uid)
        assert (root.trace, root.span, root.parent) == (context.trace, context.span, 0)
        # A row that was given back is sampled again: that attempt's spans are in the trace too.
        ended = {span.span for span in traces[root.trace] if "error.type" in span.attributes}
        spans = {span.name: span for span in traces[root.trace] if not {span.span, span.parent} & ended}
        completions = [span for span in traces[root.trace] if span.name.startswith("text_completion ")]
        assert len(completions) >= 4
        samples = {span.span for span in traces[root.trace] if span.name == "rl.sample"}
        assert {span.parent for span in completions} <= samples
        assert set(spans) - {span.name for span in completions} == {"rl.group", "rl.reward.score", *way, *engine}, uid
        assert spans["rl.reward.score"].parent == spans["rl.reward"].span
        assert {spans[name].parent for name in way} == {root.span}
        starts = [spans[name].start for name in way]
        assert starts == sorted(starts)
        assert abs(spans["rl.sample"].start - root.start) < 1
        assert root.start <= spans["rl.reward.score"].start <= root.end
    versions = [spans for spans in traces.values() if any(span.name == "rl.sync.publish" for span in spans)]
    assert len(versions) >= STEPS
    adopted = {
        span.attributes["rl.sync.destination"] for spans in versions for span in spans if span.name == "rl.sync.adopt"
    }
    assert adopted == {"rollout-0", "rollout-1"}
    assert sum(any(span.name == "rl.train" for span in spans) for spans in versions) == STEPS


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_exemplars_lead_from_a_histogram_to_a_trace(scraped: Scraped) -> None:
    asked = {"query": "golongrl_rollout_generation_seconds_bucket", "start": scraped.start, "end": scraped.end}
    answer = httpx.get(f"{scraped.url}/api/v1/query_exemplars", params=asked, timeout=60).json()
    found = {each["labels"]["trace_id"] for series in answer["data"] for each in series["exemplars"]}
    assert found
    assert found <= {f"{trace:032x}" for trace in scraped.collector.traces()}


@pytest.mark.full
@pytest.mark.timeout(1200)
def test_the_same_is_told_from_the_logs(scraped: Scraped) -> None:
    def told(what: str) -> str:
        words = ["trace", what, "--name", RUN, "--out", str(scraped.folder.parent)]
        command = [sys.executable, "-m", "golongrl", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout

    step = told(str(STEPS - 1))
    assert step.count("group leased") == step.count("group submitted") == 9
    uid = step.partition("group submitted ")[2].split(":")[0]
    group = told(uid)
    for event in ("group leased", "group submitted", "batch taken", "step", "weights published", "weights taken"):
        assert event in group
