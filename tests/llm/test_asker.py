"""Replies under keys: what was asked once is not asked again, by whatever run; and how answers are read."""

import asyncio
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from golongrl.errors import InputError, NoSpaceError
from golongrl.llm import (
    Asker,
    ChatClient,
    ChatRequest,
    Endpoint,
    LlmCall,
    LlmMessage,
    LlmReply,
    LlmUnavailableError,
    ReplyStore,
    UnusableAnswerError,
    answer_as,
)
from golongrl.llm.asker import estimate
from golongrl.llm.budget import Budget, BudgetSpentError
from golongrl.llm.concurrency import Limit
from golongrl.llm.replies import StoredReply
from support.llm_endpoint import Said, llm_endpoint


def call(
    text: str = "question", seed: int = 1, stage: str = "generate", version: str = "1", model: str = "m"
) -> LlmCall:
    request = ChatRequest(messages=(LlmMessage(role="user", content=text),), max_tokens=8, seed=seed)
    return LlmCall(stage, version, model, request)


def test_the_key_covers_what_the_reply_depends_on():
    calls = [call(), call("other"), call(seed=2), call(stage="verify"), call(version="2"), call(model="n")]
    assert len({each.key for each in calls}) == len(calls)
    assert call().key == call().key


async def test_a_reply_is_asked_for_once_and_shared_between_runs(tmp_path):
    store = tmp_path / "replies.sqlite"
    async with llm_endpoint(lambda _, n: Said(f"answer {n}")) as server:
        for _ in range(2):  # two runs, one after the other
            with ReplyStore(store) as replies:
                async with ChatClient(Endpoint(server.url, "m")) as client:
                    asker = Asker(client, replies)
                    got = [await asker.ask(call()), await asker.ask(call(seed=2)), await asker.ask(call())]
                    assert [reply.text for reply in got] == ["answer 0", "answer 0", "answer 0"]
        with ReplyStore(store) as replies:
            assert replies.count("generate") == (2, 20)
            assert replies.count("verify") == (0, 0)
            assert estimate([call(), call("new")], replies).calls == 1
    assert len(server.asked) == 2


async def test_equal_calls_at_one_time_are_one_call(tmp_path):
    async with (
        llm_endpoint(lambda _, n: Said(f"answer {n}")) as server,
        ChatClient(Endpoint(server.url, "m")) as client,
    ):
        with ReplyStore(tmp_path / "replies.sqlite") as replies:
            asker = Asker(client, replies)
            got = await asyncio.gather(*(asker.ask(call()) for _ in range(5)))
    assert {reply.text for reply in got} == {"answer 0"}
    assert len(server.asked) == 1


async def test_a_refused_request_is_kept_and_an_endpoint_that_is_down_is_not(tmp_path):
    said = {"status": 503}
    script = lambda _, __: Said("too long", status=said["status"])  # noqa: E731
    async with llm_endpoint(script) as server, ChatClient(Endpoint(server.url, "m", attempts=1)) as client:
        with ReplyStore(tmp_path / "replies.sqlite") as replies:
            asker = Asker(client, replies)
            with pytest.raises(Exception, match="gave up after 1 attempts"):
                await asker.ask(call())
            said["status"] = 400
            assert "too long" in (await asker.ask(call())).refused
            assert "too long" in (await asker.ask(call())).refused
    assert len(server.asked) == 2


@pytest.mark.parametrize("meanwhile", [True, False], ids=["it answers others", "it answers nobody"])
async def test_a_request_that_always_fails_stops_the_others_only_if_nobody_is_answered(tmp_path, meanwhile):
    last, answered = asyncio.Event(), asyncio.Event()

    def script(body: dict, before: int) -> Said:
        if body["messages"][0]["content"] == "poison":
            if before == 2:
                last.set()
            return Said(status=500, wait=answered if before == 2 else None)
        answered.set()
        return Said("ok") if meanwhile else Said(status=500)

    async with llm_endpoint(script) as server, ChatClient(Endpoint(server.url, "m", attempts=3)) as client:
        with ReplyStore(tmp_path / "replies.sqlite") as replies:
            asker = Asker(client, replies)
            poison = asyncio.create_task(asker.ask(call("poison")))
            await last.wait()
            other = asyncio.create_task(asker.ask(call("other")))
            found = await asyncio.gather(poison, other, return_exceptions=True)
            if not meanwhile:
                assert all(isinstance(one, LlmUnavailableError) for one in found)
                assert replies.count() == (0, 0)
                return
            assert "HTTP 500" in poison.result().refused
            assert other.result().text == "ok"
            asked = len(server.asked)
            assert (await asker.ask(call("poison"))) == poison.result()
            assert len(server.asked) == asked


