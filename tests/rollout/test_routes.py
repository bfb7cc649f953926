"""Experts of each token: what a worker asks of an engine and believes, and where it puts them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from golongrl.errors import InputError
from golongrl.queue import Group, Lease, SubmitOutcome
from golongrl.rollout.groups.assemble import group_routes
from golongrl.rollout.sglang.answers import RoutesAsked
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import EngineProtocolError
from golongrl.rollout.sglang.sampling import SamplingParams
from golongrl.rollout.weights.adopt import check_server
from golongrl.routes.groups import GroupRoutes
from golongrl.routes.model import MoeRouting
from golongrl.routes.store import MARKER, folder_in, open_folder, read_routes
from rollout.harness import Rig, embedded_engine, publish, recipe, rig

PROMPT = np.arange(20, 26, dtype=np.int32)
SAMPLING = SamplingParams(temperature=1.0, top_p=1.0, max_new_tokens=4, seed=1)
# Four layers, of which two route, and the first and third are dense.
ROUTING = MoeRouting(hidden_layers=4, layers=(1, 3), top_k=2, experts=300)
REPLAY = "learner.routing_replay=true"


def rows(tokens: int) -> np.ndarray:
    made = np.zeros((tokens, 4, 2), np.int32)
    made[:, 1] = [0, 299]
    made[:, 3, 0] = np.arange(tokens)
    made[:, 3, 1] = 200
    return made


def encoded(routes: np.ndarray) -> str:
    return base64.b64encode(routes.tobytes()).decode()


def body(routes: object, finish: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "text": "abc",
        "output_ids": [7, 8, 9],
        "meta_info": {
            "id": "r",
            "finish_reason": finish or {"type": "stop", "matched": 9},
            "prompt_tokens": 6,
            "completion_tokens": 3,
            "cached_tokens": 0,
            "weight_versions": [{"version": "1", "start": 0, "end": 3}],
            "output_token_logprobs": [[-0.5, 7, None], [-1, 8, "b"], [0.0, 9, None]],
            **({} if routes is None else {"routed_experts": routes}),
        },
    }


async def ask(answer: Callable[[httpx.Request], httpx.Response], asked: RoutesAsked | None, stream: bool = False):
    async with EngineClient("http://engine", transport=httpx.MockTransport(answer)) as engine:
        return await engine.generate(PROMPT, SAMPLING, rid="r", vocab_size=512, routes=asked, stream=stream)


@pytest.mark.parametrize(("start", "tokens"), [(0, 8), (6, 2)])
async def test_routes_come_as_the_moe_layers_alone(start: int, tokens: int) -> None:
    seen: list[dict[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content))
        return httpx.Response(200, json=body(encoded(rows(tokens))))

    done = await ask(handler, RoutesAsked(ROUTING, 6, start))
    assert (seen[0]["return_routed_experts"], seen[0]["routed_experts_start_len"]) == (True, start)
    assert done.routes.dtype == np.uint16
    np.testing.assert_array_equal(done.routes, rows(tokens)[:, [1, 3]])
    assert (await ask(handler, None)).routes is None
    assert "return_routed_experts" not in seen[1]


def spoilt(place: tuple[int, int, int], value: int) -> str:
    routes = rows(8)
    routes[place] = value
    return encoded(routes)


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        (None, "lacks 'routed_experts'; SGLang has it with --enable-return-routed-experts"),
        (5, "routed_experts is 5, not text"),
        ([], "not text"),
        ("", "has 0 numbers, not 8 x 4 x 2"),
        ("?", "not base64 of int32"),
        ("é", "not base64 of int32"),
        ("AAA=", "not base64 of int32"),
        (encoded(rows(7)), "has 56 numbers, not 8 x 4 x 2"),
        (encoded(rows(9)), "has 72 numbers, not 8 x 4 x 2"),
        (encoded(rows(8)[:, :3]), "has 48 numbers"),
        (encoded(rows(8).astype(np.int64)), "has 128 numbers"),
        (spoilt((2, 1, 0), 300), r"300 is not an expert in \[0, 300\)"),
        (spoilt((2, 1, 0), -1), r"-1 is not an expert in \[0, 300\)"),
        (spoilt((2, 1, 0), 1 << 16), r"65536 is not an expert"),
        (spoilt((5, 3, 1), 5), "token 5 has an expert twice in MoE layer 1"),
        (encoded(np.zeros((8, 4, 2), np.int32)), "token 0 has an expert twice in MoE layer 0"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_routes_that_are_not_the_models_are_a_protocol_error(routes: object, message: str, stream: bool) -> None:
    text = json.dumps(body(routes)).encode()
    content = b"data: " + text + b"\n\ndata: [DONE]\n\n" if stream else text
    with pytest.raises(EngineProtocolError, match=message) as caught:
        await ask(lambda _: httpx.Response(200, content=content), RoutesAsked(ROUTING, 6), stream)
    assert len(str(caught.value)) < 800


async def test_an_aborted_answer_needs_no_routes() -> None:
    aborted = body(None, {"type": "abort", "message": "Aborted"})
    done = await ask(lambda _: httpx.Response(200, json=aborted), RoutesAsked(ROUTING, 6))
    assert (done.finish, done.routes) == ("abort", None)


async def test_a_long_stream_is_read_in_parts() -> None:
    long = RoutesAsked(MoeRouting(48, tuple(range(48)), 8, 128), 3000)
    routes = np.broadcast_to(np.arange(8, dtype=np.int32), (3002, 48, 8))
    payload = b"data: " + json.dumps(body(encoded(routes))).encode() + b"\n\ndata: [DONE]\n\n"

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, len(payload), 50_000):
            yield payload[at : at + 50_000]

    done = await ask(lambda _: httpx.Response(200, content=parts()), long, stream=True)
    assert done.routes.shape == (3002, 48, 8)
    with pytest.raises(EngineProtocolError, match="an answer of more than"):
        await ask(lambda _: httpx.Response(200, content=parts()), RoutesAsked(ROUTING, 6), stream=True)


async def test_the_prompts_routes_are_the_first_responses() -> None:
    answers = [
        await ask(lambda _, n=tokens: httpx.Response(200, json=body(encoded(rows(n)))), RoutesAsked(ROUTING, 6, start))
        for start, tokens in ((0, 8), (6, 2), (6, 2))
    ]
    routes = group_routes(answers, 6, 300)
    np.testing.assert_array_equal(routes.prompt, answers[0].routes[:6])
    np.testing.assert_array_equal(routes.responses[0], answers[0].routes[6:])
    assert routes.fault(6, [3, 3, 3]) is None


@pytest.mark.parametrize("told", [{}, {"enable_return_routed_experts": False}, {"enable_return_routed_experts": 1}])
async def test_an_engine_that_returns_no_experts_is_refused(told: dict[str, object]) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"device": "cpu", **told})

    async with EngineClient("http://engine", transport=httpx.MockTransport(handler)) as engine:
        await check_server(engine)
        with pytest.raises(InputError, match="start it with --enable-return-routed-experts"):
            await check_server(engine, routes=True)


# -- a worker with everything it talks to -----------------------------------------------------------------------------


@pytest.fixture
async def start(redis_url: str, run_name: str, rows: Path, tiny_mixture: Path, reward, tmp_path: Path):
    """A rig over an engine with a mixture of experts, whose weight store has version 0."""
    made = recipe(REPLAY)
    async with embedded_engine(tiny_mixture) as url, rig(made, redis_url, run_name, rows, url, reward) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_mixture))
        yield bench


@torch.no_grad()
def computed(model: Any, group: Group) -> GroupRoutes:
    """What a plain pass of the model routes, response by response."""
    found = []
    for response in group.responses:
        ids = torch.tensor([[*group.prompt_ids.tolist(), *response.ids.tolist()]])
        layers = model(input_ids=ids, output_router_logits=True).router_logits
        found.append(np.stack([layer.topk(2, dim=-1).indices.numpy() for layer in layers], axis=1).astype(np.uint8))
    prompt = len(group.prompt_ids)
    return GroupRoutes(found[0][:prompt], tuple(each[prompt:-1] for each in found), 4)


async def test_groups_refer_to_the_routes_of_their_tokens(start: Rig, tmp_path: Path, tiny_mixture: Path) -> None:
    folder = folder_in(tmp_path)
    open_folder(folder)
    start.start()
    batch = await start.take()
    model = AutoModelForCausalLM.from_pretrained(tiny_mixture).eval()
    for group in batch.groups:
        routes = read_routes(folder, group.routes)
        assert routes.fault(len(group.prompt_ids), [len(each.ids) for each in group.responses]) is None
        expected = computed(model, group)
        for mine, theirs in zip(
            (routes.prompt, *routes.responses), (expected.prompt, *expected.responses), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)
    assert {group.routes.name for group in batch.groups} <= await start.learner.queue.live_routes()


async def test_a_finished_group_waits_for_a_store_that_cannot_be_written(start: Rig, tmp_path: Path) -> None:
    start.start()
    await start.until(lambda: any(live.held_up for live in start.worker.training.groups))
    (held_up, *_) = [live.held_up for live in start.worker.training.groups if live.held_up]
    assert (held_up.phase, held_up.label) == ("waiting", "storage")
    assert "is the weight store mounted here?" in held_up.reason
    assert (await start.learner.queue.stats()).ready == 0
    open_folder(folder_in(tmp_path))
    batch = await start.take()
    assert all(group.routes is not None for group in batch.groups)


async def test_routes_of_a_group_that_nobody_wants_are_removed(
    start: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_in(tmp_path)
    open_folder(folder)
    there: list[list[str]] = []

    async def submit(lease: Lease, group: Group) -> SubmitOutcome:
        there.append([group.routes.name, *(path.name for path in folder.iterdir())])
        await start.bench.queue.release(lease, "lost")
        return SubmitOutcome.STALE

    monkeypatch.setattr(start.bench.queue, "submit", submit)
    start.start()
    await start.until(lambda: there)
    name, *found = there[0]
    assert name in found, "a group refers to a file that is there"
    await start.until(lambda: not (folder / name).exists())
    assert (folder / MARKER).exists()


async def test_an_engine_whose_routes_are_wrong_is_quarantined(
    redis_url: str, run_name: str, rows: Path, tiny_mixture: Path, reward, tmp_path: Path, monkeypatch
) -> None:
    """Its first token already shows it, so that no row is lost to it; what heals is used again."""
    broken = asyncio.Event()
    broken.set()
    from golongrl.engine.routes import RouteLog

    whole = RouteLog.encoded
    monkeypatch.setattr(RouteLog, "encoded", lambda log: "AAAA" if broken.is_set() else whole(log))
    open_folder(folder_in(tmp_path))
    made = recipe(REPLAY)
    async with embedded_engine(tiny_mixture) as url, rig(made, redis_url, run_name, rows, url, reward) as bench:
        await bench.learner.queue.announce(bench.learner.fence, publish(tmp_path, 0, tiny_mixture))
        bench.start()
        await bench.until(lambda: bench.state.quarantine)
        assert "routed_experts is not base64 of int32" in bench.state.quarantine
        assert (await bench.learner.queue.stats()).leased == 0
        broken.clear()
        await bench.take()
        assert bench.state.quarantine is None
