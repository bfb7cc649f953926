"""Servers that do not end, or answer nonsense: a call ends within its deadline, in a line that names the cause."""

import asyncio
import contextlib
import errno
import gzip
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from golongrl import bounded_http
from golongrl.broadcast import client as broadcast_client
from golongrl.broadcast.protocol import Ask
from golongrl.errors import GolongrlError, InputError
from golongrl.evaluation.run import endpoint, engines, pool
from golongrl.llm.client import ChatClient, Endpoint
from golongrl.llm.models import ChatRequest, LlmMessage
from golongrl.reward.client import RewardClient
from golongrl.reward.models import Item
from golongrl.rollout.sglang.client import EngineClient
from golongrl.rollout.sglang.http import Deadlines
from golongrl.rollout.sglang.sampling import SamplingParams

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
# Of each client here; every endless answer costs at least one. What must not hang has far longer.
DEADLINE_S = 0.15
NEVER_S = 120.0
MB = b" " * (1 << 20)


@asynccontextmanager
async def server(answer: Answering) -> AsyncIterator[str]:
    """The URL of a server that answers each connection with `answer`, until that ends."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        writer.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        running.add(task)
        task.add_done_callback(running.discard)

    listening = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        async with asyncio.timeout(NEVER_S):
            yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        for task in running:
            task.cancel()
        listening.close()


def repeated(head: bytes, part: bytes, pause_s: float = 0.0) -> Answering:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer


def once(*parts: bytes) -> Answering:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()

    return answer


def whole(body: bytes, head: bytes = HEAD) -> Answering:
    return once(head, b"Content-Length: %d\r\n\r\n" % len(body), body)


BOMB = gzip.compress(b"\0" * (1 << 27), 1)
ENDLESS = {
    "nothing": repeated(b"", b"", 0.05),
    "a head, byte by byte": repeated(HEAD + b"X: ", b"a", 0.05),
    "a body, byte by byte": repeated(HEAD + b"Content-Length: 1000000\r\n\r\n", b" ", 0.05),
    "an endless body": repeated(HEAD + b"\r\n", MB),
    "a gigabyte": repeated(HEAD + b"Content-Length: 1073741824\r\n\r\n", MB),
    "endless chunks": repeated(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + MB + b"\r\n"),
    "endless headers": repeated(HEAD, b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 100),
    "endless informational answers": repeated(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
    "a gzip bomb": whole(BOMB, HEAD + b"Content-Encoding: gzip\r\n"),
}  # fmt: skip
ODD = {
    "cut": once(HEAD, b'Content-Length: 500\r\n\r\n{"a":'),
    "a wrong length": once(HEAD, b"Content-Length: -1\r\n\r\n{}"),
    "a wrong chunk": once(HEAD, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}"),
    "garbage": once(random.Random(0).randbytes(3000)),
    "a file": whole(b"", b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n"),
    "another host": whole(b"", b"HTTP/1.1 307 X\r\nLocation: http://192.0.2.1/\r\n"),
    "no address": whole(b"", b"HTTP/1.1 307 X\r\nLocation: http://[::\r\n"),
    "no host": whole(b"", b"HTTP/1.1 302 X\r\nLocation: about:blank\r\n"),
    "an upgrade": once(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    "no content": once(b"HTTP/1.1 204 No Content\r\n\r\n"),
    "a page": whole(b"<html>\n<h1>oops</h1>" * 100),
    "an error's page": whole(b"<html>\n\x1b[31m" * 100_000, b"HTTP/1.1 418 X\r\n"),
    "another coding": whole(b"nope", HEAD + b"Content-Encoding: gzip\r\n"),
    "another charset": whole(b"{}", b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=nonsense\r\n"),
    "a header beyond ASCII": whole(b"caf\xe9", HEAD + b"Server: caf\xe9\r\n"),
    "no UTF-8": whole(b'{"a": "\xff"}'),
    "deep": whole(b"[" * 200_000),
    "deep refusal": whole(b'{"detail":' * 200_000, b"HTTP/1.1 409 X\r\n"),
    "a long number": whole(b'{"data": %s, "results": 1}' % (b"9" * 5000)),
    "a scalar": whole(b"5"),
    "null": whole(b"null"),
    "surrogates": whole(b'{"detail": "\\ud800", "results": "\\ud800", "data": [{"id": 1}]}'),
    "cookies": once(HEAD, b"Set-Cookie: a=b\r\n" * 2000, b"Content-Length: 2\r\n\r\n{}"),
}  # fmt: skip
# Of the odd ones, those that are tried by default: one for each step of reading an answer.
FEW = {"cut", "a wrong length", "another host", "no host", "an error's page", "another coding", "no UTF-8", "deep",
       "deep refusal", "a long number", "surrogates", "a header beyond ASCII"}  # fmt: skip

ITEM = Item(
    id="a", data_source="EM", response="</think>a",
    ground_truth={"doc_ids": [], "golden_label": "a", "summary": "English"}, extra_info={},
)  # fmt: skip
ENGINE = Deadlines(DEADLINE_S, DEADLINE_S, DEADLINE_S, DEADLINE_S, DEADLINE_S)


async def score(url: str) -> Any:
    async with RewardClient(url, timeout_s=DEADLINE_S, attempts=2) as client:
        return await client.score([ITEM], "strict")


async def generate(url: str, *, stream: bool) -> Any:
    async with EngineClient(url, deadlines=ENGINE) as client:
        sampling = SamplingParams(max_new_tokens=4, temperature=1.0, top_p=1.0)
        prompt = np.array([1, 2], np.int32)
        return await client.generate(prompt, sampling, rid="r", vocab_size=100, stream=stream)


async def model_info(url: str) -> Any:
    async with EngineClient(url, deadlines=ENGINE) as client:
        return await client.model_info()


async def metrics(url: str) -> Any:
    async with EngineClient(url, deadlines=ENGINE) as client:
        if await client.metrics():
            raise AssertionError(url)
        return await client.model_info()


async def chat(url: str) -> Any:
    asked = ChatRequest(messages=(LlmMessage(role="user", content="x"),), max_tokens=5)
    async with ChatClient(Endpoint(f"{url}/v1", "m", deadline_s=DEADLINE_S, attempts=2), first_pause_s=0.01) as client:
        return await client.chat(asked, 10)


async def transfer(url: str) -> Any:
    async with broadcast_client.asked(
        f"{url}/t", Ask(worker="w", version=1, lineage="x", ranks=1, device="cpu")
    ) as one:
        return one


async def served(url: str) -> Any:
    found = await endpoint.served(f"{url}/v1", None, "UNSET", "--model", print)
    raise AssertionError(found)


FAILING: dict[str, Callable[[str], Awaitable[Any]]] = {
    "score": score, "generate": lambda url: generate(url, stream=False),
    "stream": lambda url: generate(url, stream=True), "model_info": model_info, "metrics": metrics, "chat": chat,
    "transfer": transfer,
    "served": served,
}  # fmt: skip


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in [(broadcast_client, "TURN_S"), (broadcast_client, "_CONNECT_S"), (endpoint, "_DEADLINE_S"),
                         (pool, "_DEADLINE_S"), (engines, "_TOLD_S")]:  # fmt: skip
        monkeypatch.setattr(module, name, DEADLINE_S)


def cases() -> list[Any]:
    """Every answer for every client; by default, for those that differ in how they read."""
    default = {(answer, call) for answer in ENDLESS for call in ("stream", "transfer")}
    default |= {(answer, "score") for answer in FEW} | {("no host", call) for call in FAILING} | {("null", "metrics")}
    return [
        pytest.param(made, asked, id=f"{name}-{call}", marks=() if (name, call) in default else pytest.mark.full)
        for name, made in {**ENDLESS, **ODD}.items()
        for call, asked in FAILING.items()
    ]


@pytest.mark.parametrize(("answer", "call"), cases())
async def test_a_call_ends_in_an_error_of_one_line_that_names_the_server(
    answer: Answering, call: Callable[[str], Awaitable[Any]]
) -> None:
    async with server(answer) as url:
        with pytest.raises(GolongrlError) as failed:
            await call(url)
    said = str(failed.value)
    assert "\n" not in said
    assert len(said) < 2000


@pytest.mark.parametrize(
    "answer",
    [pytest.param(made, id=name, marks=() if name in {*ENDLESS, *FEW} else pytest.mark.full)
     for name, made in {**ENDLESS, **ODD}.items()],
)  # fmt: skip
async def test_a_probe_of_a_server_that_does_not_end_says_no(answer: Answering) -> None:
    async with server(answer) as url, httpx.AsyncClient(trust_env=False) as http:
        with contextlib.suppress(httpx.HTTPError):
            bounded_http.parsed(await bounded_http.get(http, url, DEADLINE_S))
        async with ChatClient(Endpoint(f"{url}/v1", "m")) as client:
            assert await pool.GivingWay(client, "UNSET", print).fields() == {}
        assert isinstance(await engines._answer(http, url), dict)


async def test_what_is_too_long_is_not_read_to_its_end() -> None:
    sent = 0

    async def answer(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(HEAD + b"\r\n")
        while sent < 1 << 28:
            writer.write(MB)
            await writer.drain()
            sent += len(MB)

    async with server(answer) as url, httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(bounded_http.AnswerTooLongError, match="an answer of more than 16777216 bytes"):
            await bounded_http.get(http, url, NEVER_S)
    assert sent < 1 << 26


async def test_an_answer_is_as_the_server_sent_it() -> None:
    body = gzip.compress(json.dumps({"a": [1]}).encode())
    head = HEAD + b"Content-Encoding: gzip\r\nX-A: b\r\n"
    async with server(whole(body, head)) as url, httpx.AsyncClient(trust_env=False) as http:
        found = await bounded_http.get(http, url, NEVER_S)
    assert (bounded_http.parsed(found), found.headers["x-a"], found.is_success) == ({"a": [1]}, "b", True)


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (whole(b"full", b"HTTP/1.1 503 X\r\nRetry-After: 86400\r\n"), "attempt 1 failed: HTTP 503: full"),
        (whole(b"", b"HTTP/1.1 429 X\r\nRetry-After: %s\r\n" % (b"9" * 400)), "attempt 1 failed: HTTP 429"),
        (whole(b"", b"HTTP/1.1 307 X\r\nLocation: http://other/\r\n"), "307: redirects to http://other/; give that"),
        (whole(b"a\n\x1b[31mb", b"HTTP/1.1 418 X\r\n"), "418: a ?[31mb"),
    ],
)  # fmt: skip
async def test_the_reward_client_names_the_last_cause(answer: Answering, cause: str) -> None:
    async with server(answer) as url, RewardClient(url, timeout_s=1.5, attempts=2) as client:
        with pytest.raises(GolongrlError) as failed:
            await client.score([ITEM], "strict")
    assert cause in str(failed.value)


async def test_a_count_of_tokens_that_no_context_has_does_not_spend_the_budget() -> None:
    body = b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1%s}}' % (b"0" * 30)
    async with server(whole(body)) as url:
        asked = ChatRequest(messages=(LlmMessage(role="user", content="x"),), max_tokens=5)
        async with ChatClient(Endpoint(url, "m", deadline_s=NEVER_S, attempts=1)) as client:
            with pytest.raises(GolongrlError, match="not a chat completion"):
                await client.chat(asked, 10)
            assert client.budget.reserved == 0


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("", None),
        ("7", 7.0),
        ("0", 0.0),
        ("-1", None),
        ("1.5", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", None),
    ],
)
def test_the_pause_that_a_server_asks_for(header: str | None, seconds: float | None) -> None:
    answer = httpx.Response(429, headers={} if header is None else {"Retry-After": header})
    assert bounded_http.asked_pause_s(answer) == seconds


PROXIES = [f"{name}_PROXY".lower() for name in ("http", "https", "all", "no")]


@pytest.fixture
def no_proxies(monkeypatch) -> None:
    for name in (*PROXIES, "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


UNUSABLE = [
    ({"ALL_PROXY": "socks5://127.0.0.1:1"}, "ALL_PROXY: a SOCKS proxy needs the package socksio"),
    ({"HTTPS_PROXY": "socks4://me:secret@x"}, "HTTPS_PROXY: no address of a proxy"),
    ({"HTTP_PROXY": "foo:bar"}, "HTTP_PROXY: no address of a proxy"),
    ({"HTTP_PROXY": "http://x:1", "NO_PROXY": "[::1"}, "HTTP_PROXY, NO_PROXY: no address of a proxy"),
    ({"SSL_CERT_FILE": "/nonexistent"}, "SSL_CERT_FILE or SSL_CERT_DIR: the certificates cannot be read"),
]


@pytest.mark.parametrize(("environment", "said"), UNUSABLE)
def test_an_environment_that_cannot_be_used_is_named_without_its_secrets(no_proxies, monkeypatch, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(GolongrlError) as caught:
        bounded_http.client("https://example.org/v1", verify=bounded_http.certificates("https://example.org/v1"))
    assert str(caught.value).startswith(said)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("environment", "_said"), UNUSABLE)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_server_of_this_machine_is_behind_no_proxy(no_proxies, monkeypatch, environment, _said, host):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def lists(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + b'Content-Length: 22\r\n\r\n{"data": [{"id":"m"}]}')

    async with server(lists) as url:
        url = url.replace("127.0.0.1", host)
        assert (await endpoint.served(url, None, "NO_SUCH_KEY", "--model", print)).model == "m"
        async with ChatClient(Endpoint(url, "m", attempts=1)) as client:
            with pytest.raises(GolongrlError, match="not a chat completion"):
                await client.chat(ChatRequest(messages=(LlmMessage(role="user", content="x"),), max_tokens=1), cost=0)


async def test_a_proxy_that_does_not_answer_is_named(no_proxies, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://me:secret@127.0.0.1:1")
    with pytest.raises(GolongrlError, match=r"\(by the proxy of HTTP_PROXY; NO_PROXY=models\.test goes around it\)$"):
        await endpoint.served("http://models.test/v1", None, "NO_SUCH_KEY", "--model", print)
    monkeypatch.setenv("NO_PROXY", "models.test")
    assert not bounded_http.by_proxy("http://models.test/v1")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nwait", "HTTP 503"),
        (HEAD + b"Content-Length: 6\r\n\r\n<html>", "no list of models"),
        (HEAD + b'Content-Length: 12\r\n\r\n{"data": []}', "no list of models"),
    ],
)
async def test_a_server_that_lists_no_models_is_told_with_its_answer(answer, said):
    async with server(once(answer)) as url:
        with pytest.raises(GolongrlError, match=f"/models: the server answers with {said}; see whether it is up"):
            await endpoint.served(url, None, "NO_SUCH_KEY", "--model", print)


@pytest.mark.parametrize("root", ["r" * 10_000, "\0", "nobody's"])
async def test_weights_that_cannot_be_read_here_are_elsewhere(root, tmp_path, monkeypatch):
    """The server's user may read its folder, and ours need not."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", root)

    if root == "nobody's":
        monkeypatch.setattr(endpoint.os, "stat", refused)
    async with server(whole(json.dumps({"data": [{"id": "m", "root": root}]}).encode())) as url:
        found = await endpoint.served(f"{url}/v1", None, "NO_SUCH_KEY", "--model", print)
    assert (found.model, found.folder) == ("m", None)


@pytest.mark.parametrize(
    "url",
    [
        "about:blank",
        "ftp://host",
        "host:80",
        "http://",
        "http://[::1",
        "http://host:99999",
        "http://host:0",
        "",
        "http://h:x",
    ],
)
def test_what_no_client_could_ask_is_no_address(url: str) -> None:
    with pytest.raises(InputError, match=r"--engine-url .*: no address of a server; write http://HOST:PORT"):
        bounded_http.refuse_no_address(url, "--engine-url")
    bounded_http.refuse_no_address("https://[::1]:80/prefix", "--engine-url")


async def test_what_is_compressed_twice_is_not_decompressed() -> None:
    """1,832 bytes are a gigabyte of blanks so, made in one piece."""
    body = gzip.compress(gzip.compress(b" " * 300_000))
    headers = b"Content-Encoding: gzip\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD + headers + body)
        await writer.drain()

    async with server(answer) as url, httpx.AsyncClient() as http:
        with pytest.raises(httpx.DecodingError, match="compressed 2 times"):
            await bounded_http.get(http, url, 10.0)
