"""SGLang 0.5.23's HTTP API over the embedded engine. Routes are thin: check, ask the engine, shape the answer.

Differences from the server it follows, on purpose: `/health` is liveness and answers while paused (as SGLang does with
SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION=0), a token id outside the vocabulary is a 400, and an unpaused weight update
has no race with the requests it waited for.
"""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from golongrl.engine import chat, models, requests, responses
from golongrl.engine.body import BodyLimit, Keys
from golongrl.engine.broadcast import WeightReceiver
from golongrl.engine.config import EngineConfig
from golongrl.engine.engine import CacheNotFlushedError
from golongrl.engine.model_server import API_VERSION, Serving, load, rotary
from golongrl.engine.model_server import loads as serving_loads
from golongrl.engine.model_thread import EngineDeadError
from golongrl.engine.models import BadRequestError
from golongrl.engine.scheduler import DuplicateRequestError, QueueFullError, RequestSampling
from golongrl.engine.traces import recorder
from golongrl.engine.weights import EngineWeightsError
from golongrl.serving import body_problem, refusal
from golongrl.telemetry.tracing import Tracing
from golongrl.telemetry.waits import dumps

log = structlog.get_logger()

# A client that went away is noticed this often, and its requests aborted.
_DISCONNECT_POLL_S = 1.0
# Longest body: a batch of many long prompts. JSON is parsed between two answers of /health, so it must not take long.
_BODY_BYTES = 32 << 20
# Bodies of all requests under way together.
_BODIES_BYTES = 4 * _BODY_BYTES
# SGLang's /health_generate gives the one token this long.
_HEALTH_GENERATE_S = 20.0
_NOT_FLUSHED = (
    "Weights were updated, but the cache was not flushed because requests are still running or queued. "
    "Retract or finish them, then call /flush_cache."
)


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
    probes, control, groups = _open_routes(serving), _control_routes(serving), _group_routes(serving)
    for router in (probes, _normal_routes(serving, tracing or Tracing("engine")), control, groups):
        app.include_router(router)
    app.add_middleware(BodyLimit, most=_BODY_BYTES, most_at_once=_BODIES_BYTES)
    # Added last, it comes first.
    app.add_middleware(
        Keys,
        usual=config.api_key,
        admin=config.admin_api_key,
        control=[*_paths(control), *_paths(groups)],
        open_to_all=_paths(probes),
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


def _open_routes(serving: Serving) -> APIRouter:
    """Probes and metrics: no key."""
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


def _normal_routes(serving: Serving, tracing: Tracing) -> APIRouter:
    """Generation and information."""
    router, engine, config = APIRouter(), serving.engine, serving.config

    def traced(call: requests.Call, request: Request) -> requests.Call:
        return replace(call, ended=recorder(tracing, serving.model_path, request.headers))

    @router.post("/generate")
    async def generate(body: models.GenerateBody, request: Request) -> Any:
        # A text is tokenized first, which takes long where the text is.
        call = (
            requests.check(serving, body)
            if body.text is None
            else await asyncio.to_thread(requests.check, serving, body)
        )
        call = traced(call, request)
        if body.stream:
            updates = engine.generate(call.requests, stream=True)
            first = await anext(updates)  # so that a refusal is still a status code
            return StreamingResponse(requests.events(serving, call, first, updates), media_type="text/event-stream")
        answers = await _collected(serving, call, request)
        # Straight to JSON: FastAPI's own encoder walks every log-prob of a long response.
        return Response(status_code=499) if answers is None else JSONResponse(answers)

    @router.post("/v1/chat/completions")
    async def chat_completions(body: chat.ChatBody, request: Request) -> Any:
        call = traced(await asyncio.to_thread(chat.check, serving, body), request)
        if body.stream:
            updates = engine.generate(call.requests, stream=True)
            first = await anext(updates)
            return StreamingResponse(chat.events(serving, body, call, first, updates), media_type="text/event-stream")
        answers = await _collected(serving, call, request)
        return Response(status_code=499) if answers is None else JSONResponse(chat.completion(serving, body, answers))

    @router.get("/model_info")
    async def model_info() -> dict[str, Any]:
        return {
            "model_path": serving.model_path,
            "served_model_name": serving.model_path,
            "tokenizer_path": str(config.model_path),
            "is_generation": True,
            "preferred_sampling_params": None,
            "weight_version": engine.scheduler.version,
            "load_format": "auto",
            "reasoning_parser": None,
            "tool_call_parser": None,
            "disaggregation_mode": "null",
            "has_image_understanding": False,
            "has_audio_understanding": False,
            "model_type": engine.model.config.model_type,
            "architectures": engine.model.config.architectures,
        }

    @router.get("/server_info")
    async def server_info() -> dict[str, Any]:
        return {
            "model_path": serving.model_path,
            "tokenizer_path": str(config.model_path),
            "context_length": serving.context_length,
            "dtype": "float32",
            "device": "cpu",
            "host": config.host,
            "port": config.port,
            "served_model_name": serving.model_path,
            "weight_version": engine.scheduler.version,
            "random_seed": config.seed,
            "max_running_requests": config.max_batch,
            "max_queued_requests": config.max_queue,
            "max_total_tokens": serving.capacity,
            "max_total_num_tokens": serving.capacity,
            "max_prefill_tokens": config.max_prefill_tokens,
            "max_req_input_len": serving.context_length - models.RESERVED_POSITIONS,
            "enable_metrics": True,
            "enable_return_routed_experts": engine.generator.recorder.routing is not None,
            "tp_size": 1,
            "dp_size": 1,
            "pp_size": 1,
            "status": "ready",
            "version": API_VERSION,
        }

    @router.get("/rotary_embedding")
    async def rotary_embedding() -> dict[str, Any]:
        """Of this engine alone: what its positions turn by, so that a client can check a rope scaling."""
        return {"rotary": rotary(engine.model)}

    @router.get("/waits")
    async def waits() -> dict[str, str]:
        """Of this engine alone: what it waits for, for the chain of a stall."""
        return {"waits": dumps(engine.waits())}

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        card = {
            "id": serving.model_path,
            "object": "model",
            "created": int(serving.started),
            "owned_by": "golongrl",
            "root": serving.model_path,
            "parent": None,
            "max_model_len": serving.context_length,
        }
        return {"object": "list", "data": [card]}

    @router.get("/v1/loads")
    async def loads() -> dict[str, Any]:
        return serving_loads(serving)

    return router


async def _collected(serving: Serving, call: requests.Call, request: Request) -> Any:
    """The answers of a call; None where the client went away, and its requests are aborted."""
    task = asyncio.create_task(requests.collect(serving, call))
    try:
        while not (await asyncio.wait({task}, timeout=_DISCONNECT_POLL_S))[0]:
            if await request.is_disconnected():
                return None
        return await task
    finally:
        task.cancel()


def _control_routes(serving: Serving) -> APIRouter:
    """Pausing, aborting and weights: the admin key where there is one."""
    router, engine = APIRouter(), serving.engine

    @router.post("/pause_generation")
    async def pause(body: models.PauseBody) -> dict[str, str]:
        await engine.pause(body.mode)
        return {"message": "Generation paused successfully.", "status": "ok"}

    @router.post("/continue_generation")
    async def resume() -> dict[str, str]:
        await engine.resume()
        return {"message": "Generation continued successfully.", "status": "ok"}

    @router.post("/abort_request")
    async def abort(body: models.AbortBody) -> Response:
        await engine.abort(None if body.abort_all else body.rid)
        return Response()

    @router.api_route("/flush_cache", methods=["GET", "POST"])
    async def flush() -> PlainTextResponse:
        if await engine.flush():
            return PlainTextResponse("Cache flushed.\n")
        return PlainTextResponse("Flush cache failed.\n", 400)

    @router.post("/update_weights_from_disk")
    async def update_from_disk(body: models.UpdateFromDiskBody) -> JSONResponse:
        update = engine.update_from_disk(
            Path(body.model_path), body.weight_version, flush=body.flush_cache, abort_all=body.abort_all_requests
        )
        message = _with_version("Succeeded to update model weights.", body.weight_version)
        # SGLang counts here the requests that its own pause during the update held; pausing is the caller's here.
        done = await _done(update, message, num_paused_requests=0)
        if done.status_code == 200:
            serving.model_path = body.model_path
        return done

    @router.post("/update_weight_version")
    async def update_version(body: models.VersionBody) -> dict[str, Any]:
        if body.abort_all_requests:
            await engine.abort()
        await engine.set_version(body.new_version)
        return {
            "success": True,
            "message": f"Weight version updated to {body.new_version}",
            "new_version": body.new_version,
        }

    @router.post("/weights_checker")
    async def check_weights(_: models.CheckerBody) -> dict[str, Any]:
        checksums = await engine.checksums()
        digest = hashlib.sha256(json.dumps(checksums, sort_keys=True).encode()).hexdigest()
        return responses.weights_checked(checksums, digest)

    return router


def _group_routes(serving: Serving) -> APIRouter:
    """Weights by broadcast."""
    router, engine, receiver = APIRouter(), serving.engine, WeightReceiver()

    @router.post("/init_weights_update_group")
    async def init_group(body: models.InitGroupBody) -> JSONResponse:
        join = asyncio.to_thread(
            receiver.join,
            body.master_address,
            body.master_port,
            body.rank_offset,
            body.world_size,
            body.group_name,
            body.backend,
        )
        return await _done(join, "Succeeded to initialize custom process group.")

    @router.post("/destroy_weights_update_group")
    async def destroy_group(body: models.GroupBody) -> JSONResponse:
        leave = asyncio.to_thread(receiver.leave, body.group_name)
        return await _done(leave, "Succeeded to destroy custom process group.")

    @router.post("/begin_weight_update")
    async def begin() -> JSONResponse:
        return await _done(asyncio.to_thread(receiver.begin), "Success")

    @router.post("/end_weight_update")
    async def end() -> JSONResponse:
        return await _done(asyncio.to_thread(receiver.end), "Success")

    @router.post("/update_weights_from_distributed")
    async def update_from_group(body: models.UpdateDistributedBody) -> JSONResponse:
        update = engine.update_from_group(
            lambda: receiver.receive(engine.model, body.group_name, body.names, body.dtypes, body.shapes),
            body.weight_version,
            flush=body.flush_cache,
            abort_all=body.abort_all_requests,
        )
        return await _done(update, _with_version("Succeeded to update parameter online.", body.weight_version))

    return router


def _with_version(message: str, version: str | None) -> str:
    return message if version is None else f"{message} Weight version updated to {version}."


async def _done(work: Coroutine[Any, Any, None], message: str, **more: int) -> JSONResponse:
    """Await a change of weights or groups and say how it went, in SGLang's words."""
    try:
        await work
    except EngineWeightsError as error:
        return JSONResponse({"success": False, "message": str(error), **more}, 400)
    except CacheNotFlushedError:
        return JSONResponse({"success": False, "message": _NOT_FLUSHED, **more}, 400)
    return JSONResponse({"success": True, "message": message, **more})
