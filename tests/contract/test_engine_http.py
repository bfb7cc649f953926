"""The embedded engine answers as SGLang 0.5.23 did: recorded requests replayed, compared by status and shape.

The same tests run against a real server where `make sglang` has installed one (`pytest -m full`).
"""

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from golongrl.engine.app import create_app
from golongrl.engine.config import EngineConfig
from golongrl.recipe import load
from support.engine_process import engine_process
from support.recordings import by_number

from .shapes import differences

RECORDINGS = by_number()

# Of the recorded server.
CONTEXT = 4096

# One request, one answer, whatever came before.
SINGLE = [
    1,
    3,
    7,
    9,
    11,
    12,
    13,
    15,
    16,
    18,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    29,
    30,
    34,
    36,
    41,
    43,
    63,
    68,
    71,
    72,
]
# Information: the embedded engine says less, but nothing else and nothing of another type.
INFORMATION = [4, 5, 6, 80]


@dataclass
class Server:
    """A server under test and its two models."""

    client: httpx.AsyncClient
    folders: dict[str, str]

    async def send(self, number: int, **changes: Any) -> tuple[dict[str, Any], httpx.Response]:
        """Replay the request of a recording; returns the recording and the answer."""
        recording = RECORDINGS[number]
        asked = recording["request"]
        body = asked["body"]
        if isinstance(body, dict):
            body = {**body, **changes}
            if body.get("model_path") in self.folders:
                body["model_path"] = self.folders[body["model_path"]]
            content = json.dumps(body)
        else:
            content = body
        headers = {"content-type": "application/json"}
        return recording, await self.client.request(asked["method"], asked["path"], content=content, headers=headers)

    async def replay(self, number: int, *, subset: bool = False, **changes: Any) -> Any:
        """Replay a recording and insist on its status and shape; returns the answer's body."""
        recording, answer = await self.send(number, **changes)
        expected = recording["response"]
        assert answer.status_code == expected["status"], answer.text
        recorded, body = expected["body"], answer.text
        if isinstance(recorded, str) or not body:
            return body
        assert differences(recorded, answer.json(), subset=subset) == []
        return answer.json()

    async def running(self) -> None:
        """Wait until the server generates."""
        async with asyncio.timeout(120):
            while not (await self.client.get("/v1/loads")).json()["loads"][0]["num_running_reqs"]:
                await asyncio.sleep(0.005)


@pytest.fixture(scope="module")
def embedded(tiny_model: Path) -> Iterator[str]:
    """The embedded engine behind a real socket."""
    app = create_app(EngineConfig(model_path=tiny_model, context_length=CONTEXT))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(30)


