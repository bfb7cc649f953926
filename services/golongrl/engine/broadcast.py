"""Weights over the wire, received: the groups this engine is a member of, and the update session.

Invariant: tensors arrive only between `begin` and `end`, as SGLang 0.5.23 demands.
"""

from typing import Any

import torch
from transformers import PreTrainedModel

from golongrl.broadcast.groups import broadcast, join_group, leave_group
from golongrl.engine.weights import EngineWeightsError, check_tensors

_SERVED_BACKEND = "gloo"


class WeightReceiver:
    """Groups and session of one engine. The methods block: run them in a thread."""

    def __init__(self) -> None:
        self._groups: dict[str, Any] = {}
        self._session = False

    def join(self, address: str, port: int, rank: int, world_size: int, name: str, backend: str) -> None:
        """Join a group.

        Raises:
            EngineWeightsError: the name is taken, the backend is not gloo, or the group did not come about in time.
        """
        if name in self._groups:
            raise EngineWeightsError(f"weight update group {name} exists already")
        if backend != _SERVED_BACKEND:
            raise EngineWeightsError(f"backend {backend} is not available on the CPU: use {_SERVED_BACKEND}")
        try:
            self._groups[name] = join_group(address, port, rank, world_size, name)
        except (RuntimeError, ValueError) as error:
            raise EngineWeightsError(f"group {name} at {address}:{port} did not come about: {error}") from error

    def leave(self, name: str) -> None:
        """Leave a group.

        Raises:
            EngineWeightsError: there is no such group.
        """
        if name not in self._groups:
            raise EngineWeightsError(f"there is no weight update group {name}")
        leave_group(self._groups.pop(name))

    def begin(self) -> None:
        """Open the update session.

        Raises:
            EngineWeightsError: it is open.
        """
        if self._session:
            raise EngineWeightsError("a weight-update session is already open; call end_weight_update() first")
        self._session = True

    def end(self) -> None:
        """Close the update session.

        Raises:
            EngineWeightsError: it is not open.
        """
        if not self._session:
            raise EngineWeightsError("no weight-update session is open; call begin_weight_update() first")
        self._session = False

    def receive(
        self, model: PreTrainedModel, name: str, names: list[str], dtypes: list[str], shapes: list[list[int]]
    ) -> dict[str, torch.Tensor]:
        """The tensors rank 0 broadcasts in this order, not yet in the model.

        Raises:
            EngineWeightsError: no session, no such group, tensors that do not fit the model, or a broken broadcast.
        """
        if not self._session:
            raise EngineWeightsError(
                "update_weights_from_distributed must run between begin_weight_update() and end_weight_update()"
            )
        if name not in self._groups:
            raise EngineWeightsError(f"there is no weight update group {name}")
        if not len(names) == len(dtypes) == len(shapes):
            raise EngineWeightsError(
                f"{len(names)} names, {len(dtypes)} dtypes and {len(shapes)} shapes: give one of each"
            )
        if len(set(names)) != len(names):
            raise EngineWeightsError("a tensor is named twice")
        check_tensors(model, {key: torch.Size(shape) for key, shape in zip(names, shapes, strict=True)}, complete=False)
        tensors = {
            key: torch.empty(shape, dtype=_dtype(kind)) for key, kind, shape in zip(names, dtypes, shapes, strict=True)
        }
        try:
            for tensor in tensors.values():
                broadcast(self._groups[name], tensor)
        except RuntimeError as error:
            raise EngineWeightsError(f"the broadcast in group {name} failed: {error}") from error
        return tensors


def _dtype(name: str) -> torch.dtype:
    """`float32` or `torch.float32` as a type."""
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise EngineWeightsError(f"unknown dtype {name}")
    return dtype
