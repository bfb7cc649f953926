"""The operator's HTTP endpoints: /healthz (passes go on) and /metrics. They read, and never change anything."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from golongrl.errors import InputError


def create_app(age: Callable[[], float], latest_s: float, registry: CollectorRegistry) -> web.Application:
    """The app of one loop.

    Args:
        age: seconds since its last pass, whatever came of it.
        latest_s: from then on the loop is dead, and the answer 503.
    """

    async def healthz(_: web.Request) -> web.Response:
        seconds = age()
        body = {"seconds_since_pass": round(seconds, 1)}
        return web.json_response(body, status=503 if seconds > latest_s else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    return app


@asynccontextmanager
async def served(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    """Serve `app` meanwhile.

    Raises:
        InputError: the address cannot be bound.
    """
    runner = web.AppRunner(app, handle_signals=False, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise InputError(f"--host {host} --port {port}: {error.strerror}") from error
        yield
    finally:
        await runner.cleanup()
