"""Resuming with another number of ranks: a checkpoint of W ranks read by any other number. verl itself cannot.

Every rank reads all files one tensor at a time in the same order, joins the W pieces and keeps its own part, so that no
rank holds more than one whole tensor in addition to its shard. Parameters and optimizer moments are bit-identical;
random state is that of rank 0 (the update draws nothing from it).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from golongrl.errors import InputError


class ReshardError(InputError):
    """The checkpoint's files do not match each other or the model; the message names the file or tensor."""


def saved_ranks(folder: Path) -> int:
    """How many ranks wrote the checkpoint in `folder` (an `actor` folder).

    Raises:
        ReshardError: there is no complete set of model files.
    """
    files = list(folder.glob("model_world_size_*_rank_0.pt"))
    if len(files) != 1:
        raise ReshardError(f"checkpoint {folder}: expected model files of one number of ranks, found {len(files)}")
    return int(files[0].name.split("_")[3])


def load_resharded(
    folder: Path, ranks: int, module: torch.nn.Module, optimizer: torch.optim.Optimizer, scheduler: Any
) -> None:
    """Load what `ranks` ranks saved into this (sharded) module, optimizer and scheduler. Collective.

    Raises:
        ReshardError: a tensor is missing or has another shape.
    """
    target = module.state_dict()
    pieces = _read(folder, "model", ranks)
    for name, tensor in target.items():
        if any(name not in piece for piece in pieces):
            raise ReshardError(f"checkpoint {folder}: no tensor {name}")
        whole = _join([piece[name] for piece in pieces])
        if whole.shape != tensor.shape:
            raise ReshardError(
                f"checkpoint {folder}: {name} is {tuple(whole.shape)}, the model's {tuple(tensor.shape)}"
            )
        _local(tensor).copy_(_local(_like(whole, tensor)))
    states = _read(folder, "optim", ranks)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = {
        index: {
            key: _like(_join([piece["state"][index][key] for piece in states]), parameters[index])
            if isinstance(value, Tensor) and value.dim()
            else value
            for key, value in entries.items()
        }
        for index, entries in states[0]["state"].items()
    }
    optimizer.load_state_dict({**states[0], "state": state})
    scheduler.load_state_dict(_read(folder, "extra_state", ranks)[0]["lr_scheduler"])


def _read(folder: Path, kind: str, ranks: int) -> list[dict[str, Any]]:
    # Mapped, not read: a piece's tensors are fetched when they are joined. Written by this program, so trusted.
    return [
        torch.load(
            folder / f"{kind}_world_size_{ranks}_rank_{rank}.pt", weights_only=False, mmap=True, map_location="cpu"
        )
        for rank in range(ranks)
    ]


def _join(pieces: list[Tensor]) -> Tensor:
    """The whole tensor from the pieces of all ranks, in rank order."""
    first = pieces[0]
    if not isinstance(first, DTensor):
        return first
    (placement,) = first.placements
    if not isinstance(placement, Shard):
        return first._local_tensor
    return torch.cat([piece._local_tensor for piece in pieces if isinstance(piece, DTensor)], dim=placement.dim)


def _like(whole: Tensor, target: Tensor) -> Tensor:
    """`whole` distributed as `target` is."""
    if not isinstance(target, DTensor):
        return whole.to(target.device)
    return distribute_tensor(whole.to(target.device), target.device_mesh, target.placements)


def _local(tensor: Tensor) -> Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor
