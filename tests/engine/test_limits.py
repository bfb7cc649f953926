"""Requests that would cost the engine its memory, its health or a traceback are refused in a line."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from fastapi.routing import APIRoute
from safetensors.torch import load_file, save_file

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig, ModelFolderError, check_version
from golongrl.engine.weights import load_model
from golongrl.errors import InputError


@pytest.fixture
async def engine(tiny_model: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(EngineConfig(model_path=tiny_model, context_length=1024))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine", timeout=60) as client,
    ):
        yield client


def ask(**params: Any) -> dict[str, Any]:
    return {"input_ids": [10, 11, 12], "sampling_params": {"max_new_tokens": 4, **params}}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


HUGE = 10**4000
GENERATE = [
    ask(n=3_000_000), ask(n=2**31), ask(n=HUGE), ask(n=-1), ask(n=nested(500)),
    {**ask(n=4000), "input_ids": [[1], [2], [3]]},
    {"input_ids": [[1]] * 5000, "sampling_params": {"max_new_tokens": 1}},
    *(ask(**{name: value}) for name in ("max_new_tokens", "min_new_tokens", "top_k", "stream_interval")
      for value in (HUGE, 2**63, -HUGE, "4", 1.5, True, [4], nested(500))),
    *(ask(**{name: value}) for name in ("temperature", "top_p") for value in (-HUGE, "1", True, nested(500))),
    ask(top_p=HUGE), ask(sampling_seed=HUGE), ask(sampling_seed=-1), ask(sampling_seed=2**64),
    ask(stop="x" * 100_000), ask(stop=["x"] * 100_000), ask(stop=nested(500)), ask(stop_token_ids=nested(500)),
    ask(**{"x" * 100_000: 1}), {**ask(), "rid": "r" * 100_000}, {**ask(), "extra_key": "k" * 100_000},
    {**ask(), "extra_key": ["a", "b"]}, {**ask(), "input_ids": [HUGE]}, {**ask(), "input_ids": [2**40]},
    {**ask(), "input_ids": nested(500)}, {**ask(), "input_ids": [1] * 100_000}, {**ask(), "sampling_params": 5},
    {**ask(), "sampling_params": nested(500)}, {**ask(), "text": "a"}, {"text": "word " * 100_000},
    {"text": "\ud800"}, {"text": ["fine", "not \udfff"]}, ask(**{"\ud800": 1}), ask(stop=["\ud800", ""]),
]  # fmt: skip

SIBLINGS = [
    *({**ask(), name: value} for name in ("top_logprobs_num", "logprob_start_len")
      for value in (HUGE, 2**63, "x", 1.5, [HUGE], nested(500))),
    {**ask(), "top_logprobs_num": 3_000_000}, {**ask(), "token_ids_logprob": list(range(100_000))},
    {**ask(), "token_ids_logprob": [HUGE]}, {**ask(), "return_logprob": [True] * 100_000},
    {**ask(), "rid": ["r"] * 100_000}, {**ask(), "extra_key": ["k"] * 100_000},
    {**ask(), "sampling_params": [{"max_new_tokens": 1}] * 100_000},
    {"input_ids": [[1]] * 100_000, "sampling_params": {"max_new_tokens": 1}},
    {"text": ["a"] * 100_000, "sampling_params": {"max_new_tokens": 1}},
    ask(stop=["x" * 100_000]), ask(stop=["x"] * 5000), ask(stop=5), ask(stop=[5]),
    ask(stop_token_ids="1"), ask(logit_bias={"1": HUGE}),
    ask(min_new_tokens=5, max_new_tokens=4), ask(repetition_penalty=HUGE), ask(frequency_penalty="x"),
]  # fmt: skip


async def refused(engine: httpx.AsyncClient, path: str, body: object) -> str:
    """The one line of a 400; /health answers while it is made."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = asyncio.create_task(engine.post(path, content=content, headers={"content-type": "application/json"}))
    assert (await engine.get("/health")).status_code == 200
    answer = await asked
    assert answer.status_code == 400, answer.text[:300]
    assert "\n" not in answer.text.strip()
    assert len(answer.text) < 3000
    assert (await engine.get("/health")).status_code == 200
    return answer.text


@pytest.mark.parametrize("body", GENERATE, ids=range(len(GENERATE)))
async def test_absurd_generation_is_refused(engine: httpx.AsyncClient, body: object) -> None:
    await refused(engine, "/generate", body)


async def test_siblings_of_absurd_generation_are_refused(engine: httpx.AsyncClient) -> None:
    for body in SIBLINGS:
        await refused(engine, "/generate", body)


@pytest.mark.parametrize(
    "change",
    [
        {"rank_offset": 2}, {"rank_offset": 65535}, {"rank_offset": 0}, {"rank_offset": -1}, {"rank_offset": HUGE},
        {"world_size": 1}, {"world_size": HUGE}, {"master_port": 0}, {"master_port": 65536}, {"master_address": ""},
        {"master_address": "127.0.0.1\0"}, {"master_address": "a b"}, {"master_address": "a/b"},
        {"master_address": "a?rank=7"}, {"master_address": "u@a"}, {"master_address": "a\n"},
        {"master_address": "a" * 300}, {"group_name": "a\0b"}, {"group_name": ""}, {"group_name": "\ud800"},
        {"backend": "nccl"}, {"backend": "\0"},
    ],
)  # fmt: skip
async def test_a_group_that_cannot_come_about_is_refused_at_once(
    engine: httpx.AsyncClient, change: dict[str, Any]
) -> None:
    body = {"master_address": "127.0.0.1", "master_port": 1, "rank_offset": 1, "world_size": 2, "group_name": "g"}
    assert next(iter(change)) in await refused(engine, "/init_weights_update_group", body | change)


async def test_more_responses_than_the_engine_holds_are_refused_by_their_number(engine: httpx.AsyncClient) -> None:
    assert "more than the 4160 responses" in await refused(engine, "/generate", ask(n=3_000_000))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"5",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"input_ids": [' + b"9" * 5000 + b"]}",
    ],
    ids=range(9),
)
@pytest.mark.parametrize("path", ["/generate", "/update_weights_from_disk", "/pause_generation"])
async def test_a_body_that_is_no_request_is_refused(engine: httpx.AsyncClient, path: str, content: bytes) -> None:
    if path == "/pause_generation" and content.startswith(b'{"input_ids'):
        pytest.skip("unknown fields are ignored")
    await refused(engine, path, content)


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_long_is_refused_before_it_is_parsed(
    engine: httpx.AsyncClient, announced: bool
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * (1 << 20)

    content = b"x" * (40 << 20) if announced else chunks()
    answer = await engine.post("/generate", content=content)
    assert answer.status_code == 400
    assert "longer than 33554432 bytes" in answer.text


async def test_without_its_key_nothing_of_a_body_is_read(tiny_model: Path) -> None:
    app = create_app(EngineConfig(model_path=tiny_model, context_length=1024, api_key="n", admin_api_key="a"))
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"{}"

    paths = sorted({route.path for route in app.routes if isinstance(route, APIRoute)} - {"/health", "/ready"})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://engine") as client:
        for path in [*paths, "/nowhere", "/generate/", "//generate"]:
            if path not in ("/metrics", "/health_generate"):
                for key in ("", "Bearer ", "Bearer x", "n", "Bearer \xfc"):
                    answer = await client.post(path, content=body(), headers={"authorization": key.encode("latin-1")})
                    assert (answer.status_code, answer.json()) == (401, {"error": "Unauthorized"}), path
    assert read == 0


MANY = 100_000
FLOODS: dict[str, tuple[str, dict[str, Any]]] = {
    "at most 10000 items": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}] * MANY}),
    "messages.0: Input should be a valid dict": ("/v1/chat/completions", {"messages": [1] * MANY}),
    "2000 messages are more than the model's context length (1024": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "hi"}] * 2000},
    ),
    "The input (1000000 characters) is longer": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "a" * 1_000_000}]},
    ),
    "The input (1000001 characters) is longer": ("/generate", {"text": "a" * 1_000_001}),
    "messages.0.content.list": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}] * MANY}]},
    ),
    "input_ids.list[int].0: ": ("/generate", {"input_ids": ["a"] * MANY}),
    "at most 65536 items": ("/generate", {"input_ids": [[]] * MANY}),
    "The body has more than 1048576 lists and objects.": ("/generate", {"input_ids": [[]] * 1_100_000}),
    "The body has more than 262144 keys.": (
        "/generate",
        {"input_ids": [1], "sampling_params": dict.fromkeys(map(str, range(300_000)), 1)},
    ),
    "more than 1024": ("/generate", {"input_ids": [1], **dict.fromkeys(map(str, range(MANY)), 1)}),
    "names.0: ": ("/update_weights_from_distributed", {"names": [1] * MANY, "dtypes": [], "shapes": []}),
}


@pytest.mark.parametrize("reason", FLOODS)
async def test_a_body_of_too_many_things_is_refused_at_its_first_fault(engine: httpx.AsyncClient, reason: str) -> None:
    path, body = FLOODS[reason]
    answer = await engine.post(path, json=body)
    assert answer.status_code == 400
    assert reason in answer.text
    assert len(answer.text) < 1000


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"])
@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/update_weights_from_disk"])
async def test_a_body_of_another_kind_is_told_which_it_must_be(
    engine: httpx.AsyncClient, path: str, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = await engine.post(path, content=b'{"input_ids": [1]}', headers=headers)
    assert answer.status_code == 400
    assert "the body must be JSON, with Content-Type: application/json" in answer.text


async def test_a_path_with_a_slash_too_many_leads_nowhere(engine: httpx.AsyncClient) -> None:
    for path in ("/health/", "/generate/", "/metrics/", "//health"):
        answer = await engine.get(path, headers={"host": "other.example"})
        assert (answer.status_code, answer.headers.get("location")) == (404, None)


@pytest.mark.parametrize(
    "path", ["x" * 5000, "/" + "y/" * 2400, "z" * 300, "a\0b", "", "/nowhere", "\ud800", 5, None, ["a"]], ids=range(10)
)
async def test_a_weights_path_that_cannot_be_is_refused(engine: httpx.AsyncClient, path: object) -> None:
    before = (await engine.get("/model_info")).json()
    await refused(engine, "/update_weights_from_disk", {"model_path": path, "weight_version": "1"})
    assert (await engine.get("/model_info")).json() == before


@pytest.mark.parametrize(
    "body",
    [
        {"names": ["a"], "dtypes": ["float32"], "shapes": [[10**30]]},
        {"names": ["a"], "dtypes": ["float32"], "shapes": [[-1]]},
        {"names": ["a"] * 2, "dtypes": ["float32"] * 2, "shapes": [[1]] * 2},
        {"names": ["a"], "dtypes": ["x" * 5000], "shapes": [[1]]},
    ],
    ids=range(4),
)
async def test_tensors_that_cannot_be_are_refused(engine: httpx.AsyncClient, body: object) -> None:
    assert (await engine.post("/begin_weight_update")).status_code == 200
    await refused(engine, "/update_weights_from_distributed", body)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["first", "last"])
async def test_weights_that_are_not_finite_are_refused_and_the_old_ones_serve(
    engine: httpx.AsyncClient, tiny_model_next: Path, tmp_path: Path, value: float, where: str
) -> None:
    folder = Path(shutil.copytree(tiny_model_next, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0 if where == "first" else -1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, folder / "model.safetensors")
    before = (await engine.post("/weights_checker", json={"action": "checksum"})).json()
    text = await refused(engine, "/update_weights_from_disk", {"model_path": str(folder), "weight_version": "1"})
    assert f"tensor {name} holds a number that is not finite" in text
    assert (await engine.post("/weights_checker", json={"action": "checksum"})).json() == before
    assert (await engine.post("/generate", json=ask())).status_code == 200
    with pytest.raises(ModelFolderError, match="not finite") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


async def test_weights_that_overflow_the_models_type_are_refused(
    engine: httpx.AsyncClient, tiny_model_next: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model_next, tmp_path / "model"))
    tensors = load_file(folder / "model.safetensors")
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].to(torch.float64) * 1e300
    save_file(tensors, folder / "model.safetensors")
    assert "not finite" in await refused(engine, "/update_weights_from_disk", {"model_path": str(folder)})


