"""A model folder's tokenizer and chat template without transformers: what workers and the learner agree on.

Renders templates the way `transformers` does (a sandboxed jinja2 with its settings and helpers); a test holds the two
to the same ids.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from golongrl.data.errors import DataError, Faults
from golongrl.data.model_config import json_object
from golongrl.errors import InputError, brief
from golongrl.reading import read_text

if TYPE_CHECKING:
    from jinja2 import Template
    from tokenizers import Tokenizer

# What a template can raise while it is rendered, besides jinja's own errors: it is a program that came with a model.
_TEMPLATE_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip
# Bytes; published ones have at most 30,000.
_LONGEST_TEMPLATE: Final = 1 << 20
TOKENIZER: Final = "tokenizer.json"
_TOKENIZER_CONFIG: Final = "tokenizer_config.json"
# What the metrics' gate looks for; `probe` texts stand for a prompt and its answer.
_OPEN, _CLOSE = "<think>", "</think>"
_PROBE, _ANSWER = "What is the answer?", "It is forty-two."
_ASKED: Final = ({"role": "user", "content": _PROBE},)
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
            DataError: naming each file that is missing or cannot be used.
        """
        faults = Faults()
        with faults.told():
            tokenizer = _tokenizer(folder)
        with faults.told():
            config = _settings(folder)
            template = _compile(_template_text(folder, config), folder)
            tokens = _tokens(folder, config)
        faults.refuse()
        return cls(tokenizer, template, tokens)

    def render(
        self, messages: Sequence[Mapping[str, Any]], enable_thinking: bool | None = None, *, turn: bool = True
    ) -> str:
        """The prompt as text, ready for the assistant's turn; without `turn`, as it ends before that.

        Raises:
            DataError: the template refuses the messages.
        """
        from jinja2 import TemplateError

        from golongrl.data.template_limits import render_bounded

        switch = {} if enable_thinking is None else {"enable_thinking": enable_thinking}
        try:
            text = render_bounded(
                self._template,
                messages=list(messages),
                tools=None,
                documents=None,
                add_generation_prompt=turn,
                **self._tokens,
                **switch,
            )
            text.encode()  # half of a surrogate pair is no text for the tokenizer
        except (TemplateError, *_TEMPLATE_ERRORS) as error:
            kind = "" if isinstance(error, TemplateError) else f"{type(error).__name__}: "
            raise DataError(f"chat template: {kind}{brief(error)}") from error
        return text

    def encode(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """Ids of rendered prompts; on several cores where there are several texts."""
        with _panics_told():
            batch = self.tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.asarray(encoding.ids, dtype=np.int32) for encoding in batch]

    def unknown_tokens(self) -> Iterator[tuple[str, str]]:
        """The named tokens that end or fill a sequence and are none of the tokenizer's: transformers gives them ids of
        their own, beyond the model's.
        """
        for key in ("eos_token", "pad_token"):
            content = self._tokens.get(key)
            if content is not None and self.tokenizer.token_to_id(content) is None:
                yield key, content

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of a response."""
        with _panics_told():
            text: str = self.tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text


def _tokenizer(folder: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    path = folder / TOKENIZER
    if not path.is_file():
        raise DataError(f"model {folder}: no {TOKENIZER} in this folder")
    try:
        with _panics_told():
            tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises nothing narrower
        raise DataError(f"model file {path}: not a tokenizer: {brief(error)}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / _TOKENIZER_CONFIG).is_file():
        raise DataError(f"model {folder}: no {_TOKENIZER_CONFIG} in this folder")
    return json_object(folder / _TOKENIZER_CONFIG)


@contextmanager
def _panics_told() -> Iterator[None]:
    """A tokenizer.json whose parts are wrong can make the library panic, which Python sees as no `Exception`."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise DataError(f"the tokenizer library panicked: {brief(error, 200)}") from error


