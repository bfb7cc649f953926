"""What a server takes of its clients' bodies, one and all together."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from golongrl.broadcast.app import create_app as sender_app
from golongrl.request_bodies import MOST_KEYS, MOST_LISTS, SHORT_BYTES, BodyLimit, JsonParts
from golongrl.reward.app import create_app as reward_app
from golongrl.reward.config import RewardConfig

MB = 1 << 20
SCOPE: dict[str, Any] = {"type": "http", "headers": []}


async def read_all(_scope: Any, receive: Any, _send: Any) -> None:
    while (await receive()).get("more_body"):
        pass


class Client:
    """Sends `pieces`, then the end once it may."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces, self.end = list(pieces), asyncio.Event()

    async def receive(self) -> Any:
        if self._pieces:
            return {"type": "http.request", "body": self._pieces.pop(0), "more_body": True}
        await self.end.wait()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def asks(self, limit: BodyLimit) -> int:
        try:
            await limit(SCOPE, self.receive, None)  # type: ignore[arg-type]
        except HTTPException as refused:
            return refused.status_code
        return 200


async def held(limit: BodyLimit, clients: list[Client]) -> list["asyncio.Task[int]"]:
    tasks = [asyncio.create_task(client.asks(limit)) for client in clients]
    await asyncio.sleep(0)
    return tasks


async def ended(clients: list[Client], tasks: list["asyncio.Task[int]"]) -> list[int]:
    for client in clients:
        client.end.set()
    return await asyncio.gather(*tasks)


async def test_long_bodies_are_bounded_together_and_keep_no_short_one_out() -> None:
    limit = BodyLimit(read_all, most=10 * MB, most_at_once=12 * MB)
    long = [Client(*[b"x" * MB] * 7) for _ in range(2)]
    tasks = await held(limit, long)
    assert await Client(*[b"x" * MB] * 7).asks(limit) == 503
    short = [Client(), Client(b"x" * MB)]
    assert await ended(short, await held(limit, short)) == [200, 200]
    assert await ended(long, tasks) == [200, 200]
    again = [Client(*[b"x" * MB] * 7)]
    assert await ended(again, await held(limit, again)) == [200]
    assert (limit._short, limit._long) == (0, 0)


async def test_short_bodies_that_do_not_end_are_bounded_together() -> None:
    limit = BodyLimit(read_all, most=10 * MB, most_at_once=12 * MB)
    slow = [Client(b"x" * (MB // 2)) for _ in range(24)]
    tasks = await held(limit, slow)
    assert await Client(b"x").asks(limit) == 503
    slow[0].end.set()
    assert await tasks[0] == 200
    assert await ended([one := Client(b"x")], await held(limit, [one])) == [200]
    assert await ended(slow[1:], tasks[1:]) == [200] * 23
    assert (limit._short, limit._long) == (0, 0)


async def test_a_long_body_counts_until_its_request_has_ended_and_a_short_one_until_it_is_there() -> None:
    begun, end = asyncio.Event(), asyncio.Event()

    async def app(_scope: Any, receive: Any, _send: Any) -> None:
        await receive()
        begun.set()
        await end.wait()

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * (8 * MB), "more_body": False}

    limit = BodyLimit(app, most=10 * MB, most_at_once=12 * MB)
    running = asyncio.create_task(limit(SCOPE, receive, None))  # type: ignore[arg-type]
    await begun.wait()
    assert (limit._short, limit._long) == (0, 7 * MB)
    with pytest.raises(HTTPException) as refused:
        await limit(SCOPE, receive, None)  # type: ignore[arg-type]
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "1"})
    end.set()
    await running
    await limit(SCOPE, receive, None)  # type: ignore[arg-type]
    assert (limit._short, limit._long) == (0, 0)


def problem_of(text: str, size: int) -> str | None:
    parts, body = JsonParts(), text.encode()
    for at in range(0, len(body), size):
        parts.add(body[at : at + size])
    return parts.problem()


