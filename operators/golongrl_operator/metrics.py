"""Prometheus metrics of the operator, in a registry of its own."""

import time
from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from golongrl_operator.decide import RunPhase


class OperatorMetrics:
    """Names are stable: the chart's alert rules use them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = Gauge("golongrl_operator_runs", "TrainingRuns of the release.", ["phase"], registry=self.registry)
        self._passes = Counter(
            "golongrl_operator_passes",
            "Passes over all runs, by outcome: ok if everything was read, done and reported.",
            ["outcome"],
            registry=self.registry,
        )
        self._errors = Counter(
            "golongrl_operator_api_errors",
            "Calls that the API server refused or did not answer, by HTTP code (none: no answer).",
            ["code"],
            registry=self.registry,
        )
        age = Gauge(
            "golongrl_operator_seconds_since_pass",
            "Seconds since the last successful pass, or since the process started.",
            registry=self.registry,
        )
        self._succeeded = time.monotonic()
        age.set_function(lambda: time.monotonic() - self._succeeded)
        # A series that appears with its first increment shows no increase in Prometheus.
        for outcome in ("ok", "failed"):
            self._passes.labels(outcome)

    def passed(self, ok: bool) -> None:
        """Count a pass that ended."""
        self._passes.labels("ok" if ok else "failed").inc()
        if ok:
            self._succeeded = time.monotonic()

    def runs(self, phases: Iterable[str]) -> None:
        """Set the number of runs in each phase."""
        found = Count(phases)
        for phase in RunPhase:
            self._runs.labels(phase.value).set(found[phase.value])

    def error(self, code: str) -> None:
        """Count a failed call; `code` is the HTTP status, or `none` without an answer."""
        self._errors.labels(code).inc()
