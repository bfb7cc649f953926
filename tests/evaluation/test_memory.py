"""The memory agent: its stores, its loop, and BFCL's questions from the data to a score."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from golongrl.errors import InputError
from golongrl.evaluation.benchmarks import bfcl_memory
from golongrl.evaluation.benchmarks.bfcl_memory import BFCL_MEMORY, MemoryGroup
from golongrl.evaluation.errors import EvaluationError
from golongrl.evaluation.memory.loop import (
    MOST_STEPS,
    MemoryAgentError,
    MemoryCall,
    MemoryReply,
    ToolStyle,
    Turn,
    calls_of,
    converse,
)
from golongrl.evaluation.memory.stores import BACKENDS, KeyValueStore, MemoryStore, SummaryStore, Tool, bm25_plus
from golongrl.evaluation.run.memories import KeptMemories
from golongrl.evaluation.sources import DataFiles
from support.eval_data import write_eval_data


def _letters(texts: Sequence[str]) -> list[list[float]]:
    """An embedder: how often each letter stands in a text."""
    return [[float(text.lower().count(chr(letter))) for letter in range(97, 123)] for text in texts]


def _store(backend: str, snapshot: dict[str, Any] | None = None) -> MemoryStore:
    return bfcl_memory.open_store(backend, snapshot, _letters)


# (backend, calls, the last one's result)
STEPS: list[tuple[str, list[tuple[str, Any]], dict[str, Any]]] = [
    ("kv", [("core_memory_add", {"key": "name", "value": "Michael"}), ("core_memory_retrieve", {"key": "name"})],
     {"value": "Michael"}),
    ("kv", [("core_memory_add", {"key": "Name", "value": "x"})],
     {"error": "The key must be in snake_case, without spaces."}),
    ("kv", [("core_memory_add", {"key": "a", "value": "x" * 301})],
     {"error": "The value is longer than 300 characters."}),
    ("kv", [("core_memory_add", {"key": f"k{'x' * i}", "value": "v"}) for i in range(8)],
     {"error": "This memory is full (7 entries). Remove some first."}),
    ("kv", [("archival_memory_add", {"key": "a", "value": "1"}), ("archival_memory_add", {"key": "a", "value": "2"})],
     {"error": "There is such a key already."}),
    ("kv", [("archival_memory_remove", {"key": "a"})], {"error": "There is no such key."}),
    ("kv", [("archival_memory_key_search", {"query": "x"})], {"ranked_results": []}),
    ("kv", [("core_memory_add", '{"key": "a", "value": 3}'), ("core_memory_retrieve_all", "")], {"a": "3"}),
    ("kv", [("core_memory_add", {"key": "a"})], {"error": "Wrong arguments: missing value."}),
    ("kv", [("core_memory_clear", {"all": True})], {"error": "Wrong arguments: unknown all."}),
    ("kv", [("core_memory_list_keys", "[]")], {"error": "The arguments must be an object."}),
    ("kv", [("core_memory_list_keys", "{")], {"error": "The arguments are not JSON."}),
    ("kv", [("memory_append", {"text": "a"})], {"error": "There is no tool memory_append."}),
    ("rec_sum", [("memory_append", {"text": "a"}), ("memory_append", {"text": "b"}), ("memory_retrieve", {})],
     {"memory_content": "ab"}),
    ("rec_sum", [("memory_update", {"text": "x" * 10_001})],
     {"error": "The memory would be longer than 10000 characters."}),
    ("rec_sum", [("memory_update", {"text": "a b"}), ("memory_replace", {"old_text": "b", "new_text": "c"}),
                 ("memory_retrieve", {})], {"memory_content": "a c"}),
    ("rec_sum", [("memory_retrieve", {})], {"error": "The memory is empty."}),
    ("vector", [("core_memory_add", {"text": "a"}), ("core_memory_remove", {"vec_id": 0}),
                ("core_memory_add", {"text": "b"})], {"id": 1}),
    ("vector", [("archival_memory_add", {"text": "zebra"}), ("archival_memory_add", {"text": "tide"}),
                ("archival_memory_retrieve", {"query": "tide", "top_k": 1})],
     {"result": [{"id": 1, "similarity_score": pytest.approx(1.0), "text": "tide"}]}),
    ("vector", [("core_memory_update", {"vec_id": "one", "new_text": "x"})], {"error": "vec_id must be an integer."}),
    ("vector", [("core_memory_update", {"vec_id": 9.0, "new_text": "x"})], {"error": "There is no such id."}),
]  # fmt: skip


@pytest.mark.parametrize(("backend", "calls", "expected"), STEPS)
def test_a_store_answers(backend: str, calls: list[tuple[str, Any]], expected: dict[str, Any]) -> None:
    store = _store(backend)
    results = [store.call(name, arguments) for name, arguments in calls]
    assert results[-1] == expected


def test_bm25_plus_ranks_keys_by_their_words() -> None:
    keys = ["first_name", "home_town", "name_of_dog"]
    scores = bm25_plus("first name", keys)
    assert scores.index(max(scores)) == 0
    # The published formula, worked out by hand for one word in two of three keys of mean length 7/3.
    assert bm25_plus("name", keys)[0] == pytest.approx(0.693147 * (1 + 2.5 / (1.5 * (0.25 + 0.75 * 2 / (7 / 3)) + 1)))


_NAMES = [tool["function"]["name"] for backend in BACKENDS for tool in _store(backend).tools()]
_VALUES = st.text(max_size=20) | st.integers(-3, 60) | st.none() | st.booleans() | st.floats()
_ARGUMENTS = st.dictionaries(
    st.sampled_from(["key", "value", "text", "query", "k", "top_k", "vec_id", "old_text", "new_text"]), _VALUES
)


@given(
    backend=st.sampled_from(BACKENDS),
    calls=st.lists(st.tuples(st.sampled_from(_NAMES), _ARGUMENTS | st.text(max_size=20)), max_size=12),
)
def test_a_store_never_raises_and_its_snapshot_restores_it(backend: str, calls: list[tuple[str, Any]]) -> None:
    store = _store(backend)
    for name, arguments in calls:
        json.dumps(store.call(name, arguments))
    snapshot = json.loads(json.dumps(store.snapshot()))
    again = _store(backend, snapshot)
    assert again.snapshot() == store.snapshot()
    assert again.shown() == store.shown()


def test_calls_are_read_from_the_text_behind_the_thought() -> None:
    text = (
        '<think><tool_call>{"name": "no"}</tool_call></think>I store it.\n<tool_call>\n'
        '{"name": "memory_append", "arguments": {"text": "a"}}\n</tool_call>\n<tool_call>\nbroken\n</tool_call>'
    )
    assert [(call.name, call.arguments) for call in calls_of(MemoryReply(text))] == [
        ("memory_append", '{"text": "a"}'), ("(not JSON)", "{}"),
    ]  # fmt: skip
    own = (MemoryCall("c1", "memory_clear", "{}"),)
    assert calls_of(MemoryReply(text, own)) == own


def test_half_a_character_in_a_call_is_none_that_a_request_cannot_carry() -> None:
    """A model writes an escape of a surrogate pair's first half, and its answer ends there or goes on."""
    block = '<tool_call>{"name": "core_memory_add", "arguments": {"key": "a", "value": "hi \\ud83d"}}</tool_call>'
    (call,) = calls_of(MemoryReply(block))
    assert call.arguments == '{"key": "a", "value": "hi \ufffd"}'
    store = _store("kv")
    store.call("core_memory_add", '{"key": "b", "value": "\\ud83d\\ude00 \\ude00"}')
    assert store.snapshot()["core_memory"] == {"b": "\U0001f600 \ufffd"}


