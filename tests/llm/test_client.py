"""The client against a scripted endpoint on a real socket: what is retried, what is refused, what is bounded."""

import asyncio
import json

import pytest

from golongrl.llm import (
    Budget,
    BudgetSpentError,
    ChatClient,
    ChatRequest,
    Endpoint,
    LlmMessage,
    LlmRefusedError,
    LlmUnavailableError,
    LlmUnusableError,
)
from support.llm_endpoint import Said, llm_endpoint


def request(text: str = "question", max_tokens: int = 16) -> ChatRequest:
    return ChatRequest(messages=(LlmMessage(role="user", content=text),), max_tokens=max_tokens)


def client(url: str, budget: Budget | None = None, **settings: object) -> ChatClient:
    fields = {"url": url, "model": "m", "attempts": 4, "deadline_s": 30.0, **settings}
    return ChatClient(Endpoint(**fields), budget, first_pause_s=0.001)  # type: ignore[arg-type]


async def test_the_request_is_the_apis_and_the_key_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("GOLONGRL_LLM_API_KEY", "sesame-key")
    async with llm_endpoint(lambda _, __: Said("four")) as server, client(server.url) as asked:
        schema = {"type": "object"}
        full = request().model_copy(update={"seed": 7, "response_schema": schema})
        reply, body = await asked.chat(full, cost=20)
    (sent,) = server.asked
    assert sent["messages"] == [{"role": "user", "content": "question"}]
    assert (sent["model"], sent["seed"], sent["max_tokens"]) == ("m", 7, 16)
    assert sent["response_format"]["json_schema"]["schema"] == schema
    assert (reply.text, reply.finish_reason, reply.tokens) == ("four", "stop", 10)
    assert "choices" in body
    assert "sesame-key" not in body


@pytest.mark.parametrize(
    "first",
    [
        Said(status=503),
        Said(status=429, headers={"Retry-After": "0"}),
        Said(status=500),
        Said(status=408),
        Said("never whole", cut=20),
        Said(body="<html>a proxy's page</html>"),
        Said(body='{"choices": []}'),
        Said(body='{"error": "overloaded"}'),
    ],
    ids=["503", "429", "500", "408", "cut", "page", "no-choice", "error-as-200"],
)
async def test_an_attempt_that_the_next_may_mend_is_repeated(first):
    async with llm_endpoint(lambda _, n: first if n == 0 else Said("four")) as server, client(server.url) as asked:
        reply, _ = await asked.chat(request(), cost=20)
    assert reply.text == "four"
    assert len(server.asked) == 2


async def test_a_server_that_never_recovers_is_given_up():
    async with llm_endpoint(lambda _, __: Said(status=503)) as server, client(server.url) as asked:
        with pytest.raises(LlmUnavailableError, match=r"gave up after 4 attempts.*503"):
            await asked.chat(request(), cost=20)
    assert len(server.asked) == 4


async def test_a_server_that_does_not_answer_is_given_up_at_the_deadline():
    never = asyncio.Event()
    silent = llm_endpoint(lambda _, __: Said(wait=never))
    async with silent as server, client(server.url, deadline_s=0.2, attempts=2) as asked:
        with pytest.raises(LlmUnavailableError, match=r"no answer within 0\.2 s"):
            await asked.chat(request(), cost=20)
    assert len(server.asked) == 2


async def test_a_port_that_nobody_serves_is_unavailable():
    async with client("http://127.0.0.1:9/v1", attempts=2) as asked:
        with pytest.raises(LlmUnavailableError, match="ConnectError"):
            await asked.chat(request(), cost=20)


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, LlmRefusedError, "maximum context"),
        (413, LlmRefusedError, "413"),
        (422, LlmRefusedError, "422"),
        (401, LlmUnusableError, "set GOLONGRL_LLM_API_KEY"),
        (403, LlmUnusableError, "check GOLONGRL_LLM_API_KEY"),
        (404, LlmUnusableError, "check `url`"),
        (405, LlmUnusableError, "OpenAI endpoint"),
        (302, LlmUnusableError, "OpenAI endpoint"),
    ],
)
async def test_a_refusal_is_not_repeated(status, error, said):
    script = lambda _, __: Said("maximum context", status=status)  # noqa: E731
    async with llm_endpoint(script) as server, client(server.url) as asked:
        with pytest.raises(error, match=said):
            await asked.chat(request(), cost=20)
    assert len(server.asked) == 1


@pytest.mark.parametrize("url", ["localhost:1/v1", "ftp://127.0.0.1/v1", "http://[::1/v1"])
async def test_a_url_that_is_none_is_named(url):
    with pytest.raises(LlmUnusableError, match="http://HOST:PORT/v1"):
        async with client(url) as asked:
            await asked.chat(request(), cost=20)


