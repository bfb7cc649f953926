"""What config.json and its siblings in a model folder may say: one check for `recipe check`, the preflight, engines and
the learner, so that nobody behind it meets a number that no model has.

Only what somebody here or in transformers reads is looked at; other keys are a model's own. A key that is not there
has transformers' default, but for the sizes that every part of a run needs (`read_config`).
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from golongrl.data import keys_once
from golongrl.data.errors import DataError, Faults
from golongrl.errors import InputError
from golongrl.reading import other_kind, read_text
from golongrl.recipe.load import explain
from golongrl.routes.model import experts_of

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
# Optional in a model folder.
_OTHERS: Final = (GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_NEEDED: Final = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
# The bounds are far above every published model and far below what overflows or fills a machine. The largest
# vocabulary published has about 260,000 ids, the widest model a hidden size of 53,248 in 126 layers with 128 heads of
# at most 512, the widest mixture of experts fewer than 1,000 experts, the longest context 10 million positions.
MOST_IDS: Final = 1 << 24
_Vocabulary = Annotated[int, Field(ge=1, le=MOST_IDS)]
_Width = Annotated[int, Field(ge=1, le=1 << 20)]
_Layers = Annotated[int, Field(ge=1, le=1 << 12)]
_Heads = Annotated[int, Field(ge=1, le=1 << 14)]
# Rotary embeddings turn pairs.
_HeadSize = Annotated[int, Field(ge=2, le=1 << 14, multiple_of=2)]
# A number of an expert is stored in 2 bytes.
_Experts = Annotated[int, Field(ge=0, le=1 << 16)]
# Positions are int32 in kernels.
_Positions = Annotated[int, Field(ge=1, lt=1 << 31)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1, max_length=1000)]
# Of a JSON file; the largest have a map of every token.
_MOST_BYTES: Final = 64 << 20
# Characters of a wrong value in a message.
_LONGEST_SHOWN: Final = 80
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
# Of these the head's size is hidden_size / num_attention_heads where the config has no head_dim.
_SPLIT_EVENLY: Final = frozenset({"llama", "mistral", "qwen2", "qwen2_moe"})


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class _Rope(_Part):
    rope_type: _Text | None = None
    type: _Text | None = None
    rope_theta: _Positive | None = None
    factor: Annotated[float, Field(ge=1, le=1 << 20, allow_inf_nan=False)] | None = None
    original_max_position_embeddings: _Positions | None = None
    attention_factor: _Positive | None = None
    beta_fast: _Positive | None = None
    beta_slow: _Positive | None = None
    low_freq_factor: _Positive | None = None
    high_freq_factor: _Positive | None = None
    short_factor: list[_Positive] | None = None
    long_factor: list[_Positive] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kind = self.rope_type or self.type or "default"
        if kind not in ROPES:
            raise ValueError(_unknown("rope_type", kind, ROPES))
        if missing := [name for name in _ROPE_NEEDS.get(kind, ()) if getattr(self, name) is None]:
            raise ValueError(f"a rope of type {kind[:80]} has no {', '.join(missing)}")
        return self


def _ids(value: Any) -> Any:
    """A token, or several, or none; some published models say -1 for one that they do not have."""
    given = value if isinstance(value, list) else [value]
    if value is not None and not all(type(token) is int and -1 <= token < MOST_IDS for token in given):
        raise ValueError(f"{_shown(value)} is neither a token id nor a list of them")
    return value


def _one_id(value: Any) -> Any:
    if isinstance(value, list):
        raise ValueError(f"{_shown(value)} is not a token id")
    return _ids(value)


def _dtype(value: Any) -> Any:
    """One for all parts of a model, or by part."""
    named = value.values() if isinstance(value, dict) else [value]
    if value is not None and not all(isinstance(name, str) and name in _DTYPES for name in named):
        raise ValueError(f"{_shown(value)} is not a type of weights; one of {', '.join(sorted(_DTYPES))} works")
    return value


def _rope(value: Any) -> Any:
    """One for all layers, or by type of layer."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ValueError(f"{_shown(value)} is not a mapping")
    by_layer = value and all(isinstance(part, dict) for part in value.values())
    try:
        for part in value.values() if by_layer else [value]:
            _Rope.model_validate(part)
    except ValidationError as error:
        raise ValueError(explain(error, _Rope)) from error
    return value


def _with_point(value: Any) -> Any:
    if type(value) is int:
        raise ValueError(f"transformers takes no whole number here; write {value}.0")
    return value


def _token(value: Any) -> Any:
    content = value.get("content") if isinstance(value, dict) else value
    if value is not None and not isinstance(content, str):
        raise ValueError(f"{_shown(value)} is not a token: it must be a string, or a mapping with content")
    return value


