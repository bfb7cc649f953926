"""All responses of a prompt: who goes first, and what happens to those that are cut short or turned away."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest

from golongrl.rollout.groups import generate
from golongrl.rollout.groups.generate import LEAD_FROM_TOKENS, Prompt, generate_group
from golongrl.rollout.groups.progress import LiveGroup, Pace
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import EngineAbortedError, EngineBusyError, EngineUnavailableError
from golongrl.rollout.sglang.sampling import SamplingParams

SAMPLING = SamplingParams(1.0, 1.0, 8)


def body(rid: str, tokens: int = 3, finish: dict[str, object] | None = None) -> dict[str, object]:
    return {
        "text": rid,
        "output_ids": list(range(tokens)),
        "meta_info": {
            "id": rid,
            "finish_reason": finish or {"type": "length", "length": tokens},
            "prompt_tokens": 5,
            "cached_tokens": 0,
            "completion_tokens": tokens,
            "output_token_logprobs": [[-1.0, token, None] for token in range(tokens)],
            "weight_versions": [{"version": "0", "start": 0, "end": tokens}],
        },
    }


async def sample(handler, prompt_tokens: int = 5, n: int = 4, pace: Pace | None = None):
    prompt = Prompt("0-1", np.full(prompt_tokens, 7, np.int32), vocab_size=512, run_seed=3)
    live = LiveGroup.begin(uid="0-1", token="t", version=0, prompt_tokens=prompt_tokens, n=n, max_response_tokens=8)
    async with EngineClient("http://engine", transport=httpx.MockTransport(handler)) as engine:
        return await generate_group(engine, prompt, SAMPLING, n, live, pace or Pace()), live


async def test_short_prompts_go_together_each_with_its_own_id_and_seed() -> None:
    sent: list[dict] = []
    all_here = asyncio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        if len(sent) == 4:
            all_here.set()
        await all_here.wait()
        return httpx.Response(200, json=body(sent[-1]["rid"]))

    answers, live = await sample(handler)
    assert len(answers) == 4
    assert live.ended == [True] * 4
    assert live.tokens == [3] * 4
    assert [one["rid"] for one in sent] == ["0-1.0000", "0-1.0001", "0-1.0002", "0-1.0003"]
    assert len({one["sampling_params"]["sampling_seed"] for one in sent}) == 4
    assert not any(one["stream"] for one in sent)


def test_no_request_id_is_the_beginning_of_another() -> None:
    """SGLang aborts by prefix."""
    rids = [f"{uid}.{index:04d}" for uid in ("0-1", "0-11", "1-1") for index in range(120)]
    assert not any(one != other and other.startswith(one) for one in rids for other in rids)


async def test_a_long_prompt_is_computed_by_the_first_request_before_the_others_are_sent() -> None:
    sent: list[str] = []
    prefilled = asyncio.Event()

    async def stream(rid: str) -> AsyncIterator[bytes]:
        if rid.endswith("0000"):
            await asyncio.sleep(0.05)
            assert sent == ["0-1.0000"], "nobody else before the first token"
            prefilled.set()
            yield b"data: " + json.dumps(body(rid, 1, finish={"type": "length"})).encode() + b"\n\n"
            await asyncio.sleep(0.05)
        assert prefilled.is_set()
        yield b"data: " + json.dumps(body(rid)).encode() + b"\n\ndata: [DONE]\n\n"

    async def handler(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        assert asked["stream"]
        sent.append(asked["rid"])
        return httpx.Response(200, content=stream(asked["rid"]))

    pace = Pace()
    answers, _ = await sample(handler, prompt_tokens=LEAD_FROM_TOKENS, pace=pace)
    assert [len(answer.ids) for answer in answers] == [3] * 4
    assert pace.prefill is not None
    assert pace.prefill < LEAD_FROM_TOKENS / 0.05
    assert pace.decode is not None


async def test_the_others_are_sent_even_when_the_first_is_cut_short() -> None:
    async def handler(request: httpx.Request) -> httpx.Response:
        asked = json.loads(request.content)
        first = asked["rid"].endswith("0000")
        content = b"" if first else b"data: " + json.dumps(body(asked["rid"])).encode() + b"\n\n"
        return httpx.Response(503) if first else httpx.Response(200, content=content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "_BUSY_PAUSE_S", 0.0)
        with pytest.raises(EngineBusyError):
            await sample(handler, prompt_tokens=LEAD_FROM_TOKENS)


@pytest.mark.parametrize("ours", ["pause", "abort all", "abort another", ""])
async def test_an_aborted_response_is_sampled_again_but_not_without_end(ours: str) -> None:
    """An engine that does it by itself has failed the row; where this worker asked for it, nobody has."""
    tries: dict[str, int] = {}

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/generate":
            return httpx.Response(200, json={"status": "ok"})
        rid = json.loads(request.content)["rid"]
        tries[rid] = tries.get(rid, 0) + 1
        hopeless = rid.endswith("0001")
        if hopeless and tries[rid] == 2:
            await {"pause": lambda: engine.pause("abort"), "abort all": engine.abort,
                   "abort another": lambda: engine.abort("0-2.0000"), "": engine.resume}[ours]()  # fmt: skip
        if hopeless or (rid.endswith("0000") and tries[rid] == 1):
            return httpx.Response(200, json=body(rid, 2, finish={"type": "abort", "message": "out of memory"}))
        return httpx.Response(200, json=body(rid))

    live = LiveGroup.begin(uid="0-1", token="t", version=0, prompt_tokens=5, n=3, max_response_tokens=8)
    prompt = Prompt("0-1", np.full(5, 7, np.int32), vocab_size=512, run_seed=3)
    async with EngineClient("http://engine", transport=httpx.MockTransport(handler)) as engine:
        if ours in ("pause", "abort all"):
            answers = await generate_group(engine, prompt, SAMPLING, 3, live, Pace())
            assert [answer.finish for answer in answers] == ["length", "abort", "length"]
            assert live.ended == [True, False, True]
        else:
            with pytest.raises(EngineAbortedError, match=r"0-1\.0001: .* aborted it 3 times: out of memory"):
                await generate_group(engine, prompt, SAMPLING, 3, live, Pace())
    assert tries["0-1.0001"] == 3


async def test_a_dead_engine_ends_the_group_with_one_error() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(EngineUnavailableError, match="refused"):
        await sample(handler)


async def test_cancelling_frees_the_engine_of_every_request() -> None:
    sent: list[str] = []
    aborted: list[str] = []
    all_here = asyncio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/abort_request":
            aborted.append(json.loads(request.content)["rid"])
            return httpx.Response(200)
        sent.append(json.loads(request.content)["rid"])
        if len(sent) == 4:
            all_here.set()
        await asyncio.Event().wait()  # an engine that never answers
        raise AssertionError

    task = asyncio.create_task(sample(handler))
    await all_here.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(aborted) == sorted(sent) == ["0-1.0000", "0-1.0001", "0-1.0002", "0-1.0003"]
