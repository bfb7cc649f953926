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
            "Looks at all runs, by whether everything was seen, done and told.",
            ["outcome"],
            registry=self.registry,
        )
        self._errors = Counter(
            "golongrl_operator_api_errors",
            "Calls that the API server refused, by its code, or did not answer.",
            ["code"],
            registry=self.registry,
        )
        age = Gauge(
            "golongrl_operator_seconds_since_pass",
            "Since the last pass that succeeded, or the process began.",
            registry=self.registry,
        )
        self._succeeded = time.monotonic()
        age.set_function(lambda: time.monotonic() - self._succeeded)
        # A series that begins with its first increment shows Prometheus no increase.
        for outcome in ("ok", "failed"):
            self._passes.labels(outcome)

    def passed(self, ok: bool) -> None:
        """A pass is over."""
        self._passes.labels("ok" if ok else "failed").inc()
        if ok:
            self._succeeded = time.monotonic()

    def runs(self, phases: Iterable[str]) -> None:
        """The phases of all runs of the release."""
        found = Count(phases)
        for phase in RunPhase:
            self._runs.labels(phase.value).set(found[phase.value])

    def error(self, code: str) -> None:
        """A call failed; `code` is the status, or `none` without an answer."""
        self._errors.labels(code).inc()
