"""Prometheus metrics of the scoring service, in a registry of its own (two apps in one process do not mix)."""

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from golongrl.reward.pool import WorkerPool
from golongrl.reward.pool_worker import Ending
from golongrl.telemetry.catalogue import Catalogue

# From a trivial comparison (0.1 ms) over ROUGE-L of a long answer to the default deadline and beyond.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

CATALOGUE = Catalogue("reward", "the reward service, port `http`")

SCORES = CATALOGUE.counter("scores", "Items answered, by task type and status.", "task", "status", unit="items")
LOST = CATALOGUE.counter(
    "lost",
    "Items that hung (deadline), killed their worker (died) or found none (no_worker).",
    "task",
    "kind",
    unit="items",
)
ITEM_SECONDS = CATALOGUE.histogram("item_seconds", "Seconds a worker spent on one item.", "task", buckets=_SECONDS)
QUEUE_SECONDS = CATALOGUE.histogram("queue_seconds", "Seconds an item waited for a worker.", buckets=_SECONDS)
REFUSED = CATALOGUE.counter("refused", "Requests not accepted, by HTTP status.", "code", unit="requests")
QUEUE_DEPTH = CATALOGUE.gauge("queue_depth", "Items waiting for a worker.", unit="items")
IN_FLIGHT = CATALOGUE.gauge("in_flight", "Items being computed.", unit="items")
WORKERS_WARM = CATALOGUE.gauge("workers_warm", "Workers that can compute.", unit="processes")
WORKERS_STARTED = CATALOGUE.counter(
    "workers_started",
    "Workers started, replacements included.",
    unit="processes",
    off_panel="golongrl_reward_workers_ended_total shows the same with its reasons",
)
WORKERS_ENDED = CATALOGUE.counter("workers_ended", "Workers that ended, by why.", "why", unit="processes")


class RewardMetrics:
    """What `/metrics` shows; the pool's own numbers are read when asked for."""

    def __init__(self, pool: WorkerPool) -> None:
        self.registry = CollectorRegistry()
        self.scores = SCORES.make(self.registry)
        self.lost = LOST.make(self.registry)
        self.computed = ITEM_SECONDS.make(self.registry)
        self.waited = QUEUE_SECONDS.make(self.registry)
        self.refused = REFUSED.make(self.registry)
        self.registry.register(_PoolCollector(pool))


class _PoolCollector(Collector):
    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        yield QUEUE_DEPTH.family(self._pool.queued)
        yield IN_FLIGHT.family(self._pool.in_flight)
        yield WORKERS_WARM.family(self._pool.warm)
        yield WORKERS_STARTED.family(self._pool.stats.started)
        ended = WORKERS_ENDED.family()
        for why in get_args(Ending):
            ended.add_metric([why], self._pool.stats.ended[why])
        yield ended
