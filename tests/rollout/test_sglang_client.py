"""The engine client against what a real SGLang 0.5.23 answered."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.broadcast.protocol import Bucket
from golongrl.rollout.sglang.answers import AnswerSpan, ModelInfo, parse_checksums
from golongrl.rollout.sglang.client import EngineClient, KvUse, WeightPlacement
from golongrl.rollout.sglang.errors import (
    EngineBusyError,
    EngineProtocolError,
    EngineRefusedError,
    EngineSilentError,
    EngineUnavailableError,
)
from golongrl.rollout.sglang.http import Deadlines, Leeway
from golongrl.rollout.sglang.sampling import SamplingParams
from rollout.replay import Replay, recording
from support.recordings import recorded

SAMPLING = SamplingParams(temperature=1.0, top_p=1.0, max_new_tokens=4)
PROMPT = np.array([10, 11, 12, 13, 14], np.int32)


def engine(handler, **options) -> EngineClient:
    return EngineClient("http://engine", transport=httpx.MockTransport(handler), **options)


def generate(client: EngineClient, **options):
    return client.generate(PROMPT, SAMPLING, **{"rid": "r", "vocab_size": 512, **options})


async def test_a_generation_comes_back_with_ids_logprobs_and_versions() -> None:
    replay = Replay(generate=["58_pause_inplace_target"])
    async with engine(replay) as client:
        done = await generate(client)
    assert done.finish == "length"
    assert done.ids.dtype == np.int32
    assert done.logprobs.dtype == np.float32
    assert len(done.ids) == len(done.logprobs) == 100
    assert (done.logprobs < 0).all()
    assert done.spans == (AnswerSpan("1", 0, 43), AnswerSpan("3", 43, 100))
    assert (done.prompt_tokens, done.cached_tokens) == (5, 4)


async def test_a_stream_tells_its_progress_and_ends_in_the_same_answer() -> None:
    seen: list[int] = []
    async with engine(Replay(generate=["14_generate_stream"])) as client:
        done = await generate(client, stream=True, on_progress=seen.append)
    assert seen == [1, 2, 3, 4]
    assert done.ids.tolist() == [184, 254, 214, 224]
    assert done.spans == (AnswerSpan("default", 0, 4),)


async def test_a_stream_may_be_cut_anywhere_and_hold_any_separator() -> None:
    event = json.loads(json.dumps(recording("09_generate_logprob")["body"]))
    event["text"] = 'a\u2028b\u0085c "completion_tokens":999'
    payload = b"data: " + json.dumps(event, ensure_ascii=False).encode() + b"\n\ndata: [DONE]\n\n"

    async def bits() -> AsyncIterator[bytes]:
        for at in range(0, len(payload), 7):
            yield payload[at : at + 7]

    seen: list[int] = []
    async with engine(lambda _: httpx.Response(200, content=bits())) as client:
        done = await generate(client, stream=True, on_progress=seen.append)
    assert done.text == event["text"]
    assert seen == [4]


async def test_an_aborted_response_keeps_its_tokens_and_says_so() -> None:
    async with engine(Replay(generate=["40_abort_all_target0"])) as client:
        done = await generate(client)
    assert done.finish == "abort"
    assert len(done.ids) == 7
    assert done.detail == "Aborted"


async def test_a_request_aborted_in_the_queue_has_no_token_and_no_prompt_count() -> None:
    aborted = recorded("200_abort_all_with_queue")["35"][1]
    async with engine(lambda _: httpx.Response(200, json=aborted)) as client:
        done = await generate(client)
    assert done.finish == "abort"
    assert done.ids.shape == done.logprobs.shape == (0,)
    assert done.spans == ()
    assert done.prompt_tokens is None


@pytest.mark.parametrize("ids", [[], [512], [0, -1], [5, 99999, 6]])
async def test_ids_that_would_kill_the_server_are_never_sent(ids: list[int]) -> None:
    replay = Replay(generate=["09_generate_logprob"])
    async with engine(replay) as client:
        with pytest.raises(ValueError, match=r"no tokens|outside the model's vocabulary \[0, 512\)"):
            await client.generate(np.array(ids, np.int32), SAMPLING, rid="r", vocab_size=512)
    assert replay.asked == []


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("21_err_too_long", EngineRefusedError, "longer than the model's context length"),
        ("22_err_ctx_plus_new", EngineRefusedError, "exceeds the model's maximum context length of 4096"),
        ("25_err_bad_temp", EngineRefusedError, "temperature must be a non-negative finite number"),
        ("26_err_unknown_sp", EngineRefusedError, "unknown field `foo`"),
        ("31_err_duplicate_rid", EngineBusyError, "Duplicate request ID detected: dup"),
    ],
)
async def test_refusals_carry_the_servers_words(name: str, error: type[Exception], message: str) -> None:
    async with engine(Replay(generate=[name])) as client:
        with pytest.raises(error, match=message):
            await generate(client)


@pytest.mark.parametrize(
    ("status", "error"),
    [(400, EngineRefusedError), (503, EngineBusyError), (500, EngineUnavailableError), (None, None), (200, None)],
)
async def test_a_stream_that_the_scheduler_refused_is_no_abort(
    status: int | None, error: type[Exception] | None
) -> None:
    message = "Input length (130000 tokens) exceeds the maximum allowed length (65529 tokens)."
    finish = {"type": "abort", "message": message, "status_code": status, "err_type": None}
    event = json.loads(json.dumps(recording("09_generate_logprob")["body"]))
    event["output_ids"], event["meta_info"]["output_token_logprobs"] = [], []
    event["meta_info"] |= {"weight_versions": [], "finish_reason": finish}
    payload = b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"
    async with engine(lambda _: httpx.Response(200, content=payload)) as client:
        if error is None:
            assert (await generate(client, stream=True)).finish == "abort"
            return
        with pytest.raises(error, match="Input length"):
            await generate(client, stream=True)


async def test_an_error_inside_a_stream_is_an_error() -> None:
    event = b'data: {"error": {"message": "Input too long", "code": 400}}\n\ndata: [DONE]\n\n'
    async with engine(lambda _: httpx.Response(200, content=event)) as client:
        with pytest.raises(EngineRefusedError, match="Input too long"):
            await generate(client, stream=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body["meta_info"].pop("weight_versions"), "0.5.23 or later"),
        (
            lambda body: body["meta_info"].update(weight_versions=[{"version": "1", "start": 0, "end": 3}]),
            "do not cover",
        ),
        (
            lambda body: body["meta_info"].update(weight_versions=[{"version": "1", "start": 1, "end": 4}]),
            "do not cover",
        ),
        (lambda body: body["output_ids"].pop(), "3 output ids"),
        (lambda body: body["meta_info"]["output_token_logprobs"][0].__setitem__(0, None), "finite"),
        (lambda body: body["meta_info"].update(finish_reason=None), "finish_reason None"),
        (lambda body: body.pop("meta_info"), "lacks 'meta_info'"),
    ],
)
async def test_an_answer_that_contradicts_itself_is_not_used(change, message: str) -> None:
    body = recording("09_generate_logprob")["body"]
    change(body)
    async with engine(lambda _: httpx.Response(200, json=body)) as client:
        with pytest.raises(EngineProtocolError, match=message):
            await generate(client)


async def test_a_stream_that_ends_early_is_not_an_answer() -> None:
    first = str(recording("14_generate_stream")["body"]).split("\n\n")[0] + "\n\n"
    async with engine(lambda _: httpx.Response(200, content=first.encode())) as client:
        with pytest.raises(EngineProtocolError, match="finish_reason None"):
            await generate(client, stream=True)


async def test_a_dead_server_and_a_silent_one_are_told_apart() -> None:
    def dead(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with engine(dead) as client:
        with pytest.raises(EngineUnavailableError, match="POST /generate r at http://engine: ConnectError: refused"):
            await generate(client)
        with pytest.raises(EngineUnavailableError, match="GET /health at http://engine: ConnectError: refused"):
            await client.health()
    async with engine(silent, deadlines=Deadlines(connect_s=0.05, control_s=0.05)) as client:
        with pytest.raises(EngineSilentError, match="GET /model_info"):
            await client.model_info()


async def test_a_call_that_missed_its_deadline_is_given_longer() -> None:
    """Else an engine that always takes a little longer than the deadline would never be heard."""

    async def silent(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(600)
        raise AssertionError

    async with engine(silent, deadlines=Deadlines(connect_s=0.01, control_s=0.05)) as client:
        for limit in ("0.05", "0.1", "0.2", "0.4", "0.4"):
            with pytest.raises(
                EngineSilentError, match=f"GET /model_info at http://engine: no answer within {limit} s"
            ):
                await client.model_info()


def test_the_longer_deadline_is_kept_while_it_is_needed() -> None:
    leeway = Leeway(4)
    leeway.answered(0.9)
    assert leeway.factor == 4
    leeway.answered(0.01)
    assert leeway.factor == 2


@given(st.lists(st.none() | st.floats(0, 1)))
def test_leeway_is_bounded_and_given_back(history: list[float | None]) -> None:
    leeway = Leeway()
    for share in history:
        if share is None:
            leeway.silent()
        else:
            leeway.answered(share)
        assert leeway.factor in (1, 2, 4, 8)
    for _ in range(3):
        leeway.answered(0.1)
    assert leeway.factor == 1


async def test_both_keys_go_where_they_belong() -> None:
    replay = Replay(
        generate=["09_generate_logprob"], pause_generation=["59_pause_generation_retract"], model_info=["04_model_info"]
    )
    async with engine(replay, api_key="user", admin_api_key="admin") as client:
        await generate(client)
        await client.pause("retract")
        assert await client.model_info() == ModelInfo("/models/tiny", "default")
    assert replay.keys == {
        "generate": "Bearer user",
        "pause_generation": "Bearer admin",
        "model_info": "Bearer user",
    }


async def test_an_update_is_a_string_version_and_must_be_confirmed() -> None:
    replay = Replay(update_weights_from_disk=["48_update_disk_while_paused"])
    async with engine(replay) as client:
        await client.update_from_disk("/models/tiny-next", "1", flush_cache=True)
    assert replay.asked == [
        (
            "update_weights_from_disk",
            {
                "model_path": "/models/tiny-next",
                "weight_version": "1",
                "flush_cache": True,
                "abort_all_requests": False,
            },
        )
    ]
    async with engine(lambda _: httpx.Response(200, json={"success": False, "message": "half done"})) as client:
        with pytest.raises(EngineProtocolError, match="not confirmed: half done"):
            await client.update_from_disk("/models/tiny-next", "1", flush_cache=True)


@pytest.mark.parametrize("answer", [b"", b"<html>log in</html>", b"[]"])
async def test_a_pause_or_its_end_that_another_program_answered_is_an_error(answer: bytes) -> None:
    """The worker took it for done: its engine stayed paused until the group had stalled, a minute later."""
    async with engine(lambda _: httpx.Response(200, content=answer)) as client:
        for call in (lambda: client.pause("in_place"), client.resume):
            with pytest.raises(EngineProtocolError, match=r"^POST /(pause|continue)_generation at http://engine: "):
                await call()


async def test_weights_that_came_without_a_flush_are_flushed_and_named() -> None:
    """The 400 that means: the weights are the new ones, the version is not."""
    replay = Replay(
        update_weights_from_disk=["54_update_disk_inplace_flush_true"],
        pause_generation=["59_pause_generation_retract"],
        flush_cache=["37_flush_cache_busy", "41_flush_cache_idle"],
        update_weight_version=["72_update_weight_version"],
    )
    async with engine(replay) as client:
        await client.update_from_disk("/models/tiny", "8", flush_cache=True)
    assert replay.paths == [
        "update_weights_from_disk",
        "pause_generation",
        "flush_cache",
        "flush_cache",
        "update_weight_version",
    ]
    assert replay.asked[-1][1] == {"new_version": "8", "abort_all_requests": False}


async def test_a_cache_that_never_empties_leaves_the_update_unconfirmed() -> None:
    replay = Replay(
        update_weights_from_disk=["54_update_disk_inplace_flush_true"],
        pause_generation=["59_pause_generation_retract"],
        flush_cache=["37_flush_cache_busy"],
    )
    async with engine(replay, deadlines=Deadlines(control_s=2.0)) as client:
        with pytest.raises(EngineProtocolError, match="cannot be flushed"):
            await client.update_from_disk("/models/tiny", "8", flush_cache=True)
    assert "update_weight_version" not in replay.paths


@pytest.mark.parametrize("name", ["68_err_update_disk_badpath", "71_err_update_disk_wv_int"])
async def test_refused_weights_are_a_refusal(name: str) -> None:
    async with engine(Replay(update_weights_from_disk=[name])) as client:
        with pytest.raises(EngineRefusedError, match=r"weights iterator|2 validation errors") as caught:
            await client.update_from_disk("/nope", "7", flush_cache=True)
    assert caught.value.status == 400


async def test_session_errors_name_the_missing_step() -> None:
    replay = Replay(
        begin_weight_update=["112_begin_weight_update_twice"],
        update_weights_from_distributed=["102_upd_dist_no_session"],
    )
    async with engine(replay) as client:
        with pytest.raises(EngineRefusedError, match="session is already open"):
            await client.begin_weight_update()
        bucket = Bucket(names=["x"], dtypes=["float32"], shapes=[[1]])
        with pytest.raises(EngineRefusedError, match="between begin_weight_update"):
            await client.update_from_distributed(bucket, "wg", "1", flush_cache=True)
    (sent,) = [body for path, body in replay.asked if path == "update_weights_from_distributed"]
    assert sent == {
        "names": ["x"],
        "dtypes": ["float32"],
        "shapes": [[1]],
        "group_name": "wg",
        "flush_cache": True,
        "abort_all_requests": False,
        "weight_version": "1",
    }


@pytest.mark.parametrize(
    ("info", "wrong"),
    [
        ({"tp_size": 8, "pp_size": 1, "device": "cuda"}, None),
        (
            {"tp_size": 8, "pp_size": 2, "device": "cuda"},
            "2 pipeline stages cannot receive broadcast weights; set learner.weights=disk",
        ),
        ({"tp_size": 4, "dp_size": 2, "device": "cuda"}, "2 data-parallel copies cannot receive broadcast weights"),
        ({"pp_size": 1, "device": "cuda"}, "tp_size or device is missing"),
    ],
)
async def test_where_weights_would_be_received(info: dict[str, Any], wrong: str | None) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=info))
    async with EngineClient("http://engine", transport=transport) as client:
        if wrong is None:
            assert await client.placement() == WeightPlacement(8, "cuda")
            return
        with pytest.raises(EngineProtocolError, match=wrong):
            await client.placement()


async def test_a_recorded_engine_says_how_it_is_laid_out() -> None:
    async with engine(Replay(server_info=["05_server_info"])) as client:
        assert await client.placement() == WeightPlacement(1, "cpu")


async def test_the_small_calls() -> None:
    replay = Replay(
        abort_request=["34_abort_request_rid"],
        ready=["46_ready_while_paused"],
        flush_cache=["41_flush_cache_idle"],
        weights_checker=["75_weights_checker"],
        metrics=["82_metrics"],
    )
    async with engine(replay) as client:
        await client.abort("ab-1")
        await client.abort()
        assert not await client.ready()
        assert await client.flush_cache()
        assert (await client.checksums())["model.norm.weight"] == "02722f124d0f1736"
        assert (await client.metrics())["sglang:num_running_reqs"] == 0.0
    assert [body for path, body in replay.asked if path == "abort_request"] == [{"rid": "ab-1"}, {"abort_all": True}]


@pytest.mark.parametrize(
    ("ranks", "checksums"),
    [
        ([{"norm": "1", "up": "2"}], {"norm": "1", "up": "2"}),
        ([{"norm": "1", "up": "2"}, {"norm": "1", "up": "3"}], {"norm": "1", "up": "2,3"}),
        # Which rank it is in shows.
        ([{"up": "2"}, {"up": "2"}, {"up": "3"}], {"up": "2,2,3"}),
        ([{"up": "2"}, {"up": "3"}, {"up": "3"}], {"up": "2,3,3"}),
    ],
)
def test_checksums_are_of_all_ranks(ranks: list[dict[str, str]], checksums: dict[str, str]) -> None:
    assert parse_checksums({"ranks": [{"checksums": rank} for rank in ranks]}) == checksums


@pytest.mark.parametrize("body", [{}, {"ranks": []}, {"ranks": [{}]}, {"ranks": [{"checksums": None}]}])
def test_without_checksums_nothing_is_confirmed(body: dict[str, object]) -> None:
    with pytest.raises(EngineProtocolError, match="weights_checker"):
        parse_checksums(body)


async def test_how_full_the_kv_cache_is() -> None:
    async with engine(Replay(**{"v1/loads": ["80_v1_loads"]})) as client:
        assert await client.kv_use() == KvUse(0.0, 0)


def _load(**changes: Any) -> dict[str, Any]:
    return {"token_usage": 0.5, "num_waiting_reqs": 1, "queues": {"retracted": 2}, **changes}


@pytest.mark.parametrize(
    ("loads", "found"),
    [
        ([_load()], KvUse(0.5, 3)),
        # Each data-parallel copy has a cache of its own, and the fullest one is where answers are retracted.
        ([_load(), _load(token_usage=0.97, num_waiting_reqs=0)], KvUse(0.97, 5)),
        ([], None),
        ([_load(token_usage=None)], None),
        ([_load(token_usage=float("nan"))], None),
        ([_load(token_usage=-1.0)], None),
        ([_load(token_usage=10**400)], None),
        ([_load(num_waiting_reqs=float("inf"))], None),
        ([_load(queues={"retracted": -float("inf")})], None),
        ([_load(num_waiting_reqs="many")], None),
        ([{"token_usage": 0.5}], None),
        ([7], None),
        (None, None),
    ],
)
async def test_a_load_that_cannot_be_used_is_no_figure(loads: object, found: KvUse | None) -> None:
    content = json.dumps({"loads": loads}).encode()
    async with engine(lambda _: httpx.Response(200, content=content)) as client:
        if found is None:
            with pytest.raises(EngineProtocolError, match="v1/loads"):
                await client.kv_use()
        else:
            assert await client.kv_use() == found
