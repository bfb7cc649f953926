"""Requests as SGLang's HTTP API takes them, checked, and turned into the engine's own.

Known sampling fields that this engine does not implement are refused unless they hold their neutral value: silently
sampling from another distribution than asked for would poison training. Unknown top-level fields are ignored, as
SGLang does.
"""

import reprlib
import uuid
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from golongrl.engine.config import LONGEST_VERSION, VERSION
from golongrl.engine.sampling import seed_of
from golongrl.engine.scheduler import GenerationRequest, PauseMode, RequestSampling

# SGLang's default when a request does not say.
DEFAULT_MAX_NEW_TOKENS = 128
# SGLang keeps this many positions of the context for itself when it judges a prompt too long.
RESERVED_POSITIONS = 6

# Whole numbers above this mean nothing in a request, and overflow what they are put into.
_MOST = 2**31 - 1
# Below this a temperature divides logits into infinities; SGLang calls it greedy.
_COLDEST = 1e-6
# Stop strings are looked for after every token: at most this many, of at most this many characters.
_MOST_STOPS, _LONGEST_STOP = 256, 1024
# The longest path that Linux takes.
_LONGEST_PATH = 4095
_LONGEST_NAME = 1024
# A DNS name, an IPv4 address, or a bare IPv6 address with or without its zone. It becomes part of a URL.
_HOST, _LONGEST_HOST = r"^[0-9A-Za-z_.:-]+(%[0-9A-Za-z_.-]+)?$", 255

