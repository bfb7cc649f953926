"""Prompt lengths of a data set in a model's tokens, counted once: they are kept in the cache for the next look.

A length is kept under a hash of the messages, in one file for each tokenizer and chat template, so that it holds for a
row wherever it stands.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from golongrl import files
from golongrl.data.chat import Chat
from golongrl.data.models import cache_dir, resolve
from golongrl.data.rows import Message
from golongrl.reading import small_text

_DEPENDS_ON = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
# Enough that no two prompts of a cache share a key, and short, because the file has one for each prompt.
_DIGEST_BYTES = 12


class PromptLengths:
    """Counts prompts with a model's tokenizer and chat template; use `save` when all is counted."""

    def __init__(self, model: str) -> None:
        folder = resolve(model)
        self._chat = Chat.open(folder)
        stamp = hashlib.sha256()
        for name in _DEPENDS_ON:
            stamp.update((folder / name).read_bytes() if (folder / name).is_file() else b"-")
        self._file = cache_dir() / "lengths" / f"{stamp.hexdigest()[:24]}.json"
        self._known = _read(self._file)
        self._new = False

    def of(self, prompt: Sequence[Message]) -> int:
        """Tokens of a prompt.

        Raises:
            DataError: the chat template refuses it.
        """
        messages = [message.model_dump() for message in prompt]
        text = json.dumps(messages, sort_keys=True, default=str)
        key = hashlib.blake2b(text.encode("ascii"), digest_size=_DIGEST_BYTES).hexdigest()
        if key not in self._known:
            (ids,) = self._chat.encode([self._chat.render(messages)])
            self._known[key] = len(ids)
            self._new = True
        return self._known[key]

    def save(self) -> None:
        """Keep what was counted; a cache that cannot be written is done without."""
        if not self._new:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            files.write_text(self._file, json.dumps(_read(self._file) | self._known))
        except OSError:
            return


def _read(file: Path) -> dict[str, int]:
    try:
        found = json.loads(small_text(file))
    except (OSError, ValueError, RecursionError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, int)} if isinstance(found, dict) else {}
