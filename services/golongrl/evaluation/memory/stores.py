"""What an agent can remember between conversations: three stores with the tools of BFCL-V4's memory category.

- `kv`: short-term and long-term pairs of a key and a text, found by key or by BM25+ over the keys;
- `rec_sum`: one text that the agent rewrites;
- `vector`: short-term and long-term texts found by the similarity of their embeddings; needs an embedder.

Names, parameters, limits and kinds of result are BFCL's. A wrong call is answered with an `error` that the model can
read and never raises. A snapshot is JSON, and a store that is restored from it behaves the same.
"""

import json
import math
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from golongrl import whole_text

Tool = dict[str, Any]
Result = dict[str, Any]
Snapshot = dict[str, Any]
# Each tool's name with its function, what it does, and its parameters; one with a default is optional.
Actions = dict[str, tuple[Callable[..., Result], str, Mapping[str, Any]]]
Embed = Callable[[Sequence[str]], Sequence[Sequence[float]]]

BACKENDS: Final = ("kv", "vector", "rec_sum")

# BFCL's limits: entries and characters of one.
SHORT_ENTRIES: Final = 7
SHORT_LENGTH: Final = 300
LONG_ENTRIES: Final = 50
LONG_LENGTH: Final = 2_000
SUMMARY_LENGTH: Final = 10_000
_FOUND: Final = 5  # results of a search that names no number
_KEY: Final = re.compile(r"[a-z]+(_[a-z0-9]+)*")

_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "integer"}


class MemoryStore(ABC):
    """One backend; `shown` is what the agent sees of it without asking."""

    backend: str

    def __init__(self) -> None:
        self._calls = {name: call for name, (call, _, _) in self._actions().items()}

    @abstractmethod
    def _actions(self) -> Actions:
        """The tools of this backend."""

    @abstractmethod
    def shown(self) -> str:
        """The part of the memory that is always in context."""

    @abstractmethod
    def snapshot(self) -> Snapshot:
        """All of it as JSON."""

    def tools(self) -> list[Tool]:
        """The tools in OpenAI's form."""
        return [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": description,
                    "parameters": {
                        "type": "object",
                        "properties": dict(parameters),
                        "required": [one for one, kind in parameters.items() if "default" not in kind],
                    },
                },
            }
            for name, (_, description, parameters) in self._actions().items()
        ]

    def call(self, name: str, arguments: object) -> Result:
        """Do what a tool call asks for; `arguments` is its JSON text or the object itself."""
        if name not in self._calls:
            return {"error": f"There is no tool {name}."}
        if isinstance(arguments, str):
            try:
                arguments = whole_text.loads(arguments or "{}")
            except (ValueError, RecursionError):
                return {"error": "The arguments are not JSON."}
        if not isinstance(arguments, Mapping):
            return {"error": "The arguments must be an object."}
        _, _, parameters = self._actions()[name]
        unknown = [one for one in arguments if one not in parameters]
        missing = [one for one, kind in parameters.items() if "default" not in kind and one not in arguments]
        if unknown or missing:
            what = f"unknown {', '.join(map(str, unknown))}" if unknown else f"missing {', '.join(missing)}"
            return {"error": f"Wrong arguments: {what}."}
        values: dict[str, Any] = {}
        for one, value in arguments.items():
            if parameters[one]["type"] == "integer":
                if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
                    return {"error": f"{one} must be an integer."}
                values[one] = int(value)
            else:
                values[one] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return self._calls[name](**values)


class KeyValueStore(MemoryStore):
    """Pairs of a key and a text, short-term and long-term."""

    backend = "kv"

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        given = snapshot or {}
        self._core: dict[str, str] = dict(given.get("core_memory", {}))
        self._archival: dict[str, str] = dict(given.get("archival_memory", {}))
        super().__init__()

    def snapshot(self) -> Snapshot:
        return {"core_memory": dict(self._core), "archival_memory": dict(self._archival)}

    def shown(self) -> str:
        return json.dumps(self._core, indent=4, ensure_ascii=False) if self._core else "(nothing yet)"

    def _actions(self) -> Actions:
        actions: Actions = {}
        for prefix, term, pairs, most, longest in (
            ("core_memory", "short-term", self._core, SHORT_ENTRIES, SHORT_LENGTH),
            ("archival_memory", "long-term", self._archival, LONG_ENTRIES, LONG_LENGTH),
        ):
            part = _Pairs(pairs, most, longest)
            key = {"key": _TEXT}
            pair = {"key": _TEXT, "value": _TEXT}
            query = {"query": _TEXT, "k": {**_NUMBER, "default": _FOUND}}
            where = f"the {term} memory"
            actions |= {
                f"{prefix}_add": (part.add, f"Put a new pair into {where}; keys are unique and in snake_case.", pair),
                f"{prefix}_remove": (part.remove, f"Remove a pair from {where} by its exact key.", key),
                f"{prefix}_replace": (part.replace, f"Give a key of {where} another value.", pair),
                f"{prefix}_clear": (part.clear, f"Remove all of {where}; this cannot be undone.", {}),
                f"{prefix}_retrieve": (part.retrieve, f"The value of an exact key of {where}.", key),
                f"{prefix}_list_keys": (part.list_keys, f"All keys of {where}.", {}),
                f"{prefix}_key_search": (part.search, f"Keys of {where} that are like a query, by BM25+.", query),
            }
        actions["core_memory_retrieve_all"] = (lambda: dict(self._core), "All pairs of the short-term memory.", {})
        return actions