@pytest.fixture(scope="module")
def sglang(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real server as a process of its own."""
    recipe = load("quickstart", [f"model.path={tiny_model}", f"model.context_length={CONTEXT}"])
    with pytest.MonkeyPatch.context() as patch:
        # The tiny model's own context is shorter.
        patch.setenv("SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN", "1")
        with engine_process("sglang", tiny_model, recipe, tmp_path_factory.mktemp("sglang") / "log") as url:
            yield url


@pytest.fixture(params=["embedded", pytest.param("sglang", marks=[pytest.mark.full, pytest.mark.timeout(600)])])
async def server(request: pytest.FixtureRequest, tiny_model: Path, tiny_model_next: Path) -> AsyncIterator[Server]:
    """A server with the model `tiny`, running, version `default`."""
    url = request.getfixturevalue(request.param)
    folders = {"/models/tiny": str(tiny_model), "/models/tiny-next": str(tiny_model_next)}
    async with httpx.AsyncClient(base_url=url, timeout=240) as client:
        yield Server(client, folders)
        await client.post("/abort_request", json={"abort_all": True})
        await client.post("/continue_generation", json={})
        body = {"model_path": str(tiny_model), "weight_version": "default", "abort_all_requests": True}
        reply = await client.post("/update_weights_from_disk", json=body)
        assert reply.is_success, reply.text


@pytest.mark.parametrize("number", SINGLE, ids=lambda number: RECORDINGS[number]["name"])
async def test_single_requests(server: Server, number: int) -> None:
    await server.replay(number)


async def test_a_stop_string(server: Server) -> None:
    # In one of 150 tries the sampled text would end by itself before it holds one.
    params = {**RECORDINGS[17]["request"]["body"]["sampling_params"], "ignore_eos": True}
    await server.replay(17, sampling_params=params)


@pytest.mark.parametrize("number", INFORMATION, ids=lambda number: RECORDINGS[number]["name"])
async def test_information(server: Server, number: int) -> None:
    await server.replay(number, subset=True)


@pytest.mark.parametrize("number", [21, 22, 23, 24, 25, 26], ids=lambda number: RECORDINGS[number]["name"])
async def test_refusals_have_sglangs_words(server: Server, number: int) -> None:
    assert await server.replay(number) == RECORDINGS[number]["response"]["body"]


async def test_stream(server: Server) -> None:
    recording, answer = await server.send(14)
    assert answer.headers["content-type"].startswith("text/event-stream")

    def chunks(text: str) -> list[str]:
        return [line.removeprefix("data: ") for line in text.splitlines() if line]

    recorded, got = chunks(recording["response"]["body"]), chunks(answer.text)
    assert recorded[-1] == got[-1] == "[DONE]"
    assert len(recorded) == len(got) == 5
    for old, new in zip(recorded[:-1], got[:-1], strict=True):
        assert differences(json.loads(old), json.loads(new)) == []


async def test_checksums_name_every_tensor_and_tell_models_apart(server: Server) -> None:
    recording, answer = await server.send(75)
    expected, got = recording["response"]["body"], answer.json()
    # SGLang fuses projections, so the names differ; the values are hashes on both sides.
    expected["ranks"][0]["checksums"] = got["ranks"][0]["checksums"]
    assert differences(expected, got) == []
    await server.replay(67)
    assert (await server.send(75))[1].json()["per_engine_checksum"] == got["per_engine_checksum"]
    (await server.send(48))[1].raise_for_status()
    assert (await server.send(75))[1].json()["per_engine_checksum"] != got["per_engine_checksum"]


async def test_a_live_id_is_refused(server: Server) -> None:
    first = asyncio.create_task(server.replay(32, sampling_params={"max_new_tokens": 2000, "ignore_eos": True}))
    await server.running()
    assert await server.replay(31) == RECORDINGS[31]["response"]["body"]
    await server.client.post("/abort_request", json={"rid": "dup"})
    first.cancel()


async def busy(server: Server, number: int) -> asyncio.Task[Any]:
    """Start the long request of a recording; its answer is checked when awaited."""
    params = {**RECORDINGS[number]["request"]["body"]["sampling_params"], "max_new_tokens": 3000}
    task = asyncio.create_task(server.replay(number, sampling_params=params))
    await server.running()
    return task


async def test_abort_gives_partial_results(server: Server) -> None:
    task = await busy(server, 35)
    assert await server.replay(37) == "Flush cache failed.\n"
    await server.replay(34)
    answer = await task
    assert answer["meta_info"]["finish_reason"]["type"] == "abort"
    assert len(answer["output_ids"]) == len(answer["meta_info"]["output_token_logprobs"]) < 3000


async def test_pause_abort_update_continue(server: Server) -> None:
    task = await busy(server, 44)
    await server.replay(45)
    assert (await task)["meta_info"]["finish_reason"]["type"] == "abort"
    await server.replay(46)
    waiting = asyncio.create_task(server.replay(50))
    await server.replay(48)
    assert not waiting.done()
    await server.replay(49)
    answer = await waiting
    assert answer["meta_info"]["weight_versions"] == [{"version": "1", "start": 0, "end": 4}]


async def test_in_place_with_flush_changes_the_weights_but_not_the_version(server: Server) -> None:
    params = {"temperature": 1.0, "max_new_tokens": 1600, "ignore_eos": True}
    task = asyncio.create_task(server.replay(58, sampling_params=params))
    await server.running()
    await server.replay(53)
    assert await server.replay(54) == RECORDINGS[54]["response"]["body"]
    assert (await server.replay(55, subset=True))["weight_version"] == "default"
    await server.replay(56)
    await server.replay(57)
    first, second = (await task)["meta_info"]["weight_versions"]
    assert (first["version"], second["version"]) == ("default", "3")
    assert (first["start"], first["end"], second["end"]) == (0, second["start"], 1600)


async def test_retract_keeps_the_call_open(server: Server) -> None:
    params = {"temperature": 1.0, "max_new_tokens": 1600, "ignore_eos": True}
    task = asyncio.create_task(server.replay(62, sampling_params=params))
    await server.running()
    await server.replay(59)
    await server.replay(60)
    await server.replay(61)
    meta = (await task)["meta_info"]
    assert meta["num_retractions"] == 1
    first, second = meta["weight_versions"]
    assert (first["version"], second["version"]) == ("default", "4")
    assert (first["start"], first["end"], second["end"]) == (0, second["start"], 1600)


async def test_an_update_may_abort(server: Server) -> None:
    task = await busy(server, 66)
    await server.replay(67)
    assert (await task)["meta_info"]["finish_reason"]["type"] == "abort"


async def test_the_update_session(server: Server) -> None:
    _, answer = await server.send(102)
    assert (answer.status_code, answer.json()) == (400, RECORDINGS[102]["response"]["body"])
    await server.replay(111)
    assert await server.replay(112) == RECORDINGS[112]["response"]["body"]
    await server.replay(106)


async def test_a_token_outside_the_vocabulary_is_refused_here(server: Server, request: pytest.FixtureRequest) -> None:
    if "sglang" in request.node.name:
        pytest.skip("it kills SGLang")
    body = {"input_ids": [5, 100000], "sampling_params": {"max_new_tokens": 1}}
    answer = await server.client.post("/generate", json=body)
    assert answer.status_code == 400
    assert "token id 100000" in answer.json()["error"]["message"]
