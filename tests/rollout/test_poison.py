"""Whatever an engine sends is either a usable answer or an engine's error: never a traceback, never a bad token."""

import copy
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.rollout.groups.assemble import ForeignWeightsError, version_spans
from golongrl.rollout.sglang import stream
from golongrl.rollout.sglang.answers import parse_checksums, parse_generation, parse_json, parse_model_info
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.errors import EngineError, EngineProtocolError, EngineRefusedError
from golongrl.rollout.sglang.sampling import SamplingParams

PROMPT = np.arange(20, 26, dtype=np.int32)
SAMPLING = SamplingParams(temperature=1.0, top_p=1.0, max_new_tokens=4, seed=1)
VOCABULARY = 512
GOOD: dict[str, Any] = {
    "text": "abc",
    "output_ids": [7, 8, 9],
    "meta_info": {
        "id": "r",
        "finish_reason": {"type": "stop", "matched": 9},
        "prompt_tokens": 6,
        "completion_tokens": 3,
        "cached_tokens": 0,
        "weight_versions": [{"version": "1", "start": 0, "end": 2}, {"version": "2", "start": 2, "end": 3}],
        "output_token_logprobs": [[-0.5, 7, None], [-1, 8, "b"], [0.0, 9, None]],
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """The good answer with one thing replaced; `path` is dotted."""
    body = copy.deepcopy(GOOD)
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    at: Any = body
    for step in steps:
        at = at[step]
    at[last] = value
    return body


def spans(*bounds: tuple[object, object]) -> list[dict[str, object]]:
    return [{"version": "1", "start": start, "end": end} for start, end in bounds]


POISON: list[object] = [
    5, None, [], "text", True, 1.5, {}, {"text": "abc"},
    {"error": None}, {"error": {"code": "x"}}, {"error": {"code": 1e9}},
    changed("text", None), changed("text", 5), changed("text", ["a"]),
    changed("output_ids", None), changed("output_ids", "789"), changed("output_ids", [[7, 8, 9]]),
    *(changed("output_ids.1", value) for value in (-7, 512, 999999, 2**31, 2**40, 10**400, 8.0, "8", None, True, [8])),
    *(changed("meta_info.output_token_logprobs.1.1", value) for value in (-7, 512, 2**40, None, "8", 7)),
    *(changed("meta_info.output_token_logprobs.1.0", value)
      for value in (0.5, 1e-3, 12, float("nan"), float("inf"), float("-inf"), -1e300, -(10**400), None, "x", True, [])),
    *(changed("meta_info.output_token_logprobs", value) for value in (None, {}, [], [1, 2, 3], [[], [], []], "abc")),
    *(changed("meta_info.finish_reason", value)
      for value in (None, "stop", 5, [], {}, {"type": None}, {"type": "weird"}, {"type": ["stop"]})),
    *(changed("meta_info.weight_versions", value)
      for value in (None, [], {}, "1", [1], [None], spans((0, 2)), spans((1, 3)), spans((0, 3), (1, 3)),
                    spans((0, 2), (1, 3)), spans((0, 3), (0, 3)), spans((0, 4)), spans((0, 1), (2, 3)), spans((3, 0)),
                    spans((-1, 3)), spans((0, 2.0)), spans(("0", "3")), spans((False, 3)), spans((0, 10**400)))),
    changed("meta_info.weight_versions.0.version", 1), changed("meta_info.weight_versions.0.version", None),
    *(changed(f"meta_info.{name}", value) for name in ("cached_tokens", "prompt_tokens")
      for value in ("3", -1, 1.5, True, [], 10**400)),
    changed("meta_info", None), changed("meta_info", []), changed("meta_info", "x"),
]  # fmt: skip


def client(answer: Callable[[httpx.Request], httpx.Response]) -> EngineClient:
    return EngineClient("http://engine", transport=httpx.MockTransport(answer))


async def ask(answer: Callable[[httpx.Request], httpx.Response], *, stream: bool = False, **options: Any) -> Any:
    async with client(answer) as engine:
        return await engine.generate(PROMPT, SAMPLING, rid="r", vocab_size=VOCABULARY, stream=stream, **options)


async def test_the_answer_that_the_others_are_made_from_is_good() -> None:
    done = await ask(lambda _: httpx.Response(200, json=GOOD))
    assert done.ids.tolist() == [7, 8, 9]
    assert done.logprobs.tolist() == [-0.5, -1.0, 0.0]
    assert [(span.version, span.start, span.end) for span in done.spans] == [("1", 0, 2), ("2", 2, 3)]


async def test_a_log_prob_that_was_rounded_above_zero_is_zero() -> None:
    body = changed("meta_info.output_token_logprobs.1.0", 1.2e-7)
    assert (await ask(lambda _: httpx.Response(200, json=body))).logprobs[1] == 0.0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", POISON, ids=lambda body: str(POISON.index(body)))
async def test_poison_is_a_protocol_error(body: object, stream: bool) -> None:
    text = json.dumps(body).encode()
    content = b"data: " + text + b"\n\ndata: [DONE]\n\n" if stream else text
    told: list[int] = []
    with pytest.raises((EngineProtocolError, EngineRefusedError)) as caught:
        await ask(lambda _: httpx.Response(200, content=content), stream=stream, on_progress=told.append)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 800
    assert all(0 <= tokens <= SAMPLING.max_new_tokens for tokens in told)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"not json", b"{", b"\xff\xfe\x00", b'{"text": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000,
        b'{"output_ids": [' + b"9" * 10_000 + b"]}", b'{"completion_tokens": ' + b"9" * 10_000 + b"}", b"NaN",
    ],
    ids=range(11),
)  # fmt: skip
@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_not_even_an_object_is_a_protocol_error(content: bytes, stream: bool) -> None:
    sent = b"data: " + content + b"\n\n" if stream else content
    with pytest.raises(EngineProtocolError):
        await ask(lambda _: httpx.Response(200, content=sent), stream=stream, on_progress=lambda _: None)
    async with client(lambda _: httpx.Response(200, content=content)) as engine:
        for call in (engine.model_info, engine.checksums, engine.placement, engine.begin_weight_update):
            with pytest.raises(EngineProtocolError):
                await call()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_body_without_an_end_is_cut_off(stream: bool) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1 << 20
            yield b"x" * (1 << 20)

    with pytest.raises(EngineProtocolError, match="more than"):
        await ask(lambda _: httpx.Response(200, content=endless()), stream=stream)
    assert sent < 64 << 20
    async with client(lambda _: httpx.Response(500, content=endless())) as engine:
        with pytest.raises(EngineProtocolError, match="more than"):
            await engine.model_info()
        with pytest.raises(EngineProtocolError, match="more than"):
            await engine.generate(PROMPT, SAMPLING, rid="r", vocab_size=VOCABULARY)


