"""Talking with an agent that has a memory: its turns, its tool calls, its answer.

A conversation is a system message, then the user's turns. After each turn the model may call tools; their results go
back until it answers without a call, 20 times at most, after which the conversation ends. A chat function does the
network (`Chat`); everything here is a function of what it returns.

Tool calls come as the endpoint's own `tool_calls`, or as `<tool_call>` blocks in the text, as Qwen's template writes
them where the engine does not parse them. With `style="text"` the tools are described in the system message and results
go back as the user's text, for endpoints without tools.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from golongrl import whole_text
from golongrl.errors import GolongrlError
from golongrl.evaluation.memory.stores import MemoryStore, Tool
from golongrl.evaluation.thought import strip_thought

Turn = dict[str, Any]
ToolStyle = Literal["native", "text"]

# BFCL's: the model is stopped when it has called tools more than 20 times for one message.
MOST_STEPS: Final = 20

_BLOCK: Final = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|$)", re.DOTALL)
_TEXT_TOOLS: Final = """\


You have tools. To call one, write a block of this form, one block for each call, and wait for the results:
<tool_call>
{{"name": "the tool", "arguments": {{...}}}}
</tool_call>

The tools, as JSON:
{tools}"""


class MemoryAgentError(GolongrlError):
    """A conversation could not be held; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class MemoryCall:
    """One tool call; `arguments` is JSON text."""

    key: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class MemoryReply:
    """What the chat function got for one request; `error` says why it got nothing."""

    text: str
    calls: tuple[MemoryCall, ...] = ()
    reasoning: str | None = None
    finish_reason: str = "stop"
    error: str = ""


Chat = Callable[[Sequence[Turn], Sequence[Tool]], Awaitable[MemoryReply]]


@dataclass(frozen=True, slots=True)
class MemoryAnswer:
    """The last reply that calls no tool, or the first that failed; `stopped`: the model called tools without end."""

    reply: MemoryReply
    stopped: bool = False


def calls_of(reply: MemoryReply) -> tuple[MemoryCall, ...]:
    """The tool calls of a reply: the endpoint's own, else the blocks in its text behind the thought."""
    if reply.calls:
        return reply.calls
    answer = strip_thought(reply.text, reply.finish_reason, reasoning=reply.reasoning).answer
    found = []
    for number, block in enumerate(_BLOCK.findall(answer)):
        try:
            call = whole_text.loads(block)
        except (ValueError, RecursionError):
            call = None
        # A block that is no call is answered with an error, so that the model can write it again.
        name = call.get("name") if isinstance(call, dict) else None
        arguments = call.get("arguments", {}) if isinstance(call, dict) else {}
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        found.append(MemoryCall(f"call_{number}", name if isinstance(name, str) else "(not JSON)", text))
    return tuple(found)


def result_turns(store: MemoryStore, reply: MemoryReply, calls: Sequence[MemoryCall], style: ToolStyle) -> list[Turn]:
    """Do the calls, and what is added to the conversation: the model's message and the results."""
    content = strip_thought(reply.text, "stop", reasoning=reply.reasoning).answer
    results = [json.dumps(store.call(call.name, call.arguments), ensure_ascii=False) for call in calls]
    if style == "text":
        answers = "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results)
        return [{"role": "assistant", "content": content}, {"role": "user", "content": answers}]
    if not reply.calls:
        content = _BLOCK.sub("", content).strip()
    asked = [
        {"id": call.key, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in calls
    ]
    turns: list[Turn] = [{"role": "assistant", "content": content, "tool_calls": asked}]
    turns += [
        {"role": "tool", "tool_call_id": call.key, "name": call.name, "content": result}
        for call, result in zip(calls, results, strict=True)
    ]
    return turns


async def converse(
    store: MemoryStore, system: str, turns: Sequence[Sequence[Turn]], chat: Chat, style: ToolStyle = "native"
) -> MemoryAnswer:
    """Hold one conversation; the store changes as the model asks.

    Raises:
        ValueError: there are no turns.
    """
    tools = store.tools()
    if style == "text":
        listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
        system, tools = system + _TEXT_TOOLS.format(tools=listed), []
    history: list[Turn] = [{"role": "system", "content": system}]
    answer: MemoryAnswer | None = None
    for turn in turns:
        history += turn
        answer = await _one_turn(store, history, chat, tools, style)
        if answer.stopped or answer.reply.error:
            return answer
        content = strip_thought(answer.reply.text, "stop", reasoning=answer.reply.reasoning).answer
        history.append({"role": "assistant", "content": content})
    if answer is None:
        raise ValueError("a conversation needs at least one turn")
    return answer


async def _one_turn(
    store: MemoryStore, history: list[Turn], chat: Chat, tools: Sequence[Tool], style: ToolStyle
) -> MemoryAnswer:
    for _ in range(MOST_STEPS + 1):
        reply = await chat(history, tools)
        if reply.error:
            return MemoryAnswer(reply)
        calls = calls_of(reply)
        if not calls:
            return MemoryAnswer(reply)
        history += result_turns(store, reply, calls, style)
    return MemoryAnswer(reply, stopped=True)


@dataclass(frozen=True, slots=True)
class MemoryConversation:
    """One conversation that fills a memory."""

    key: str
    turns: tuple[tuple[Turn, ...], ...]


async def fill(
    store: MemoryStore,
    system: Callable[[str], str],
    conversations: Sequence[MemoryConversation],
    chat: Chat,
    style: ToolStyle = "native",
) -> AsyncIterator[MemoryConversation]:
    """Hold the conversations in their order; after each, the store's snapshot can be kept, to continue from there.

    Raises:
        MemoryAgentError: one failed. The memory would lack what it said, so that no question may be asked of it.
    """
    for conversation in conversations:
        answer = await converse(store, system(store.shown()), conversation.turns, chat, style)
        if answer.reply.error:
            raise MemoryAgentError(f"conversation {conversation.key}: {answer.reply.error}")
        yield conversation
