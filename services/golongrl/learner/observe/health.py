"""The learner's HTTP endpoints: /healthz (what it does, and since when) and /metrics (steps, rewards, the queue)."""

from dataclasses import asdict

import structlog
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from golongrl.learner.observe.metrics import LearnerMetrics
from golongrl.learner.observe.status import LearnerStatus
from golongrl.queue import SampleQueue
from golongrl.serving import exposition, without_redirects

__all__ = ["LearnerMetrics", "create_app"]

log = structlog.get_logger()


def create_app(status: LearnerStatus, queue: SampleQueue, metrics: LearnerMetrics) -> Starlette:
    """The app over the learner's state; it only reads."""

    async def healthz(_: Request) -> JSONResponse:
        body = {"status": "ok", "doing": status.doing, "step": status.step}
        waits = [asdict(wait) for wait in status.current()]
        return JSONResponse({**body, "for_s": round(status.for_s, 1), "waits": waits})

    async def scrape(_: Request) -> Response:
        if (why := await metrics.refresh(queue)) is not None:
            log.warning("the queue's metrics are missing", error=why)
        return exposition(metrics.registry)

    return without_redirects([Route("/healthz", healthz), Route("/metrics", scrape)])
