"""The catalogue of metrics: what is declared is exported, what is exported is declared, and names follow one rule."""

import asyncio
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric as Family

from golongrl.engine.metrics import EngineMetrics
from golongrl.learner.flops import SpeedGauge, group_flops, pairs_per_token
from golongrl.learner.memory import shape
from golongrl.learner.observe import disks
from golongrl.learner.observe.catalogue import OTHER, elsewhere, shown_as
from golongrl.learner.observe.metrics import LearnerMetrics
from golongrl.learner.observe.status import LearnerStatus
from golongrl.monitoring.catalogues import CATALOGUES, every, records
from golongrl.rollout.observe.losses import AdoptionLoss
from golongrl.rollout.observe.metrics import RolloutMetrics
from golongrl.telemetry.catalogue import UNITS, Catalogue
from golongrl_operator.metrics import OperatorMetrics

ROOT = Path(__file__).parents[2]
# The last record of a real run of the recipe quickstart, and one with a validation round.
RECORDED = json.loads((ROOT / "tests" / "recordings" / "quickstart" / "record.json").read_text())


def declared(service: str) -> set[str]:
    (found,) = [catalogue for catalogue in CATALOGUES if catalogue.service == service]
    return set(found.metrics)


def families(registry: CollectorRegistry) -> Iterator[Family]:
    yield from registry.collect()