def think_problem(chat: Chat, enable_thinking: bool | None) -> str | None:
    """Why no response could earn a reward: the question is not in the prompt, or the metrics' gate stops every
    response, because it wants one </think> in the response's text; or None.

    A template may be empty or leave the message out, or close the think block in the prompt, and decoding may drop the
    tag.
    """
    prompt = chat.render(_ASKED, enable_thinking)
    if _PROBE not in prompt:
        what = "leaves out the user's message" if prompt.strip() else "makes an empty prompt"
        return f"the chat template {what}, so that no model could answer; it has to write each message's content"
    behind = prompt.rpartition(_PROBE)[2]
    if behind.count(_CLOSE) and behind.rfind(_CLOSE) > behind.rfind(_OPEN):
        switch = "set data.enable_thinking: true" if enable_thinking is False else "use a template that leaves it open"
        return f"the chat template closes the think block in the prompt, so that every response would score 0; {switch}"
    if prompt == chat.render(_ASKED, enable_thinking, turn=False) and (opening := _opening(chat, prompt)):
        return (
            f"the chat template ignores add_generation_prompt: nothing in the prompt opens the assistant's turn, for "
            f"which it writes {opening!r} elsewhere"
        )
    (ids,) = chat.encode([_PROBE])
    text = chat.decode([int(token) for token in ids])
    if "".join(text.split()).casefold() != "".join(_PROBE.split()).casefold():
        return f"tokenizer.json: it reads {_PROBE!r} back as {text[:80]!r}, so prompts and answers would be garbled"
    (ids,) = chat.encode([f"a{_CLOSE}b"])
    if _CLOSE not in chat.decode([int(token) for token in ids]):
        return (
            f"decoding drops or changes {_CLOSE}, so that every response would score 0; in tokenizer.json and "
            f'tokenizer_config.json mark {_OPEN} and {_CLOSE} "special": false'
        )
    return None


def _opening(chat: Chat, prompt: str) -> str:
    """What the template writes between this prompt and an answer to it; "" where it does not go on like that.

    A template may have nothing to open: in "[INST] question [/INST] answer" the turn begins behind the question.
    """
    try:
        written = chat.render([*_ASKED, {"role": "assistant", "content": _ANSWER}], turn=False)
    except DataError:
        return ""
    before, answered, _ = written.partition(_ANSWER)
    return before.removeprefix(prompt).strip()[:80] if answered and before.startswith(prompt) else ""


def _template_text(folder: Path, config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return read_text(file, _LONGEST_TEMPLATE)
        except InputError as error:
            raise DataError(f"model file {error}") from error
        except OSError as error:
            raise DataError(f"model file {file}: cannot be read: {error.strerror or error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict)]
        template = next((entry.get("template") for entry in named if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise DataError(
            f"model {folder}: no chat template (chat_template.jinja, or chat_template in tokenizer_config.json)"
        )
    return template


def _tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The named tokens of tokenizer_config.json, else of special_tokens_map.json, as templates use them."""
    file = folder / "special_tokens_map.json"
    found = {**(json_object(file) if file.is_file() else {}), **{k: v for k, v in config.items() if v}}
    contents = {name: _content(found.get(name)) for name in _NAMED_TOKENS}
    return {name: content for name, content in contents.items() if content}


def _content(token: object) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _compile(text: str, folder: Path) -> "Template":
    from jinja2 import TemplateError, nodes
    from jinja2.exceptions import TemplateSyntaxError
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    from golongrl.data.template_limits import LimitedEnvironment

    class Generation(Extension):
        """{% generation %} marks the assistant's text for training masks, which are not made here: its body stays."""

        tags = {"generation"}  # noqa: RUF012 - jinja's own interface

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: object,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = LimitedEnvironment([Generation, "jinja2.ext.loopcontrols"])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(text)
    except TemplateSyntaxError as error:
        raise DataError(f"model {folder}: chat template line {error.lineno}: {error.message}") from error
    except (RecursionError, SyntaxError, ValueError, OverflowError, TypeError) as error:  # too deep, a constant
        raise DataError(f"model {folder}: chat template: {type(error).__name__}: {brief(error, 200)}") from error