MANY = MOST_KEYS + 1
COSTLY: dict[str, Callable[[], str]] = {
    "keys": lambda: "{" + ",".join(f'"{key:x}":1' for key in range(MANY)) + "}",
    "keys and spaces": lambda: "{" + ",".join(f'"{key:x}"\n\t :1' for key in range(MANY)) + "}",
    "keys that end with a backslash": lambda: "{" + ",".join(f'"{key:x}\\\\":1' for key in range(MANY)) + "}",
    "keys that are quotes": lambda: "{" + ",".join('"' + '\\"' * (1 + key % 9) + '":1' for key in range(MANY)) + "}",
    "keys in objects": lambda: "[" + ",".join('{"a":1,"b":2}' for _ in range(MANY)) + "]",
    "lists": lambda: "[" * (MOST_LISTS + 1),
}
CHEAP: dict[str, Callable[[], str]] = {
    "times in a text": lambda: json.dumps({"response": "10:20:30 " * MANY}),
    "code in a text": lambda: json.dumps({"response": '"a": 1, ' * MANY}),
    "strings": lambda: json.dumps(["a"] * MANY),
    "ids": lambda: json.dumps([123456] * MANY),
}


@pytest.mark.parametrize("name", COSTLY)
def test_what_is_dear_to_parse_is_refused(name: str) -> None:
    text = COSTLY[name]()
    for size in (1 << 16, 65_537):
        assert "more than" in (problem_of(text, size) or ""), size


@pytest.mark.parametrize("name", CHEAP)
def test_what_is_cheap_to_parse_is_taken(name: str) -> None:
    text = CHEAP[name]()
    for size in (1 << 16, 65_537):
        assert problem_of(text, size) is None, size


KEYS = st.text(alphabet='ab"\\:{[é\n', max_size=4)
JSONS = st.recursive(
    st.none() | KEYS, lambda inside: st.lists(inside, max_size=4) | st.dictionaries(KEYS, inside, max_size=4)
)


def keys_of(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(keys_of, value.values()))
    return sum(map(keys_of, value)) if isinstance(value, list) else 0


@given(JSONS, st.integers(1, 7))
def test_no_key_is_missed(value: Any, size: int) -> None:
    body, parts = json.dumps(value).encode(), JsonParts()
    for at in range(0, len(body), size):
        parts.add(body[at : at + size])
    assert min(parts.colons, parts.quotes) >= keys_of(value)


async def body_of(size: int) -> Any:
    for _ in range(0, size, 1 << 16):
        yield b" " * (1 << 16)


async def test_the_reward_service_and_the_weight_sender_have_the_limit() -> None:
    many = ("{" + ",".join(f'"{key:x}":1' for key in range(MANY)) + "}").encode()
    for app, path, most in (
        (reward_app(RewardConfig(workers=1)), "/v1/score", 8 * MB),
        (sender_app("127.0.0.1", "token"), "/token/transfers", 1 << 16),
    ):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
            for content in (b" " * (most + 1), body_of(most + 1)):
                answer = await http.post(path, content=content, headers={"content-type": "application/json"})
                assert answer.status_code == 413
                assert f"longer than {most} bytes" in answer.json()["detail"]
            if len(many) <= most:
                answer = await http.post(path, content=many)
                assert (answer.status_code, answer.json()["detail"]) == (413, "The body has more than 262144 keys.")


async def test_the_reward_service_asks_to_come_again_where_too_many_send_bodies() -> None:
    app = reward_app(RewardConfig(workers=1, max_body_bytes=SHORT_BYTES))
    slow = [asyncio.Event() for _ in range(9)]

    async def body(turn: asyncio.Event) -> Any:
        yield b" " * SHORT_BYTES
        await turn.wait()

    async def ask(http: httpx.AsyncClient, turn: asyncio.Event) -> httpx.Response:
        return await http.post("/v1/score", content=body(turn))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as http:
        tasks = [asyncio.create_task(ask(http, turn)) for turn in slow]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = done
        assert (refused.result().status_code, refused.result().headers["retry-after"]) == (503, "1")
        assert "ask again later" in refused.result().json()["detail"]
        for turn in slow:
            turn.set()
        assert sorted(answer.status_code for answer in await asyncio.gather(*tasks)) == [422] * 8 + [503]