async def test_calls_in_flight_follow_the_server():
    gate = asyncio.Event()
    busy = {"left": 3}

    def script(body: dict, n: int) -> Said:
        if busy["left"] and body["messages"][0]["content"].startswith("busy"):
            busy["left"] -= 1
            return Said(status=429)
        return Said("ok", wait=gate)

    async with llm_endpoint(script) as server, client(server.url, concurrency=8) as asked:
        texts = [f"busy {i}" for i in range(3)] + [f"call {i}" for i in range(20)]
        calls = [asyncio.create_task(asked.chat(request(text), cost=20)) for text in texts]
        while asked.gate.limit.cuts == 0 or server.in_flight < asked.gate.limit.room:
            await asyncio.sleep(0.01)
        lowered = asked.gate.limit.room
        gate.set()
        await asyncio.gather(*calls)
    assert server.most_in_flight <= 8
    assert lowered < 8
    assert asked.gate.limit.value > lowered  # it rises again with the answers


async def test_calls_share_as_many_connections_as_are_in_flight():
    """A call that was given up leaves its connection to nobody, and no call gets the answer of another one."""
    gate = asyncio.Event()
    async with (
        llm_endpoint(lambda body, _: Said(body["messages"][0]["content"], wait=gate)) as server,
        client(server.url, concurrency=4) as asked,
    ):
        given_up = [asyncio.create_task(asked.chat(request(f"given up {i}"), cost=0)) for i in range(2)]
        while server.in_flight < 2:
            await asyncio.sleep(0.01)
        for call in given_up:
            call.cancel()
        await asyncio.wait(given_up)
        gate.set()
        replies = await asyncio.gather(*(asked.chat(request(f"call {i}"), cost=0) for i in range(40)))
    assert [reply.text for reply, _ in replies] == [f"call {i}" for i in range(40)]
    assert server.connections <= 2 + 4


async def test_the_budget_bounds_calls_and_tokens():
    async with llm_endpoint(lambda _, __: Said("ok")) as server:
        async with client(server.url, Budget(max_calls=2)) as asked:
            for _ in range(2):
                await asked.chat(request(), cost=20)
            with pytest.raises(BudgetSpentError, match=r"2 calls is spent; raise budget\.calls"):
                await asked.chat(request(), cost=20)
        async with client(server.url, Budget(max_tokens=45)) as asked:
            # Each reserves 20 and uses 10, so that the third call fits and the fourth does not.
            for _ in range(3):
                await asked.chat(request(), cost=20)
            with pytest.raises(BudgetSpentError, match="45 tokens is spent: 30 used"):
                await asked.chat(request(), cost=20)
    assert len(server.asked) == 5


async def test_a_call_waits_for_what_calls_in_flight_give_back():
    async with llm_endpoint(lambda _, __: Said("ok")) as server, client(server.url, Budget(max_tokens=40)) as asked:
        # Side by side they would reserve 60.
        await asyncio.gather(*(asked.chat(request(str(i)), cost=20) for i in range(3)))
    assert asked.budget.tokens == 30
    assert asked.budget.reserved == 0


async def test_a_server_that_does_not_count_costs_what_was_reserved():
    async with llm_endpoint(lambda _, __: Said("ok", tokens=None)) as server, client(server.url) as asked:
        await asked.chat(request(), cost=20)
    assert asked.budget.tokens == 20


async def test_a_patient_caller_outlasts_a_busy_server():
    def script(_, n):
        return Said(status=429 if n % 2 else 503) if n < 7 else Said("at last")

    async with llm_endpoint(script) as server, client(server.url, attempts=2, busy_s=600.0) as asked:
        reply, _ = await asked.chat(request(), cost=20)
    assert reply.text == "at last"
    assert len(server.asked) == 8
    assert asked.gate.limit.cuts == 7


async def test_a_patient_caller_still_bounds_other_failures():
    script = [Said(status=503), Said(status=500), Said(status=503), Said(status=500)]
    async with llm_endpoint(lambda _, n: script[n]) as server, client(server.url, attempts=2, busy_s=600.0) as asked:
        with pytest.raises(LlmUnavailableError, match="500"):
            await asked.chat(request(), cost=20)
    assert len(server.asked) == 4


async def test_an_aborted_request_is_asked_again():
    def script(_, n):
        return Said("half", finish_reason="abort") if n == 0 else Said("whole")

    async with llm_endpoint(script) as server, client(server.url) as asked:
        reply, _ = await asked.chat(request(), cost=20)
    assert reply.text == "whole"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_the_thought_and_the_policy_versions_are_read(name):
    spans = [{"version": str(v), "start": 0, "end": 1} for v in (3, 4, 3)]
    body = {
        "choices": [{"message": {"content": None, name: "hm"}, "finish_reason": "length"}],
        "metadata": {"weight_versions": spans},
    }
    async with llm_endpoint(lambda _, __: Said(body=json.dumps(body))) as server, client(server.url) as asked:
        reply, _ = await asked.chat(request().model_copy(update={"extra": {"top_k": 20}}), cost=20)
    assert (reply.text, reply.reasoning, reply.versions) == ("", "hm", ["3", "4"])
    assert server.asked[0]["top_k"] == 20
