"""The HTTP face: keys, refusals, text, metrics, and a queue that is full."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig

Client = httpx.AsyncClient


@pytest.fixture
async def serve(tiny_model: Path) -> AsyncIterator[Callable[..., Any]]:
    """Starts applications over the tiny model."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> Client:
            app = create_app(EngineConfig(model_path=tiny_model, **options))
            await stack.enter_async_context(app.router.lifespan_context(app))
            transport = httpx.ASGITransport(app)
            return await stack.enter_async_context(Client(transport=transport, base_url="http://engine"))

        yield start


def ask(**changes: Any) -> dict[str, Any]:
    params = {"max_new_tokens": 4, "ignore_eos": True, **changes.pop("params", {})}
    return {"input_ids": [10, 11, 12], "sampling_params": params, "return_logprob": True, **changes}


NORMAL, CONTROL = "/model_info", "/flush_cache"


@pytest.mark.parametrize(
    ("keys", "given", "normal", "control"),
    [
        ({}, None, 200, 200),
        ({"api_key": "n"}, None, 401, 401),
        ({"api_key": "n"}, "n", 200, 200),
        ({"api_key": "n", "admin_api_key": "a"}, "n", 200, 401),
        ({"api_key": "n", "admin_api_key": "a"}, "a", 401, 200),
        ({"admin_api_key": "a"}, None, 200, 401),
    ],
)
async def test_keys(serve, keys, given, normal, control) -> None:
    client = await serve(**keys)
    headers = {} if given is None else {"authorization": f"Bearer {given}"}
    assert (await client.get(NORMAL, headers=headers)).status_code == normal
    assert (await client.post(CONTROL, headers=headers)).status_code == control
    for probe in ("/health", "/ready", "/metrics"):
        assert (await client.get(probe)).status_code == 200


async def test_seeded_calls_are_reproducible_and_samples_differ(serve) -> None:
    client = await serve()
    body = ask(rid="group", params={"n": 3, "sampling_seed": 5, "max_new_tokens": 12})
    first, again = [(await client.post("/generate", json=body)).json() for _ in range(2)]
    outputs = [answer["output_ids"] for answer in first]
    assert outputs == [answer["output_ids"] for answer in again]
    assert len({tuple(output) for output in outputs}) == 3
    assert [answer["meta_info"]["id"] for answer in first] == ["group_0", "group_1", "group_2"]
    other = (await client.post("/generate", json=ask(rid="other", params=body["sampling_params"]))).json()
    assert [answer["output_ids"] for answer in other] == outputs, "the id is no part of the draw"
    alone = (await client.post("/generate", json=ask(params={"sampling_seed": 5, "max_new_tokens": 12}))).json()
    assert alone["output_ids"] == outputs[0]
    reseeded = ask(rid="group", params={"n": 3, "sampling_seed": 6, "max_new_tokens": 12})
    assert [answer["output_ids"] for answer in (await client.post("/generate", json=reseeded)).json()] != outputs


async def test_without_a_seed_the_engines_and_the_id_decide(serve) -> None:
    client = await serve()
    params = {"max_new_tokens": 12}
    first, again, other = [
        (await client.post("/generate", json=ask(rid=rid, params=params))).json()["output_ids"] for rid in "aab"
    ]
    assert first == again != other


