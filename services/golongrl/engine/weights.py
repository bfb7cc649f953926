"""Weights of the running model: loading a model folder, replacing all tensors at once or none, and checksums.

Invariant: a replacement is checked as a whole (names, shapes, finite files) before the first tensor changes, so a bad
folder leaves the old weights untouched. Tensors are copied in place: the model object never changes.

Names and shapes are those of the model's folder, wherever transformers keeps several of its tensors as one (the experts
of a layer).
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.core_model_loading import revert_weight_conversion

from golongrl.engine.config import ModelFolderError, check_model_folder

# Longest piece of a given path in a message.
_SHOWN = 200


class EngineWeightsError(Exception):
    """New weights were refused; nothing has changed. The message names the file or tensor."""


def load_model(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in float32 (the CPU has no faster type that is as exact) and its tokenizer.

    Raises:
        ModelFolderError: the folder is incomplete, or `transformers` cannot read it.
    """
    check_model_folder(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, attn_implementation="sdpa", local_files_only=True
        )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelFolderError(f"model folder {path} cannot be loaded: {_line(error)}") from error
    model.requires_grad_(False)
    try:
        check_finite(model.state_dict())
    except EngineWeightsError as error:
        raise ModelFolderError(f"model folder {path}: {error}") from error
    return model, tokenizer


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of the safetensors files in `path`.

    Raises:
        EngineWeightsError: no such folder, no weights in it, or a damaged file.
    """
    try:
        files = sorted(path.glob("*.safetensors"))
    except (OSError, ValueError) as error:
        raise EngineWeightsError(f"weights {str(path)[:_SHOWN]}: {_line(error)[:_SHOWN]}") from error
    if not files:
        raise EngineWeightsError(f"no *.safetensors weights in {str(path)[:_SHOWN]}")
    tensors: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors.update(load_file(file))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise EngineWeightsError(f"{file} cannot be read: {_line(error)}") from error
    return tensors


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights that nothing can be sampled from.

    Raises:
        EngineWeightsError: a tensor holds NaN or an infinite number, or overflows in the model's float32.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.float()).all()):
            raise EngineWeightsError(f"tensor {name} holds a number that is not finite")


def check_tensors(model: PreTrainedModel, tensors: Mapping[str, torch.Size], *, complete: bool) -> None:
    """Refuse tensors that do not fit the model; with `complete`, also a set that leaves some of it old.

    Raises:
        EngineWeightsError: an unknown name, a wrong shape, or (complete) a missing tensor.
    """
    state = _tensors(model)
    for name, shape in tensors.items():
        if name not in state:
            raise EngineWeightsError(f"the model has no tensor {name}")
        if state[name].shape != shape:
            raise EngineWeightsError(f"tensor {name} has shape {list(shape)}, the model's is {list(state[name].shape)}")
    if complete:
        # Tied tensors share memory: one of them is enough.
        given = {state[name].data_ptr() for name in tensors}
        missing = [name for name, tensor in state.items() if tensor.data_ptr() not in given]
        if missing:
            raise EngineWeightsError(f"{len(missing)} tensors are missing, among them {missing[0]}")


@torch.inference_mode()
def copy_tensors(model: PreTrainedModel, tensors: Mapping[str, torch.Tensor]) -> None:
    """Copy `tensors` (already checked) into the model, converting to its type."""
    state = _tensors(model)
    for name, tensor in tensors.items():
        state[name].copy_(tensor)


@torch.inference_mode()
def checksums(model: PreTrainedModel) -> dict[str, str]:
    """SHA-256 (first 16 hex digits) of every tensor's bytes, by name."""
    return {
        name: hashlib.sha256(tensor.contiguous().view(torch.uint8).numpy().data).hexdigest()[:16]
        for name, tensor in _tensors(model).items()
    }


def _tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """The model's memory under the names of its folder: writing into these tensors changes the model.

    Raises:
        EngineWeightsError: transformers keeps a tensor in another layout than the folder's, which no view can show.
    """
    state = model.state_dict()
    memory = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    # What save_pretrained does to the names; splitting a joined tensor gives views of it.
    tensors: dict[str, torch.Tensor] = revert_weight_conversion(model, state)
    for name, tensor in tensors.items():
        if tensor.untyped_storage().data_ptr() not in memory:
            raise EngineWeightsError(f"tensor {name}: transformers keeps it converted; it cannot be replaced in place")
    return tensors


def _line(error: Exception) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
