"""A loaded tiny model, and engines over it."""

import copy
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from golongrl.engine.config import Limits
from golongrl.engine.engine import EmbeddedEngine
from golongrl.engine.metrics import EngineMetrics
from golongrl.engine.scheduler import GenerationRequest, RequestSampling
from golongrl.engine.snapshot import RequestSnapshot
from golongrl.engine.weights import load_model


@dataclass
class Rig:
    """An engine under test, and how to ask it for something."""

    engine: EmbeddedEngine
    model: PreTrainedModel
    chunks: list[RequestSnapshot] = field(default_factory=list)

    async def run(self, *requests: GenerationRequest, stream: bool = False) -> list[RequestSnapshot]:
        """Run requests to their end; the last snapshot of each."""
        last: dict[int, RequestSnapshot] = {}
        async for index, snapshot in self.engine.generate(requests, stream=stream):
            self.chunks.append(snapshot)
            last[index] = snapshot
        return [last[index] for index in range(len(requests))]


def request(rid: str, prompt: list[int], **options: Any) -> GenerationRequest:
    """A request; `seed` and every field of Sampling by name."""
    seed = options.pop("seed", 0)
    return GenerationRequest(
        rid=rid, prompt=tuple(prompt), sampling=RequestSampling(**{"max_new_tokens": 8, **options}), seed=seed
    )


@torch.no_grad()
def forward_logprobs(
    model: PreTrainedModel, prompt: tuple[int, ...] | list[int], output: tuple[int, ...], temperature: float = 1.0
) -> list[float]:
    """Log-probs of `output` after `prompt` by one plain pass of the Hugging Face model: what any engine must report."""
    ids = torch.tensor([[*prompt, *output]])
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    logprobs = torch.log_softmax(logits / temperature, dim=-1)
    return logprobs[torch.arange(len(output)), torch.tensor(output)].tolist()


@pytest.fixture(scope="session")
def loaded(tiny_model: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The tiny model and its tokenizer. Shared: change copies only."""
    return load_model(tiny_model)


@pytest.fixture
async def rig(
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase],
) -> AsyncIterator[Callable[..., Rig]]:
    """Starts engines over copies of the tiny model; they are stopped after the test."""
    model, tokenizer = loaded
    async with AsyncExitStack() as stack:

        def start(max_batch: int = 8, max_queue: int = 64, **options: Any) -> Rig:
            mine = copy.deepcopy(model)
            limits = Limits(max_batch=max_batch, max_queue=max_queue)
            settings = {"version": "0", **options}
            engine = EmbeddedEngine(
                mine, lambda ids: str(tokenizer.decode(list(ids))), EngineMetrics("tiny"), limits, **settings
            )
            engine.start()
            stack.push_async_callback(engine.stop)
            return Rig(engine, mine)

        yield start
