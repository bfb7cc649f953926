"""`POST /v1/chat/completions`: a conversation in OpenAI's words, as a `/generate` call and its answer.

What this engine cannot do (tools, a response format, log-probs of chat) is refused, never ignored: a client would take
the answer for what it asked.
"""

import json
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from inspect import signature
from typing import Annotated, Any, Literal

from jinja2 import TemplateError
from pydantic import ConfigDict, Field
from transformers import PreTrainedTokenizerBase

from golongrl.engine import models, requests
from golongrl.engine.model_server import Serving
from golongrl.engine.model_thread import EngineDeadError
from golongrl.engine.models import BadRequestError, Body, Many, Name
from golongrl.engine.snapshot import RequestSnapshot
from golongrl.errors import brief

# Chat field -> its name in `sampling_params`. Both ways check the values in one place.
_SAMPLING = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "n": "n", "stop": "stop",
    "seed": "sampling_seed", "frequency_penalty": "frequency_penalty", "presence_penalty": "presence_penalty",
    "repetition_penalty": "repetition_penalty", "min_tokens": "min_new_tokens", "ignore_eos": "ignore_eos",
    "stop_token_ids": "stop_token_ids", "skip_special_tokens": "skip_special_tokens", "no_stop_trim": "no_stop_trim",
}  # fmt: skip
# Fields that ask for another kind of answer, with the values that ask for nothing.
_REFUSED: dict[str, tuple[Any, ...]] = {
    "tools": (None, []), "functions": (None, []), "logprobs": (None, False), "top_logprobs": (None, 0),
    "logit_bias": (None, {}), "response_format": (None, {"type": "text"}), "regex": (None,), "ebnf": (None,),
    "structural_tag": (None,),
}  # fmt: skip
# Arguments of the tokenizer, which would replace the model's own template, cut the prompt short or fill the memory. The
# rest of `chat_template_kwargs` are variables that the template may look at.
_TOKENIZERS_OWN = frozenset(signature(PreTrainedTokenizerBase.apply_chat_template).parameters) - {
    "self",
    "documents",
    "kwargs",
}
# What a template can raise besides jinja's own errors: it is a program that came with the model.
_TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)

# A longer conversation takes long to check, to put into the template and to tokenize.
_MOST_MESSAGES = 10_000


class StreamOptions(Body):
    """What a stream brings besides the text."""

    include_usage: bool = False


class ChatMessage(Body):
    """One turn of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Many[dict[str, Any]] | None = None


class ChatBody(Body):
    """`POST /v1/chat/completions`; sampling fields are read from `model_extra`, where the engine checks them."""

    model_config = ConfigDict(extra="allow")

    model: Name = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=_MOST_MESSAGES, fail_fast=True)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    chat_template_kwargs: dict[str, Any] | None = None


def check(serving: Serving, body: ChatBody) -> requests.Call:
    """The `/generate` call that this conversation is.

    Raises:
        BadRequestError: the template refuses it, it does not fit the context, or a field cannot be served.
    """
    extra = body.model_extra or {}
    for name, nothing in _REFUSED.items():
        if extra.get(name) not in nothing:
            raise BadRequestError.because(f"{name} is not implemented by the embedded engine")
    ids = _prompt(serving, body)
    longest = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    if longest is None:
        models.check_prompt(ids, None, serving.context_length, serving.vocabulary)
        longest = serving.context_length - len(ids)
    params = {inner: extra[name] for name, inner in _SAMPLING.items() if extra.get(name) is not None}
    generate = models.GenerateBody(
        input_ids=ids, sampling_params={**params, "max_new_tokens": longest}, rid=None, stream=body.stream
    )
    return requests.check(serving, generate)


def _prompt(serving: Serving, body: ChatBody) -> list[int]:
    """The conversation as token ids, by the model's own chat template."""
    variables = body.chat_template_kwargs or {}
    if taken := sorted(_TOKENIZERS_OWN & variables.keys()):
        raise BadRequestError.because(f"chat_template_kwargs: {', '.join(taken)} cannot be set by a request")
    messages = [{"role": message.role, "content": _text(message)} for message in body.messages]
    characters = sum(len(message["content"]) for message in messages)
    models.check_length(len(messages), characters, serving.context_length, serving.longest_token)
    try:
        encoded = serving.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, **variables
        )
        return [int(token) for token in encoded["input_ids"]]
    except _TEMPLATE_ERRORS as error:
        raise BadRequestError.because(f"messages: the model's chat template refuses them: {brief(error)}") from error


