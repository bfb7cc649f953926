"""Prometheus metrics of `golongrl eval run`, which it serves while it runs (`--metrics-port`)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from golongrl.telemetry.catalogue import Catalogue

CATALOGUE = Catalogue("evaluation", "`golongrl eval run`, at its `--metrics-port` while it runs")

SAMPLES = CATALOGUE.gauge(
    "samples",
    "Samples of the model in progress by what became of them, those of earlier starts included.",
    "benchmark",
    "status",
    unit="samples",
)
EXPECTED = CATALOGUE.gauge(
    "samples_expected", "Samples that a benchmark has for each model.", "benchmark", unit="samples"
)
SCORE = CATALOGUE.gauge(
    "score", "Mean score of the scored samples so far; results.json has the figures with their errors.", "benchmark"
)
STEP = CATALOGUE.gauge("step", "Step of the run whose weights are evaluated; -1 for other models.", unit="steps")
MODELS = CATALOGUE.gauge("models", "Models of this evaluation, `done` and `left`.", "state", unit="models")
IN_FLIGHT = CATALOGUE.gauge("requests_in_flight", "Requests that wait for a reply.", unit="requests")
LIMIT = CATALOGUE.gauge("requests_limit", "Most requests at a time; it falls while a server is full.", unit="requests")
REPLY_SECONDS = CATALOGUE.histogram("reply_seconds", "From a request until its reply, all attempts.", "benchmark")
TOKENS = CATALOGUE.counter(
    "tokens", "Tokens of the replies of this process: `prompt` and `completion`.", "kind", unit="tokens"
)


@dataclass(frozen=True)
class BenchmarkProgress:
    """How far one benchmark is; `score` is None where nothing is scored yet."""

    benchmark: str
    expected: int
    samples: Mapping[str, int]
    score: float | None


@dataclass(frozen=True)
class EvaluationProgress:
    """How far the model in progress is."""

    step: int | None
    in_flight: int = 0
    limit: int = 0
    benchmarks: Iterable[BenchmarkProgress] = field(default_factory=tuple)


class EvaluationMetrics(Collector):
    """What one evaluation exports: replies are counted as they come, the rest is read at a scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.models = 0
        self.done = 0
        self._progress: Callable[[], EvaluationProgress] | None = None
        self._seconds = REPLY_SECONDS.make(self.registry)
        self._tokens = TOKENS.make(self.registry)
        self.registry.register(self)

    def watch(self, progress: Callable[[], EvaluationProgress]) -> None:
        """What a scrape reads from now on, until the next model."""
        self._progress = progress

    def replied(self, benchmark: str, seconds: float, prompt_tokens: int, completion_tokens: int) -> None:
        """A reply came."""
        self._seconds.labels(benchmark).observe(seconds)
        self._tokens.labels("prompt").inc(prompt_tokens)
        self._tokens.labels("completion").inc(completion_tokens)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """A scrape, from a thread of its own."""
        models = MODELS.family()
        models.add_metric(["done"], self.done)
        models.add_metric(["left"], self.models - self.done)
        yield models
        if self._progress is None:
            return
        now = self._progress()
        yield STEP.family(-1 if now.step is None else now.step)
        yield IN_FLIGHT.family(now.in_flight)
        yield LIMIT.family(now.limit)
        samples, expected, score = SAMPLES.family(), EXPECTED.family(), SCORE.family()
        for one in now.benchmarks:
            expected.add_metric([one.benchmark], one.expected)
            for status, number in one.samples.items():
                samples.add_metric([one.benchmark, status], number)
            if one.score is not None:
                score.add_metric([one.benchmark], one.score)
        yield from (samples, expected, score)
