"""Prometheus metrics of one worker, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Responses take from a tenth of a second (1M parameters, 64 tokens) to tens of minutes (160K prompts).
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 2400)


class RolloutMetrics:
    """Names are stable: dashboards and alert rules use them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self.submitted = Counter("golongrl_rollout_groups_submitted", "Groups accepted by the queue.", registry=own)
        self.rejected = Counter(
            "golongrl_rollout_groups_rejected", "Rows ended without training.", ["reason"], registry=own
        )
        self.released = Counter(
            "golongrl_rollout_groups_released", "Rows given back to be done again.", ["reason"], registry=own
        )
        self.unscored = Counter(
            "golongrl_rollout_responses_unscored", "Responses whose reward could not be computed.", registry=own
        )
        self.tokens = Counter("golongrl_rollout_generated_tokens", "Tokens of finished responses.", registry=own)
        self.prompt_tokens = Counter(
            "golongrl_rollout_prompt_tokens", "Prompt tokens of finished responses.", ["cached"], registry=own
        )
        self.generation = Histogram(
            "golongrl_rollout_generation_seconds", "Sampling one group.", buckets=_SECONDS, registry=own
        )
        self.scoring = Histogram(
            "golongrl_rollout_scoring_seconds", "Scoring one group.", buckets=_SECONDS, registry=own
        )
        self.validated = Counter(
            "golongrl_rollout_validation_rows", "Validation rows answered.", ["outcome"], registry=own
        )
        self.staleness = Histogram(
            "golongrl_rollout_staleness_at_submit",
            "Announced version minus the oldest version in the group.",
            buckets=(0, 1, 2, 3, 4, 8),
            registry=own,
        )
        self.adoption = Histogram(
            "golongrl_rollout_adoption_seconds",
            "Taking new weights, read back included.",
            ["mode"],
            buckets=_SECONDS,
            registry=own,
        )
        self.adoption_failures = Counter(
            "golongrl_rollout_adoption_failures", "Updates the engine did not confirm.", registry=own
        )
        self.quarantined = Gauge(
            "golongrl_rollout_quarantined", "1 while the engine's weights are not trusted.", registry=own
        )
        self.groups = Gauge("golongrl_rollout_groups_in_progress", "Groups leased now.", registry=own)
        self.version = Gauge(
            "golongrl_rollout_engine_version",
            "Policy version the engine was confirmed to hold; -1 if none.",
            registry=own,
        )
        self.waiting = Gauge(
            "golongrl_rollout_waiting", "1 for what the worker waits for now.", ["reason"], registry=own
        )
        self.engine_restarts = Counter(
            "golongrl_rollout_engine_restarts", "Times the engine was found gone or with foreign weights.", registry=own
        )
        self.version.set(-1)

    def wait_for(self, reason: str | None) -> None:
        """Make `reason` (a short label) the only thing waited for."""
        self.waiting.clear()
        if reason is not None:
            self.waiting.labels(reason).set(1)
