"""Generation: `/generate` as SGLang has it, and chat completions as OpenAI has them.

A client that goes away has its requests aborted.
"""

import asyncio
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from golongrl.engine import chat, models, requests
from golongrl.engine.model_server import Serving
from golongrl.engine.traces import recorder
from golongrl.telemetry.tracing import Tracing

# A client that went away is noticed this often, and its requests aborted.
_DISCONNECT_POLL_S = 1.0


def generation(serving: Serving, tracing: Tracing) -> APIRouter:
    """The routes that generate: the ordinary key."""
    router, engine = APIRouter(), serving.engine

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