async def test_a_stop_string_is_cut_from_the_text(serve) -> None:
    client = await serve()
    free = (await client.post("/generate", json=ask(params={"max_new_tokens": 30, "sampling_seed": 1}))).json()
    stop = next(char for char in free["text"][5:] if char.isascii() and char.isprintable())
    cut = ask(params={"max_new_tokens": 30, "sampling_seed": 1, "stop": [stop]})
    answer = (await client.post("/generate", json=cut)).json()
    assert answer["meta_info"]["finish_reason"] == {"type": "stop", "matched": stop}
    assert free["text"].startswith(answer["text"])
    assert stop not in answer["text"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"params": {"top_p": 0}}, "top_p must be in (0, 1]"),
        ({"params": {"top_k": 0}}, "top_k must be"),
        ({"params": {"max_new_tokens": 0}}, "max_new_tokens must be at least 1"),
        ({"params": {"min_new_tokens": 9}}, "min_new_tokens must be in"),
        ({"params": {"n": 0}}, "n must be at least 1"),
        ({"params": {"regex": "a*"}}, "regex is not implemented"),
        ({"params": {"repetition_penalty": 1.1}}, "repetition_penalty is not implemented"),
        ({"params": {"stop_token_ids": ["x"]}}, "stop_token_ids must be a list of integers"),
        ({"top_logprobs_num": 2}, "top_logprobs_num is not implemented"),
        ({"logprob_start_len": 0}, "logprob_start_len"),
        ({"input_ids": []}, "cannot be empty"),
        ({"input_ids": [-1]}, "token id -1"),
        ({"rid": ["a", "b"]}, "rid has 2 values for 1 prompts"),
    ],
)
async def test_refusals_name_the_field(serve, change, message) -> None:
    client = await serve()
    answer = await client.post("/generate", json=ask(**change))
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


async def test_neutral_values_of_unimplemented_fields_pass(serve) -> None:
    client = await serve()
    neutral = {"repetition_penalty": 1.0, "min_p": 0.0, "regex": None, "frequency_penalty": 0}
    assert (await client.post("/generate", json=ask(params=neutral))).status_code == 200


async def test_a_full_queue_is_503(serve) -> None:
    client = await serve(max_batch=1, max_queue=1)
    await client.post("/pause_generation", json={"mode": "in_place"})
    answer = await client.post("/generate", json=ask(params={"n": 3}))
    assert (answer.status_code, answer.json()["message"]) == (503, "The request queue is full.")


async def test_health_is_liveness_and_ready_is_not_paused(serve) -> None:
    client = await serve()
    assert (await client.get("/health_generate")).status_code == 200
    await client.post("/pause_generation", json={"mode": "in_place"})
    assert (await client.get("/health")).status_code == 200
    assert (await client.get("/ready")).status_code == 503
    await client.post("/continue_generation")
    assert (await client.get("/ready")).status_code == 200


async def test_metrics_have_sglangs_names_and_count(serve) -> None:
    client = await serve()
    await client.post("/generate", json=ask(params={"n": 2}))
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families((await client.get("/metrics")).text)
        for sample in family.samples
    }
    assert samples["sglang:generation_tokens_total"] == 8
    assert samples["sglang:prompt_tokens_total"] == 6
    assert samples["sglang:cached_tokens_total"] == 3
    assert samples["sglang:num_requests_total"] == 2
    assert samples["sglang:e2e_request_latency_seconds_count"] == 2
    for gauge in ("num_running_reqs", "num_queue_reqs", "num_paused_reqs", "token_usage", "cache_hit_rate",
                  "gen_throughput", "max_total_num_tokens"):  # fmt: skip
        assert f"sglang:{gauge}" in samples


async def test_the_answers_of_a_batch_keep_their_order(serve) -> None:
    client = await serve()
    lengths = [9, 2, 5]
    body = {
        "input_ids": [[1], [2, 3], [4]],
        "sampling_params": [{"max_new_tokens": length, "ignore_eos": True} for length in lengths],
        "rid": "batch",
    }
    answers = (await client.post("/generate", json=body)).json()
    assert [len(answer["output_ids"]) for answer in answers] == lengths
    assert [answer["meta_info"]["id"] for answer in answers] == ["batch_0", "batch_1", "batch_2"]
    assert "output_token_logprobs" not in answers[0]["meta_info"]


async def test_calls_from_many_clients_share_the_batch(serve) -> None:
    client = await serve()
    answers = await asyncio.gather(*(client.post("/generate", json=ask(input_ids=[i + 1])) for i in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
