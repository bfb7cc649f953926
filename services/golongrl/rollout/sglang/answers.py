"""Reading an engine's answers: JSON in, checked values out. Pure; the client in `sglang` does the talking."""

import base64
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from golongrl.errors import brief, printable
from golongrl.rollout.sglang.errors import EngineProtocolError
from golongrl.routes.groups import expert_type
from golongrl.routes.model import MoeRouting

Finish = Literal["stop", "length", "abort"]

# The count is read by pattern because a chunk repeats all tokens so far: parsing each would cost as much as generating.
# A response's text cannot fake it: inside a JSON string every quote is escaped.
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d{1,9})')
# A log-prob of 1 that was rounded up in the engine's arithmetic.
_ROUNDING = 1e-5
# No softmax in float32 is smaller.
_LOWEST_LOGPROB = 1e30
# Longest message about an engine's answer.
_MOST_DETAIL = 500

_KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "text"}

V = TypeVar("V")


@dataclass(frozen=True)
class AnswerSpan:
    """Output tokens [start, end) were sampled from weights `version` (the engine's string)."""

    version: str
    start: int
    end: int


@dataclass(frozen=True)
class Generation:
    """One finished response.

    `ids` int32 [tokens] and `logprobs` float32 [tokens] (log-softmax(logits / T), before top-p); `spans` cover the
    tokens without gap or overlap and are empty when there is none. A matched stop token is in `ids`, not in `text`.
    `cached_tokens` of the prompt's `prompt_tokens` were not computed again; both are None for a request that was
    aborted before it ran.
    """

    rid: str
    text: str
    ids: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    finish: Finish
    detail: str
    spans: tuple[AnswerSpan, ...]
    prompt_tokens: int | None
    cached_tokens: int | None
    routes: NDArray[Any] | None = None
    """Where they were asked for: the experts of each token that was computed, [tokens, MoE layers, top k]."""


@dataclass(frozen=True)
class RoutesAsked:
    """The experts of each token from number `start` of the prompt on, which has `prompt_tokens`."""

    routing: MoeRouting
    prompt_tokens: int
    start: int = 0

    def rows(self, output_tokens: int) -> int:
        """Tokens that were computed: the prompt's and, because the last one never is, one less of the output."""
        return self.prompt_tokens - self.start + max(output_tokens - 1, 0)

    def most_bytes(self, output_tokens: int) -> int:
        """Of the answer: int32 of every layer, in base64."""
        return self.rows(output_tokens) * self.routing.hidden_layers * self.routing.top_k * 4 * 4 // 3 + 4


@dataclass(frozen=True)
class ModelInfo:
    """Which weights an engine says it holds."""

    model_path: str
    weight_version: str


def tokens_done(event: bytes) -> int | None:
    """How many tokens a streamed chunk holds, without parsing it; None if it does not say."""
    found = _COMPLETION_TOKENS.search(event)
    return int(found[1]) if found else None


