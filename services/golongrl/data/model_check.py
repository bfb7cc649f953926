"""A recipe against the folder of its model: sizes, vocabulary, chat template and think gate, before anything starts."""

import ast
import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from golongrl.data.chat import TOKENIZER, Chat, think_problem
from golongrl.data.errors import DataError, Faults
from golongrl.data.model_config import CONFIG, GENERATION, check_folder, json_object, read_config, sizes_of
from golongrl.data.model_layout import DEFAULTS, weights_faults
from golongrl.data.models import check_names, fetched, local_folder
from golongrl.data.weight_files import FLOATS, StoredTensor, stored_tensors
from golongrl.recipe import Recipe
from golongrl.recipe.fit import model_faults, run_faults

# Where transformers lists the types of models that generate text.
_TABLE: Final = ("models", "auto", "modeling_auto.py")
_TABLES: Final = frozenset({"MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"})
# What the learner's library takes the class of a model from.
_GENERATES: Final = ("ForCausalLM", "ForConditionalGeneration", "ForImageTextToText", "ForVision2Seq")


def model_of(recipe: Recipe, *, to_train: bool = False) -> Path:
    """The folder of the recipe's model, fetched if it must be. `to_train` also wants prompts enough for a batch.

    Raises:
        DataError: it is not found, not whole, or does not fit the recipe; every fault is named.
    """
    if to_train and (faults := list(run_faults(recipe))):
        raise DataError("; ".join(faults))
    folder = fetched(recipe.model.path, trust_remote_code=recipe.model.trust_remote_code)
    _faults(recipe, folder).refuse()
    return folder


def check_local_model(recipe: Recipe) -> bool:
    """Check the model if it is on this machine, and say whether it is; nothing is fetched.

    Raises:
        DataError: as `model_of`.
    """
    if faults := list(run_faults(recipe)):
        raise DataError("; ".join(faults))
    folder = local_folder(recipe.model.path)
    if folder is not None:
        _faults(recipe, folder).refuse()
    return folder is not None


def _faults(recipe: Recipe, folder: Path) -> Faults:
    """Whatever does not depend on a part that is at fault is checked, too."""
    faults, config, tensors, chat = Faults(), None, None, None
    with faults.told():
        check_names(folder)
    with faults.told():
        check_folder(folder)
    if (folder / CONFIG).is_file():
        with faults.told():
            config = read_config(folder / CONFIG)
    with faults.told():
        tensors = stored_tensors(folder)
    if (folder / TOKENIZER).is_file():
        with faults.told():
            chat = Chat.open(folder)
    for fault in _comparisons(recipe, folder, config, tensors or (), chat):
        faults.add(fault if fault.startswith("model file ") else f"model {recipe.model.path}: {fault}")
    return faults


def _comparisons(
    recipe: Recipe, folder: Path, config: Mapping[str, Any] | None, tensors: Sequence[StoredTensor], chat: Chat | None
) -> Iterator[str]:
    if config is not None:
        vocabulary = None
        if chat is not None:
            vocabulary = max(chat.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        yield from model_faults(recipe, config, vocabulary)
        if config.get("auto_map") is None or not recipe.model.trust_remote_code:
            yield from (f"{CONFIG}: {fault}" for fault in _kind_faults(config))
        shapes = {tensor.name: tensor.shape for tensor in tensors}
        yield from (f"{CONFIG}: {fault}" for fault in weights_faults(shapes, sizes_of(config)))
        whole = [tensor for tensor in tensors if tensor.dtype not in FLOATS]
        if whole and config["model_type"] in DEFAULTS and not config.get("quantization_config"):
            first = whole[0]
            yield f"{len(whole)} tensors of its weights are of type {first.dtype}, not floats ({first.name} first)"
    if chat is not None:
        if config is not None:
            yield from _end_faults(folder, config, chat)
        try:
            think = think_problem(chat, recipe.data.enable_thinking)
        except DataError as error:
            think = str(error)
        if think:
            yield think


def _end_faults(folder: Path, config: Mapping[str, Any], chat: Chat) -> Iterator[str]:
    """Where no response could end: the token that ends it is none of the model's."""
    rows = sizes_of(config)["vocab_size"]
    generation = folder / GENERATION
    ends = {CONFIG: config.get("eos_token_id"), GENERATION: None}
    if generation.is_file():
        with suppress(DataError):  # told already
            ends[GENERATION] = json_object(generation).get("eos_token_id")
    for name, given in ends.items():
        for token in given if isinstance(given, list) else [given]:
            if type(token) is int and not 0 <= token < rows:
                yield f"{name}: eos_token_id {token} is none of the {rows} ids (vocab_size), so no response would end"
    for key, content in chat.unknown_tokens():
        yield f"tokenizer_config.json: {key} {content[:80]!r} is not a token of tokenizer.json"


def _kind_faults(config: Mapping[str, Any]) -> Iterator[str]:
    """What the learner cannot build a model of."""
    kind, named = config["model_type"], config.get("architectures")
    if (known := types_that_generate(kind)) is not None and kind not in known:
        near = difflib.get_close_matches(kind.lower(), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        own = "; model.trust_remote_code: true runs the code that the folder names" if config.get("auto_map") else ""
        yield f"model_type {kind} is none that the installed transformers can generate text with{hint}{own}"
    if not named:
        yield 'it has no architectures, which the learner takes the model\'s class from, as ["Qwen3ForCausalLM"]'
    elif not any(end in named[0] for end in _GENERATES):
        yield f"architectures: {named[0]} is not a model that generates text; its name has {_GENERATES[0]} in it"
    dtype = config.get("dtype") or config.get("torch_dtype")
    if config.get("quantization_config"):
        yield "it has a quantization_config, and quantised weights cannot be trained; name a model in bfloat16"
    elif str(dtype).startswith("float8"):
        yield f"dtype {dtype}: such weights cannot be trained; name a model in bfloat16"


def types_that_generate(kind: str) -> frozenset[str] | None:
    """The types of models that generate text; None where transformers is not installed, or names them elsewhere.

    Its table is read and not imported, which takes as long as starting torch.
    """
    if kind in DEFAULTS:
        return frozenset(DEFAULTS)
    found = find_spec("transformers")
    if found is None or found.origin is None:
        return None
    try:
        tree = ast.parse(Path(found.origin).parent.joinpath(*_TABLE).read_text("utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    tables = [node.value for node in tree.body if isinstance(node, ast.Assign) and _TABLES & set(_names(node.targets))]
    pairs = [node.elts for table in tables for node in ast.walk(table) if isinstance(node, ast.Tuple)]
    kinds = [pair[0].value for pair in pairs if pair and isinstance(pair[0], ast.Constant)]
    return frozenset(map(str, kinds)) or None


def _names(targets: Iterable[ast.expr]) -> Iterator[str]:
    return (target.id for target in targets if isinstance(target, ast.Name))
