"""What a client may ask of the model, the server and their load: the ordinary key."""

import time
from datetime import UTC, datetime
from typing import Any

import torch
from fastapi import APIRouter
from transformers import PreTrainedModel

from golongrl.engine import models
from golongrl.engine.model_server import API_VERSION, Serving
from golongrl.telemetry.waits import dumps


def information(serving: Serving) -> APIRouter:
    """The routes that tell and change nothing."""
    router, engine = APIRouter(), serving.engine

    @router.get("/model_info")
    async def model_info() -> dict[str, Any]:
        return _model_info(serving)

    @router.get("/server_info")
    async def server_info() -> dict[str, Any]:
        return _server_info(serving)

    @router.get("/rotary_embedding")
    async def rotary_embedding() -> dict[str, Any]:
        """Of this engine alone: what its positions turn by, so that a client can check a rope scaling."""
        return {"rotary": _rotary(engine.model)}

    @router.get("/waits")
    async def waits() -> dict[str, str]:
        """Of this engine alone: what it waits for, for the chain of a stall."""
        return {"waits": dumps(engine.waits())}

    @router.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_card(serving)]}

    @router.get("/v1/loads")
    async def loads() -> dict[str, Any]:
        return _loads(serving)

    return router


def _model_info(serving: Serving) -> dict[str, Any]:
    engine = serving.engine
    return {
        "model_path": serving.model_path,
        "served_model_name": serving.model_path,
        "tokenizer_path": str(serving.config.model_path),
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


def _server_info(serving: Serving) -> dict[str, Any]:
    engine, config = serving.engine, serving.config
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


def _model_card(serving: Serving) -> dict[str, Any]:
    return {
        "id": serving.model_path,
        "object": "model",
        "created": int(serving.started),
        "owned_by": "golongrl",
        "root": serving.model_path,
        "parent": None,
        "max_model_len": serving.context_length,
    }


def _rotary(model: PreTrainedModel) -> dict[str, Any] | None:
    """What the model's positions turn by, for a client that checks its rope scaling; None where it has no such part."""
    part = getattr(model.base_model, "rotary_emb", None)
    frequencies = getattr(part, "inv_freq", None)
    if not isinstance(frequencies, torch.Tensor):
        return None
    return {"inv_freq": frequencies.tolist(), "attention_factor": float(getattr(part, "attention_scaling", 1.0))}


def _loads(serving: Serving) -> dict[str, Any]:
    """The answer of `/v1/loads`: one data-parallel rank, with the fields that mean something here."""
    engine = serving.engine
    scheduler, generator = engine.scheduler, engine.generator
    running, waiting, used = len(scheduler.running), len(scheduler.waiting), generator.used_tokens
    bytes_of = {name: sum(tensor.nbytes for tensor in tensors) for name, tensors in engine.memory().items()}
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "version": API_VERSION,
        "accelerator": None,
        "num_accelerators": 1,
        "loads": [
            {
                "timestamp": time.time(),
                "dp_rank": 0,
                "num_running_reqs": running,
                "num_waiting_reqs": waiting,
                "num_waiting_uncached_tokens": sum(len(request.tokens) for request in tuple(scheduler.waiting)),
                "num_used_tokens": used,
                "num_total_tokens": used,
                "max_total_num_tokens": serving.capacity,
                "max_running_requests": serving.config.max_batch,
                "token_usage": used / serving.capacity,
                "gen_throughput": serving.metrics.throughput.value,
                "cache_hit_rate": serving.metrics.cache_hit_rate,
                "utilization": running / serving.config.max_batch,
                "memory": {
                    "weight_gb": bytes_of["weight"] / 2**30,
                    "kv_cache_gb": bytes_of["kv_cache"] / 2**30,
                    "graph_gb": 0.0,
                    "token_capacity": serving.capacity,
                },
                "queues": {
                    "waiting": waiting,
                    "grammar": 0,
                    "paused": running if scheduler.paused else 0,
                    "retracted": sum(request.retractions > 0 for request in tuple(scheduler.waiting)),
                },
            }
        ],
    }
