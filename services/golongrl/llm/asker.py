"""`Asker`: a call by its key. A key that was answered before, in this run or another, costs nothing.

Invariants:
- a reply is durable before anybody acts on it, so a killed run repeats only the calls that were in flight;
- the key covers all that the reply depends on: stage, its code version, model, the request and its seed;
- a refusal of the request itself is a reply, too. An endpoint that cannot be reached is an error, and nothing is kept.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from golongrl.llm.budget import CallEstimate
from golongrl.llm.client import ChatClient
from golongrl.llm.errors import LlmRefusedError, LlmUnavailableError
from golongrl.llm.models import ChatReply, ChatRequest
from golongrl.llm.replies import ReplyStore, StoredReply

# Bytes of UTF-8 a token has at least on average, over English, Chinese and code, in the tokenizers of today's models:
# prompts are estimated with it, on the high side.
_BYTES_PER_TOKEN = 3
# What a chat template adds to each message.
_MESSAGE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class LlmCall:
    """One call of a stage; `version` is raised whenever the stage's code or prompts change what is asked."""

    stage: str
    version: str
    model: str
    request: ChatRequest

    @property
    def key(self) -> str:
        """Names the reply in the store."""
        asked = self.request.model_dump(mode="json")
        seed = asked.pop("seed")
        parts = [self.stage, self.version, self.model, asked, seed]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=False).encode("utf-8")).hexdigest()

    @property
    def prompt_tokens(self) -> int:
        """About how many tokens the prompt has, rather too many."""
        return sum(
            -(-len(message.content.encode("utf-8", "replace")) // _BYTES_PER_TOKEN) + _MESSAGE_TOKENS
            for message in self.request.messages
        )

    @property
    def cost(self) -> int:
        """Tokens of prompt and completion, at most."""
        return self.prompt_tokens + self.request.max_tokens


@dataclass(frozen=True, slots=True)
class LlmReply:
    """What the model answered, or why the endpoint refused to ask it (`refused`, else empty)."""

    key: str
    text: str = ""
    finish_reason: str = ""
    refused: str = ""


class Asker:
    """Asks a model, or the store."""

    def __init__(self, client: ChatClient, store: ReplyStore) -> None:
        self.client = client
        self.store = store
        self.asked = 0
        self.found = 0
        self._asking: dict[str, asyncio.Lock] = {}

    async def ask(self, call: LlmCall) -> LlmReply:
        """The reply to a call.

        Raises:
            LlmUnavailableError, LlmUnusableError: the endpoint cannot be asked.
            BudgetSpentError: the budget has no room for the call.
        """
        key = call.key
        # Of equal calls at one time the first is made, and the others find its reply.
        lock = self._asking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                return _reply(key, await self._kept(call, key))
        finally:
            if not lock.locked():
                self._asking.pop(key, None)

    async def _kept(self, call: LlmCall, key: str) -> StoredReply:
        kept = await asyncio.to_thread(self.store.get, key)
        if kept is not None:
            self.found += 1
            return kept
        fresh = await self._fresh(call)
        self.asked += 1
        await asyncio.to_thread(self.store.put, key, call.stage, call.model, fresh)
        return fresh

    async def _fresh(self, call: LlmCall) -> StoredReply:
        try:
            reply, body = await self.client.chat(call.request, call.cost)
        except LlmRefusedError as error:
            return StoredReply("refused", str(error), 0)
        except LlmUnavailableError as error:
            if not error.of_the_request:
                raise
            # One request that no server can answer must not stop all others, in this start and each later one.
            return StoredReply("refused", str(error), 0)
        return StoredReply("answered", body, call.cost if reply.tokens is None else reply.tokens)


def kept_reply(call: LlmCall, store: ReplyStore) -> LlmReply | None:
    """The reply to a call if the store has it."""
    kept = store.get(call.key)
    return None if kept is None else _reply(call.key, kept)


def _reply(key: str, kept: StoredReply) -> LlmReply:
    if kept.status == "refused":
        return LlmReply(key, refused=kept.body)
    reply = ChatReply.model_validate_json(kept.body)
    return LlmReply(key, reply.text, reply.finish_reason)


def estimate(calls: Iterable[LlmCall], store: ReplyStore) -> CallEstimate:
    """What the calls would cost that the store does not have."""
    total = CallEstimate()
    for call in calls:
        if store.get(call.key) is None:
            total += CallEstimate(1, call.prompt_tokens, call.request.max_tokens)
    return total
