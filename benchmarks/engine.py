"""Tokens per second of the embedded engine by batch size: `python benchmarks/engine.py [MODEL_FOLDER] [--threads N]`.

Without a folder it uses a random model of the quickstart's size (Qwen3, 0.92M parameters). Measures what the rollout
worker gets: prefill shared by the responses of a prompt, sampling, log-probs and scheduling included, HTTP not.
"""

import argparse
import asyncio
import time
from pathlib import Path

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from golongrl.engine.config import Limits
from golongrl.engine.engine import EmbeddedEngine
from golongrl.engine.metrics import EngineMetrics
from golongrl.engine.sampling import seed_of
from golongrl.engine.scheduler import GenerationRequest, RequestSampling
from golongrl.engine.weights import load_model

PROMPT_TOKENS = 90
RESPONSE_TOKENS = 48


def quickstart_sized() -> Qwen3ForCausalLM:
    """The quickstart's shape with random weights."""
    config = Qwen3Config(
        vocab_size=2048,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config).float()


async def measure(engine: EmbeddedEngine, batch: int, rounds: int) -> float:
    """Tokens per second of `rounds` rounds of `batch` responses to one prompt."""
    start = time.perf_counter()
    for turn in range(rounds):
        requests = [
            GenerationRequest(
                f"{turn}-{i}",
                tuple(range(1, PROMPT_TOKENS + 1)),
                RequestSampling(RESPONSE_TOKENS),
                seed=seed_of(turn, i),
            )
            for i in range(batch)
        ]
        async for _ in engine.generate(requests, stream=False):
            pass
    return rounds * batch * RESPONSE_TOKENS / (time.perf_counter() - start)


async def main() -> None:
    """Print one line a batch size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load_model(options.folder)[0] if options.folder else quickstart_sized()
    engine = EmbeddedEngine(model, lambda _: "", EngineMetrics("benchmark"), Limits(), version="0")
    engine.start()
    for batch in (1, 8, 32):
        await measure(engine, batch, 1)
        print(f"batch {batch:3d}: {await measure(engine, batch, 5):8.0f} tokens/s")
    await engine.stop()


if __name__ == "__main__":
    asyncio.run(main())