def test_names_follow_the_rule() -> None:
    for catalogue, metric in every():
        if catalogue.service != "engine":
            assert re.fullmatch(rf"golongrl_{catalogue.service}_[a-z0-9_]+", metric.name)
        assert metric.meaning.endswith(".")
        assert not metric.name.endswith("_total")
        shown = [unit for unit in UNITS if unit in metric.name.split("_")]
        assert not shown or metric.unit == shown[0]
    names = [metric.exported for _, metric in every()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda c: c.gauge("Depth", "x."), "lower-case"),
        (lambda c: c.counter("steps_total", "x."), "without _total"),
        (lambda c: c.gauge("depth", "x.", "uid"), "label uid is not in LABELS"),
        (lambda c: c.gauge("depth", "x.", unit="seconds"), "does not say seconds"),
        (lambda c: (c.gauge("depth", "x."), c.counter("depth", "x.")), "declared twice"),
    ],
)
def test_a_declaration_that_breaks_the_rule_is_refused(declare, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        declare(Catalogue("x", "nowhere"))


def worker_registry() -> CollectorRegistry:
    metrics = RolloutMetrics()
    metrics.watch(AdoptionLoss())
    return metrics.registry


@pytest.mark.parametrize(
    ("service", "registry"),
    [
        ("rollout", worker_registry()),
        ("operator", OperatorMetrics().registry),
    ],
)
def test_a_service_exports_what_it_declares(service: str, registry: CollectorRegistry) -> None:
    assert {family.name for family in families(registry)} == declared(service)


def test_the_embedded_engine_exports_what_it_declares() -> None:
    metrics = EngineMetrics("m")
    before = {family.name for family in families(metrics.registry)}
    (catalogue,) = [each for each in CATALOGUES if each.service == "engine"]
    gauges = {name for name, metric in catalogue.metrics.items() if metric.kind == "gauge"}
    assert before | gauges == set(catalogue.metrics)
    source = (ROOT / "services/golongrl/engine/model_server.py").read_text()
    assert len(re.findall(r"metrics\.gauge\(engine_metrics\.", source)) == len(gauges)


def test_the_engines_names_are_sglangs_own() -> None:
    """Panels ask for them wherever they run; the recording is of the unmodified server."""
    text = json.loads((ROOT / "tests/recordings/sglang-0.5.23/82_metrics.json").read_text())["response"]["body"]
    recorded = set(re.findall(r"^# TYPE (\S+)", text, flags=re.MULTILINE))
    (catalogue,) = [each for each in CATALOGUES if each.service == "engine"]
    missing = {metric.exported for metric in catalogue.metrics.values()} - recorded
    assert missing == set()


def test_the_speed_of_an_update() -> None:
    config = json.loads((ROOT / "services/golongrl/assets/quickstart/config.json").read_text())
    model, groups = shape(config), [(100, [10, 20]), (50, [5])]
    plain = sum(group_flops(model, prompt, lengths, shared=False) for prompt, lengths in groups)
    found = SpeedGauge(model, None, None).read(groups, 2.0, 4)
    assert found == {"perf/tflops": pytest.approx(plain / 2 / 4 / 1e12)}
    known = SpeedGauge(model, 1e12, None).read(groups, 2.0, 4)
    assert known["perf/mfu"] == pytest.approx(known["perf/tflops"])
    shared = SpeedGauge(model, 1e12, pairs_per_token(model))
    assert shared.read(groups, 2.0, 4)["perf/tflops"] < found["perf/tflops"]
    assert shared.read(groups, 0.0, 4) == {}


async def test_every_number_of_a_record_has_its_series(tmp_path: Path) -> None:
    metrics = LearnerMetrics()
    metrics.watch(LearnerStatus(doing="waiting for step 41: 3 groups"), {"out": tmp_path, "weights": tmp_path / "no"})
    metrics.observe(40, RECORDED)
    unknown = {name for name in RECORDED if not elsewhere(name) and shown_as(name)[0] is OTHER}
    assert unknown == set()
    value = metrics.registry.get_sample_value
    assert value("golongrl_learner_reward", {"task": "T3"}) == RECORDED["reward_by_type/T3"]
    assert value("golongrl_learner_score", {"stat": "mean"}) == RECORDED["critic/score/mean"]
    assert value("golongrl_learner_task_advantage_ratio", {"metric": "EM"}) == RECORDED["task_metrics/EM/rate_adv"]
    assert value("golongrl_learner_importance_weight", {"stat": "max"}) == RECORDED["rollout_corr/rollout_is_max"]
    assert value("golongrl_learner_loss", {"kind": "policy"}) == RECORDED["actor/pg_loss"]
    assert value("golongrl_learner_group_seconds", {"phase": "generate"}) == RECORDED["rollout_s/generate_s"]
    assert value("golongrl_learner_memory_bytes", {"kind": "host"}) == RECORDED["perf/cpu_memory_used_gb"] * (1 << 30)
    assert value("golongrl_learner_validation_reward") == RECORDED["val/mean"]
    assert value("golongrl_learner_step_seconds_count") == 1
    assert value("golongrl_learner_publish_seconds_sum") == RECORDED["perf/publish_s"]
    assert value("golongrl_learner_activity", {"activity": "waiting"}) == 1
    for name in RECORDED:
        if not elsewhere(name):
            metric, labels, scale = shown_as(name)
            assert value(metric.exported, labels) == RECORDED[name] * scale, name
    await metrics.refresh(_Nobody())  # type: ignore[arg-type]
    assert value("golongrl_learner_queue_up") == 0
    assert (value("golongrl_learner_disk_size_bytes", {"folder": "out"}) or 0) > 0
    assert value("golongrl_learner_disk_size_bytes", {"folder": "weights"}) is None
    declared_here = declared("learner")
    assert {family.name for family in families(metrics.registry)} <= declared_here


async def test_a_volume_that_hangs_is_asked_once_and_leaves_nothing_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, released = [], threading.Event()

    def hangs(folder: Path) -> object:
        calls.append(folder)
        assert released.wait(60)
        return real(folder)

    real = os.statvfs
    monkeypatch.setattr(disks, "_DISK_S", 0.05)
    monkeypatch.setattr(os, "statvfs", hangs)
    measured = disks.Disks({"out": tmp_path})
    try:
        await asyncio.gather(measured.refresh(), measured.refresh())
        await measured.refresh()
        assert (len(calls), measured.found) == (1, {})
    finally:
        released.set()
    while not measured.found:
        await asyncio.gather(measured.refresh(), measured.refresh(), measured.refresh())
    assert set(measured.found) == {"out"}


class _Nobody:
    """A queue that does not answer."""

    async def stats(self) -> None:
        raise TimeoutError


def test_what_verl_adds_is_not_lost_and_what_a_batch_lacks_is_gone() -> None:
    metrics = LearnerMetrics()
    value = metrics.registry.get_sample_value
    metrics.observe(1, {"actor/new_thing": 2.0, "reward_by_type/T1": 0.5, "reward_by_type/T2": 0.1})
    assert value("golongrl_learner_other", {"name": "actor/new_thing"}) == 2.0
    metrics.observe(2, {"reward_by_type/T2": 0.2})
    assert value("golongrl_learner_reward", {"task": "T1"}) is None
    assert value("golongrl_learner_reward", {"task": "T2"}) == 0.2
    metrics.observe(2, {"val/mean": 0.3})  # a validation amends the record: no second step
    assert value("golongrl_learner_steps_total") == 0
    assert value("golongrl_learner_reward", {"task": "T2"}) == 0.2


def test_the_list_is_complete_as_json() -> None:
    found = {record["name"]: record for record in records()}
    assert found["golongrl_learner_steps_total"]["type"] == "counter"
    assert found["golongrl_rollout_adoption_seconds"]["unit"] == "seconds"
    assert found["sglang:token_usage"]["service"] == "engine"
    assert len(found) == sum(len(catalogue.metrics) for catalogue in CATALOGUES)