async def test_two_runs_share_a_store_at_the_same_time(tmp_path):
    with ReplyStore(tmp_path / "r.sqlite") as one, ReplyStore(tmp_path / "r.sqlite") as other:
        async with llm_endpoint(lambda _, __: Said("ok")) as server, ChatClient(Endpoint(server.url, "m")) as client:
            askers = [Asker(client, one), Asker(client, other)]
            await asyncio.gather(*(asker.ask(call(str(i))) for i in range(30) for asker in askers))
        assert one.count() == other.count()
        assert one.count()[0] == 30


def test_a_file_that_is_no_store_is_named(tmp_path):
    (tmp_path / "replies.sqlite").write_text("no database, whatever its name says" * 30)
    with pytest.raises(InputError, match=r"replies\.sqlite"):
        ReplyStore(tmp_path / "replies.sqlite")


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")

    answer: str


@pytest.mark.parametrize(
    "text",
    [
        '{"answer": "x"}',
        'Here it is:\n```json\n{"answer": "x"}\n```',
        '<think>{"answer": "no"}</think>{"answer": "x"}',
        'I first thought {"answer": "no"}, but {"answer": "x"}',
        '{"answer": "x"} and {"something": "else"}',
        'a brace { that opens nothing, then {"answer": "x"}',
    ],
)
def test_the_last_object_of_the_shape_counts(text):
    assert answer_as(Shape, LlmReply("k", text, "stop")).answer == "x"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (LlmReply("k", refused="HTTP 400"), "refused"),
        (LlmReply("k", '{"answer": "x"', "length"), "cut"),
        (LlmReply("k", "", "content_filter"), "refused"),
        (LlmReply("k", "I cannot do that.", "stop"), "no JSON"),
        (LlmReply("k", "", "stop"), "no JSON"),
        (LlmReply("k", '{"answer": "x"', "stop"), "no JSON"),
        (LlmReply("k", '{"answer": 3}', "stop"), "wrong shape"),
        (LlmReply("k", '{"answer": "x", "more": 1}', "stop"), "wrong shape"),
        (LlmReply("k", '[{"response": "x"}]', "stop"), "wrong shape"),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(reply, reason):
    with pytest.raises(UnusableAnswerError) as caught:
        answer_as(Shape, reply)
    assert caught.value.reason == reason


@given(st.text())
def test_whatever_is_answered_is_read_or_refused(text):
    with suppress(UnusableAnswerError):
        assert isinstance(answer_as(Shape, LlmReply("k", text, "stop")).answer, str)


@given(st.integers(1, 64), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=200))
def test_the_limit_stays_between_one_and_the_most(most, events):
    limit = Limit(most, float(most))
    for busy, old in events:
        before = limit.value
        if busy:
            limit.pushed_back(limit.cuts - old)
            assert limit.value == (before if old else max(1.0, before / 2))
        else:
            limit.answered()
            assert limit.value >= before
        assert 1 <= limit.room <= most


@given(st.integers(1, 5), st.integers(1, 100), st.lists(st.tuples(st.integers(1, 40), st.floats(0, 1)), max_size=40))
def test_the_budget_is_never_exceeded(max_calls, max_tokens, calls):
    budget = Budget(max_calls, max_tokens)
    open_calls: list[tuple[int, int]] = []
    for cost, share in calls:
        try:
            budget.reserve(cost)
            open_calls.append((cost, int(cost * share)))
        except BudgetSpentError:
            if open_calls:
                budget.settle(*open_calls.pop(0))
        assert budget.calls <= max_calls
        assert budget.tokens + budget.reserved <= max_tokens


def test_a_full_disk_and_a_damaged_store_are_one_line(tmp_path):
    path = tmp_path / "r.sqlite"
    with ReplyStore(path) as store:
        store.put("kept", "s", "m", StoredReply("answered", "x" * 9000, 1))
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count={pages}")
        with pytest.raises(NoSpaceError, match=f"no space left on {tmp_path}"):
            store.put("more", "s", "m", StoredReply("answered", "x" * 90_000, 1))
        assert (store.count(), store.get("more")) == ((1, 1), None)
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))
    with ReplyStore(path) as store, pytest.raises(InputError, match=rf"store of replies {path}: .*move it away"):
        store.get("kept")


@pytest.mark.parametrize(("mask", "mode"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_a_store_of_replies_follows_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with ReplyStore(tmp_path / "r.sqlite") as store:
            store.put("a", "s", "m", StoredReply("answered", "x", 1))
            assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {mode}
    finally:
        os.umask(before)
