"""A model folder's tokenizer and chat template without transformers: what workers and the learner agree on.

Renders templates the way `transformers` does (a sandboxed jinja2 with its settings and helpers); a test holds the two
to the same ids.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from golongrl.data.errors import DataError

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class Chat:
    """Messages to token ids and back."""

    def __init__(self, tokenizer: "Tokenizer", template: "Template", tokens: Mapping[str, str]) -> None:
        self.tokenizer = tokenizer
        self._template = template
        self._tokens = dict(tokens)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read tokenizer.json, tokenizer_config.json and chat_template.jinja of a Hugging Face folder.

        Raises:
            DataError: a file is missing or cannot be used.
        """
        from tokenizers import Tokenizer

        path = folder / "tokenizer.json"
        if not path.is_file():
            raise DataError(f"model {folder}: no tokenizer.json in this folder")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise DataError(f"model file {path}: not a tokenizer: {error}") from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        config = _config(folder)
        return cls(tokenizer, _compile(_template_text(folder, config), folder), _tokens(config))

    def render(self, messages: Sequence[Mapping[str, Any]], enable_thinking: bool | None = None) -> str:
        """The prompt as text, ready for the assistant's turn.

        Raises:
            DataError: the template refuses the messages.
        """
        from jinja2 import TemplateError

        switch = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        try:
            return self._template.render(
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._tokens,
                **switch,
            )
        except TemplateError as error:
            raise DataError(f"chat template: {error}") from error

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Ids of rendered prompts; on several cores where there are several texts."""
        batch = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in batch]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of a response."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"model file {path}: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"model file {path}: expected an object")
    return config


def _template_text(folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        template = next((entry["template"] for entry in template if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise DataError(
            f"model {folder}: no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)"
        )
    return template


def _tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found = {name: config[name] for name in _NAMED_TOKENS if config.get(name)}
    return {name: token["content"] if isinstance(token, dict) else token for name, token in found.items()}


def _compile(text: str, folder: Path) -> "Template":
    from jinja2 import TemplateError
    from jinja2.exceptions import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(text)
    except TemplateSyntaxError as error:
        raise DataError(f"model {folder}: chat template line {error.lineno}: {error.message}") from error