@pytest.mark.parametrize("temperature", [1e-320, 1e-9, 1e300, HUGE])
async def test_extreme_temperatures_give_valid_log_probs(engine: httpx.AsyncClient, temperature: float) -> None:
    answer = await engine.post("/generate", json={**ask(temperature=temperature), "return_logprob": True})
    assert answer.status_code == 200
    assert all(logprob[0] <= 0 for logprob in answer.json()["meta_info"]["output_token_logprobs"])


COMPLETIONS = [
    {"n": 3_000_000}, {"n": HUGE}, {"max_tokens": HUGE}, {"max_tokens": 2**63}, {"max_tokens": -1},
    {"logprobs": True, "top_logprobs": HUGE}, {"logprobs": True, "top_logprobs": 3_000_000}, {"logprobs": "all"},
    {"logprobs": True, "top_logprobs": -1}, {"stop": ["x"] * 100_000}, {"stop": "x" * 100_000}, {"stop": [5]},
    {"messages": [{"role": "user", "content": "word " * 100_000}]}, {"messages": []}, {"messages": "x"},
    {"messages": [{"role": "user", "content": "a"}] * 5_000}, {"messages": [{"role": "r" * 100_000, "content": 5}]},
    {"temperature": -1}, {"temperature": HUGE * -1}, {"top_p": 0}, {"top_p": 5}, {"seed": HUGE}, {"stream": "x" * 9},
]  # fmt: skip


async def test_a_chat_that_cannot_be_answered_is_refused(engine: httpx.AsyncClient) -> None:
    for change in COMPLETIONS:
        body = {"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 4, **change}
        await refused(engine, "/v1/chat/completions", body)


UNPARSEABLE = [
    b"",
    b"{",
    b'{"a": 1,}',
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"[" * 100_000,
    b"nope",
    b'{"a": ' + b"9" * 5000 + b"}",
]
PATHS = ["/generate", "/update_weights_from_disk", "/update_weight_version", "/abort_request", "/v1/chat/completions"]


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_cannot_be_parsed_is_told_in_our_words(engine: httpx.AsyncClient, path: str) -> None:
    for content in UNPARSEABLE:
        text = await refused(engine, path, content)
        assert "the body " in text, content[:20]
        for words in ("There was an error parsing", "JSON decode error", "Field required", "detail"):
            assert words not in text, content[:20]


async def test_faults_of_a_body_are_counted_not_listed(engine: httpx.AsyncClient) -> None:
    for count in (1, 5_000):
        text = await refused(engine, "/generate", {"input_ids": ["x"] * count})
        assert "input_ids" in text


VERSIONS = [
    "",
    " ",
    "v" * 129,
    "a b",
    "a\nb",
    "1\n",
    "\x1b[2J",
    "\u202e1",
    "ä",
    "-1",
    "{}",
    "\ud800",
    5,
    None,
    [],
    1.5,
    True,
]


async def test_a_version_is_a_short_word(engine: httpx.AsyncClient, tiny_model: Path) -> None:
    for version in VERSIONS:
        assert "new_version" in await refused(engine, "/update_weight_version", {"new_version": version})
        if version is not None:
            body = {"model_path": str(tiny_model), "weight_version": version}
            assert "weight_version" in await refused(engine, "/update_weights_from_disk", body)
        if isinstance(version, str):
            with pytest.raises(InputError, match="--weight-version"):
                check_version(version)
    assert (await engine.get("/model_info")).json()["weight_version"] == "default"


async def test_a_version_that_is_one_is_taken(engine: httpx.AsyncClient) -> None:
    for version in ("default", "0", "17", "v1.2-rc", "main@abc", "v" * 128):
        assert (await engine.post("/update_weight_version", json={"new_version": version})).status_code == 200
        assert (await engine.get("/model_info")).json()["weight_version"] == version
        check_version(version)