def _text(message: ChatMessage) -> str:
    if message.content is None or isinstance(message.content, str):
        return message.content or ""
    parts = [part.get("text") for part in message.content if part.get("type") == "text"]
    if len(parts) != len(message.content) or not all(isinstance(part, str) for part in parts):
        raise BadRequestError.because("messages: only parts of type `text` are implemented by the embedded engine")
    return "".join(map(str, parts))


def completion(serving: Serving, body: ChatBody, answers: Any) -> dict[str, Any]:
    """The answer of a whole conversation from the answers of `requests.collect`."""
    each = answers if isinstance(answers, list) else [answers]
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": answer["text"], "reasoning_content": None},
            "logprobs": None,
            **_ending(answer),
        }
        for index, answer in enumerate(each)
    ]
    meta = each[0]["meta_info"]
    return {
        **_head(serving, body, "chat.completion"),
        "choices": choices,
        "usage": _usage(each),
        "metadata": {"weight_version": meta["weight_version"], "weight_versions": meta["weight_versions"]},
    }


def _head(serving: Serving, body: ChatBody, kind: str) -> dict[str, Any]:
    name = body.model or serving.model_path
    return {"id": uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": name}


def _ending(answer: Mapping[str, Any]) -> dict[str, Any]:
    reason = answer["meta_info"]["finish_reason"]
    return {"finish_reason": reason["type"], "matched_stop": reason.get("matched")}


def _usage(answers: list[dict[str, Any]]) -> dict[str, Any]:
    # The prompt of n responses counts once. A request that was aborted in the queue has no number of its own.
    prompt = max(answer["meta_info"].get("prompt_tokens", 0) for answer in answers)
    written = sum(answer["meta_info"]["completion_tokens"] for answer in answers)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + written,
        "completion_tokens": written,
        "prompt_tokens_details": None,
        "reasoning_tokens": 0,
        "completion_tokens_details": None,
    }


async def events(
    serving: Serving,
    body: ChatBody,
    call: requests.Call,
    first: tuple[int, RequestSnapshot],
    updates: AsyncGenerator[tuple[int, RequestSnapshot]],
) -> AsyncIterator[str]:
    """Server-sent events: what each chunk adds, then the usage where it was asked for, then `[DONE]`."""
    head = _head(serving, body, "chat.completion.chunk")
    sent = [0] * len(call.requests)
    ended: list[dict[str, Any]] = []

    def chunk(index: int, snapshot: RequestSnapshot) -> str:
        answer = requests.render(serving, call, index, snapshot)
        delta: dict[str, Any] = {"content": answer["text"][sent[index] :]}
        if not sent[index]:
            delta = {"role": "assistant", **delta}
        sent[index] = max(sent[index], len(answer["text"]))
        ending: dict[str, Any] = {"finish_reason": None, "matched_stop": None}
        if snapshot.finish is not None:
            ended.append(answer)
            ending = _ending(answer)
        return _event({**head, "choices": [{"index": index, "delta": delta, "logprobs": None, **ending}]})

    async with aclosing(updates):
        yield chunk(*first)
        try:
            async for index, snapshot in updates:
                yield chunk(index, snapshot)
        except EngineDeadError:
            yield _event({"error": {"message": "The model thread has failed; see the log."}})
        if body.stream_options is not None and body.stream_options.include_usage and ended:
            yield _event({**head, "choices": [], "usage": _usage(ended)})
        yield "data: [DONE]\n\n"


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
