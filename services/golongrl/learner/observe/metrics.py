"""The learner's Prometheus series: every number of a step's record, and what the process is and does.

`catalogue` declares them, and says which number is where.
"""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from golongrl.learner.observe.catalogue import (
    ACTIVITY,
    ACTIVITY_SECONDS,
    CHECKPOINT_SECONDS,
    DISK_FREE,
    DISK_SIZE,
    PHASE_SECONDS,
    PUBLISH_SECONDS,
    QUEUE_UP,
    STALLED,
    STEP,
    STEP_SECONDS,
    STEPS,
    TOKENS,
    VERSION,
    WAITED_SECONDS,
    WEIGHTS_BYTES,
    elsewhere,
    shown_as,
)
from golongrl.learner.observe.disks import Disks
from golongrl.learner.observe.status import LearnerStatus
from golongrl.queue import SampleQueue
from golongrl.queue.metrics import QueueCollector
from golongrl.telemetry.catalogue import GaugeMetric
from golongrl.telemetry.watchdog import KINDS

_PHASE = "timing_s/"
_WHOLE = f"{_PHASE}step"


class LearnerMetrics:
    """A step's record as Prometheus series of this process, in addition to the queue's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue = QueueCollector()
        self.registry.register(self.queue)
        registry = self.registry
        self._step = STEP.make(registry)
        self._version = VERSION.make(registry)
        self._steps = STEPS.make(registry)
        self._tokens = TOKENS.make(registry)
        self._phases = PHASE_SECONDS.make(registry)
        self._seconds = STEP_SECONDS.make(registry)
        self._published = PUBLISH_SECONDS.make(registry)
        self._saved = CHECKPOINT_SECONDS.make(registry)
        self._bytes = WEIGHTS_BYTES.make(registry)
        self._stalled = STALLED.make(registry)
        self.stalled({})
        self._gauges: dict[str, Gauge] = {}
        self._disks: Disks | None = None

    def observe(self, step: int, record: Mapping[str, float]) -> None:
        """Take over numbers of a step (the names of metrics.jsonl): its record, or what a validation adds to it."""
        self._step.set(step)
        if "policy/version" in record:
            self._version.set(record["policy/version"])
        if _WHOLE in record:
            self._steps.inc()
            self._seconds.observe(record[_WHOLE])
        self._tokens.inc(record.get("perf/total_num_tokens", 0.0))
        for name, histogram in (("perf/publish_s", self._published), ("perf/checkpoint_write_s", self._saved)):
            if name in record:
                histogram.observe(record[name])
        if "weights/bytes" in record:
            self._bytes.set(record["weights/bytes"])
        values: defaultdict[str, list[tuple[dict[str, str], float]]] = defaultdict(list)
        for name, value in record.items():
            if name.startswith(_PHASE) and name != _WHOLE:
                self._phases.labels(name.removeprefix(_PHASE)).inc(value)
            elif not elsewhere(name):
                metric, labels, scale = shown_as(name)
                gauge = self._gauge(metric)
                values[metric.name].append((labels, value * scale))
        for of, found in values.items():
            gauge = self._gauges[of]
            if found[0][0]:
                gauge.clear()  # a task that the last batch had none of keeps no value
            for labels, value in found:
                (gauge.labels(**labels) if labels else gauge).set(value)

    def stalled(self, seconds: Mapping[str, float]) -> None:
        """Show for how long each kind of process has held up the run."""
        for kind in KINDS:
            self._stalled.labels(kind).set(seconds.get(kind, 0.0))

    def watch(self, status: LearnerStatus, folders: Mapping[str, Path]) -> None:
        """Show from now on what the learner does, and how full the disks are that it writes to; once."""
        self._disks = Disks(folders)
        self.registry.register(_ProcessCollector(status, self._disks, self.queue))

    async def refresh(self, queue: SampleQueue) -> str | None:
        """Ask the queue and the disks, for a scrape; why the queue's series are missing, if they are."""
        if self._disks is not None:
            await self._disks.refresh()
        return await self.queue.refresh(queue)

    def _gauge(self, metric: GaugeMetric) -> Gauge:
        """Made with its first value: a gauge without one would be 0."""
        if metric.name not in self._gauges:
            self._gauges[metric.name] = metric.make(self.registry)
        return self._gauges[metric.name]


class _ProcessCollector(Collector):
    def __init__(self, status: LearnerStatus, disks: Disks, queue: QueueCollector) -> None:
        self._status = status
        self._disks = disks
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        doing = ACTIVITY.family()
        doing.add_metric([self._status.doing.split(" ")[0]], 1.0)
        yield doing
        yield ACTIVITY_SECONDS.family(time.monotonic() - self._status.since)
        yield WAITED_SECONDS.family(self._status.all_waited_s)
        yield QUEUE_UP.family(float(self._queue.stats is not None))
        free, size = DISK_FREE.family(), DISK_SIZE.family()
        for name, (left, whole) in self._disks.found.items():
            free.add_metric([name], left)
            size.add_metric([name], whole)
        yield free
        yield size
