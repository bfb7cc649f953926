"""Process groups of a sender (rank 0) and one engine, made exactly as SGLang makes its own.

A group is a TCP store at rank 0, prefixed by the group's name, and torch's own group on top of it. It does not depend
on any default group. The sender therefore treats SGLang and the embedded engine in the same way.
"""

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore
from torch.distributed.distributed_c10d import (
    Backend,
    GroupName,
    PrefixStore,
    Store,
    _new_process_group_helper,
    _world,
)
from torch.distributed.rendezvous import rendezvous

from golongrl.broadcast.protocol import in_url

# Longest wait for the other side: to join, and for each tensor. An engine loads one bucket between two of them.
GROUP_TIMEOUT = timedelta(seconds=120)


def open_store(world_size: int) -> TCPStore:
    """The store at which the other ranks will meet, listening on a free port (`.port`) over IPv4 and IPv6."""
    return TCPStore("0.0.0.0", 0, world_size, is_master=True, timeout=GROUP_TIMEOUT, wait_for_workers=False)


def form_group(store: Store, rank: int, world_size: int, name: str, backend: str) -> Any:
    """The group `name` over `store`; blocks until all ranks are there.

    Raises:
        RuntimeError: not all came in time.
    """
    group, _ = _new_process_group_helper(
        world_size,
        rank,
        [],
        Backend(backend),
        PrefixStore(name, store),
        group_name=GroupName(name),
        timeout=GROUP_TIMEOUT,
    )
    # What torch's own new_group records, and destroying a group expects.
    _world.pg_group_ranks[group] = {member: member for member in range(world_size)}
    return group


def join_group(address: str, port: int, rank: int, world_size: int, name: str) -> Any:
    """Join the gloo group `name` whose store rank 0 holds at address:port; blocks until all ranks are there.

    Raises:
        RuntimeError: not all joined in time, or the address is wrong.
    """
    store, _, _ = next(rendezvous(f"tcp://{in_url(address)}:{port}", rank, world_size, timeout=GROUP_TIMEOUT))
    store.set_timeout(GROUP_TIMEOUT)
    return form_group(store, rank, world_size, name, "gloo")


def broadcast(group: Any, tensor: torch.Tensor) -> None:
    """Send `tensor` (rank 0), or receive into it."""
    options = dist.BroadcastOptions()
    options.rootRank = 0
    group.broadcast([tensor], options).wait()


def leave_group(group: Any) -> None:
    """Free a group's connections."""
    dist.destroy_process_group(group)
