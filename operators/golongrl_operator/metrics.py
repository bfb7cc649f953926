"""Prometheus metrics of the operator, in a registry of its own."""

import time
from collections import Counter as Count
from collections.abc import Iterable

from prometheus_client import CollectorRegistry

from golongrl.telemetry.catalogue import Catalogue
from golongrl_operator.decide import RunPhase

CATALOGUE = Catalogue("operator", "the operator, port `http`")

RUNS = CATALOGUE.gauge("runs", "TrainingRuns of the release.", "phase", unit="runs")
PASSES = CATALOGUE.counter(
    "passes",
    "Passes over all runs, by outcome: ok if everything was read, done and reported.",
    "outcome",
    unit="passes",
)
API_ERRORS = CATALOGUE.counter(
    "api_errors",
    "Calls that the API server refused or did not answer, by HTTP code (none: no answer).",
    "code",
    unit="calls",
)
SECONDS_SINCE_PASS = CATALOGUE.gauge(
    "seconds_since_pass", "Seconds since the last successful pass, or since the process started."
)


class OperatorMetrics:
    """Names are stable: the chart's alert rules use them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._runs = RUNS.make(self.registry)
        self._passes = PASSES.make(self.registry)
        self._errors = API_ERRORS.make(self.registry)
        age = SECONDS_SINCE_PASS.make(self.registry)
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
