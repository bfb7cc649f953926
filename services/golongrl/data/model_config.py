"""What config.json and its siblings in a model folder may say: one check for `recipe check`, the preflight, engines and
the learner, so that nobody behind it meets a number that no model has.

Only what somebody here or in transformers reads is looked at; other keys are a model's own. A key that is not there
has transformers' default, but for the sizes that every part of a run needs (`read_config`).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from golongrl.data import keys_once
from golongrl.data.errors import DataError, Faults
from golongrl.data.model_values import (
    ACTIVATIONS,
    LAYER_TYPES,
    LONGEST_SHOWN,
    POINTED,
    ChatTemplates,
    Experts,
    FilePart,
    Heads,
    HeadSize,
    Layers,
    Positions,
    Positive,
    RopeOfLayers,
    ShortText,
    SpecialToken,
    SpecialTokens,
    TokenId,
    TokenIds,
    Vocabulary,
    WeightType,
    Width,
    check_tokens,
    unknown,
)
from golongrl.errors import InputError
from golongrl.reading import other_kind, read_text
from golongrl.recipe.load import explain
from golongrl.routes.model import experts_of

CONFIG: Final = "config.json"
GENERATION: Final = "generation_config.json"
# Optional in a model folder.
_OTHERS: Final = (GENERATION, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_NEEDED: Final = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
# Of these the head's size is hidden_size / num_attention_heads where the config has no head_dim.
_SPLIT_EVENLY: Final = frozenset({"llama", "mistral", "qwen2", "qwen2_moe"})
# Of a JSON file; the largest have a map of every token.
_MOST_BYTES: Final = 64 << 20


class _Sizes(FilePart):
    """config.json; of a model with a `text_config`, that over the rest."""

    model_type: ShortText | None = None
    architectures: list[ShortText] | None = None
    auto_map: dict[str, Any] | None = None
    text_config: dict[str, Any] | None = None
    hidden_size: Width | None = None
    intermediate_size: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    moe_intermediate_size: Annotated[int, Field(ge=1, le=1 << 24)] | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Heads | None = None
    num_key_value_heads: Heads | None = None
    head_dim: HeadSize | None = None
    vocab_size: Vocabulary | None = None
    max_position_embeddings: Positions | None = None
    num_experts: Experts | None = None
    num_local_experts: Experts | None = None
    num_experts_per_tok: Experts | None = None
    decoder_sparse_step: Annotated[int, Field(ge=1)] | None = None
    mlp_only_layers: list[Annotated[int, Field(ge=0)]] | None = None
    layer_types: list[ShortText] | None = None
    sliding_window: Annotated[int, Field(ge=1)] | None = None
    use_sliding_window: bool | None = None
    tie_word_embeddings: bool | None = None
    attention_bias: bool | None = None
    attention_dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    rms_norm_eps: Annotated[float, Field(ge=0, lt=1), POINTED] | None = None
    initializer_range: Annotated[float, Field(ge=0, le=100), POINTED] | None = None
    hidden_act: ShortText | None = None
    rope_theta: Positive | None = None
    rope_scaling: RopeOfLayers = None
    rope_parameters: RopeOfLayers = None
    quantization_config: dict[str, Any] | None = None
    pad_token_id: TokenId = None
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    dtype: WeightType = None
    torch_dtype: WeightType = None

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
                found.append(unknown("hidden_act", self.hidden_act, ACTIVATIONS))
            for kind in sorted(set(self.layer_types or ()) - LAYER_TYPES)[:1]:
                found.append(unknown("layer_types", kind, LAYER_TYPES))
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


class _Generation(FilePart):
    """generation_config.json."""

    pad_token_id: TokenId = None
    bos_token_id: TokenIds = None
    eos_token_id: TokenIds = None
    do_sample: bool | None = None
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Positive | None = None
    max_length: Annotated[int, Field(ge=0)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None


class _NamedTokens(FilePart):
    """special_tokens_map.json, and the same keys of tokenizer_config.json."""

    bos_token: SpecialToken = None
    eos_token: SpecialToken = None
    unk_token: SpecialToken = None
    sep_token: SpecialToken = None
    pad_token: SpecialToken = None
    cls_token: SpecialToken = None
    mask_token: SpecialToken = None
    additional_special_tokens: SpecialTokens = None


class _Tokenizer(_NamedTokens):
    """tokenizer_config.json."""

    tokenizer_class: ShortText | None = None
    # A float of 1e30 stands for "no limit" in published models.
    model_max_length: Positive | None = None
    padding_side: Literal["left", "right"] | None = None
    truncation_side: Literal["left", "right"] | None = None
    clean_up_tokenization_spaces: bool | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_prefix_space: bool | None = None
    added_tokens_decoder: Annotated[dict[str, Any] | None, AfterValidator(check_tokens)] = None
    chat_template: ChatTemplates = None


_MODELS: Final[Mapping[str, type[FilePart]]] = {
    CONFIG: _Sizes,
    GENERATION: _Generation,
    "tokenizer_config.json": _Tokenizer,
    "special_tokens_map.json": _NamedTokens,
    "added_tokens.json": FilePart,
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
        if kind := other_kind(text[:LONGEST_SHOWN].encode()):
            raise DataError(f"model file {path}: it is {kind}")
        config = keys_once.loads(text)
    except DataError:
        raise
    except InputError as error:
        raise DataError(f"model file {error}") from error
    except OSError as error:
        raise DataError(f"model file {path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"model file {path}: not JSON that can be read: {str(error)[:LONGEST_SHOWN]}") from error
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
