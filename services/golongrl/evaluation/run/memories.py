"""BFCL's memory: conversations fill a memory, in their order; then every question starts from that memory.

Invariants: what a finished conversation left in a memory is kept at once, so that after a kill the filling continues
with the next conversation; no question is asked of a memory that lacks a conversation; a question whose memory could
not be filled counts as failed.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import NonNegativeInt, TypeAdapter
from typing_extensions import TypedDict

from golongrl import files
from golongrl.errors import writing_to
from golongrl.evaluation.benchmarks import bfcl_memory
from golongrl.evaluation.benchmarks.bfcl_memory import MemoryGroup
from golongrl.evaluation.memory.loop import MemoryCall, MemoryReply, ToolStyle, Turn
from golongrl.evaluation.memory.stores import Embed, Tool
from golongrl.evaluation.problems import EvalProblem
from golongrl.json_files import read_json
from golongrl.llm import ChatReply

# Sends turns and tools; gives the endpoint's reply with its body, or the reason why there is none.
Send = Callable[[Sequence[Turn], Sequence[Tool]], Awaitable[tuple[ChatReply, str] | str]]


# Of a file with every memory: BFCL's fifteen have at most 100,000 characters each.
_MOST_BYTES: Final = 64 << 20


class _KeptTexts(TypedDict):
    next_id: NonNegativeInt
    texts: dict[NonNegativeInt, str]


class _KeptPairs(TypedDict):
    core_memory: dict[str, str]
    archival_memory: dict[str, str]


class _KeptVectors(TypedDict):
    core_memory: _KeptTexts
    archival_memory: _KeptTexts


class _KeptSummary(TypedDict):
    memory: str


# Conversations that are done, and what the memory was then.
_KEPT: Final = TypeAdapter(dict[str, tuple[NonNegativeInt, _KeptVectors | _KeptPairs | _KeptSummary]])


class KeptMemories:
    """How far each memory is filled, in a file beside the samples."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = read_json(path, _MOST_BYTES, _KEPT, "not the memories of an evaluation; remove it") or {}

    def get(self, group: MemoryGroup) -> tuple[int, Any]:
        """Conversations that are done, and the memory then."""
        return self._kept.get(group.key, (0, None))

    def keep(self, group: MemoryGroup, done: int, snapshot: Any) -> None:
        """Remember them."""
        self._kept[group.key] = (done, snapshot)
        with writing_to(str(self._path)):
            files.write_text(self._path, json.dumps(self._kept, ensure_ascii=False))


def grouped(problems: Sequence[EvalProblem]) -> Mapping[MemoryGroup, list[EvalProblem]]:
    """The questions of each memory."""
    found: dict[MemoryGroup, list[EvalProblem]] = defaultdict(list)
    for problem in problems:
        found[bfcl_memory.group_of(problem)].append(problem)
    return found


async def filled(
    group: MemoryGroup, data: Any, memories: KeptMemories, send: Send, embed: Embed | None, style: ToolStyle
) -> Any:
    """The filled memory of a group.

    Raises:
        MemoryAgentError: a conversation failed.
    """
    done, snapshot = memories.get(group)
    steps = bfcl_memory.fill_memory(group, data, chat_of(send), snapshot=snapshot, done=done, embed=embed, style=style)
    async for done, snapshot in steps:
        await asyncio.to_thread(memories.keep, group, done, snapshot)
    return snapshot if snapshot is not None else bfcl_memory.open_store(group.backend, None, embed).snapshot()


def chat_of(send: Send) -> Callable[[Sequence[Turn], Sequence[Tool]], Awaitable[MemoryReply]]:
    """The chat function of the loop over an endpoint."""

    async def chat(turns: Sequence[Turn], tools: Sequence[Tool]) -> MemoryReply:
        found = await send(turns, tools)
        if isinstance(found, str):
            return MemoryReply("", finish_reason="error", error=found)
        reply, body = found
        return MemoryReply(reply.text, _calls(body), reply.reasoning, reply.finish_reason or "stop")

    return chat


def _calls(body: str) -> tuple[MemoryCall, ...]:
    """The tool calls that the endpoint read out of the reply; what is no call is left out."""
    match json.loads(body):
        case {"choices": [{"message": {"tool_calls": [*calls]}}, *_]}:
            return tuple(
                MemoryCall(str(call.get("id") or f"call_{number}"), function["name"], function.get("arguments") or "{}")
                for number, call in enumerate(calls)
                if isinstance(call, dict)
                and isinstance(function := call.get("function"), dict)
                and isinstance(function.get("name"), str)
            )
    return ()
