"""SGLang 0.5.23's HTTP API over the embedded engine. Routes are thin: check, ask the engine, shape the answer.

Differences from the server it follows, on purpose: `/health` is liveness and answers while paused (as SGLang does with
SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0), a token id outside the vocabulary is a 400, and an unpaused weight update
has no race with the requests it waited for.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from golongrl.engine import responses
from golongrl.engine.api.control import control, weight_groups
from golongrl.engine.api.generation import generation
from golongrl.engine.api.information import information
from golongrl.engine.api.probes import probes
from golongrl.engine.config import EngineConfig
from golongrl.engine.keys import Keys
from golongrl.engine.model_server import API_VERSION, load
from golongrl.engine.model_thread import EngineDeadError
from golongrl.engine.models import BadRequestError
from golongrl.engine.scheduler import DuplicateRequestError, QueueFullError
from golongrl.request_bodies import BodyLimit
from golongrl.serving import body_problem, refusal
from golongrl.telemetry.tracing import Tracing

log = structlog.get_logger()

# Longest body: a batch of many long prompts. JSON is parsed between two answers of /health, so it must not take long.
_BODY_BYTES = 32 << 20
# Bodies of all requests under way together.
_BODIES_BYTES = 4 * _BODY_BYTES


def create_app(
    config: EngineConfig, on_death: Callable[[], None] = lambda: None, tracing: Tracing | None = None
) -> FastAPI:
    """The application; the model is loaded at once, the model thread runs as long as the lifespan.

    `tracing` gets the spans of each request that comes with a trace.

    Raises:
        ModelFolderError: `config.model_path` cannot be served.
    """
    serving = load(config, on_death)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        serving.engine.start()
        log.info("engine ready", model=serving.model_path, version=config.weight_version, port=config.port)
        yield
        await serving.engine.stop()

    app = FastAPI(
        title="GoLongRL engine", version=API_VERSION, lifespan=lifespan, openapi_url=None, redirect_slashes=False
    )
    app.state.serving = serving
    open_to_all, controlling = probes(serving), [control(serving), weight_groups(serving)]
    usual = [generation(serving, tracing or Tracing("engine")), information(serving)]
    for router in (open_to_all, *usual, *controlling):
        app.include_router(router)
    app.add_middleware(BodyLimit, most=_BODY_BYTES, most_at_once=_BODIES_BYTES, too_long=400)
    # Added last, it comes first.
    app.add_middleware(
        Keys,
        usual=config.api_key,
        admin=config.admin_api_key,
        control=[path for router in controlling for path in _paths(router)],
        open_to_all=_paths(open_to_all),
    )
    _error_handlers(app)
    return app


def _paths(router: APIRouter) -> list[str]:
    return [route.path for route in router.routes if isinstance(route, APIRoute)]


def _error_handlers(app: FastAPI) -> None:
    def answer(status: int, body: Callable[[Any], Any]) -> Callable[[Request, Exception], Response]:
        # In ASCII: a message may quote what the request brought and UTF-8 has not, one half of a surrogate pair.
        return lambda _, error: Response(json.dumps(body(error)), status, media_type="application/json")

    app.add_exception_handler(BadRequestError, answer(400, lambda error: {"error": error.args[0]}))
    app.add_exception_handler(
        DuplicateRequestError,
        answer(400, lambda error: {"error": {"message": f"Duplicate request ID detected: {error.args[0]}"}}),
    )
    app.add_exception_handler(
        RequestValidationError, answer(400, lambda error: responses.bad_request(body_problem(error.errors())))
    )
    app.add_exception_handler(
        HTTPException,
        # As SGLang answers for a path or method that there is not.
        lambda request, error: answer(error.status_code, _http_refusal)(request, error),
    )
    app.add_exception_handler(
        QueueFullError,
        answer(
            503,
            lambda _: {
                "object": "error", "message": "The request queue is full.", "type": "503", "param": None, "code": 503,
            },
        ),
    )  # fmt: skip
    app.add_exception_handler(
        EngineDeadError, answer(500, lambda _: {"error": {"message": "The model thread has failed; see the log."}})
    )


def _http_refusal(error: HTTPException) -> dict[str, Any]:
    return responses.bad_request(refusal(error)) if error.status_code == 400 else {"detail": error.detail}