# The sampling fields SGLang knows, in its order, with the value that switches the unimplemented ones off.
_IMPLEMENTED = {
    "max_new_tokens", "stop", "stop_token_ids", "temperature", "top_p", "top_k", "min_new_tokens", "n", "ignore_eos",
    "skip_special_tokens", "no_stop_trim", "sampling_seed", "stream_interval",
}  # fmt: skip
_NEUTRAL: dict[str, Any] = {"min_p": 0, "frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1}
_IRRELEVANT = {"spaces_between_special_tokens"}
_SAMPLING_FIELDS = (
    "max_new_tokens", "stop", "stop_token_ids", "stop_regex", "temperature", "top_p", "top_k", "min_p",
    "frequency_penalty", "presence_penalty", "repetition_penalty", "min_new_tokens", "n", "json_schema", "regex",
    "ebnf", "structural_tag", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens", "no_stop_trim",
    "stream_interval", "logit_bias", "sampling_seed", "custom_params", "beam_width", "watermark", "choice",
)  # fmt: skip


class BadRequestError(Exception):
    """The request cannot be served; `args[0]` is the body's `error` (a string, or an object with `message`)."""

    @classmethod
    def because(cls, message: str) -> "BadRequestError":
        """The usual shape."""
        return cls({"message": message})


Name = Annotated[str, Field(max_length=_LONGEST_NAME)]
# A number, or a word such as `default`: it stands in every answer, in logs and in names of caches.
Version = Annotated[StrictStr, Field(pattern=VERSION, max_length=LONGEST_VERSION)]
T = TypeVar("T")
# The first fault is enough: a list of a million of them, each with its place, holds up /health for a minute. So does
# making a million objects: of prompts, messages or tensors nobody sends so many, and a body has few fields.
_MOST_ITEMS, _MOST_FIELDS = 1 << 16, 1 << 10
Many = Annotated[list[T], Field(fail_fast=True, max_length=_MOST_ITEMS)]
Ids = Annotated[list[int], Field(fail_fast=True)]
# No tensor has a larger side.
Side = Annotated[int, Field(ge=0, lt=1 << 40)]


class Body(BaseModel):
    """A request body; fields it does not know are ignored."""

    model_config = ConfigDict(extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _has_few_fields(cls, given: Any) -> Any:
        if isinstance(given, dict) and len(given) > _MOST_FIELDS:
            raise ValueError(f"{len(given)} fields, more than {_MOST_FIELDS}")
        return given


class GenerateBody(Body):
    """`POST /generate`. One prompt or a batch; `sampling_params`, `rid` and the flags singly or one a prompt."""

    text: str | Many[str] | None = None
    input_ids: Ids | Many[Ids] | None = None
    sampling_params: dict[str, Any] | Many[dict[str, Any]] | None = None
    rid: Name | Many[Name] | None = None
    return_logprob: bool | Many[bool] = False
    logprob_start_len: int | Many[int] | None = None
    top_logprobs_num: int | Many[int] | None = None
    extra_key: Name | Many[Name] | None = None
    token_ids_logprob: Ids | Many[Ids] | None = None
    return_text_in_logprobs: bool = False
    return_prompt_token_ids: bool = False
    return_routed_experts: bool = False
    routed_experts_start_len: int = 0
    stream: bool = False


class PauseBody(Body):
    """`POST /pause_generation`."""

    mode: PauseMode = "abort"


class AbortBody(Body):
    """`POST /abort_request`."""

    rid: Name = ""
    abort_all: bool = False


class UpdateFromDiskBody(Body):
    """`POST /update_weights_from_disk`."""

    model_path: Annotated[StrictStr, Field(max_length=_LONGEST_PATH, pattern="^[^\\x00]+$")]
    weight_version: Version | None = None
    flush_cache: StrictBool = True
    abort_all_requests: StrictBool = False


class VersionBody(Body):
    """`POST /update_weight_version`."""

    new_version: Version
    abort_all_requests: StrictBool = True


class CheckerBody(Body):
    """`POST /weights_checker`."""

    action: Literal["checksum"]


class InitGroupBody(Body):
    """`POST /init_weights_update_group`: this engine becomes rank `rank_offset` of `world_size`; rank 0 sends."""

    master_address: Annotated[str, Field(pattern=_HOST, max_length=_LONGEST_HOST)]
    master_port: Annotated[int, Field(ge=1, le=65535)]
    rank_offset: Annotated[int, Field(ge=1, lt=1 << 16)]
    world_size: Annotated[int, Field(ge=2, le=1 << 16)]
    group_name: Annotated[str, Field(pattern="^[^\\x00]+$", max_length=_LONGEST_NAME)] = "weight_update_group"
    backend: Name = "gloo"

    @model_validator(mode="after")
    def _has_a_place(self) -> "InitGroupBody":
        if self.rank_offset >= self.world_size:
            raise ValueError(f"rank_offset {self.rank_offset} is not below world_size {self.world_size}")
        return self


class GroupBody(Body):
    """`POST /destroy_weights_update_group`."""

    group_name: Name = "weight_update_group"


class UpdateDistributedBody(Body):
    """`POST /update_weights_from_distributed`: tensors that rank 0 broadcasts, in this order."""

    names: Many[str]
    dtypes: Many[str]
    shapes: Many[Many[Side]]
    group_name: Name = "weight_update_group"
    flush_cache: StrictBool = True
    abort_all_requests: StrictBool = False
    weight_version: Version | None = None


def parse_sampling(params: dict[str, Any], eos_ids: frozenset[int]) -> tuple[RequestSampling, int, int | None]:
    """SGLang's `sampling_params` as (Sampling, n, sampling_seed).

    Raises:
        BadRequestError: an unknown or unimplemented field, or a value out of range.
    """
    for name in params:
        if name not in _SAMPLING_FIELDS:
            known = ", ".join(f"`{field}`" for field in _SAMPLING_FIELDS)
            raise BadRequestError(f"unknown field `{name[:80]}`, expected one of {known}")
        unset = params[name] is None or (name in _NEUTRAL and params[name] == _NEUTRAL[name])
        if name not in _IMPLEMENTED and name not in _IRRELEVANT and not unset and params[name] is not False:
            raise BadRequestError.because(f"sampling field {name} is not implemented by the embedded engine")
    number = _BodyReader(params)
    temperature = number.real("temperature", 1.0, 0.0, float("inf"))
    if temperature == float("inf"):
        raise BadRequestError.because("temperature must be a non-negative finite number, got inf.")
    if 0 < temperature < _COLDEST:
        temperature = 0.0
    top_p = number.real("top_p", 1.0, 0.0, 1.0, open_low=True)
    top_k = number.whole("top_k", -1, -1)
    if top_k == 0:
        raise BadRequestError.because("top_k must be -1 (disable) or at least 1, got 0.")
    longest = number.whole("max_new_tokens", DEFAULT_MAX_NEW_TOKENS, 1)
    least = number.whole("min_new_tokens", 0, 0)
    if least > longest:
        raise BadRequestError.because(f"min_new_tokens must be in [0, max_new_tokens({longest})], got {least}.")
    ignore_eos = bool(params.get("ignore_eos") or False)
    # As in SGLang, ignore_eos also switches the request's own stop tokens off.
    asked = frozenset(number.ids("stop_token_ids"))
    stops = frozenset() if ignore_eos else eos_ids | asked
    sampling = RequestSampling(
        max_new_tokens=longest,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_new_tokens=least,
        stop_token_ids=stops,
        stop=number.strings("stop"),
        trim_stop=not params.get("no_stop_trim"),
        skip_special_tokens=params.get("skip_special_tokens") is not False,
        stream_interval=number.whole("stream_interval", 1, 1),
    )
    seed = params.get("sampling_seed")
    # SGLang's seeds are 64 bits.
    return sampling, number.whole("n", 1, 1), None if seed is None else number.whole("sampling_seed", 0, 0, 2**64 - 1)


class _BodyReader:
    """Checked access to loosely typed parameters."""

    def __init__(self, params: dict[str, Any]) -> None:
        self._params = params

    def _value(self, name: str, default: Any) -> Any:
        value = self._params.get(name)
        return default if value is None else value

    def real(self, name: str, default: float, low: float, high: float, open_low: bool = False) -> float:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadRequestError.because(f"{name} must be a number, got {_shown(value)}.")
        if not (low <= value <= high) or (open_low and value == low):
            wanted = "a non-negative finite number" if high == float("inf") else f"in ({low:g}, {high:g}]"
            raise BadRequestError.because(f"{name} must be {wanted}, got {_shown(value)}.")
        return float(value) if value < _MOST else float(_MOST)

    def whole(self, name: str, default: int, low: int, high: int = _MOST) -> int:
        value = self._value(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise BadRequestError.because(f"{name} must be an integer, got {_shown(value)}.")
        if value < low:
            raise BadRequestError.because(f"{name} must be at least {low}, got {_shown(value)}.")
        if value > high:
            raise BadRequestError.because(f"{name} must be at most {high}, got {_shown(value)}.")
        return value

    def ids(self, name: str) -> list[int]:
        value = self._value(name, [])
        if not isinstance(value, list) or not all(type(item) is int for item in value):
            raise BadRequestError.because(f"{name} must be a list of integers, got {_shown(value)}.")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        value = self._value(name, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise BadRequestError.because(
                f"{name} must be a string or a list of non-empty strings, got {_shown(value)}."
            )
        if len(value) > _MOST_STOPS or any(len(item) > _LONGEST_STOP for item in value):
            raise BadRequestError.because(
                f"{name} must be at most {_MOST_STOPS} strings of at most {_LONGEST_STOP} characters."
            )
        return tuple(value)


def _shown(value: Any) -> str:
    """A value in a message: short, however long or deep it is."""
    return reprlib.repr(value)


def check_length(pieces: int, characters: int, context: int, longest_token: int) -> None:
    """Refuse what cannot fit the context before it takes minutes to tokenize.

    Args:
        pieces: parts that become at least one token each, such as messages.

    Raises:
        BadRequestError: it has more pieces than the context has tokens, or more characters than these can hold.
    """
    if pieces > context:
        raise BadRequestError.because(f"{pieces} messages are more than the model's context length ({context} tokens).")
    if characters > context * longest_token:
        raise BadRequestError.because(
            f"The input ({characters} characters) is longer than the model's context length ({context} tokens of at "
            f"most {longest_token} characters)."
        )


def check_prompt(prompt: list[int], max_new_tokens: int | None, context: int, vocabulary: int) -> None:
    """Refuse a prompt that does not fit the context or the vocabulary.

    SGLang dies of a token id outside the vocabulary; here it is a bad request like any other.

    Raises:
        BadRequestError: with SGLang's message.
    """
    if not prompt:
        raise BadRequestError.because("input_ids cannot be empty.")
    if len(prompt) > context:
        raise BadRequestError.because(
            f"The input ({len(prompt)} tokens) is longer than the model's context length ({context} tokens)."
        )
    if max_new_tokens is not None and len(prompt) + max_new_tokens > context:
        raise BadRequestError.because(
            f"Requested token count exceeds the model's maximum context length of {context} tokens. You requested a "
            f"total of {len(prompt) + max_new_tokens} tokens: {len(prompt)} tokens from the input messages and "
            f"{max_new_tokens} tokens for the completion. Please reduce the number of tokens in the input messages or "
            "the completion to fit within the limit."
        )
    if max_new_tokens is None and len(prompt) >= context - RESERVED_POSITIONS:
        raise BadRequestError.because(
            f"Input length ({len(prompt)} tokens) exceeds the maximum allowed length ({context - RESERVED_POSITIONS} "
            "tokens). Use a shorter input or enable --allow-auto-truncate."
        )
    wrong = next((token for token in prompt if not 0 <= token < vocabulary), None)
    if wrong is not None:
        raise BadRequestError.because(
            f"input_ids has token id {_shown(wrong)}, outside the vocabulary of {vocabulary}."
        )


def make_requests(
    prompt: list[int],
    rid: str | None,
    sampling: RequestSampling,
    n: int,
    sampling_seed: int | None,
    engine_seed: int,
    extra_key: str | None = None,
    routes_from: int | None = None,
) -> list[GenerationRequest]:
    """The `n` requests of one prompt.

    With `sampling_seed` the random numbers follow from (sampling_seed, index) alone: the same prompt gives the same
    tokens whatever its id, as SGLang's deterministic inference has it (which, unlike this, gives the samples of one
    call the same numbers, so n times the same text). Without, they follow from the engine's seed and the request's id.
    """
    name = rid or uuid.uuid4().hex
    basis: tuple[object, ...] = (engine_seed, name) if sampling_seed is None else (sampling_seed,)
    return [
        GenerationRequest(
            rid=name if n == 1 else f"{name}_{index}",
            prompt=tuple(prompt),
            sampling=sampling,
            seed=seed_of(*basis, index),
            parent=None if n == 1 else name,
            extra_key=extra_key,
            routes_from=routes_from,
        )
        for index in range(n)
    ]