class Agent:
    """A chat that stores what it is told and answers with all that it sees of its memory."""

    def __init__(self, backend: str, style: ToolStyle) -> None:
        self.style, self.requests, self.pairs = style, 0, backend == "kv"
        self.tool = {"kv": "core_memory_add", "rec_sum": "memory_append", "vector": "core_memory_add"}[backend]

    async def __call__(self, turns: Sequence[Turn], tools: Sequence[Tool]) -> MemoryReply:
        self.requests += 1
        assert bool(tools) == (self.style == "native")
        last, system = turns[-1], turns[0]["content"]
        if last["role"] == "tool" or "<tool_response>" in last["content"]:
            assert "error" not in last["content"]
            return MemoryReply("<think>stored</think>Noted.")
        if "final answer" in system:
            memory = system.rpartition("emory:\n")[2].partition("\n\nGive")[0]
            return MemoryReply(f"<think>I see it.</think>{json.dumps({'answer': memory}, ensure_ascii=False)}")
        pair = {"key": f"fact_{self.requests}", "value": last["content"]}
        arguments = json.dumps(pair if self.pairs else {"text": last["content"] + " "})
        if self.style == "native":
            return MemoryReply("", (MemoryCall(f"c{self.requests}", self.tool, arguments),), "a thought", "tool_calls")
        return MemoryReply(f'a</think><tool_call>{{"name": "{self.tool}", "arguments": {arguments}}}</tool_call>')


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_eval_data(tmp_path_factory.mktemp("memory-data"))