class _Pairs:
    """One of the two parts of a key-value memory."""

    def __init__(self, pairs: dict[str, str], most: int, longest: int) -> None:
        self._pairs, self._most, self._longest = pairs, most, longest

    def add(self, key: str, value: str) -> Result:
        if len(self._pairs) >= self._most:
            return {"error": f"This memory is full ({self._most} entries). Remove some first."}
        if len(value) > self._longest:
            return {"error": f"The value is longer than {self._longest} characters."}
        if not _KEY.fullmatch(key):
            return {"error": "The key must be in snake_case, without spaces."}
        if key in self._pairs:
            return {"error": "There is such a key already."}
        self._pairs[key] = value
        return {"status": "Added."}

    def remove(self, key: str) -> Result:
        if self._pairs.pop(key, None) is None:
            return {"error": "There is no such key."}
        return {"status": "Removed."}

    def replace(self, key: str, value: str) -> Result:
        if key not in self._pairs:
            return {"error": "There is no such key."}
        if len(value) > self._longest:
            return {"error": f"The value is longer than {self._longest} characters."}
        self._pairs[key] = value
        return {"status": "Replaced."}

    def clear(self) -> Result:
        self._pairs.clear()
        return {"status": "Cleared."}

    def retrieve(self, key: str) -> Result:
        return {"value": self._pairs[key]} if key in self._pairs else {"error": "There is no such key."}

    def list_keys(self) -> Result:
        return {"keys": list(self._pairs)}

    def search(self, query: str, k: int = _FOUND) -> Result:
        keys = list(self._pairs)
        ranked = sorted(zip(bm25_plus(query, keys), keys, strict=True), key=lambda one: one[0], reverse=True)
        return {"ranked_results": [list(one) for one in ranked[: max(k, 0)]]}


def bm25_plus(query: str, keys: Sequence[str], k1: float = 1.5, b: float = 0.75, delta: float = 1.0) -> list[float]:
    """The BM25+ score of each key for a query; the words of a key are parted by underscores."""
    documents = [Counter(key.replace("_", " ").lower().split()) for key in keys]
    mean = sum(document.total() for document in documents) / len(documents) if documents else 0.0
    scores = [0.0] * len(documents)
    for word in query.replace("_", " ").lower().split():
        having = sum(word in document for document in documents)
        if not having:
            continue
        weight = math.log((len(documents) + 1) / having)
        for i, document in enumerate(documents):
            norm = k1 * (1 - b + b * document.total() / mean)
            scores[i] += weight * (delta + document[word] * (k1 + 1) / (norm + document[word]))
    return scores


class SummaryStore(MemoryStore):
    """One text."""

    backend = "rec_sum"

    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self._text = str((snapshot or {}).get("memory", ""))
        super().__init__()

    def snapshot(self) -> Snapshot:
        return {"memory": self._text}

    def shown(self) -> str:
        return self._text or "(nothing yet)"

    def _actions(self) -> Actions:
        text = {"text": _TEXT}
        return {
            "memory_append": (self._append, "Put a text behind the memory's end.", text),
            "memory_update": (self._update, "Replace the whole memory by a text.", text),
            "memory_clear": (self._clear, "Remove all of the memory; this cannot be undone.", {}),
            "memory_replace": (self._replace, "Replace a text in the memory.", {"old_text": _TEXT, "new_text": _TEXT}),
            "memory_retrieve": (self._retrieve, "The whole memory.", {}),
        }

    def _append(self, text: str) -> Result:
        return self._set(self._text + text, "Appended.")

    def _update(self, text: str) -> Result:
        return self._set(text, "Updated.")

    def _set(self, text: str, status: str) -> Result:
        if len(text) > SUMMARY_LENGTH:
            return {"error": f"The memory would be longer than {SUMMARY_LENGTH} characters."}
        self._text = text
        return {"status": status}

    def _clear(self) -> Result:
        return self._set("", "Cleared.")

    def _replace(self, old_text: str, new_text: str) -> Result:
        if old_text not in self._text:
            return {"error": "The memory does not contain that text."}
        return self._set(self._text.replace(old_text, new_text), "Replaced.")

    def _retrieve(self) -> Result:
        return {"memory_content": self._text} if self._text else {"error": "The memory is empty."}


