"""Prometheus metrics of the operator, in a registry of its own."""

import time
from collections import Counter as Count
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry

from golongrl.telemetry.catalogue import Catalogue
from golongrl_operator.decide import RunPhase

CATALOGUE = Catalogue("operator", "the operator, port `http`")

RUNS = CATALOGUE.gauge("runs", "TrainingRuns of the release.", "phase", unit="runs")
ENGINES = CATALOGUE.gauge(
    "engines",
    "Engines of the runs' pools: desired is what the operator asks for, ready what can be counted on.",
    "pool",
    "state",
    unit="engines",
)
LEADER = CATALOGUE.gauge("leader", "1 while this operator acts, 0 while another one holds the lease.", unit="operators")
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
        self._engines = ENGINES.make(self.registry)
        self._leader = LEADER.make(self.registry)
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

    def leads(self, acts: bool) -> None:
        """Say whether this operator acts."""
        self._leader.set(acts)

    def pools(self, pools: Iterable[Mapping[str, Any]]) -> None:
        """Set the engines of each pool, from the runs' status."""
        self._engines.clear()
        for pool in pools:
            if pool:
                self._engines.labels(pool["name"], "desired").set(pool["desired"])
                self._engines.labels(pool["name"], "ready").set(pool["readyReplicas"])

    def error(self, code: str) -> None:
        """Count a failed call; `code` is the HTTP status, or `none` without an answer."""
        self._errors.labels(code).inc()
