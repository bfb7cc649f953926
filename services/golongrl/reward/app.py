"""The scoring service: `POST /v1/score` in front of a pool of expendable worker processes.

Invariants:
- every accepted item gets exactly one result, in the order of the request; what could not be scored is `unscored`
  with the reason, never 0;
- a batch is accepted whole or not at all (401, 408, 413, 422, 429, 503), and scoring changes nothing, so that any
  request may be repeated;
- nothing an item does reaches the event loop: `/healthz` answers while every worker hangs.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import golongrl
from golongrl import tasks
from golongrl.request_bodies import BodyLimit
from golongrl.reward.config import RewardConfig
from golongrl.reward.gold_check import answers_of
from golongrl.reward.items import Answer, Lost
from golongrl.reward.metrics import RewardMetrics
from golongrl.reward.models import Health, Problem, ScoreRequest, ScoreResponse, ScoreResult
from golongrl.reward.pool import PoolFullError, PoolNotReadyError, WorkerPool
from golongrl.reward.reading import RefusedError, ScoreBatch, read_batch, refuse, result_of
from golongrl.serving import exposition
from golongrl.tasks import Task
from golongrl.telemetry.tracing import HEADER, TraceContext, Tracing
from golongrl.telemetry.waits import dumps

log = structlog.get_logger()

PRELOAD = ("golongrl.reward.preload",)
REQUEST_ID = "X-Request-Id"
# Longest bodies that are held together, counted past their first megabyte: 64 MB of a pod's one GB.
_BODIES_AT_ONCE = 8
_CLIENT_GONE = 499  # nginx's number for it; nobody reads this answer

_PROBLEMS: dict[int, str] = {
    401: "The bearer token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "The body, the batch or an item is too large; `detail` says which, and the limit.",
    422: "The request is not understood; `errors` names the item and the field.",
    429: "The queue is full. Repeat after `Retry-After` seconds.",
    503: "No worker is warm (the service is starting, stopping, or cannot start workers), or too many long bodies are "
    "under way. Repeat after `Retry-After`.",
}


def create_app(
    config: RewardConfig,
    *,
    score: Callable[..., Any] = tasks.score,
    preload: Sequence[str] = PRELOAD,
    tracing: Tracing | None = None,
) -> FastAPI:
    """The ASGI application; its lifespan starts and stops the workers.

    `score` is what workers run, with the signature of `golongrl.tasks.score`; it must be picklable by name, and
    `preload` names modules to import before workers are forked. `tracing` gets a span of each request with a trace.
    """
    pool = WorkerPool(
        score,
        workers=config.worker_count,
        max_queued=config.max_queued,
        preload=preload,
        memory_bytes=config.worker_memory_bytes,
        recycle_after=config.recycle_after,
        start_timeout_s=config.start_timeout_s,
    )
    metrics = RewardMetrics(pool)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await pool.start()
        log.info("scoring service starts", workers=config.worker_count, deadline_s=config.deadline_s)
        yield
        await pool.stop()  # the server has already waited for the requests in flight
        log.info("scoring service stopped", workers_ended=dict(pool.stats.ended))

    app = FastAPI(
        title="GoLongRL reward service",
        version=golongrl.__version__,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )

    _error_handlers(app, metrics)
    app.add_middleware(BodyLimit, most=config.max_body_bytes, most_at_once=_BODIES_AT_ONCE * config.max_body_bytes)
    app.include_router(_scoring(pool, config, metrics, tracing))
    app.include_router(_probes(pool, config.worker_count, metrics))
    app.openapi = lambda: _openapi(app, config)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    app.state.pool = pool
    return app


def _error_handlers(app: FastAPI, metrics: RewardMetrics) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_request: Request, error: RefusedError) -> JSONResponse:
        metrics.refused.labels(code=str(error.status)).inc()
        return JSONResponse(error.problem.model_dump(), status_code=error.status, headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    async def disconnected(_request: Request, _error: ClientDisconnect) -> Response:
        log.info("a client disconnected before its request was complete")
        return Response(status_code=_CLIENT_GONE)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(Problem(detail=str(error.detail)).model_dump(), error.status_code, error.headers)


def _scoring(pool: WorkerPool, config: RewardConfig, metrics: RewardMetrics, tracing: Tracing | None) -> APIRouter:
    """What needs the token, if there is one."""
    router = APIRouter()

    @router.post(
        "/v1/score",
        response_model=ScoreResponse,
        summary="Score a batch of responses",
        dependencies=[Depends(_token_guard(config))] if config.token else [],
        responses={code: {"model": Problem, "description": text} for code, text in _problems(config).items()},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ScoreRequest"}}},
            }
        },
    )
    async def post_score(request: Request, response: Response) -> Any:
        began = time.time()
        context = TraceContext.read(request.headers.get(HEADER)) if tracing is not None and tracing.on else None
        if context is not None:
            # For every line of this request, which has a task of its own.
            structlog.contextvars.bind_contextvars(trace_id=context.trace_id)
        batch = read_batch(await _read_body(request, config), config)
        answers = await _compute(request, pool, batch)
        if answers is None:
            return Response(status_code=_CLIENT_GONE)
        results = [
            result_of(item.id, task, answer)
            for item, task, answer in zip(batch.request.items, batch.tasks, answers, strict=True)
        ]
        _count(metrics, batch.tasks, answers, results)
        if tracing is not None and context is not None:
            unscored = sum(result.score is None for result in results)
            told = {"rl.reward.batch_size": len(results), "rl.reward.unscored": unscored}
            tracing.record("rl.reward.score", context, began, time.time(), told)
        if name := request.headers.get(REQUEST_ID):
            response.headers[REQUEST_ID] = name
        return ScoreResponse(results=results)

    return router


def _probes(pool: WorkerPool, workers: int, metrics: RewardMetrics) -> APIRouter:
    """What needs no token."""
    router = APIRouter()

    @router.get("/healthz", response_model=Health, summary="The process is alive")
    async def healthz() -> Health:
        return Health(status="ok", workers=pool.warm, detail="alive", waits=dumps(pool.waits()))

    @router.get("/readyz", response_model=Health, summary="Workers are warm", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        detail = f"{pool.warm} of {workers} workers are warm"
        if pool.warm:
            return Health(status="ok", workers=pool.warm, detail=detail)
        response.status_code = 503
        return Health(
            status="starting", workers=0, detail=detail + (", and none can be started" if pool.broken else "")
        )

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {}}}},
    )
    async def get_metrics(request: Request) -> Response:
        return exposition(metrics.registry, request.headers.get("accept", ""))

    return router


def _problems(config: RewardConfig) -> dict[int, str]:
    return {code: text for code, text in _PROBLEMS.items() if code != 401 or config.token}


def _token_guard(config: RewardConfig) -> Callable[..., None]:
    expected = config.token.get_secret_value().encode() if config.token else b""
    bearer = HTTPBearer(auto_error=False, description="The service's token (GOLONGRL_REWARD_TOKEN).")

    def guard(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        given = credentials.credentials.encode("utf-8", "replace") if credentials else b""
        if not secrets.compare_digest(given, expected):
            problem = Problem(
                detail="missing or wrong bearer token: send Authorization: Bearer <GOLONGRL_REWARD_TOKEN>"
            )
            raise RefusedError(401, problem, {"WWW-Authenticate": "Bearer"})

    return guard


async def _read_body(request: Request, config: RewardConfig) -> bytes:
    """The whole body, or a refusal once `BodyLimit` takes no more of it or it is too late."""
    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await request.body()
    except TimeoutError:
        refuse(408, f"the body did not arrive within {config.body_timeout_s:g} s")
    except HTTPException as error:  # the limit's
        raise RefusedError(error.status_code, Problem(detail=error.detail), error.headers) from error


async def _compute(request: Request, pool: WorkerPool, batch: ScoreBatch) -> Sequence[Answer] | None:
    """The pool's answers, or None once the client is gone: its waiting items are then dropped, not computed."""
    try:
        futures = pool.submit(batch.payloads, batch.deadline_s)
    except PoolFullError as error:
        problem = Problem(detail=f"the queue is full ({error}): repeat after {error.retry_after_s} s")
        raise RefusedError(429, problem, {"Retry-After": str(error.retry_after_s)}) from error
    except PoolNotReadyError as error:
        raise RefusedError(503, Problem(detail=f"not ready: {error}"), {"Retry-After": "1"}) from error
    answered = asyncio.create_task(answers_of(pool, batch, futures))
    gone = asyncio.create_task(_client_gone(request))
    try:
        either: set[asyncio.Task[Any]] = {answered, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        return answered.result() if answered.done() else None
    finally:
        unneeded: list[asyncio.Future[Any]] = [answered, gone, *futures]
        for future in unneeded:
            future.cancel()


async def _client_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _count(metrics: RewardMetrics, of: list[Task], answers: Sequence[Answer], results: list[ScoreResult]) -> None:
    for task, answer, result in zip(of, answers, results, strict=True):
        metrics.scores.labels(task=task.type, status=result.status).inc()
        metrics.waited.observe(answer.waited_s)
        metrics.computed.labels(task=task.type).observe(answer.computed_s)
        if isinstance(answer.value, Lost):
            metrics.lost.labels(task=task.type, kind=answer.value.kind).inc()


def _openapi(app: FastAPI, config: RewardConfig) -> dict[str, Any]:
    """FastAPI's schema plus the request model, which the endpoint reads itself, and the configured limits."""
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes, description=__doc__)
        _, definitions = models_json_schema([(ScoreRequest, "validation")], ref_template="#/components/schemas/{model}")
        models: dict[str, Any] = definitions["$defs"]
        models["ScoreRequest"]["properties"]["items"]["maxItems"] = config.max_batch
        number = models["ScoreRequest"]["properties"]["deadline_s"]["anyOf"][0]
        number["maximum"] = config.max_deadline_s
        schema["components"]["schemas"] |= models
        _describe_headers(schema["paths"]["/v1/score"]["post"]["responses"])
        app.openapi_schema = schema
    return app.openapi_schema


def _describe_headers(responses: Mapping[str, Any]) -> None:
    wait = {
        "Retry-After": {"description": "Seconds to wait before repeating.", "schema": {"type": "integer", "minimum": 1}}
    }
    responses["429"]["headers"] = responses["503"]["headers"] = wait