@pytest.mark.parametrize("style", ["native", "text"])
@pytest.mark.parametrize("backend", BACKENDS)
async def test_an_agent_that_remembers_is_right(backend: str, style: ToolStyle, folder: Path) -> None:
    with DataFiles.find(folder, BFCL_MEMORY.sources) as data:
        problems = [one for one in BFCL_MEMORY.problems(data) if one.labels["backend"] == backend]
        assert len(problems) == 5
        for problem in problems:
            chat = Agent(backend, style)
            group = bfcl_memory.group_of(problem)
            steps = [step async for step in bfcl_memory.fill_memory(group, data, chat, embed=_letters, style=style)]
            assert [done for done, _ in steps] == [1, 2]
            _, snapshot = steps[-1]
            before = json.dumps(snapshot)
            reply = await bfcl_memory.ask(problem, data, snapshot, chat, embed=_letters, style=style)
            assert json.dumps(snapshot) == before
            assert BFCL_MEMORY.score(problem, reply, "strict").score == 1.0, reply.text


async def test_filling_goes_on_from_a_snapshot(folder: Path) -> None:
    group = MemoryGroup("rec_sum", "customer")
    with DataFiles.find(folder, BFCL_MEMORY.sources) as data:
        whole = [step async for step in bfcl_memory.fill_memory(group, data, Agent("rec_sum", "native"))]
        done, snapshot = whole[0]
        chat = Agent("rec_sum", "native")
        rest = [step async for step in bfcl_memory.fill_memory(group, data, chat, snapshot=snapshot, done=done)]
    assert rest == whole[1:]
    assert chat.requests == 2  # one turn, one result


async def test_a_failed_conversation_ends_the_filling(folder: Path) -> None:
    async def refuse(turns: Sequence[Turn], tools: Sequence[Tool]) -> MemoryReply:
        return MemoryReply("", error="HTTP 500")

    with DataFiles.find(folder, BFCL_MEMORY.sources) as data:
        steps = bfcl_memory.fill_memory(MemoryGroup("kv", "customer"), data, refuse)
        with pytest.raises(MemoryAgentError, match="memory_prereq_0-customer-0: HTTP 500"):
            await anext(steps)
        problem = next(iter(BFCL_MEMORY.problems(data)))
        reply = await bfcl_memory.ask(problem, data, {}, refuse)
    assert BFCL_MEMORY.score(problem, reply, "strict").status == "failed"


