"""A recipe against the folder of its model: sizes, vocabulary, chat template and think gate, before anything starts."""

from pathlib import Path

from golongrl.data.chat import Chat, think_problem
from golongrl.data.errors import DataError
from golongrl.data.model_config import CONFIG, read_config, weights_fault
from golongrl.data.models import local_folder, resolve
from golongrl.data.weight_files import stored_tensors
from golongrl.recipe import Recipe
from golongrl.recipe.fit import model_faults, run_faults


def model_of(recipe: Recipe, *, to_train: bool = False) -> Path:
    """The folder of the recipe's model, fetched if it must be. `to_train` also wants prompts enough for a batch.

    Raises:
        DataError: it is not found, not whole, or does not fit the recipe; every fault is named.
    """
    if to_train and (faults := list(run_faults(recipe))):
        raise DataError("; ".join(faults))
    folder = resolve(recipe.model.path, trust_remote_code=recipe.model.trust_remote_code)
    _refuse(recipe, folder)
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
        _refuse(recipe, folder)
    return folder is not None


def _refuse(recipe: Recipe, folder: Path) -> None:
    if faults := folder_faults(recipe, folder):
        raise DataError("\n  ".join([f"model {recipe.model.path}: {faults[0]}", *faults[1:]]))


def folder_faults(recipe: Recipe, folder: Path) -> list[str]:
    """The faults, one line each."""
    try:
        config = read_config(folder / CONFIG)
        tensors = stored_tensors(folder)
        chat = Chat.open(folder)
    except DataError as error:
        return [str(error)]
    vocabulary = max(chat.tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    faults = list(model_faults(recipe, config, vocabulary))
    if fault := weights_fault({tensor.name: tensor.shape for tensor in tensors}, config):
        faults.append(f"config.json: {fault}")
    try:
        think = think_problem(chat, recipe.data.enable_thinking)
    except DataError as error:
        think = str(error)
    return [*faults, *([think] if think else [])]
