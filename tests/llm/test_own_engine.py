"""Our own engine as the endpoint: its `/v1/chat/completions` is one that the client can use."""

from pathlib import Path

import pytest

from golongrl.data.models import resolve
from golongrl.llm import (
    Asker,
    ChatClient,
    ChatRequest,
    Endpoint,
    LlmCall,
    LlmMessage,
    LlmUnusableError,
    ReplyStore,
)
from golongrl.recipe import load
from support.engine_process import engine_process

pytestmark = pytest.mark.full


def call(text: str, seed: int, schema: dict[str, object] | None = None) -> LlmCall:
    request = ChatRequest(
        messages=(LlmMessage(role="user", content=text),), max_tokens=8, temperature=1.0, seed=seed,
        response_schema=schema,
    )  # fmt: skip
    return LlmCall("generate", "1", "default", request)


async def test_replies_are_kept_and_counted(tmp_path: Path) -> None:
    model = resolve("builtin:quickstart")
    with engine_process("embedded", model, load("quickstart"), tmp_path / "engine.log") as url:
        endpoint = Endpoint(f"{url}/v1", "default", concurrency=4)
        with ReplyStore(tmp_path / "replies.sqlite") as store:
            async with ChatClient(endpoint) as client:
                asker = Asker(client, store)
                first = await asker.ask(call("state the last value", 1))
                again = await asker.ask(call("state the last value", 1))
                other = await asker.ask(call("state the last value", 2))
            assert first == again
            assert (asker.asked, asker.found) == (2, 1)
            assert {first.finish_reason, other.finish_reason} <= {"stop", "length"}
            calls, tokens = store.count()
            assert calls == 2
            assert 0 < tokens <= client.budget.tokens
            async with ChatClient(Endpoint(f"{url}/v1/nothing", "default")) as client:
                with pytest.raises(LlmUnusableError, match="check `url`"):
                    await Asker(client, store).ask(call("another", 3))
