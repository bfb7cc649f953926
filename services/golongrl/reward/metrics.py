"""Prometheus metrics of the scoring service, in a registry of its own (two apps in one process do not mix)."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from golongrl.reward.pool import WorkerPool

# From a trivial comparison (0.1 ms) over ROUGE-L of a long answer to the default deadline and beyond.
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class RewardMetrics:
    """What `/metrics` shows; the pool's own numbers are read when asked for."""

    def __init__(self, pool: WorkerPool) -> None:
        self.registry = CollectorRegistry()
        self.scores = Counter(
            "golongrl_reward_scores",
            "Items answered, by task type and status.",
            ["task", "status"],
            registry=self.registry,
        )
        self.lost = Counter(
            "golongrl_reward_lost",
            "Items that hung (deadline), killed their worker (died) or found none (no_worker).",
            ["task", "kind"],
            registry=self.registry,
        )
        self.computed = Histogram(
            "golongrl_reward_item_seconds",
            "Seconds a worker spent on one item.",
            ["task"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waited = Histogram(
            "golongrl_reward_queue_seconds",
            "Seconds an item waited for a worker.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            "golongrl_reward_refused", "Requests not accepted, by HTTP status.", ["code"], registry=self.registry
        )
        self.registry.register(_PoolCollector(pool))


class _PoolCollector(Collector):
    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("golongrl_reward_queue_depth", "Items waiting for a worker.", self._pool.queued)
        yield GaugeMetricFamily("golongrl_reward_in_flight", "Items being computed.", self._pool.in_flight)
        yield GaugeMetricFamily("golongrl_reward_workers_warm", "Workers that can compute.", self._pool.warm)
        started = self._pool.stats.started
        yield CounterMetricFamily("golongrl_reward_workers_started", "Workers started, replacements included.", started)
        ended = CounterMetricFamily("golongrl_reward_workers_ended", "Workers that ended, by why.", labels=["why"])
        for why in ("deadline", "died", "start_failed", "recycled", "stopped"):
            ended.add_metric([why], self._pool.stats.ended[why])
        yield ended
