"""One served model: the engine with its tokenizer and limits, loaded from a folder, and its state as numbers."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

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
