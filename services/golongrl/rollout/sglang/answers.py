"""Reading an engine's answers: JSON in, checked values out. Pure; the client in `sglang` does the talking."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from golongrl.rollout.sglang.errors import EngineProtocolError

Finish = Literal["stop", "length", "abort"]

# The count is read by pattern because a chunk repeats all tokens so far: parsing each would cost as much as generating.
# A response's text cannot fake it: inside a JSON string every quote is escaped.
_COMPLETION_TOKENS = re.compile(rb'"completion_tokens":\s*(\d+)')


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


@dataclass(frozen=True)
class ModelInfo:
    """Which weights an engine says it holds."""

    model_path: str
    weight_version: str


def tokens_done(event: bytes) -> int | None:
    """How many tokens a streamed chunk holds, without parsing it; None if it does not say."""
    found = _COMPLETION_TOKENS.search(event)
    return int(found[1]) if found else None


def parse_generation(body: Mapping[str, Any], rid: str) -> Generation:
    """Check and convert the (last) answer of /generate.

    Raises:
        EngineProtocolError: a field is missing, or ids, log-probs and spans do not fit together.
    """
    try:
        meta = body["meta_info"]
        finish = meta["finish_reason"]
        if finish is None or finish.get("type") not in get_args(Finish):
            raise EngineProtocolError(f"generate {rid}: the answer ends with finish_reason {finish}")
        ids = np.asarray(body["output_ids"], dtype=np.int32).reshape(-1)
        triples = meta["output_token_logprobs"]
        logprobs = np.asarray([triple[0] for triple in triples], dtype=np.float32).reshape(-1)
        scored_ids = np.asarray([triple[1] for triple in triples], dtype=np.int32).reshape(-1)
        spans = tuple(
            AnswerSpan(str(span["version"]), int(span["start"]), int(span["end"])) for span in meta["weight_versions"]
        )
    except KeyError as error:
        hint = "; per-token versions need SGLang 0.5.23 or later" if error.args[0] == "weight_versions" else ""
        raise EngineProtocolError(f"generate {rid}: the answer lacks {error}{hint}") from error
    except (TypeError, ValueError, IndexError) as error:
        raise EngineProtocolError(f"generate {rid}: unreadable answer: {error}") from error
    if not np.array_equal(ids, scored_ids):
        raise EngineProtocolError(
            f"generate {rid}: {len(ids)} output ids but log-probs of {len(scored_ids)} other tokens"
        )
    if not np.isfinite(logprobs).all():
        raise EngineProtocolError(f"generate {rid}: a log-prob is not a finite number")
    return Generation(
        rid=rid,
        text=str(body.get("text", "")),
        ids=ids,
        logprobs=logprobs,
        finish=cast(Finish, finish["type"]),
        detail=str(finish.get("message") or finish.get("matched") or ""),
        spans=_covering(spans, len(ids), rid),
        prompt_tokens=meta.get("prompt_tokens"),
        cached_tokens=meta.get("cached_tokens"),
    )


def _covering(spans: tuple[AnswerSpan, ...], tokens: int, rid: str) -> tuple[AnswerSpan, ...]:
    filled = tuple(span for span in spans if span.end > span.start)
    at = 0
    for span in filled:
        if span.start != at:
            break
        at = span.end
    if at != tokens:
        raise EngineProtocolError(f"generate {rid}: version spans {list(spans)} do not cover {tokens} tokens")
    return filled


def parse_model_info(body: Mapping[str, Any]) -> ModelInfo:
    """Read /model_info.

    Raises:
        EngineProtocolError: it lacks the path or the version.
    """
    try:
        return ModelInfo(str(body["model_path"]), str(body["weight_version"]))
    except KeyError as error:
        raise EngineProtocolError(f"model_info: the answer lacks {error}") from error


def parse_checksums(body: Mapping[str, Any]) -> dict[str, str]:
    """Read /weights_checker: a checksum per tensor. Where ranks hold the same, it is theirs; of shards, it is all of
    them in the ranks' order, so that it changes with any.

    Raises:
        EngineProtocolError: there are none.
    """
    try:
        ranks = [dict(rank["checksums"]) for rank in body["ranks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise EngineProtocolError(f"weights_checker: unreadable answer: {error!r}") from error
    found: dict[str, list[str]] = {}
    for rank in ranks:
        for name, checksum in rank.items():
            found.setdefault(name, []).append(str(checksum))
    if not found:
        raise EngineProtocolError("weights_checker: no checksums")
    return {name: sums[0] if len(set(sums)) == 1 else ",".join(sums) for name, sums in found.items()}


def error_message(text: str) -> str:
    """The one line that matters of an error body, in whichever of SGLang's three shapes it comes."""
    try:
        body = json.loads(text)
    except ValueError:
        return " ".join(text.split())[:300] or "(no message)"
    if isinstance(body, Mapping):
        error = body.get("error", body.get("message", body.get("detail", body)))
        body = error.get("message", error) if isinstance(error, Mapping) else error
    return " ".join(str(body).split())[:300]
