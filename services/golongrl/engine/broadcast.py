"""Weights over the wire: process groups in which rank 0 (the learner) broadcasts tensors and engines receive them.

A group is made exactly as SGLang makes its own, beside any default group, so that a learner needs one way for both:
a TCP store at rank 0, prefixed by the group's name, and torch's own group on top.

Invariant: tensors arrive only between `begin` and `end`, as SGLang 0.5.23 demands.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import Backend, GroupName, PrefixStore, _new_process_group_helper, _world
from torch.distributed.rendezvous import rendezvous
from transformers import PreTrainedModel

from golongrl.engine.weights import WeightsError, check_tensors

# Longest wait for the other ranks: to join a group, and for each tensor.
GROUP_TIMEOUT = timedelta(seconds=120)
_SERVED_BACKEND = "gloo"


def join_group(address: str, port: int, rank: int, world_size: int, name: str) -> Any:
    """Join the gloo group `name` whose store rank 0 holds at address:port; blocks until all ranks are there.

    Raises:
        RuntimeError: not all joined in time, or the address is wrong.
    """
    store, _, _ = next(rendezvous(f"tcp://{address}:{port}", rank, world_size, timeout=GROUP_TIMEOUT))
    store.set_timeout(GROUP_TIMEOUT)
    group, _ = _new_process_group_helper(
        world_size,
        rank,
        [],
        Backend(_SERVED_BACKEND),
        PrefixStore(name, store),
        group_name=GroupName(name),
        timeout=GROUP_TIMEOUT,
    )
    # What torch's own new_group records, and destroying a group expects.
    _world.pg_group_ranks[group] = {member: member for member in range(world_size)}
    return group


def broadcast(group: Any, tensor: torch.Tensor) -> None:
    """Send `tensor` (rank 0), or receive into it."""
    options = dist.BroadcastOptions()
    options.rootRank = 0
    group.broadcast([tensor], options).wait()


def leave_group(group: Any) -> None:
    """Free a group's connections."""
    dist.destroy_process_group(group)


class WeightReceiver:
    """The groups this engine is a member of, and the update session. The methods block: run them in a thread."""

    def __init__(self) -> None:
        self._groups: dict[str, Any] = {}
        self._session = False

    def join(self, address: str, port: int, rank: int, world_size: int, name: str, backend: str) -> None:
        """Join a group.

        Raises:
            WeightsError: the name is taken, the backend is not gloo, or the group did not come about in time.
        """
        if name in self._groups:
            raise WeightsError(f"weight update group {name} exists already")
        if backend != _SERVED_BACKEND:
            raise WeightsError(f"backend {backend} is not available on the CPU: use {_SERVED_BACKEND}")
        try:
            self._groups[name] = join_group(address, port, rank, world_size, name)
        except (RuntimeError, ValueError) as error:
            raise WeightsError(f"group {name} at {address}:{port} did not come about: {error}") from error

    def leave(self, name: str) -> None:
        """Leave a group.

        Raises:
            WeightsError: there is no such group.
        """
        if name not in self._groups:
            raise WeightsError(f"there is no weight update group {name}")
        leave_group(self._groups.pop(name))

    def begin(self) -> None:
        """Open the update session.

        Raises:
            WeightsError: it is open.
        """
        if self._session:
            raise WeightsError("a weight-update session is already open; call end_weight_update() first")
        self._session = True

    def end(self) -> None:
        """Close the update session.

        Raises:
            WeightsError: it is not open.
        """
        if not self._session:
            raise WeightsError("no weight-update session is open; call begin_weight_update() first")
        self._session = False

    def receive(
        self, model: PreTrainedModel, name: str, names: list[str], dtypes: list[str], shapes: list[list[int]]
    ) -> dict[str, torch.Tensor]:
        """The tensors rank 0 broadcasts in this order, not yet in the model.

        Raises:
            WeightsError: no session, no such group, tensors that do not fit the model, or a broken broadcast.
        """
        if not self._session:
            raise WeightsError(
                "update_weights_from_distributed must run between begin_weight_update() and end_weight_update()"
            )
        if name not in self._groups:
            raise WeightsError(f"there is no weight update group {name}")
        if not len(names) == len(dtypes) == len(shapes):
            raise WeightsError(f"{len(names)} names, {len(dtypes)} dtypes and {len(shapes)} shapes: give one of each")
        check_tensors(model, {key: torch.Size(shape) for key, shape in zip(names, shapes, strict=True)}, complete=False)
        tensors = {
            key: torch.empty(shape, dtype=_dtype(kind)) for key, kind, shape in zip(names, dtypes, shapes, strict=True)
        }
        try:
            for tensor in tensors.values():
                broadcast(self._groups[name], tensor)
        except RuntimeError as error:
            raise WeightsError(f"the broadcast in group {name} failed: {error}") from error
        return tensors


def _dtype(name: str) -> torch.dtype:
    """`float32` or `torch.float32` as a type."""
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise WeightsError(f"unknown dtype {name}")
    return dtype
