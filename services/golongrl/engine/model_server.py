"""One served model: the engine with its tokenizer and limits, loaded from a folder, and its state as numbers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from golongrl.engine import metrics as engine_metrics
from golongrl.engine.config import EngineConfig
from golongrl.engine.engine import EmbeddedEngine
from golongrl.engine.metrics import EngineMetrics
from golongrl.engine.weights import load_model

# The server version whose API this is.
API_VERSION = "0.5.23"


@dataclass(slots=True)
class Serving:
    """What the routes share: the engine and what is known of its model."""

    config: EngineConfig
    engine: EmbeddedEngine
    tokenizer: PreTrainedTokenizerBase
    metrics: EngineMetrics
    model_path: str
    context_length: int
    vocabulary: int
    longest_token: int
    """Characters of the vocabulary's longest token."""
    eos_ids: frozenset[int]
    started: float

    @property
    def capacity(self) -> int:
        """Tokens the cache can hold."""
        return self.config.max_batch * self.context_length

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Token ids as text."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))


def load(config: EngineConfig, on_death: Callable[[], None]) -> Serving:
    """Load the model of `config`; the engine is not started yet.

    Raises:
        ModelFolderError: the folder cannot be served.
    """
    torch.set_num_threads(config.threads)
    model, tokenizer = load_model(config.model_path)
    text_config = model.config.get_text_config()
    context = config.context_length or int(text_config.max_position_embeddings)
    metrics = EngineMetrics(str(config.model_path))
    eos = {tokenizer.eos_token_id}
    configured = model.generation_config.eos_token_id
    eos |= set(configured) if isinstance(configured, list) else {configured}
    engine = EmbeddedEngine(
        model,
        lambda ids: str(tokenizer.decode(list(ids))),
        metrics,
        config,
        version=config.weight_version,
        on_death=on_death,
    )
    serving = Serving(
        config=config,
        engine=engine,
        tokenizer=tokenizer,
        metrics=metrics,
        model_path=str(config.model_path),
        context_length=context,
        vocabulary=int(text_config.vocab_size),
        longest_token=max(map(len, tokenizer.get_vocab()), default=1),
        eos_ids=frozenset(int(token) for token in eos if token is not None),
        started=time.time(),
    )
    _gauges(serving)
    return serving


def _gauges(serving: Serving) -> None:
    scheduler, generator, metrics = serving.engine.scheduler, serving.engine.generator, serving.metrics
    metrics.gauge(engine_metrics.RUNNING, lambda: len(scheduler.running))
    metrics.gauge(engine_metrics.WAITING, lambda: len(scheduler.waiting))
    metrics.gauge(engine_metrics.PAUSED, lambda: len(scheduler.live) if scheduler.paused else 0)
    metrics.gauge(engine_metrics.TOKEN_USAGE, lambda: generator.used_tokens / serving.capacity)
    metrics.gauge(engine_metrics.CACHE_HIT_RATE, lambda: metrics.cache_hit_rate)
    metrics.gauge(engine_metrics.THROUGHPUT, lambda: metrics.throughput.value)
    metrics.gauge(engine_metrics.CAPACITY, lambda: serving.capacity)


def rotary(model: PreTrainedModel) -> dict[str, Any] | None:
    """What the model's positions turn by, for a client that checks its rope scaling; None where it has no such part."""
    part = getattr(model.base_model, "rotary_emb", None)
    frequencies = getattr(part, "inv_freq", None)
    if not isinstance(frequencies, torch.Tensor):
        return None
    return {"inv_freq": frequencies.tolist(), "attention_factor": float(getattr(part, "attention_scaling", 1.0))}


def loads(serving: Serving) -> dict[str, Any]:
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
