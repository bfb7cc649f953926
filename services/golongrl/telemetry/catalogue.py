"""How a service declares its metrics: once, as data, from which the objects of prometheus_client are made.

Invariants:
- a metric is called `golongrl_SERVICE_THING_UNIT`; what is measured in seconds, bytes or shares has that word in its
  name, and a counter's name gets its `_total` when it is exported;
- a label is one of `LABELS`, which says what bounds its values: no label holds a uid, a text or an address;
- a service's list is complete: nothing is exported that is not declared in it.

The objects belong to a registry, and a process may have several (one for each app in a test); the list is one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

# Label -> its values, and by that what bounds them.
LABELS: Final = {
    "activity": "the first word of what the learner does, such as `waiting` or `updating`",
    "benchmark": "a benchmark of `golongrl eval list`",
    "cached": "`true` or `false`",
    "cache_source": "`device`",
    "code": "an HTTP status, or `none` without an answer",
    "engine_type": "`unified`",
    "folder": "`out` (metrics, checkpoints) or `weights`",
    "is_streaming": "`true` or `false`",
    "kind": "a kind of loss, of memory or of tokens; the metric's meaning lists them",
    "metric": "the name that the advantage estimator groups prompts by: a metric of the nine task types",
    "mode": "an adoption mode: `drain`, `in_place`, `retract`, `abort`",
    "model_name": "the engine's model",
    "name": "a name of metrics.jsonl that has no series of its own",
    "on": "a kind of process: `learner`, `rollout`, `engine`, `reward`, `redis`, `ranks`, `storage`",
    "outcome": "how it ended",
    "phase": "a phase of a step, of a group, or of a TrainingRun",
    "pool": "a rollout pool: the release's, or one of a TrainingRun's own",
    "reason": "a reason of the queue or of the worker, in the words of docs/reliability.md and `golongrl status`; "
    "or why `golongrl data construct` refuses a row",
    "source": "a validation data source of the recipe",
    "stage": "a stage of `golongrl data construct`",
    "staleness": "versions, up to `queue.max_staleness`",
    "stat": "a statistic: `mean`, `max`, `min` and others that the learner reports",
    "state": "a state of the queue's rows, of a pool's engines, or of models to evaluate",
    "status": "`scored` or `unscored`; of an evaluation also `needs_judge`, `unjudged`, `failed`, `skipped`",
    "task": "a task type, `T1` to `T9`",
    "versions": "versions, up to `queue.max_staleness`",
    "why": "why a worker process ended",
    "worker": "a rollout worker of the run",
}
# Units that a name must show; a count has the thing it counts in its name.
UNITS: Final = ("seconds", "bytes", "ratio")
# Where a histogram has no buckets of its own: durations from a millisecond to most of an hour.
SECONDS: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 2400)

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


class Kind(StrEnum):
    """Prometheus's type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric of a service.

    Attributes:
        name: in full, as prometheus_client takes it: a counter's without `_total`.
        unit: one of `UNITS`, another word for people (`tokens`, `groups`), or nothing for a plain number.
        meaning: one sentence.
        off_panel: why no dashboard shows it; empty for one that is shown.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    off_panel: str = ""

    @property
    def exported(self) -> str:
        """The name that a query uses; a histogram has `_bucket`, `_sum` and `_count` behind it."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name

    @property
    def series(self) -> tuple[str, ...]:
        """Every name of its series."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.exported,)


@dataclass(frozen=True)
class CounterMetric(Metric):
    """A counter."""

    def make(self, registry: CollectorRegistry) -> Counter:
        """The counter of one registry."""
        return Counter(self.name, self.meaning, self.labels, registry=registry)

    def family(self, value: float | None = None) -> CounterMetricFamily:
        """A scrape's samples of it, for a collector."""
        return CounterMetricFamily(self.name, self.meaning, value=value, labels=self.labels or None)


@dataclass(frozen=True)
class GaugeMetric(Metric):
    """A gauge."""

    def make(self, registry: CollectorRegistry) -> Gauge:
        """The gauge of one registry."""
        return Gauge(self.name, self.meaning, self.labels, registry=registry)

    def family(self, value: float | None = None) -> GaugeMetricFamily:
        """A scrape's samples of it, for a collector."""
        return GaugeMetricFamily(self.name, self.meaning, value=value, labels=self.labels or None)


@dataclass(frozen=True)
class HistogramMetric(Metric):
    """A histogram with fixed buckets: prometheus_client has no native ones, and every Prometheus can convert these."""

    buckets: tuple[float, ...] = SECONDS

    def make(self, registry: CollectorRegistry) -> Histogram:
        """The histogram of one registry."""
        return Histogram(self.name, self.meaning, self.labels, registry=registry, buckets=self.buckets)


class Catalogue:
    """The metrics of one service, in the order of their declaration.

    Args:
        service: as in the names; `prefix` replaces `golongrl_SERVICE_` where another program's names are kept.
        where: which process exports them, and where.
    """

    def __init__(self, service: str, where: str, *, prefix: str | None = None) -> None:
        self.service = service
        self.where = where
        self.metrics: dict[str, Metric] = {}
        self._prefix = f"golongrl_{service}_" if prefix is None else prefix

    def counter(self, name: str, meaning: str, *labels: str, unit: str = "", off_panel: str = "") -> CounterMetric:
        """Declare a counter; `name` without the service and without `_total`.

        Raises:
            ValueError: the name or a label breaks the rules above.
        """
        made = CounterMetric(self._prefix + name, Kind.COUNTER, self._unit(name, unit), meaning, labels, off_panel)
        self._add(name, made)
        return made

    def gauge(self, name: str, meaning: str, *labels: str, unit: str = "", off_panel: str = "") -> GaugeMetric:
        """Declare a gauge. Raises ValueError as `counter`."""
        made = GaugeMetric(self._prefix + name, Kind.GAUGE, self._unit(name, unit), meaning, labels, off_panel)
        self._add(name, made)
        return made

    def histogram(
        self,
        name: str,
        meaning: str,
        *labels: str,
        unit: str = "",
        buckets: Sequence[float] = SECONDS,
        off_panel: str = "",
    ) -> HistogramMetric:
        """Declare a histogram. Raises ValueError as `counter`."""
        made = HistogramMetric(
            self._prefix + name, Kind.HISTOGRAM, self._unit(name, unit), meaning, labels, off_panel, tuple(buckets)
        )
        self._add(name, made)
        return made

    @staticmethod
    def _unit(name: str, unit: str) -> str:
        """The unit, read from the name where the name shows it."""
        shown = [each for each in UNITS if each in name.split("_")]
        if unit in UNITS and unit not in shown:
            raise ValueError(f"metric {name}: its name does not say {unit}")
        return unit or (shown[0] if shown else "")

    def _add(self, name: str, metric: Metric) -> None:
        if not _NAME.fullmatch(name) or name.endswith("_total"):
            raise ValueError(f"metric {name}: lower-case words joined by _, and without _total")
        if metric.name in self.metrics:
            raise ValueError(f"metric {metric.name} is declared twice")
        if unknown := [label for label in metric.labels if label not in LABELS]:
            raise ValueError(f"metric {metric.name}: label {unknown[0]} is not in LABELS, which says what bounds it")
        self.metrics[metric.name] = metric
