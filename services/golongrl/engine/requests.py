"""From a `/generate` body to requests of the engine, and from their progress to answers, whole or streamed."""

import dataclasses
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from golongrl.engine import models, responses
from golongrl.engine.model_server import Serving
from golongrl.engine.model_thread import EngineDeadError
from golongrl.engine.models import BadRequestError
from golongrl.engine.scheduler import GenerationRequest
from golongrl.engine.snapshot import RequestSnapshot
from golongrl.engine.traces import nobody

T = TypeVar("T")

# Making the requests of a call takes memory before the queue can refuse them.
_MOST_RESPONSES = 1024


@dataclass(frozen=True, slots=True)
class Call:
    """A checked `/generate`: its requests in order, and how to answer each."""

    requests: list[GenerationRequest]
    logprobs: list[bool]
    single: bool
    body: models.GenerateBody
    ended: Callable[[RequestSnapshot], None] = nobody
    """Told of each response that has ended."""


def check(serving: Serving, body: models.GenerateBody) -> Call:
    """Turn a body into requests, or refuse it."""
    most = max(_MOST_RESPONSES, serving.config.max_batch + serving.config.max_queue)
    # Before a prompt is tokenised.
    if max(len(given) if isinstance(given, list) else 0 for given in (body.text, _batch(body.input_ids))) > most:
        raise _too_many(most)
    prompts, single = _prompts(serving, body)
    count = len(prompts)
    for name in ("top_logprobs_num", "token_ids_logprob"):
        if getattr(body, name):
            raise BadRequestError.because(f"{name} is not implemented by the embedded engine")
    start = body.logprob_start_len
    if any(at >= 0 for at in (start if isinstance(start, list) else [-1 if start is None else start])):
        raise BadRequestError.because("log-probs of the prompt (logprob_start_len) are not implemented")
    params = _each(body.sampling_params or {}, count, "sampling_params")
    rids = _rids(body.rid, count)
    flags = _each(body.return_logprob, count, "return_logprob")
    keys: list[str | None] = [None] * count
    if body.extra_key is not None:
        keys = [*_each(body.extra_key, count, "extra_key")]
    requests: list[GenerationRequest] = []
    logprobs: list[bool] = []
    for prompt, param, rid, flag, key in zip(prompts, params, rids, flags, keys, strict=True):
        sampling, n, seed = models.parse_sampling(param, serving.eos_ids)
        if len(requests) + n > most:
            raise _too_many(most)
        given = param.get("max_new_tokens")
        models.check_prompt(prompt, given, serving.context_length, serving.vocabulary)
        if given is None:
            longest = min(sampling.max_new_tokens, serving.context_length - len(prompt))
            sampling = dataclasses.replace(sampling, max_new_tokens=longest)
        routes_from = _routes_from(body, len(prompt))
        requests += models.make_requests(prompt, rid, sampling, n, seed, serving.config.seed, key, routes_from)
        logprobs += [flag] * n
        single = single and n == 1
    return Call(requests, logprobs, single, body)


def _batch(input_ids: object) -> list[object]:
    """The prompts of a batch; none where `input_ids` is one prompt."""
    return input_ids if isinstance(input_ids, list) and input_ids and isinstance(input_ids[0], list) else []


def _too_many(most: int) -> BadRequestError:
    return BadRequestError.because(f"the call asks for more than the {most} responses that the engine takes on.")


def _routes_from(body: models.GenerateBody, prompt_tokens: int) -> int | None:
    """The first token whose experts are asked for, or None."""
    if not body.return_routed_experts:
        return None
    start = body.routed_experts_start_len
    if not 0 <= start <= prompt_tokens:
        raise BadRequestError.because(f"routed_experts_start_len must be in [0, {prompt_tokens}], got {start}.")
    return start


def _prompts(serving: Serving, body: models.GenerateBody) -> tuple[list[list[int]], bool]:
    """The prompts as token ids, and whether there was one that was not in a list."""
    if body.input_ids is not None:
        if body.text is not None:
            raise BadRequestError.because("Either text, input_ids or input_embeds should be provided, not several.")
        if body.input_ids and isinstance(body.input_ids[0], list):
            return body.input_ids, False
        return [body.input_ids], True  # type: ignore[list-item]
    if body.text is None:
        raise BadRequestError.because("Either text, input_ids or input_embeds should be provided.")
    texts = [body.text] if isinstance(body.text, str) else body.text
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise BadRequestError.because("text holds one half of a surrogate pair, which is not Unicode.") from error
    for text in texts:
        models.check_length(1, len(text), serving.context_length, serving.longest_token)
    return [list(serving.tokenizer.encode(text)) for text in texts], isinstance(body.text, str)


def _each(value: T | list[T], count: int, name: str) -> list[T]:
    """One value a prompt: `value` for all, or a list with one for each."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise BadRequestError.because(f"{name} has {len(value)} values for {count} prompts.")
    return value


def _rids(rid: str | list[str] | None, count: int) -> list[str | None]:
    """An id for each prompt: none, as given, or the one of a batch with a number."""
    if rid is None:
        return [None] * count
    if isinstance(rid, str) and count > 1:
        return [f"{rid}_{index}" for index in range(count)]
    return [*_each(rid, count, "rid")]


def render(serving: Serving, call: Call, index: int, snapshot: RequestSnapshot) -> dict[str, Any]:
    """The answer for response `index` of a call."""
    if snapshot.finish is not None:
        call.ended(snapshot)
    sampling = call.requests[index].sampling
    answer = responses.generation(
        snapshot,
        sampling,
        partial(serving.decode, skip_special_tokens=sampling.skip_special_tokens),
        logprobs=call.logprobs[index],
        logprob_text=call.body.return_text_in_logprobs,
    )
    if call.body.return_prompt_token_ids:
        answer["prompt_token_ids"] = call.requests[index].prompt
    return answer


async def collect(serving: Serving, call: Call) -> Any:
    """Run a call to its end: one answer, or a list in the order of prompts and samples."""
    answers: dict[int, dict[str, Any]] = {}
    async with aclosing(serving.engine.generate(call.requests, stream=False)) as updates:
        async for index, snapshot in updates:
            answers[index] = render(serving, call, index, snapshot)
    return answers[0] if call.single else [answers[index] for index in range(len(call.requests))]


async def events(
    serving: Serving,
    call: Call,
    first: tuple[int, RequestSnapshot],
    updates: AsyncGenerator[tuple[int, RequestSnapshot]],
) -> AsyncIterator[str]:
    """Server-sent events: cumulative chunks as tokens come, then `[DONE]`."""
    async with aclosing(updates):
        yield _event(serving, call, *first)
        try:
            async for index, snapshot in updates:
                yield _event(serving, call, index, snapshot)
        except EngineDeadError:
            yield f"data: {json.dumps({'error': {'message': 'The model thread has failed; see the log.'}})}\n\n"
        yield "data: [DONE]\n\n"


def _event(serving: Serving, call: Call, index: int, snapshot: RequestSnapshot) -> str:
    chunk = render(serving, call, index, snapshot)
    if not call.single:
        chunk["index"] = index
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