def _tokens(value: Any) -> Any:
    given = value if isinstance(value, list) else value.values() if isinstance(value, dict) else None
    if value is not None and given is None:
        raise ValueError(f"{_shown(value)} is not a list of tokens")
    for token in given or ():
        _token("" if token is None else token)
    return value


def _template(value: Any) -> Any:
    """One, or several by name."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise ValueError(f"{_shown(value)} is neither a template nor a list of named templates")
    return value


def _unknown(key: str, value: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(value, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(sorted(known))} works"
    return f"{key} {_shown(value)} is unknown; {hint}"


def _shown(value: Any) -> str:
    """The value as it stands in the file, cut."""
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


_TokenIds = Annotated[Any, AfterValidator(_ids)]
_TokenId = Annotated[Any, AfterValidator(_one_id)]
_Dtype = Annotated[Any, AfterValidator(_dtype)]
_RopeOfLayers = Annotated[Any, AfterValidator(_rope)]
_Token = Annotated[Any, AfterValidator(_token)]
_Tokens = Annotated[Any, AfterValidator(_tokens)]
_Template = Annotated[Any, AfterValidator(_template)]


class _Sizes(_Part):
    """config.json; of a model with a `text_config`, that over the rest."""

    model_type: _Text | None = None
    architectures: list[_Text] | None = None
    auto_map: dict[str, Any] | None = None
    text_config: dict[str, Any] | None = None
    hidden_size: _Width | None = None
    intermediate_size: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    moe_intermediate_size: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    num_hidden_layers: _Layers | None = None
    num_attention_heads: _Heads | None = None
    num_key_value_heads: _Heads | None = None
    head_dim: _HeadSize | None = None
    vocab_size: _Vocabulary | None = None
    max_position_embeddings: _Positions | None = None
    num_experts: _Experts | None = None
    num_local_experts: _Experts | None = None
    num_experts_per_tok: _Experts | None = None
    decoder_sparse_step: Annotated[int, Field(ge=1)] | None = None
    mlp_only_layers: list[Annotated[int, Field(ge=0)]] | None = None
    layer_types: list[_Text] | None = None
    sliding_window: Annotated[int, Field(ge=1)] | None = None
    use_sliding_window: bool | None = None
    tie_word_embeddings: bool | None = None
    attention_bias: bool | None = None
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    rms_norm_eps: Annotated[float, Field(ge=0, lt=1), BeforeValidator(_with_point)] | None = None
    initializer_range: Annotated[float, Field(ge=0, le=100), BeforeValidator(_with_point)] | None = None
    hidden_act: _Text | None = None
    rope_theta: _Positive | None = None
    rope_scaling: _RopeOfLayers = None
    rope_parameters: _RopeOfLayers = None
    quantization_config: dict[str, Any] | None = None
    pad_token_id: _TokenId = None
    bos_token_id: _TokenIds = None
    eos_token_id: _TokenIds = None
    dtype: _Dtype = None
    torch_dtype: _Dtype = None

    @model_validator(mode="after")
    def _go_together(self) -> Self:
        if faults := self._faults():
            raise ValueError("; ".join(faults))
        return self

    @staticmethod
    def _scaled(ropes: Iterable[Mapping[str, Any]]) -> bool:
        return any(
            rope.get("rope_type", rope.get("type", "default")) != "default" and rope.get("rope_theta") is None
            for rope in ropes
        )

    def _faults(self) -> list[str]:
        found = []
        # Code of its own may have others.
        if self.auto_map is None:
            if self.hidden_act is not None and self.hidden_act not in ACTIVATIONS:
                found.append(_unknown("hidden_act", self.hidden_act, ACTIVATIONS))
            for kind in sorted(set(self.layer_types or ()) - LAYER_TYPES)[:1]:
                found.append(_unknown("layer_types", kind, LAYER_TYPES))
        heads, key_heads = self.num_attention_heads, self.num_key_value_heads
        if heads and key_heads and heads % key_heads:
            found.append(f"num_key_value_heads {key_heads} does not divide num_attention_heads {heads}")
        if heads and self.hidden_size and self.head_dim is None and self.model_type in _SPLIT_EVENLY:
            if self.hidden_size % heads:
                found.append(f"num_attention_heads {heads} does not divide hidden_size {self.hidden_size}")
            elif self.hidden_size // heads % 2:
                found.append(
                    f"hidden_size {self.hidden_size} / num_attention_heads {heads} is odd; rotary embeddings turn pairs"
                )
        layers, kinds = self.num_hidden_layers, self.layer_types
        if layers is not None and kinds is not None and len(kinds) != layers:
            found.append(f"layer_types has {len(kinds)} entries, num_hidden_layers is {layers}")
        if "sliding_attention" in (kinds or ()) and self.sliding_window is None:
            found.append("layer_types has sliding_attention, and sliding_window is null")
        ropes = [rope for rope in (self.rope_parameters, self.rope_scaling) if rope]
        if "rope_theta" in self.model_fields_set and self.rope_theta is None and self._scaled(ropes):
            found.append("rope_theta is null, and a scaled rope needs it")
        experts, older = experts_of(vars(self)), self.num_experts
        if None not in (experts, older) and experts != older:
            found.append(f"num_experts {older} and num_local_experts {experts} differ; remove num_experts")
        if experts is not None and self.num_experts_per_tok is not None and self.num_experts_per_tok > experts > 0:
            found.append(f"num_experts_per_tok {self.num_experts_per_tok} exceeds the {experts} experts")
        if self.vocab_size is not None and self.pad_token_id is not None and self.pad_token_id >= self.vocab_size:
            found.append(f"pad_token_id {self.pad_token_id} is not below vocab_size {self.vocab_size}")
        return found


class _Generation(_Part):
    """generation_config.json."""

    pad_token_id: _TokenId = None
    bos_token_id: _TokenIds = None
    eos_token_id: _TokenIds = None
    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: _Positive | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None


class _NamedTokens(_Part):
    """special_tokens_map.json, and the same keys of tokenizer_config.json."""

    bos_token: _Token = None
    eos_token: _Token = None
    unk_token: _Token = None
    sep_token: _Token = None
    pad_token: _Token = None
    cls_token: _Token = None
    mask_token: _Token = None
    additional_special_tokens: _Tokens = None


class _Tokenizer(_NamedTokens):
    """tokenizer_config.json."""

    tokenizer_class: _Text | None = None
    # A float of 1e30 stands for "no limit" in published models.
    model_max_length: _Positive | None = None
    padding_side: Literal["left", "right"] | None = None
    truncation_side: Literal["left", "right"] | None = None
    clean_up_tokenization_spaces: bool | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_prefix_space: bool | None = None
    added_tokens_decoder: Annotated[dict[str, Any] | None, AfterValidator(_tokens)] = None
    chat_template: _Template = None


_MODELS: Final[Mapping[str, type[_Part]]] = {
    CONFIG: _Sizes,
    GENERATION: _Generation,
    "tokenizer_config.json": _Tokenizer,
    "special_tokens_map.json": _NamedTokens,
    "added_tokens.json": _Part,
}


def read_config(path: Path) -> dict[str, Any]:
    """A config.json that a model can have, as it is written.

    Raises:
        DataError: naming the file and its keys.
    """
    config = checked_file(path, CONFIG)
    sizes = sizes_of(config)
    if missing := [key for key in _NEEDED if sizes.get(key) is None]:
        raise DataError(f"model file {path}: it has no {', '.join(missing)}; only models that say so are trained")
    return config


def check_folder(folder: Path) -> None:
    """Check config.json and the JSON files that go with it.

    Raises:
        DataError: naming each file at fault, and its keys.
    """
    faults = Faults()
    for name in (CONFIG, *_OTHERS):
        if (folder / name).is_file():
            with faults.told():
                checked_file(folder / name, name)
    faults.refuse()


def sizes_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """config.json; of a model with a `text_config`, that over the rest."""
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, Mapping) else dict(config)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file of a model folder. Raises DataError naming the file."""
    try:
        text = read_text(path, _MOST_BYTES)
        if kind := other_kind(text[:_LONGEST_SHOWN].encode()):
            raise DataError(f"model file {path}: it is {kind}")
        config = keys_once.loads(text)
    except DataError:
        raise
    except InputError as error:
        raise DataError(f"model file {error}") from error
    except OSError as error:
        raise DataError(f"model file {path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"model file {path}: not JSON that can be read: {str(error)[:_LONGEST_SHOWN]}") from error
    if not isinstance(config, dict):
        raise DataError(f"model file {path}: expected an object")
    return config


def checked_file(path: Path, name: str) -> dict[str, Any]:
    """A JSON file of a model folder that is to be what its `name` says.

    Raises:
        DataError: naming the file and its keys.
    """
    content, model = json_object(path), _MODELS[name]
    try:
        model.model_validate(sizes_of(content) if name == CONFIG else content)
    except ValidationError as error:
        raise DataError(f"model file {path}: {explain(error, model)}") from error
    return content
