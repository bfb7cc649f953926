"""The learner's HTTP endpoints: /healthz (what it does, and since when) and /metrics (steps, rewards, the queue)."""

import time

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from golongrl.learner.observe.status import LearnerStatus
from golongrl.queue import SampleQueue
from golongrl.queue.metrics import QueueCollector
from golongrl.serving import exposition

log = structlog.get_logger()

_PHASE = "timing_s/"
_REWARD = "reward_by_type/"


class LearnerMetrics:
    """A step's record as Prometheus series of this process, in addition to the queue's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.queue = QueueCollector()
        self.registry.register(self.queue)
        registry = self.registry
        self._step = Gauge("golongrl_learner_step", "Last optimizer step done", registry=registry)
        self._version = Gauge(
            "golongrl_learner_policy_version",
            "Policy version: published optimizer steps (above the step while a resumed learner replays)",
            registry=registry,
        )
        self._steps = Counter("golongrl_learner_steps", "Optimizer steps done by this process", registry=registry)
        self._tokens = Counter(
            "golongrl_learner_tokens",
            "Tokens trained on by this process (prompt and response of every response)",
            registry=registry,
        )
        self._phases = Counter(
            "golongrl_learner_phase_seconds", "Seconds spent in each phase of the steps", ["phase"], registry=registry
        )
        self._rewards = Gauge(
            "golongrl_learner_reward", "Mean reward of the last batch by task type", ["task"], registry=registry
        )

    def observe(self, step: int, record: dict[str, float]) -> None:
        """Take over a step's record (the names of metrics.jsonl)."""
        self._step.set(step)
        self._version.set(record["policy/version"])
        self._steps.inc()
        self._tokens.inc(record.get("perf/total_num_tokens", 0.0))
        for name, value in record.items():
            if name.startswith(_PHASE) and name != f"{_PHASE}step":
                self._phases.labels(name.removeprefix(_PHASE)).inc(value)
            elif name.startswith(_REWARD):
                self._rewards.labels(name.removeprefix(_REWARD)).set(value)


def create_app(status: LearnerStatus, queue: SampleQueue, metrics: LearnerMetrics) -> Starlette:
    """The app over the learner's state; it only reads."""

    async def healthz(_: Request) -> JSONResponse:
        body = {"status": "ok", "doing": status.doing, "step": status.step}
        return JSONResponse({**body, "for_s": round(time.monotonic() - status.since, 1)})

    async def scrape(_: Request) -> Response:
        if (why := await metrics.queue.refresh(queue)) is not None:
            log.warning("the queue's metrics are missing", error=why)
        return exposition(metrics.registry)

    return Starlette(routes=[Route("/healthz", healthz), Route("/metrics", scrape)])