async def test_endless_small_events_are_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_ANSWER_BYTES", 1 << 16)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b'data: {"completion_tokens": 1}\n\n' * 4096

    with pytest.raises(EngineProtocolError, match="more than"):
        await ask(lambda _: httpx.Response(200, content=endless()), stream=True)


async def test_a_body_that_cannot_be_decompressed_is_a_protocol_error() -> None:
    headers = {"content-encoding": "gzip"}
    for content in (b"not gzip", gzip.compress(json.dumps(GOOD).encode())[:-20] + b"x" * 20):
        with pytest.raises(EngineError):
            await ask(lambda _, content=content: httpx.Response(200, content=content, headers=headers))


@pytest.mark.parametrize("status", [204, 302, 404, 418])
async def test_another_status_is_an_engines_error(status: int) -> None:
    with pytest.raises(EngineError, match=str(status)):
        await ask(lambda _: httpx.Response(status, content=b"\xff" * 2000))


@pytest.mark.parametrize("said", ["\ud800\x1b[2J", "x" * 100_000], ids=["half a character", "long"])
async def test_what_an_engine_says_of_an_error_can_be_told_to_the_queue(said: str) -> None:
    async def failed(status: int, body: object, call: Callable[[EngineClient], Any]) -> str:
        async with client(lambda _: httpx.Response(status, content=json.dumps(body))) as engine:
            with pytest.raises(EngineError) as caught:
                await call(engine)
        return str(caught.value)

    aborted = changed("meta_info.finish_reason", {"type": "abort", "status_code": 400, "message": said})
    told = [
        *[await failed(status, {"error": {"message": said}}, EngineClient.model_info) for status in (400, 401, 503)],
        await failed(200, {"success": False, "message": said}, EngineClient.begin_weight_update),
        await failed(200, {"success": False, said: said}, EngineClient.begin_weight_update),
        await failed(200, {"success": True, "ranks": [{"checksums": {said: 1}}]}, EngineClient.checksums),
        await failed(200, aborted, lambda engine: engine.generate(PROMPT, SAMPLING, rid="r", vocab_size=VOCABULARY)),
        parse_generation(changed("meta_info.finish_reason.matched", said), "r", VOCABULARY).detail,
    ]
    assert max(len(text.encode()) for text in told) < 800
    assert not any("\x1b" in text for text in told)


