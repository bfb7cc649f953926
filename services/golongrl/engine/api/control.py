"""Control: pausing, aborting, and new weights from disk or by broadcast. The admin key, where there is one."""

import asyncio
import hashlib
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from golongrl.engine import models, responses
from golongrl.engine.broadcast import WeightReceiver
from golongrl.engine.engine import CacheNotFlushedError
from golongrl.engine.model_server import Serving
from golongrl.engine.weights import EngineWeightsError

_NOT_FLUSHED = (
    "Weights were updated, but the cache was not flushed because requests are still running or queued. "
    "Retract or finish them, then call /flush_cache."
)


def control(serving: Serving) -> APIRouter:
    """Pausing, aborting, and weights from disk."""
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


def weight_groups(serving: Serving) -> APIRouter:
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
