"""Prometheus metrics of a queue: a collector over its latest `QueueStats`, for the service that mounts it.

The handler of `/metrics` awaits `collector.refresh(queue)` before it renders, so a scrape sees one moment.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from golongrl.queue.client import SampleQueue
from golongrl.queue.errors import QueueError
from golongrl.queue.types import QueueStats

# Prometheus gives a scrape ten seconds by default; the client's own patience with a server that is down is longer.
SCRAPE_S = 3.0


class QueueCollector(Collector):
    """Register it once; it shows nothing until `stats` was set."""

    def __init__(self, stats: QueueStats | None = None) -> None:
        self.stats = stats

    async def refresh(self, queue: SampleQueue, within_s: float = SCRAPE_S) -> str | None:
        """Ask the queue. Returns why that failed, if it did: then no series of the queue are shown, because those of
        an earlier moment would mislead."""
        self.stats = None
        try:
            async with asyncio.timeout(within_s):
                self.stats = await queue.stats()
        except TimeoutError:
            return f"the queue did not answer within {within_s:g} s"
        except QueueError as error:
            return str(error)
        return None

    def collect(self) -> Iterator[Metric]:
        """The families of `golongrl_queue_*`."""
        if self.stats is not None:
            yield from _gauges(self.stats)
            yield from _leases(self.stats)
            yield from _counters(self.stats)


def _gauges(stats: QueueStats) -> Iterator[Metric]:
    depth = GaugeMetricFamily("golongrl_queue_groups", "Rows by where they are", labels=["state"])
    for state in ("unread", "returned", "leased", "ready", "in_batches", "trained", "rejected", "set_aside"):
        depth.add_metric([state], getattr(stats, state))
    yield depth
    for name, text, value in (
        ("bytes", "Bytes of stored groups and validation results", stats.bytes),
        ("reserved_bytes", "Bytes reserved for leased groups", stats.reserved_bytes),
        ("max_bytes", "queue.max_bytes", stats.max_bytes),
        ("version", "Policy version: finished steps", stats.version),
        ("committed_step", "Last step with a durable checkpoint", stats.committed),
        ("oldest_wait_seconds", "How long the longest-waiting group has been ready", stats.oldest_wait_s),
        ("all_equal_streak", "All-equal groups in a row", stats.all_equal_streak),
        ("failed_streak", "Rows in a row that were rejected because their last try failed", stats.failed_streak),
        (
            "set_aside_groups",
            "Groups that could not be trained and wait for a decision (golongrl queue set-aside)",
            stats.set_aside,
        ),
        (
            "stalled_seconds",
            "Since the group that the next batch waits for last moved",
            stats.blocking.progress_age_s if stats.blocking else 0.0,
        ),
    ):
        yield GaugeMetricFamily(f"golongrl_queue_{name}", text, value=value)
    behind = GaugeMetricFamily(
        "golongrl_queue_behind", "Ready and leased groups by versions behind", labels=["versions"]
    )
    for versions, groups in stats.staleness.items():
        behind.add_metric([str(versions)], groups)
    yield behind


def _leases(stats: QueueStats) -> Iterator[Metric]:
    held: defaultdict[str, int] = defaultdict(int)
    oldest: defaultdict[str, float] = defaultdict(float)
    for lease in stats.leases:
        held[lease.worker] += 1
        oldest[lease.worker] = max(oldest[lease.worker], lease.age_s)
    yield _by("golongrl_queue_leases", "Leases by worker", "worker", held)
    yield _by("golongrl_queue_oldest_lease_seconds", "Age of a worker's oldest lease", "worker", oldest)


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(stats: QueueStats) -> Iterator[Metric]:
    trained = {str(staleness): groups for staleness, groups in stats.trained_staleness.items()}
    counts: tuple[tuple[str, str, str, Mapping[str, int]], ...] = (
        ("rejected", "Rows ended without training", "reason", stats.rejected_by),
        ("redone", "Rows given back to be done again", "reason", stats.redone_by),
        (
            "trained",
            "Committed groups by staleness",
            "staleness",
            trained,
        ),
    )
    for name, text, label, values in counts:
        family = CounterMetricFamily(f"golongrl_queue_{name}", text, labels=[label])
        for key, value in values.items():
            family.add_metric([key], value)
        yield family
    yield CounterMetricFamily(
        "golongrl_queue_tasks_given_up", "Batches sealed without queue.min_prompts_per_task", value=stats.tasks_given_up
    )
