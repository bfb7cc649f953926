"""The worker's own HTTP endpoints: /healthz (the process lives), /readyz (its engine can be counted on), /metrics."""

from dataclasses import asdict

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from golongrl.rollout.observe.state import State, not_ready
from golongrl.serving import exposition, without_redirects


def create_app(state: State, max_staleness: int, registry: CollectorRegistry) -> Starlette:
    """The app over a worker's state; it reads, and never changes anything."""

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "phase": state.phase})

    async def readyz(_: Request) -> JSONResponse:
        reasons = not_ready(state, max_staleness)
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "phase": state.phase,
            "waiting_for": state.waiting_for,
            "engine_version": state.engine_version,
            "announced_version": state.announced_version,
            "waits": [asdict(wait) for wait in state.current()],
        }
        return JSONResponse(body, status_code=503 if reasons else 200)

    async def metrics(request: Request) -> Response:
        return exposition(registry, request.headers.get("accept", ""))

    return without_redirects([Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])
