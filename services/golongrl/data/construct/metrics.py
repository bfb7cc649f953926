"""Prometheus metrics of `golongrl data construct`, which it serves while it runs (`--metrics-port`)."""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from golongrl.telemetry.catalogue import Catalogue

CATALOGUE = Catalogue("data", "`golongrl data construct`, at its `--metrics-port` while it runs")

RUNNING = CATALOGUE.gauge("stage", "1 for the stage that runs now.", "stage")
INPUTS = CATALOGUE.gauge("inputs", "Inputs of a stage.", "stage", unit="rows")
DONE = CATALOGUE.gauge(
    "inputs_done", "Inputs of a stage whose rows are written, by this start or an earlier one.", "stage", unit="rows"
)
KEPT = CATALOGUE.gauge("rows_kept", "Rows that a stage kept, once it has ended.", "stage", unit="rows")
REFUSED = CATALOGUE.gauge(
    "rows_refused", "Rows that a stage refused, by reason, once it has ended.", "stage", "reason", unit="rows"
)
CALLS = CATALOGUE.gauge(
    "calls",
    "Calls of models in the asking of this stage: `made` now, or `found` among the replies of an earlier start.",
    "stage",
    "outcome",
    unit="calls",
)
CALL_TOKENS = CATALOGUE.gauge("call_tokens", "Tokens that those calls used, out of the budget.", "stage", unit="tokens")
IN_FLIGHT = CATALOGUE.gauge("requests_in_flight", "Requests that wait for a model's reply.", unit="requests")


class Asked(NamedTuple):
    """How many calls were made, how many replies were in the store, and what waits for a reply."""

    made: int
    found: int
    tokens: int
    in_flight: int = 0


class DataMetrics(Collector):
    """What one construction exports."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stage = ""
        self._counted: tuple[int, int] | None = None
        self._asked: dict[str, Callable[[], Asked]] = {}
        own = self.registry
        self._running, self._inputs, self._done = RUNNING.make(own), INPUTS.make(own), DONE.make(own)
        self._kept, self._refused = KEPT.make(own), REFUSED.make(own)
        own.register(self)

    def plans(self, stage: str) -> None:
        """A stage looks at its inputs."""
        self._stage, self._counted = stage, None

    def begins(self, stage: str, inputs: int, done: int) -> None:
        """A stage starts, with so many of its inputs' rows on disk."""
        self._stage, self._counted = stage, (done, inputs)
        self._running.clear()
        self._running.labels(stage).set(1)
        self._inputs.labels(stage).set(inputs)
        self._done.labels(stage).set(done)

    def made(self, inputs: int) -> None:
        """The rows of so many further inputs are on disk."""
        self._done.labels(self._stage).inc(inputs)
        if self._counted is not None:
            self._counted = self._counted[0] + inputs, self._counted[1]

    def line(self) -> str:
        """How far the stage is that runs now, for a person."""
        if self._counted is None:
            return f"{self._stage}: looks at its inputs"
        done, inputs = self._counted
        line = f"{self._stage}: {done} of {inputs} inputs"
        if (asked := self._asked.get(self._stage)) is not None:
            now = asked()
            line += f"; {now.made} calls made, {now.in_flight} in flight"
        return line

    def ended(self, stage: str, kept: int, refused: Mapping[str, int]) -> None:
        """A stage's table is whole."""
        self._running.clear()
        self._kept.labels(stage).set(kept)
        for reason, count in refused.items():
            self._refused.labels(stage, reason).set(count)

    def asks(self, asked: Callable[[], Asked]) -> None:
        """What a scrape reads of the calls of this stage."""
        self._asked[self._stage] = asked

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """A scrape, from a thread of its own; a stage that asks no model has no calls."""
        calls, tokens, in_flight = CALLS.family(), CALL_TOKENS.family(), 0
        # A copy, because stages continue meanwhile.
        for stage, asked in list(self._asked.items()):
            now = asked()
            calls.add_metric([stage, "made"], now.made)
            calls.add_metric([stage, "found"], now.found)
            tokens.add_metric([stage], now.tokens)
            in_flight += now.in_flight
        yield from (calls, tokens, IN_FLIGHT.family(in_flight))
