"""Probes and metrics: no key."""

import asyncio

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST

from golongrl.engine import models
from golongrl.engine.model_server import Serving
from golongrl.engine.model_thread import EngineDeadError
from golongrl.engine.scheduler import QueueFullError, RequestSampling

# SGLang's /health_generate gives the one token this long.
_HEALTH_GENERATE_S = 20.0


def probes(serving: Serving) -> APIRouter:
    """The routes that anybody may ask."""
    router, engine = APIRouter(), serving.engine

    @router.get("/health")
    async def health() -> Response:
        return Response(status_code=200 if engine.alive else 503)

    @router.get("/ready")
    async def ready() -> Response:
        return Response(status_code=200 if engine.alive and not engine.paused else 503)

    @router.get("/health_generate")
    async def health_generate() -> Response:
        requests = models.make_requests([0], None, RequestSampling(max_new_tokens=1), 1, 0, 0)
        try:
            async with asyncio.timeout(_HEALTH_GENERATE_S):
                async for _ in engine.generate(requests, stream=False):
                    pass
        except (TimeoutError, EngineDeadError, QueueFullError):
            return Response(status_code=503)
        return Response()

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(serving.metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return router
