"""What a value of a model folder's JSON files may be: its type and bounds, in names that the files share.

`golongrl.data.model_config` puts them together.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator

from golongrl.recipe.load import explain

# The bounds are far above every published model and far below what overflows or fills a machine. The largest
# vocabulary published has about 260,000 ids, the widest model a hidden size of 53,248 in 126 layers with 128 heads of
# at most 512, the widest mixture of experts fewer than 1,000 experts, the longest context 10 million positions.
MOST_IDS: Final = 1 << 24
Vocabulary = Annotated[int, Field(ge=1, le=MOST_IDS)]
Width = Annotated[int, Field(ge=1, le=1 << 20)]
Layers = Annotated[int, Field(ge=1, le=1 << 12)]
Heads = Annotated[int, Field(ge=1, le=1 << 14)]
# Rotary embeddings turn pairs.
HeadSize = Annotated[int, Field(ge=2, le=1 << 14, multiple_of=2)]
# A number of an expert is stored in 2 bytes.
Experts = Annotated[int, Field(ge=0, le=1 << 16)]
# Positions are int32 in kernels.
Positions = Annotated[int, Field(ge=1, lt=1 << 31)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ShortText = Annotated[str, Field(min_length=1, max_length=1000)]
# Characters of a wrong value in a message.
LONGEST_SHOWN: Final = 80
# Names of torch's types that weights are loaded in.
_DTYPES: Final = frozenset(
    {"auto", "float16", "half", "bfloat16", "float32", "float", "float64", "double", "float8_e4m3fn", "float8_e5m2"}
)
_ROPE_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "longrope": ("short_factor", "long_factor"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
}
# The other names that transformers reads; two of them are of older releases.
ROPES: Final = frozenset({"default", "proportional", "su", "mrope", *_ROPE_NEEDS})
# Names of transformers' (and SGLang's) activations; it raises a KeyError for any other when the model is built.
ACTIVATIONS: Final = frozenset(
    {
        "gelu", "gelu_10", "gelu_accurate", "gelu_fast", "gelu_new", "gelu_python", "gelu_python_tanh",
        "gelu_pytorch_tanh", "hardswish", "laplace", "leaky_relu", "linear", "mish", "prelu", "quick_gelu", "relu",
        "relu2", "relu6", "sigmoid", "silu", "sqrtsoftplus", "swish", "tanh", "xielu",
    }
)  # fmt: skip
# As transformers checks them.
LAYER_TYPES: Final = frozenset(
    {
        "attention", "chunked_attention", "compressed_sparse_attention", "conv", "dense", "full_attention",
        "heavily_compressed_attention", "hybrid", "linear_attention", "mamba", "moe", "sliding_attention", "sparse",
    }
)  # fmt: skip


class FilePart(BaseModel):
    """A JSON object of which the keys that somebody reads are declared."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Rope(FilePart):
    """How positions are turned into angles."""

    rope_type: ShortText | None = None
    type: ShortText | None = None
    rope_theta: Positive | None = None
    factor: Annotated[float, Field(ge=1, le=1 << 20, allow_inf_nan=False)] | None = None
    original_max_position_embeddings: Positions | None = None
    attention_factor: Positive | None = None
    beta_fast: Positive | None = None
    beta_slow: Positive | None = None
    low_freq_factor: Positive | None = None
    high_freq_factor: Positive | None = None
    short_factor: list[Positive] | None = None
    long_factor: list[Positive] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kind = self.rope_type or self.type or "default"
        if kind not in ROPES:
            raise ValueError(unknown("rope_type", kind, ROPES))
        if missing := [name for name in _ROPE_NEEDS.get(kind, ()) if getattr(self, name) is None]:
            raise ValueError(f"a rope of type {kind[:80]} has no {', '.join(missing)}")
        return self


def _ids(value: Any) -> Any:
    """A token, or several, or none; some published models say -1 for one that they do not have."""
    given = value if isinstance(value, list) else [value]
    if value is not None and not all(type(token) is int and -1 <= token < MOST_IDS for token in given):
        raise ValueError(f"{shown(value)} is neither a token id nor a list of them")
    return value


def _one_id(value: Any) -> Any:
    if isinstance(value, list):
        raise ValueError(f"{shown(value)} is not a token id")
    return _ids(value)


def _dtype(value: Any) -> Any:
    """One for all parts of a model, or by part."""
    named = value.values() if isinstance(value, dict) else [value]
    if value is not None and not all(isinstance(name, str) and name in _DTYPES for name in named):
        raise ValueError(f"{shown(value)} is not a type of weights; one of {', '.join(sorted(_DTYPES))} works")
    return value


def _rope(value: Any) -> Any:
    """One for all layers, or by type of layer."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{shown(value)} is not a mapping")
    by_layer = value and all(isinstance(part, dict) for part in value.values())
    try:
        for part in value.values() if by_layer else [value]:
            _Rope.model_validate(part)
    except ValidationError as error:
        raise ValueError(explain(error, _Rope)) from error
    return value


def _with_point(value: Any, ranged: Callable[[Any], float]) -> Any:
    found = ranged(value)
    if type(value) is int:
        raise ValueError(f"transformers takes no whole number here; write {value}.0")
    return found


def _token(value: Any) -> Any:
    content = value.get("content") if isinstance(value, dict) else value
    if value is not None and not isinstance(content, str):
        raise ValueError(f"{shown(value)} is not a token: it must be a string, or a mapping with content")
    return value


def check_tokens(value: Any) -> Any:
    """Tokens as text, in a list or by their ids or names.

    Raises:
        ValueError: they are something else.
    """
    given = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
    if value is not None and given is None:
        raise ValueError(f"{shown(value)} is not a list of tokens")
    for token in given or ():
        _token("" if token is None else token)
    return value


def _template(value: Any) -> Any:
    """One, or several by name."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise ValueError(f"{shown(value)} is neither a template nor a list of named templates")
    return value


def unknown(key: str, value: str, known: Iterable[str]) -> str:
    """The message for a name that is not known, with the nearest known one."""
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(known))} works"
    return f"{key} {shown(value)} is unknown; {hint}"


def shown(value: Any) -> str:
    """The value as it stands in the file, cut."""
    text = json.dumps(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."


# A float that is written with its point.
POINTED = WrapValidator(_with_point)
TokenIds = Annotated[Any, AfterValidator(_ids)]
TokenId = Annotated[Any, AfterValidator(_one_id)]
WeightType = Annotated[Any, AfterValidator(_dtype)]
RopeOfLayers = Annotated[Any, AfterValidator(_rope)]
SpecialToken = Annotated[Any, AfterValidator(_token)]
SpecialTokens = Annotated[Any, AfterValidator(check_tokens)]
ChatTemplates = Annotated[Any, AfterValidator(_template)]
