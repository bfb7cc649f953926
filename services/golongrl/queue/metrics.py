"""Prometheus metrics of a queue: a collector over its latest `QueueStats`, for the service that mounts it.

The handler of `/metrics` awaits `collector.refresh(queue)` before it renders, so a scrape sees one moment.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from golongrl.queue.client import SampleQueue
from golongrl.queue.errors import QueueError
from golongrl.queue.server import ServerState
from golongrl.queue.types import QueueStats
from golongrl.telemetry.catalogue import Catalogue, CounterMetric, GaugeMetric

# Prometheus gives a scrape ten seconds by default; the client's own patience with a server that is down is longer.
SCRAPE_S = 3.0

CATALOGUE = Catalogue("queue", "the learner, port `http`: it asks the queue at every scrape")

GROUPS = CATALOGUE.gauge("groups", "Rows by where they are.", "state", unit="groups")
BEHIND = CATALOGUE.gauge("behind", "Ready and leased groups by versions behind.", "versions", unit="groups")
LEASES = CATALOGUE.gauge("leases", "Leases by worker.", "worker", unit="leases")
OLDEST_LEASE_SECONDS = CATALOGUE.gauge("oldest_lease_seconds", "Age of a worker's oldest lease.", "worker")
REJECTED = CATALOGUE.counter("rejected", "Rows ended without training.", "reason", unit="groups")
REDONE = CATALOGUE.counter("redone", "Rows given back to be done again.", "reason", unit="groups")
TRAINED = CATALOGUE.counter("trained", "Committed groups by staleness.", "staleness", unit="groups")
TASKS_GIVEN_UP = CATALOGUE.counter(
    "tasks_given_up", "Batches sealed without queue.min_prompts_per_task.", unit="batches"
)

_OF_STATS: tuple[tuple[GaugeMetric, Callable[[QueueStats], float]], ...] = (
    (CATALOGUE.gauge("bytes", "Bytes of stored groups and validation results."), lambda stats: stats.bytes),
    (CATALOGUE.gauge("reserved_bytes", "Bytes reserved for leased groups."), lambda stats: stats.reserved_bytes),
    (CATALOGUE.gauge("max_bytes", "The budget: queue.max_bytes."), lambda stats: stats.max_bytes),
    (
        CATALOGUE.gauge("routes_bytes", "Bytes of the routes of stored groups, in the weight store."),
        lambda stats: stats.routes_bytes,
    ),
    (
        CATALOGUE.gauge("reserved_routes_bytes", "Bytes of routes reserved for leased groups."),
        lambda stats: stats.reserved_routes_bytes,
    ),
    (
        CATALOGUE.gauge("max_routes_bytes", "The budget: queue.max_routes_bytes; 0 without learner.routing_replay."),
        lambda stats: stats.max_routes_bytes,
    ),
    (
        CATALOGUE.gauge("version", "Policy version: finished steps.", unit="versions"),
        lambda stats: stats.version,
    ),
    (
        CATALOGUE.gauge("committed_step", "Last step with a durable checkpoint.", unit="steps"),
        lambda stats: stats.committed,
    ),
    (
        CATALOGUE.gauge("oldest_wait_seconds", "How long the longest-waiting group has been ready."),
        lambda stats: stats.oldest_wait_s,
    ),
    (
        CATALOGUE.gauge("all_equal_streak", "All-equal groups in a row.", unit="groups"),
        lambda stats: stats.all_equal_streak,
    ),
    (
        CATALOGUE.gauge(
            "failed_streak", "Rows in a row that were rejected because their last try failed.", unit="groups"
        ),
        lambda stats: stats.failed_streak,
    ),
    (
        CATALOGUE.gauge(
            "set_aside_groups",
            "Groups that could not be trained and wait for a decision (golongrl queue set-aside).",
            unit="groups",
        ),
        lambda stats: stats.set_aside,
    ),
    (
        CATALOGUE.gauge("stalled_seconds", "Since the group that the next batch waits for last moved."),
        lambda stats: stats.blocking.progress_age_s if stats.blocking else 0.0,
    ),
)
_OF_SERVER: tuple[tuple[GaugeMetric, Callable[[ServerState], float]], ...] = (
    (
        CATALOGUE.gauge("redis_memory_bytes", "Memory that the Redis server uses, all runs together."),
        lambda server: server.memory_bytes,
    ),
    (
        CATALOGUE.gauge("redis_max_memory_bytes", "Its maxmemory; 0 is no limit."),
        lambda server: server.max_memory_bytes,
    ),
    (
        CATALOGUE.gauge(
            "redis_persisting", "1 while its last write to the append-only file succeeded; 0 also without one."
        ),
        lambda server: server.persisting,
    ),
)


class QueueCollector(Collector):
    """Register it once; it shows nothing until `stats` was set."""

    def __init__(self, stats: QueueStats | None = None) -> None:
        self.stats = stats
        self.server: ServerState | None = None

    async def refresh(self, queue: SampleQueue, within_s: float = SCRAPE_S) -> str | None:
        """Ask the queue. Returns why that failed, if it did: then no series of the queue are shown, because those of
        an earlier moment would mislead."""
        self.stats = self.server = None
        try:
            async with asyncio.timeout(within_s):
                stats = await queue.stats()
                self.server = await queue.server_state()
                self.stats = stats
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
        if self.server is not None:
            for metric, read in _OF_SERVER:
                yield metric.family(read(self.server))


def _gauges(stats: QueueStats) -> Iterator[Metric]:
    depth = GROUPS.family()
    for state in ("unread", "returned", "leased", "ready", "in_batches", "trained", "rejected", "set_aside"):
        depth.add_metric([state], getattr(stats, state))
    yield depth
    for metric, read in _OF_STATS:
        yield metric.family(read(stats))
    behind = BEHIND.family()
    for versions, groups in stats.staleness.items():
        behind.add_metric([str(versions)], groups)
    yield behind


def _leases(stats: QueueStats) -> Iterator[Metric]:
    held: defaultdict[str, int] = defaultdict(int)
    oldest: defaultdict[str, float] = defaultdict(float)
    for lease in stats.leases:
        held[lease.worker] += 1
        oldest[lease.worker] = max(oldest[lease.worker], lease.age_s)
    for metric, values in ((LEASES, held), (OLDEST_LEASE_SECONDS, oldest)):
        family = metric.family()
        for worker, value in values.items():
            family.add_metric([worker], value)
        yield family


def _counters(stats: QueueStats) -> Iterator[Metric]:
    trained = {str(staleness): groups for staleness, groups in stats.trained_staleness.items()}
    counts: tuple[tuple[CounterMetric, Mapping[str, int]], ...] = (
        (REJECTED, stats.rejected_by),
        (REDONE, stats.redone_by),
        (TRAINED, trained),
    )
    for metric, values in counts:
        family = metric.family()
        for key, value in values.items():
            family.add_metric([key], value)
        yield family
    yield TASKS_GIVEN_UP.family(stats.tasks_given_up)