async def test_a_model_that_only_calls_tools_is_stopped() -> None:
    requests = 0

    async def endless(turns: Sequence[Turn], tools: Sequence[Tool]) -> MemoryReply:
        nonlocal requests
        requests += 1
        return MemoryReply("", (MemoryCall("c", "core_memory_list_keys", "{}"),))

    answer = await converse(KeyValueStore(), "system", [[{"role": "user", "content": "?"}]], endless)
    assert answer.stopped
    assert requests == MOST_STEPS + 1


def test_the_vector_store_says_what_it_needs() -> None:
    with pytest.raises(EvaluationError, match="all-MiniLM-L6-v2"):
        bfcl_memory.open_store("vector")
    assert isinstance(bfcl_memory.open_store("rec_sum"), SummaryStore)


def test_strict_looks_at_the_answer_alone() -> None:
    reply = "{'answer': 'Rome', 'context': 'You said it is not Paris.'}"
    assert bfcl_memory.answer_contained(reply, ["Paris"], "official")
    assert not bfcl_memory.answer_contained(reply, ["Paris"], "strict")
    assert bfcl_memory.answer_contained(reply, ["Rome"], "strict")
    assert bfcl_memory.answer_contained("It was Rome.", ["Rome"], "strict")


def test_an_encoder_folder_without_a_model_is_named(tmp_path: Path) -> None:
    from golongrl.evaluation.memory.embedding import encoder

    with pytest.raises(EvaluationError, match=r"no config\.json"):
        encoder(tmp_path)


@pytest.mark.full
def test_an_encoder_embeds_each_text_by_itself(tmp_path: Path) -> None:
    """A tiny encoder of random weights in the files of all-MiniLM-L6-v2; padding must not change an embedding."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from golongrl.evaluation.memory.embedding import encoder

    words = ["[PAD]", "[UNK]", "tide", "table", "keeper", "of", "varn"]
    words_model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    tokenizer = Tokenizer(words_model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(tmp_path)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(tmp_path)
    embed = encoder(tmp_path)
    alone, (short, _) = embed(["tide table"]), embed(["tide table", "keeper of varn of varn"])
    assert short == pytest.approx(alone[0], abs=1e-5)
    store = bfcl_memory.open_store("vector", None, embed)
    for text in ("keeper of varn", "tide table"):
        store.call("core_memory_add", {"text": text})
    found = store.call("core_memory_retrieve", {"query": "tide table", "top_k": 1})
    assert found["result"][0]["text"] == "tide table"


@pytest.mark.parametrize(
    "content",
    [
        "", "5", "[]", "[" * 100_000, '{"a": 5}', '{"a": [1]}', '{"a": [-1, {"memory": ""}]}', '{"a": [1, null]}',
        '{"a": [1, {}]}', '{"a": [1, {"memory": 5}]}', '{"a": [1, {"memory": "\\ud800"}]}',
        '{"a": [1, {"core_memory": {}}]}', '{"a": [1, {"core_memory": {"k": 1}, "archival_memory": {}}]}',
        '{"a": [1, {"core_memory": 5, "archival_memory": 5}]}',
    ],
)  # fmt: skip
def test_damaged_memories_are_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "b.memories.json").write_text(content)
    with pytest.raises(InputError, match=r"b\.memories\.json: not the memories of an evaluation; remove it"):
        KeptMemories(tmp_path / "b.memories.json")


@pytest.mark.parametrize("backend", BACKENDS)
def test_kept_memories_are_read_as_they_were(tmp_path: Path, backend: str) -> None:
    store, group = _store(backend), MemoryGroup(backend, "customer")
    store.call({"kv": "core_memory_add", "rec_sum": "memory_append", "vector": "core_memory_add"}[backend],
               {"key": "a", "value": "b"} if backend == "kv" else {"text": "b"})  # fmt: skip
    KeptMemories(tmp_path / "b.json").keep(group, 3, store.snapshot())
    done, snapshot = KeptMemories(tmp_path / "b.json").get(group)
    again = _store(backend, snapshot)
    assert (done, again.shown()) == (3, store.shown())
    assert again.snapshot() == store.snapshot()
    assert "b" in again.shown()
