"""A recipe against the folder of its model: sizes, vocabulary, chat template and think gate, before anything starts."""

import json
from pathlib import Path

from golongrl.data.chat import Chat, think_problem
from golongrl.data.errors import DataError
from golongrl.recipe import Recipe
from golongrl.recipe.fit import model_faults


def check_model(recipe: Recipe, folder: Path) -> None:
    """Raise DataError with every fault that the recipe and the model's folder show together."""
    faults = list(folder_faults(recipe, folder))
    if faults:
        raise DataError("\n  ".join([f"model {recipe.model.path}: {faults[0]}", *faults[1:]]))


def folder_faults(recipe: Recipe, folder: Path) -> list[str]:
    """The faults, one line each."""
    try:
        chat = Chat.open(folder)
    except DataError as error:
        return [str(error)]
    vocabulary = max(chat.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    faults = list(model_faults(recipe, _config(folder / "config.json"), vocabulary))
    try:
        think = think_problem(chat, recipe.data.enable_thinking)
    except DataError as error:
        think = str(error)
    return [*faults, *([think] if think else [])]


def _config(path: Path) -> dict[str, object]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"model file {path}: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"model file {path}: expected an object")
    return config