leaves = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
anything = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
places = st.sampled_from(
    ["text", "output_ids", "output_ids.0", "meta_info", "meta_info.finish_reason", "meta_info.finish_reason.type",
     "meta_info.cached_tokens", "meta_info.weight_versions", "meta_info.weight_versions.1",
     "meta_info.weight_versions.1.end", "meta_info.output_token_logprobs", "meta_info.output_token_logprobs.2",
     "meta_info.output_token_logprobs.2.0", "meta_info.output_token_logprobs.2.1", "meta_info.finish_reason.message"]
)  # fmt: skip


@given(places, anything)
def test_anything_anywhere_is_usable_or_a_protocol_error(place: str, value: object) -> None:
    try:
        done = parse_generation(changed(place, value), "r", VOCABULARY)
    except EngineProtocolError:
        return
    assert done.ids.dtype == np.int32
    assert ((done.ids >= 0) & (done.ids < VOCABULARY)).all()
    assert len(done.ids) == len(done.logprobs) == 3
    assert np.isfinite(done.logprobs).all()
    assert (done.logprobs <= 0).all()
    assert isinstance(done.text, str)
    assert [span.start for span in done.spans] == [0, *(span.end for span in done.spans[:-1])]


@given(st.dictionaries(st.sampled_from(["model_path", "weight_version", "ranks", "checksums"]), anything))
def test_the_other_answers_are_usable_or_a_protocol_error(body: dict[str, Any]) -> None:
    for parse in (parse_model_info, parse_checksums):
        with suppress(EngineProtocolError):
            parse(body)


@given(st.binary(max_size=64))
def test_bytes_are_an_object_or_a_protocol_error(content: bytes) -> None:
    with suppress(EngineProtocolError):
        assert isinstance(parse_json(content, "x"), dict)


@pytest.mark.parametrize(
    "version", ["9" * 5000, "3" * 16, "-1", "1.0", "\u00b2", "\u0663", "", " 1", "default", "4", "0"]
)
def test_a_version_that_the_worker_did_not_adopt_is_an_error_in_one_short_line(version: str) -> None:
    body = changed("meta_info.weight_versions", [{"version": version, "start": 0, "end": 3}])
    answer = parse_generation(body, "r", VOCABULARY)
    with pytest.raises(ForeignWeightsError) as error:
        version_spans(answer, 1, 2)
    assert len(str(error.value)) < 200


def test_versions_that_go_back_within_an_answer_are_the_versions_of_its_tokens() -> None:
    """An engine that was restarted with the weights it began with; the queue has the group's row dealt again."""
    back = [{"version": "2", "start": 0, "end": 1}, {"version": "1", "start": 1, "end": 3}]
    answer = parse_generation(changed("meta_info.weight_versions", back), "r", VOCABULARY)
    assert [span.version for span in version_spans(answer, 1, 2)] == [2, 1]
    with pytest.raises(ForeignWeightsError, match=r"tokens 1\.\.3 are from weights"):
        version_spans(answer, 2, 2)
