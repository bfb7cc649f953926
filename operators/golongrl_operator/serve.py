"""The operator's HTTP endpoints: /healthz (whether passes still run) and /metrics. They read and change nothing."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from golongrl.serving import exposition, without_redirects


def create_app(age: Callable[[], float], latest_s: float, registry: CollectorRegistry) -> Starlette:
    """The app of one loop.

    Args:
        age: seconds since its last pass, whether it succeeded or not.
        latest_s: an older pass means that the loop hangs: /healthz answers 503.
    """

    async def healthz(_: Request) -> JSONResponse:
        seconds = age()
        return JSONResponse({"seconds_since_pass": round(seconds, 1)}, status_code=503 if seconds > latest_s else 200)

    async def metrics(_: Request) -> Response:
        return exposition(registry)

    return without_redirects([Route("/healthz", healthz), Route("/metrics", metrics)])
