"""The engine tells which experts each token was sent to: those that a plain pass of the model chooses."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig, Limits
from golongrl.engine.engine import EmbeddedEngine
from golongrl.engine.metrics import EngineMetrics
from golongrl.engine.routes import RouteRecorder
from golongrl.engine.snapshot import RequestSnapshot
from golongrl.engine.weights import load_model

from .conftest import Rig, request

PROMPTS = [[10, 11, 12, 13, 14], [20, 21], list(range(30, 60))]


def decoded(encoded: str | None, layers: int = 2, top_k: int = 2) -> np.ndarray:
    assert encoded is not None
    return np.frombuffer(base64.b64decode(encoded), np.int32).reshape(-1, layers, top_k)


def of(got: RequestSnapshot, layers: int = 2) -> np.ndarray:
    assert got.routes is not None
    return decoded(got.routes.encoded(), layers)


@torch.no_grad()
def plain_routes(model: PreTrainedModel, tokens: list[int]) -> np.ndarray:
    """Experts of every token by one pass over the whole sequence."""
    logits = model(input_ids=torch.tensor([tokens]), output_router_logits=True).router_logits
    return np.stack([torch.topk(layer, 2, dim=-1).indices.numpy() for layer in logits], axis=1)


def expected(model: PreTrainedModel, prompt: list[int], got: RequestSnapshot) -> np.ndarray:
    return plain_routes(model, [*prompt, *got.output])[:-1]


@pytest.fixture
async def mixture(tiny_mixture: Path) -> AsyncIterator[Rig]:
    """An engine over the tiny mixture of experts; its `model` is another copy, to compute with meanwhile."""
    model, tokenizer = load_model(tiny_mixture)
    engine = EmbeddedEngine(
        model, lambda ids: str(tokenizer.decode(list(ids))), EngineMetrics("tiny"), Limits(max_batch=8), version="0"
    )
    engine.start()
    yield Rig(engine, load_model(tiny_mixture)[0])
    await engine.stop()


def asking(rid: str, prompt: list[int], start: int | None = 0, **options: Any) -> Any:
    mine = request(rid, prompt, **options)
    mine.routes_from = start
    return mine


async def test_routes_are_those_of_a_plain_pass(mixture: Rig) -> None:
    # Of different lengths in one batch, and one twice, whose prompt is computed once.
    asked = [asking(f"r{i}", prompt, seed=i, max_new_tokens=5 + 3 * i) for i, prompt in enumerate(PROMPTS)]
    twin = asking("twin", PROMPTS[0], seed=9, max_new_tokens=12)
    answers = await mixture.run(*asked, twin)
    for prompt, got in zip([*PROMPTS, PROMPTS[0]], answers, strict=True):
        routes = of(got)
        assert len(routes) == len(prompt) + len(got.output) - 1
        np.testing.assert_array_equal(routes, expected(mixture.model, prompt, got))


async def test_the_answer_begins_where_it_was_asked_to(mixture: Rig) -> None:
    whole, tail, none, last = await mixture.run(
        asking("whole", PROMPTS[2]), asking("tail", PROMPTS[2], 30), asking("none", PROMPTS[2], None),
        asking("last", PROMPTS[1], 2, max_new_tokens=1),
    )  # fmt: skip
    assert whole.output == tail.output == none.output
    np.testing.assert_array_equal(of(whole)[30:], of(tail))
    assert none.routes is None
    assert of(last).shape == (0, 2, 2)


async def test_a_retracted_request_keeps_the_routes_it_was_sampled_with(mixture: Rig, tiny_mixture_next: Path) -> None:
    task = asyncio.create_task(mixture.run(asking("a", PROMPTS[2], seed=1, max_new_tokens=60), stream=True))
    async with asyncio.timeout(120):
        while not mixture.engine.scheduler.running:
            await asyncio.sleep(0)
    await mixture.engine.pause("retract")
    await mixture.engine.update_from_disk(tiny_mixture_next, "1", flush=True, abort_all=False)
    await mixture.engine.resume()
    (got,) = await task
    assert [span.version for span in got.spans] == ["0", "1"]
    old, new = mixture.model, load_model(tiny_mixture_next)[0]
    # The token that was sampled last before the update was computed by the new weights alone.
    computed = len(PROMPTS[2]) + got.spans[0].end - 1
    routes = of(got)
    np.testing.assert_array_equal(routes[:computed], expected(old, PROMPTS[2], got)[:computed])
    np.testing.assert_array_equal(routes[computed:], expected(new, PROMPTS[2], got)[computed:])
    assert (expected(old, PROMPTS[2], got)[:computed] != expected(new, PROMPTS[2], got)[:computed]).any()


async def test_an_aborted_request_tells_what_was_computed(mixture: Rig) -> None:
    task = asyncio.create_task(mixture.run(asking("a", PROMPTS[0], max_new_tokens=400)))
    async with asyncio.timeout(120):
        while not mixture.engine.scheduler.running:
            await asyncio.sleep(0)
    await mixture.engine.abort("a")
    (got,) = await task
    assert got.finish is not None
    assert got.finish.type == "abort"
    np.testing.assert_array_equal(of(got), expected(mixture.model, PROMPTS[0], got))


def test_dense_layers_are_zeros() -> None:
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    config = Qwen3MoeConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, moe_intermediate_size=8, num_experts=6, num_experts_per_tok=2,
        mlp_only_layers=[1],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen3MoeForCausalLM(config).eval()
    recorder = RouteRecorder(model)
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 2, 3]]))
        assert recorder.take() is None
        recorder.wanted = True
        model(input_ids=torch.tensor([[1, 2, 3]]))
    routes = recorder.take()
    assert routes is not None
    assert (routes.shape, routes.dtype) == ((3, 3, 2), torch.int32)
    assert not routes[:, 1].any()
    recorder.wanted = False
    np.testing.assert_array_equal(routes[:, [0, 2]].numpy(), plain_routes(model, [1, 2, 3]))


@pytest.mark.parametrize("stream", [False, True])
async def test_over_http(tiny_mixture: Path, stream: bool) -> None:
    app = create_app(EngineConfig(model_path=tiny_mixture))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client,
    ):
        params = {"max_new_tokens": 4, "ignore_eos": True}
        body = {"input_ids": [5, 6, 7], "sampling_params": params, "return_routed_experts": True, "stream": stream}
        answer = await client.post("/generate", json=body)
        lines = answer.text.split("\n\n")
        chunks = [httpx.Response(200, text=line[6:]).json() for line in lines if line[:7] == "data: {"]
        last = chunks[-1] if stream else answer.json()
        assert decoded(last["meta_info"]["routed_experts"]).shape == (6, 2, 2)
        assert all("routed_experts" not in chunk["meta_info"] for chunk in chunks[:-1])
        for start in (-1, 4):
            refused = await client.post("/generate", json={**body, "stream": False, "routed_experts_start_len": start})
            assert refused.status_code == 400
            assert "routed_experts_start_len" in refused.text


async def test_a_model_without_experts_says_nothing(rig) -> None:
    mine = rig()
    (got,) = await mine.run(asking("a", PROMPTS[0]))
    assert got.routes is None or got.routes.encoded() is None