def parse_json(content: bytes, call: str) -> Mapping[str, Any]:
    """The object in an answer's body.

    Raises:
        EngineProtocolError: it is something else.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise EngineProtocolError(f"{call}: the answer is not JSON: {brief(error, 200)}") from error
    if not isinstance(body, Mapping):
        raise EngineProtocolError(f"{call}: the answer is not an object but {type(body).__name__}")
    return body


def refusal(body: Mapping[str, Any]) -> tuple[int, str] | None:
    """The status and message of a request that SGLang's scheduler refused: its prompt exceeds the KV cache, say.

    Unstreamed, that is the status of the call; streamed, it is a 200 that ends as an abort with the status in it. An
    abort that somebody asked for has none.
    """
    meta = body.get("meta_info")
    finish = meta.get("finish_reason") if isinstance(meta, Mapping) else None
    if not isinstance(finish, Mapping) or finish.get("type") != "abort":
        return None
    status = finish.get("status_code")
    if not _is_count(status) or not 400 <= cast(int, status) < 600:
        return None
    return cast(int, status), brief(finish.get("message"))


def parse_generation(
    body: Mapping[str, Any], rid: str, vocab_size: int, asked: RoutesAsked | None = None
) -> Generation:
    """Check and convert the (last) answer of /generate.

    Raises:
        EngineProtocolError: a field is missing or of another type, an id is not in the vocabulary, a log-prob is none,
            ids, log-probs and spans do not fit together, or the routes that were asked for are not the model's.
    """
    reading = _Reading(f"generate {rid}")
    meta = reading.of(body, "meta_info", dict)
    finish = meta.get("finish_reason")
    if not isinstance(finish, dict) or finish.get("type") not in get_args(Finish):
        raise reading.wrong(f"the answer ends with finish_reason {_shown(finish)}")
    ids = reading.ids(reading.of(body, "output_ids", list), "output_ids", vocab_size)
    triples = reading.of(meta, "output_token_logprobs", list)
    if not all(isinstance(triple, list) and len(triple) >= 2 for triple in triples):
        raise reading.wrong("output_token_logprobs are not lists of a log-prob and an id")
    scored_ids = reading.ids([triple[1] for triple in triples], "output_token_logprobs", vocab_size)
    if not np.array_equal(ids, scored_ids):
        raise reading.wrong(f"{len(ids)} output ids but log-probs of {len(scored_ids)} other tokens")
    hint = "; per-token versions need SGLang 0.5.23 or later"
    spans = [reading.span(span) for span in reading.of(meta, "weight_versions", list, hint)]
    return Generation(
        rid=rid,
        text=reading.of(body, "text", str),
        ids=ids,
        logprobs=reading.logprobs([triple[0] for triple in triples]),
        finish=cast(Finish, finish["type"]),
        detail=brief(finish.get("message") or finish.get("matched") or ""),
        spans=reading.covering(spans, len(ids)),
        prompt_tokens=reading.count(meta, "prompt_tokens"),
        cached_tokens=reading.count(meta, "cached_tokens"),
        # An aborted response is sampled again: nobody needs its routes.
        routes=None if asked is None or finish["type"] == "abort" else reading.routes(meta, asked, len(ids)),
    )


@dataclass(frozen=True)
class _Reading:
    """Reads one answer; every error names the call."""

    call: str

    def wrong(self, what: str) -> EngineProtocolError:
        return EngineProtocolError(f"{self.call}: {printable(what[:_MOST_DETAIL])}")

    def of(self, found: Mapping[str, Any], name: str, kind: type[V], hint: str = "") -> V:
        if name not in found:
            raise self.wrong(f"the answer lacks {name!r}{hint}")
        value = found[name]
        if not isinstance(value, kind):
            raise self.wrong(f"{name} is {_shown(value)}, not {_KINDS[kind]}")
        return value

    def count(self, found: Mapping[str, Any], name: str) -> int | None:
        value = found.get(name)
        if value is not None and not _is_count(value):
            raise self.wrong(f"{name} is {_shown(value)}, not a number of tokens")
        return cast(int | None, value)

    def ids(self, values: list[Any], name: str, vocab_size: int) -> NDArray[np.int32]:
        for value in values:
            if not _is_count(value) or value >= vocab_size:
                raise self.wrong(f"{name}: {_shown(value)} is not a token id in [0, {vocab_size})")
        return np.asarray(values, dtype=np.int32)

    def logprobs(self, values: list[Any]) -> NDArray[np.float32]:
        for value in values:
            real = isinstance(value, int | float) and not isinstance(value, bool)
            if not (real and -_LOWEST_LOGPROB <= value <= _ROUNDING):
                raise self.wrong(f"output_token_logprobs: {_shown(value)} is not a log-prob: finite and at most 0")
        return np.minimum(np.asarray(values, dtype=np.float32), np.float32(0.0))

    def routes(self, meta: Mapping[str, Any], asked: RoutesAsked, output_tokens: int) -> NDArray[Any]:
        hint = "; SGLang has it with --enable-return-routed-experts"
        encoded, routing = self.of(meta, "routed_experts", str, hint), asked.routing
        try:
            flat = np.frombuffer(base64.b64decode(encoded, validate=True), "<i4")
        except ValueError as error:
            raise self.wrong(f"routed_experts is not base64 of int32: {error}") from error
        shape = (asked.rows(output_tokens), routing.hidden_layers, routing.top_k)
        if flat.size != np.prod(shape, dtype=np.int64):
            raise self.wrong(f"routed_experts has {flat.size} numbers, not {' x '.join(map(str, shape))}")
        rows = flat.reshape(shape)
        if len(routing.layers) < routing.hidden_layers:
            rows = rows[:, list(routing.layers)]
        low, high = int(rows.min(initial=0)), int(rows.max(initial=0))
        if low < 0 or high >= routing.experts:
            raise self.wrong(f"routed_experts: {low if low < 0 else high} is not an expert in [0, {routing.experts})")
        experts = rows.astype(expert_type(routing.experts))
        # A buffer that the engine never filled has the same expert in every place.
        ordered = np.sort(experts, axis=-1)
        if (twice := (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)).any():
            token, layer = np.argwhere(twice)[0]
            raise self.wrong(f"routed_experts: token {token} has an expert twice in MoE layer {layer}")
        return experts

    def span(self, value: Any) -> AnswerSpan:
        if not isinstance(value, Mapping):
            raise self.wrong(f"weight_versions: {_shown(value)} is not an object")
        start, end = value.get("start"), value.get("end")
        if not (_is_count(start) and _is_count(end)):
            raise self.wrong(f"weight_versions: {_shown(value)} has no start and end")
        return AnswerSpan(self.of(value, "version", str), cast(int, start), cast(int, end))

    def covering(self, spans: Sequence[AnswerSpan], tokens: int) -> tuple[AnswerSpan, ...]:
        at = 0
        for span in spans:
            if span.start != at or span.end < span.start:
                break
            at = span.end
        else:
            if at == tokens:
                return tuple(span for span in spans if span.end > span.start)
        raise self.wrong(f"version spans do not cover {tokens} tokens without gap or overlap: {list(spans)}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _shown(value: object) -> str:
    """A value in a message: short, however long or deep it is."""
    return reprlib.repr(value)


def parse_model_info(body: Mapping[str, Any]) -> ModelInfo:
    """Read /model_info.

    Raises:
        EngineProtocolError: it lacks the path or the version.
    """
    reading = _Reading("model_info")
    return ModelInfo(reading.of(body, "model_path", str), reading.of(body, "weight_version", str))


def parse_checksums(body: Mapping[str, Any]) -> dict[str, str]:
    """Read /weights_checker: a checksum per tensor. Where ranks hold the same, it is theirs; of shards, it is all of
    them in the ranks' order, so that it changes with any.

    Raises:
        EngineProtocolError: there are none.
    """
    reading = _Reading("weights_checker")
    found: dict[str, list[str]] = {}
    for rank in reading.of(body, "ranks", list):
        if not isinstance(rank, Mapping):
            raise reading.wrong(f"a rank is {_shown(rank)}")
        sums = reading.of(rank, "checksums", dict)
        for name in sums:
            found.setdefault(name, []).append(reading.of(sums, name, str))
    if not found:
        raise EngineProtocolError("weights_checker: no checksums")
    return {name: sums[0] if len(set(sums)) == 1 else ",".join(sums) for name, sums in found.items()}


def error_message(text: str) -> str:
    """The one line that matters of an error body, in whichever of SGLang's three shapes it comes."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return brief(text) or "(no message)"
    if isinstance(body, Mapping):
        error = body.get("error", body.get("message", body.get("detail", body)))
        body = error.get("message", error) if isinstance(error, Mapping) else error
    return brief(body)
