"""The client: results in order, bounded retries, deadlines, errors that name the URL and what to do."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from scoring_items import AppFactory, item

from golongrl.reward.client import (
    RewardClient,
    RewardError,
    RewardRejectedError,
    RewardUnavailableError,
    encode,
    pause_s,
)
from golongrl.reward.config import RewardConfig
from golongrl.reward.models import Item, ScoreRequest
from golongrl.reward.reading import read_batch

URL = "http://reward"


def items(*responses: str) -> list[Item]:
    return [Item(**item(text, str(n))) for n, text in enumerate(responses)]


def client(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> RewardClient:
    """A client whose network is `answer`, and whose pauses have no length of their own."""
    return RewardClient(URL, transport=httpx.MockTransport(answer), jitter=lambda low, _high: low / 1000, **options)


def scored(request: httpx.Request) -> httpx.Response:
    names = [entry["id"] for entry in json.loads(request.content)["items"]]
    result = {"status": "scored", "score": 1.0, "metric": "EM", "task": "T1", "reason": None}
    return httpx.Response(200, json={"results": [{"id": name, **result} for name in names]})


async def test_against_the_real_service(running: AppFactory) -> None:
    async with running(token=SecretStr("secret")) as (app, _):
        async with RewardClient(URL, "secret", transport=httpx.ASGITransport(app)) as made:
            assert await made.ready()
            results = await made.score(items("abc", "EXIT", "\ud800", ""), "strict")
            assert [r.score for r in results] == [0.003, None, 0.001, 0.0]
            (hung,) = await made.score(items("HANG"), "strict", deadline_s=0.5)
            assert hung.score is None
            assert await made.score([], "strict") == []
            with pytest.raises(RewardRejectedError, match=r"deadline_s: above") as refused:
                await made.score(items("a"), "compat", deadline_s=1e5)
            assert refused.value.problem.errors[0].field == "deadline_s"
        async with RewardClient(URL, "wrong", transport=httpx.ASGITransport(app)) as made:
            with pytest.raises(RewardRejectedError, match=r"http://reward.*401.*GOLONGRL_REWARD_TOKEN"):
                await made.score(items("a"), "compat")


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
async def test_a_busy_service_is_asked_again_with_the_same_request_id(status: int) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return scored(request) if len(seen) > 3 else httpx.Response(status, headers={"Retry-After": "0"})

    async with client(answer) as made:
        assert [r.id for r in await made.score(items("a", "b"), "compat")] == ["0", "1"]
    assert len(seen) == 4
    assert len({request.headers["X-Request-Id"] for request in seen}) == 1
    assert len({request.content for request in seen}) == 1


async def test_a_lost_connection_is_retried() -> None:
    errors = iter([httpx.ConnectError("refused"), httpx.RemoteProtocolError("cut"), httpx.ReadError("reset")])

    def answer(request: httpx.Request) -> httpx.Response:
        for error in errors:
            raise error
        return scored(request)

    async with client(answer) as made:
        assert (await made.score(items("a"), "compat"))[0].score == 1.0


async def test_attempts_are_bounded_and_the_error_says_what_to_do() -> None:
    calls = 0

    def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(503, json={"detail": "not ready: no worker is warm yet", "errors": []})

    async with client(answer, attempts=3) as made:
        with pytest.raises(RewardUnavailableError, match=r"http://reward: gave up after 3 .*no worker is warm.*readyz"):
            await made.score(items("a"), "compat")
    assert calls == 3


@pytest.mark.parametrize("status", [400, 500])
async def test_what_a_service_says_of_a_refusal_is_told_as_one_short_line(status: int) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"detail": "no\x1b[2J\n" * 100_000})

    async with client(answer) as made:
        with pytest.raises(RewardRejectedError) as refused:
            await made.score(items("a"), "compat")
    assert len(str(refused.value)) < 6_000
    assert not {"\x1b", "\n"} & set(str(refused.value))


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500])
async def test_a_wrong_request_is_not_repeated(status: int) -> None:
    calls = 0

    def answer(_request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        return httpx.Response(status, text="<html>a proxy's page</html>")

    async with client(answer) as made:
        with pytest.raises(RewardRejectedError, match=f"{URL}.*{status}.*proxy's page"):
            await made.score(items("a"), "compat")
    assert calls == 1


async def test_the_whole_call_has_a_deadline() -> None:
    async def answer(_request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()  # a service that never answers
        raise AssertionError

    made = RewardClient(URL, transport=httpx.MockTransport(answer), timeout_s=0.2)
    async with made, asyncio.timeout(60):
        with pytest.raises(RewardUnavailableError, match=r"http://reward: 1 items .* within 0.2 s; add workers"):
            await made.score(items("a"), "compat")


async def test_a_retry_after_beyond_the_deadline_does_not_outlast_it() -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "3600"})

    async with client(answer, timeout_s=0.2) as made, asyncio.timeout(60):
        with pytest.raises(RewardUnavailableError):
            await made.score(items("a"), "compat")


UNSCORED_ZERO = b'{"results":[{"id":"0","status":"unscored","score":0.0,"metric":"","task":"","reason":""}]}'


@pytest.mark.parametrize("body", [b"{}", b"not json", b'{"results": []}', UNSCORED_ZERO])
async def test_an_answer_that_is_no_result_is_an_error(body: bytes) -> None:
    async with client(lambda _request: httpx.Response(200, content=body)) as made:
        with pytest.raises(RewardError, match=URL):
            await made.score(items("a"), "compat")


@pytest.mark.parametrize("proxy", ["http", "socks5"])
async def test_the_service_is_not_behind_the_proxy_of_a_user(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reaches the world through it may not have excepted this machine (NO_PROXY)."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    monkeypatch.setenv("ALL_PROXY", f"{proxy}://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", f"{proxy}://127.0.0.1:9")
    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        async with RewardClient(f"http://127.0.0.1:{port}") as made:
            assert await made.ready()


async def test_an_unreachable_service_is_not_ready() -> None:
    async with RewardClient("http://127.0.0.1:9") as made:  # discard port: nothing listens
        assert not await made.ready()


ANY_TEXT = st.text(st.characters(exclude_categories=()))  # lone surrogates included
JSON = st.recursive(st.none() | st.booleans() | st.integers() | ANY_TEXT, lambda inner: st.lists(inner), max_leaves=5)


@given(ANY_TEXT, JSON)
def test_whatever_text_is_sent_arrives(response: str, truth: object) -> None:
    sent = ScoreRequest(items=[Item(**item(response, ground_truth=truth))])
    (got,) = read_batch(encode(sent), RewardConfig()).request.items
    assert (got.response, got.ground_truth) == (response, truth)


@given(st.integers(1, 50), st.none() | st.floats(0), st.floats(0, 1))
def test_pauses_honour_the_service_and_are_bounded(attempt: int, asked: float | None, chance: float) -> None:
    pause = pause_s(attempt, asked, lambda low, high: low + chance * (high - low))
    if asked is None:
        assert 0.05 <= pause <= 10.0
    else:
        assert min(asked, 60.0) <= pause <= min(asked, 60.0) + 1.0


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(lambda whole: whole[:-7], id="ended too early"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda whole: whole + b"{", id="followed by another"),
    ],
)
async def test_an_answer_that_was_cut_on_the_way_is_asked_for_again(cut: Callable[[bytes], bytes]) -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        whole = scored(request).content
        return httpx.Response(200, content=cut(whole) if len(asked) == 1 else whole)

    async with client(answer) as made:
        assert [result.score for result in await made.score(items("a", "b"), "strict")] == [1.0, 1.0]
    assert len(asked) == 2


async def test_an_answer_that_cannot_be_decompressed_is_asked_for_again() -> None:
    asked = []

    async def damaged() -> AsyncIterator[bytes]:
        yield b"not compressed"

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        first = httpx.Response(200, content=damaged(), headers={"content-encoding": "gzip"})
        return first if len(asked) == 1 else scored(request)

    async with client(answer) as made:
        assert len(await made.score(items("a"), "strict")) == 1
