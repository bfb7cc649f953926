"""`/v1/chat/completions`: OpenAI's shape over the same engine, and refusals of what it cannot do."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import AutoTokenizer

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig

CHAT = "/v1/chat/completions"
RECORDING = Path(__file__).parents[1] / "recordings" / "sglang-0.5.23" / "33_chat_completions.json"


@pytest.fixture
async def client(tiny_model: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(EngineConfig(model_path=tiny_model))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client,
    ):
        yield client


def say(text: Any = "hi", **fields: Any) -> dict[str, Any]:
    return {"model": "x", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **fields}


async def test_the_answer_has_sglangs_shape(client) -> None:
    recorded = json.loads(RECORDING.read_text())["response"]["body"]
    answer = (await client.post(CHAT, json=say(ignore_eos=True))).json()
    assert set(answer) == set(recorded)
    assert set(answer["choices"][0]) == set(recorded["choices"][0])
    assert set(answer["usage"]) == set(recorded["usage"])
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 8
    assert answer["model"] == "x"


async def test_the_prompt_is_the_models_chat_template(client, tiny_model) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    params = {"temperature": 0.0, "max_new_tokens": 8}
    plain = (await client.post("/generate", json={"input_ids": ids, "sampling_params": params})).json()
    chat = (await client.post(CHAT, json={"messages": messages, "temperature": 0, "max_tokens": 8})).json()
    assert chat["choices"][0]["message"]["content"] == plain["text"]
    assert chat["usage"]["prompt_tokens"] == len(ids)
    parts = [{"type": "text", "text": "Hello "}, {"type": "text", "text": "there"}]
    again = [messages[0], {"role": "user", "content": parts}]
    same = (await client.post(CHAT, json={"messages": again, "temperature": 0, "max_completion_tokens": 8})).json()
    assert same["choices"][0]["message"] == chat["choices"][0]["message"]


async def test_n_choices_and_a_seed(client) -> None:
    body = say(n=3, seed=5, ignore_eos=True)
    first, again = [(await client.post(CHAT, json=body)).json() for _ in range(2)]
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]
    assert len(set(texts)) == 3
    assert first["usage"]["completion_tokens"] == 24


async def test_a_stop_string_ends_it_with_stop(client) -> None:
    whole = (await client.post(CHAT, json=say(temperature=0, ignore_eos=True, max_tokens=16))).json()
    text = whole["choices"][0]["message"]["content"]
    stop = text[3:5]
    cut = (await client.post(CHAT, json=say(temperature=0, ignore_eos=True, max_tokens=16, stop=stop))).json()
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["choices"][0]["message"]["content"] == text[: text.index(stop)]


async def test_a_stream_adds_up_to_the_whole(client) -> None:
    body = say(temperature=0, ignore_eos=True, max_tokens=16)
    whole = (await client.post(CHAT, json=body)).json()
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    lines = (await client.post(CHAT, json=streamed)).text.split("\n\n")
    events = [line.removeprefix("data: ") for line in lines if line]
    assert events[-1] == "[DONE]"
    *chunks, usage = map(json.loads, events[:-1])
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert usage["usage"] == whole["usage"]


async def test_without_a_limit_the_context_is_the_limit(client) -> None:
    body = say(ignore_eos=True)
    del body["max_tokens"]
    usage = (await client.post(CHAT, json=body)).json()["usage"]
    assert usage["total_tokens"] == 1024


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": 2000}, "maximum context length of 1024"),
        ({"messages": [{"role": "user", "content": "long " * 3000}], "max_tokens": None}, "longer than the model"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "pope", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "text"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"frequency_penalty": 1.0}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_new_tokens"),
    ],
)
async def test_what_cannot_be_served_is_refused(client, fields, named) -> None:
    answer = await client.post(CHAT, json=say(**fields))
    assert answer.status_code == 400
    assert named in answer.text


@pytest.mark.parametrize(
    "variables",
    [
        {"chat_template": "{% for _ in range(10**9) %}x{% endfor %}"},
        {"truncation": True, "max_length": 1},
        {"padding": "max_length", "max_length": 10**12},
        {"tokenizer_kwargs": {"text_pair": "x"}},
        {"return_tensors": "pt"},
        {"add_generation_prompt": False},
        {"tools": [{}]},
    ],
    ids=lambda variables: next(iter(variables)),
)
async def test_a_request_sets_variables_of_the_template_and_nothing_of_the_tokenizer(client, variables) -> None:
    answer = await client.post(CHAT, json=say(chat_template_kwargs=variables))
    assert answer.status_code == 400
    assert f"{', '.join(sorted(variables))} cannot be set by a request" in answer.json()["error"]["message"]
    assert (await client.post(CHAT, json=say(chat_template_kwargs={"enable_thinking": False}))).status_code == 200
