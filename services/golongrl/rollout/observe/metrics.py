"""Prometheus metrics of one worker, in a registry of its own."""

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from golongrl.rollout.observe.losses import AdoptionLoss
from golongrl.telemetry.catalogue import Catalogue

# Responses take from a tenth of a second (1M parameters, 64 tokens) to tens of minutes (160K prompts).
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 2400)

CATALOGUE = Catalogue("rollout", "every rollout worker, port `http`")

SUBMITTED = CATALOGUE.counter("groups_submitted", "Groups accepted by the queue.", unit="groups")
REJECTED = CATALOGUE.counter("groups_rejected", "Rows ended without training.", "reason", unit="groups")
RELEASED = CATALOGUE.counter("groups_released", "Rows given back to be done again.", "reason", unit="groups")
REFUSALS = CATALOGUE.counter(
    "lease_refusals", "Times the queue refused this worker a row, by reason.", "reason", unit="refusals"
)
UNSCORED = CATALOGUE.counter("responses_unscored", "Responses whose reward could not be computed.", unit="responses")
GENERATED_TOKENS = CATALOGUE.counter("generated_tokens", "Tokens of finished responses.", unit="tokens")
PROMPT_TOKENS = CATALOGUE.counter(
    "prompt_tokens",
    "Prompt tokens of finished responses, by whether the engine had them in its cache.",
    "cached",
    unit="tokens",
)
GENERATION_SECONDS = CATALOGUE.histogram("generation_seconds", "Sampling one group.", buckets=_SECONDS)
SCORING_SECONDS = CATALOGUE.histogram("scoring_seconds", "Scoring one group.", buckets=_SECONDS)
VALIDATION_ROWS = CATALOGUE.counter("validation_rows", "Validation rows answered.", "outcome", unit="rows")
STALENESS = CATALOGUE.histogram(
    "staleness_at_submit",
    "Announced version minus the oldest version in the group.",
    unit="versions",
    buckets=(0, 1, 2, 3, 4, 8),
)
ADOPTION_SECONDS = CATALOGUE.histogram(
    "adoption_seconds", "Taking new weights, read back included.", "mode", buckets=_SECONDS
)
ADOPTION_LAG_SECONDS = CATALOGUE.histogram(
    "adoption_lag_seconds",
    "From the moment this worker saw a version announced until its engine was confirmed to hold it.",
    buckets=_SECONDS,
)
WEIGHT_BYTES = CATALOGUE.counter(
    "weight_bytes",
    "Bytes of weights read from the store, by what they were: a whole version, or what changed.",
    "kind",
    unit="bytes",
)
ADOPTION_LOST = CATALOGUE.gauge(
    "adoption_lost_ratio",
    "Share of its time that the engine lost by taking weights, a mean of ten minutes; absent in the first minute.",
    off_panel="the durations of adoptions show it; KEDA sizes the pool by it",
)
ADOPTION_FAILURES = CATALOGUE.counter("adoption_failures", "Updates the engine did not confirm.", unit="updates")
QUARANTINED = CATALOGUE.gauge("quarantined", "1 while the engine's weights are not trusted.")
GROUPS = CATALOGUE.gauge("groups_in_progress", "Groups leased now.", unit="groups")
ENGINE_VERSION = CATALOGUE.gauge(
    "engine_version", "Policy version the engine was confirmed to hold; -1 if none.", unit="versions"
)
WAITING = CATALOGUE.gauge("waiting", "1 for what the worker waits for now.", "reason")
ENGINE_RESTARTS = CATALOGUE.counter(
    "engine_restarts", "Times the engine was found gone or with foreign weights.", unit="restarts"
)


class RolloutMetrics:
    """Names are stable: dashboards and alert rules use them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.submitted = SUBMITTED.make(own)
        self.rejected = REJECTED.make(own)
        self.released = RELEASED.make(own)
        self.refusals = REFUSALS.make(own)
        self.unscored = UNSCORED.make(own)
        self.tokens = GENERATED_TOKENS.make(own)
        self.prompt_tokens = PROMPT_TOKENS.make(own)
        self.generation = GENERATION_SECONDS.make(own)
        self.scoring = SCORING_SECONDS.make(own)
        self.validated = VALIDATION_ROWS.make(own)
        self.staleness = STALENESS.make(own)
        self.adoption = ADOPTION_SECONDS.make(own)
        self.adoption_lag = ADOPTION_LAG_SECONDS.make(own)
        self.weight_bytes = WEIGHT_BYTES.make(own)
        self.adoption_failures = ADOPTION_FAILURES.make(own)
        self.quarantined = QUARANTINED.make(own)
        self.groups = GROUPS.make(own)
        self.version = ENGINE_VERSION.make(own)
        self.waiting = WAITING.make(own)
        self.engine_restarts = ENGINE_RESTARTS.make(own)
        self.version.set(-1)

    def watch(self, loss: AdoptionLoss) -> None:
        """Show from now on what new weights cost the engine; once."""
        self.registry.register(_LossCollector(loss))

    def wait_for(self, reason: str | None) -> None:
        """Make `reason` (a short label) the only thing waited for."""
        self.waiting.clear()
        if reason is not None:
            self.waiting.labels(reason).set(1)


class _LossCollector(Collector):
    def __init__(self, loss: AdoptionLoss) -> None:
        self._loss = loss

    def collect(self) -> Iterator[Metric]:
        yield ADOPTION_LOST.family(self._loss.share(time.monotonic()))