class VectorMemoryStore(MemoryStore):
    """Texts found by the similarity of their embeddings, short-term and long-term."""

    backend = "vector"

    def __init__(self, embed: Embed, snapshot: Snapshot | None = None) -> None:
        given = snapshot or {}
        self._core = _Entries(embed, SHORT_ENTRIES, SHORT_LENGTH, given.get("core_memory"))
        self._archival = _Entries(embed, LONG_ENTRIES, LONG_LENGTH, given.get("archival_memory"))
        super().__init__()

    def snapshot(self) -> Snapshot:
        return {"core_memory": self._core.snapshot(), "archival_memory": self._archival.snapshot()}

    def shown(self) -> str:
        texts = self._core.texts
        return json.dumps(texts, indent=4, ensure_ascii=False) if texts else "(nothing yet)"

    def _actions(self) -> Actions:
        actions: Actions = {}
        for prefix, term, part in (
            ("core_memory", "short-term", self._core),
            ("archival_memory", "long-term", self._archival),
        ):
            where = f"the {term} memory"
            query = {"query": _TEXT, "top_k": {**_NUMBER, "default": _FOUND}}
            change = {"vec_id": _NUMBER, "new_text": _TEXT}
            actions |= {
                f"{prefix}_add": (part.add, f"Put a new text into {where}; the result is its id.", {"text": _TEXT}),
                f"{prefix}_remove": (part.remove, f"Remove a text from {where} by its id.", {"vec_id": _NUMBER}),
                f"{prefix}_update": (part.update, f"Replace a text of {where} by its id.", change),
                f"{prefix}_clear": (part.clear, f"Remove all of {where}; this cannot be undone.", {}),
                f"{prefix}_retrieve": (part.retrieve, f"The texts of {where} that are most like a query.", query),
                f"{prefix}_retrieve_all": (part.retrieve_all, f"All texts of {where} with their ids.", {}),
            }
        return actions


class _Entries:
    """One of the two parts of a vector memory; ids are never used twice."""

    def __init__(self, embed: Embed, most: int, longest: int, snapshot: Mapping[str, Any] | None) -> None:
        given = snapshot or {}
        self._embed, self._most, self._longest = embed, most, longest
        self.texts: dict[int, str] = {int(one): text for one, text in given.get("texts", {}).items()}
        self._next: int = given.get("next_id", 0)

    def snapshot(self) -> Snapshot:
        return {"next_id": self._next, "texts": {str(one): text for one, text in self.texts.items()}}

    def add(self, text: str) -> Result:
        if len(text) > self._longest:
            return {"error": f"The text is longer than {self._longest} characters."}
        if len(self.texts) >= self._most:
            return {"error": f"This memory is full ({self._most} entries). Remove some first."}
        self.texts[self._next] = text
        self._next += 1
        return {"id": self._next - 1}

    def remove(self, vec_id: int) -> Result:
        if self.texts.pop(vec_id, None) is None:
            return {"error": "There is no such id."}
        return {"status": "Removed."}

    def update(self, vec_id: int, new_text: str) -> Result:
        if vec_id not in self.texts:
            return {"error": "There is no such id."}
        if len(new_text) > self._longest:
            return {"error": f"The text is longer than {self._longest} characters."}
        self.texts[vec_id] = new_text
        return {"status": "Updated."}

    def clear(self) -> Result:
        self.texts.clear()
        return {"status": "Cleared."}

    def retrieve(self, query: str, top_k: int = _FOUND) -> Result:
        if not self.texts or top_k < 1:
            return {"result": []}
        asked, *vectors = self._embed([query, *self.texts.values()])
        scored = [(_cosine(asked, vector), one) for vector, one in zip(vectors, self.texts, strict=True)]
        ranked = sorted(scored, key=lambda pair: -pair[0])[:top_k]
        return {"result": [{"id": one, "similarity_score": score, "text": self.texts[one]} for score, one in ranked]}

    def retrieve_all(self) -> Result:
        return {"result": [{"id": one, "text": text} for one, text in self.texts.items()]}


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    size = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / size if size else 0.0
