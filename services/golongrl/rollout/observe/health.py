"""The worker's own HTTP endpoints: /healthz (the process lives), /readyz (its engine can be counted on), /metrics."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from golongrl.rollout.observe.state import State, not_ready


def create_app(state: State, eta: int, registry: CollectorRegistry) -> Starlette:
    """The app over a worker's state; it reads, and never changes anything."""

    async def healthz(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "phase": state.phase})

    async def readyz(_: Request) -> JSONResponse:
        reasons = not_ready(state, eta)
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "phase": state.phase,
            "waiting_for": state.waiting_for,
            "engine_version": state.engine_version,
            "announced_version": state.announced_version,
        }
        return JSONResponse(body, status_code=503 if reasons else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    paths: dict[str, Callable[[Request], object]] = {"/healthz": healthz, "/readyz": readyz, "/metrics": metrics}
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in paths.items()])


class Server(uvicorn.Server):
    """uvicorn that leaves the process's signals to the worker, and answers until the worker has ended."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def server(app: Starlette) -> Server:
    """A server for `app`, to be run with `serve(sockets=...)` and ended by `should_exit`."""
    return Server(uvicorn.Config(app, log_config=None, log_level="warning", access_log=False, lifespan="off"))
