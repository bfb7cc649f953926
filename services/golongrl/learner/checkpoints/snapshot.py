"""A rank's part of a checkpoint: copied to host memory while training waits, written while training continues.

verl's FSDP checkpoint manager writes its files within the call. The files here are the same by name and content, built
from the same state dicts, so that verl loads them and `python -m verl.model_merger` merges them; tensors of a GPU are
stored as tensors of the CPU. Configuration and tokenizer never change; verl itself writes them, once.

Invariants:
- what is written is the state at the time of `start`, whatever is trained meanwhile;
- a rank has at most one copy. It costs host memory of the size of the rank's parameters and optimizer state, 12 bytes a
  parameter over the number of ranks, in addition to what is offloaded, and is freed file by file;
- `written` returns only when every file and its folder have reached the storage (fsync), with size and sha256 of each;
- the writing thread calls no collective: training's own must keep their order.
"""

import copy
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from verl.utils.checkpoint.fsdp_checkpoint_manager import FSDPCheckpointManager
from verl.utils.device import get_torch_device

from golongrl.files import sync
from golongrl.learner.fsync import FileSum, Written, writing


class SnapshotWriter:
    """Saves the state of verl's checkpoint manager, one checkpoint at a time."""

    def __init__(self, manager: FSDPCheckpointManager) -> None:
        """Collective: verl waits for all ranks."""
        self._manager = manager
        self._constants = constants(manager)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[Written] | None = None

    def start(self, folder: Path) -> None:
        """Copy the state and begin to write it into `folder`, which exists. Waits for an earlier copy to be written.

        Raises:
            NotWrittenError: the earlier one failed.
        """
        started = time.perf_counter()
        if self._writing is not None:
            self._writing.result()
        self._writing = self._pool.submit(_write_timed, take(self._manager), self._constants, folder, started)

    def written(self) -> Written:
        """Wait until the last save is durable.

        Raises:
            NotWrittenError: it failed.
        """
        assert self._writing is not None
        return self._writing.result()


def take(manager: FSDPCheckpointManager) -> dict[str, Any]:
    """A copy of this rank's state in host memory: by file name, what verl would save under it."""
    # verl offloads without waiting: what is on the CPU already may still be on its way.
    get_torch_device().synchronize()
    suffix = f"world_size_{manager.world_size}_rank_{manager.rank}.pt"
    scheduler = manager.lr_scheduler.state_dict() if manager.lr_scheduler is not None else None
    extra = {"lr_scheduler": scheduler, "rng": manager.get_rng_state()}
    return {
        f"model_{suffix}": _parameters(manager.model),
        f"optim_{suffix}": _optimizer_state(manager.optimizer),
        f"extra_state_{suffix}": copy.deepcopy(extra),
    }


def constants(manager: FSDPCheckpointManager) -> dict[str, bytes]:
    """What verl writes in addition to the state, by path: the same in every checkpoint; only on rank 0. Collective."""
    contents, manager.checkpoint_save_contents = manager.checkpoint_save_contents, []
    try:
        with TemporaryDirectory() as name, _temporary_files_in(Path(name) / "locks"):
            place = Path(name) / "files"
            manager.save_checkpoint(str(place))
            files = [path for path in place.rglob("*") if path.is_file()]
            return {str(path.relative_to(place)): path.read_bytes() for path in files}
    finally:
        manager.checkpoint_save_contents = contents


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    """verl leaves a lock file in the temporary folder for each folder that it makes: here that is `folder`."""
    before = tempfile.tempdir
    folder.mkdir()
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


def write(state: dict[str, Any], constants: dict[str, bytes], folder: Path) -> dict[str, FileSum]:
    """Make `state` and `constants` durable in `folder`; `state` is emptied, so that its memory is free file by file.

    Returns:
        Size and sha256 of every file, by path in `folder`.

    Raises:
        NotWrittenError: naming the file.
    """
    sums = {}
    folders = {folder}
    for name, content in constants.items():
        path = folder / name
        with writing("checkpoint file", path, scratch=path):
            path.parent.mkdir(parents=True, exist_ok=True)
            folders.add(path.parent)
            sums[name] = _durable(path, partial(path.write_bytes, content))
    while state:
        name = next(iter(state))
        path = folder / name
        # What a failed write leaves goes at once: the reason must still fit into the log of a full disk.
        with writing("checkpoint file", path, scratch=path):
            sums[name] = _durable(path, partial(_save, state.pop(name), path))
    for each in folders:
        sync(each)
    return sums


def _write_timed(state: dict[str, Any], constants: dict[str, bytes], folder: Path, started: float) -> Written:
    sums = write(state, constants, folder)
    return Written(time.perf_counter() - started, sums)


def _save(state: Any, path: Path) -> None:
    # Through a Python file, whose errors name their reason.
    with path.open("wb") as file:
        torch.save(state, file)


def _durable(path: Path, save: Callable[[], object]) -> FileSum:
    save()
    sync(path)
    return FileSum.of(path)


def _parameters(module: torch.nn.Module) -> dict[str, Any]:
    # A dict of its own, though not its tensors; torch.save keeps the attributes it carries, too.
    state = module.state_dict()
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    for name, value in state.items():
        # Tied tensors stay one: copied, and written, once.
        key = (_local(value).data_ptr(), value.shape)
        if key not in copies:
            copies[key] = _on_host(value)
        state[name] = copies[key]
    return state


def _optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    state = optimizer.state_dict()
    # Its inner dicts are the optimizer's own.
    state["state"] = {
        index: {key: _on_host(value) if isinstance(value, Tensor) else value for key, value in entries.items()}
        for index, entries in state["state"].items()
    }
    state["param_groups"] = copy.deepcopy(state["param_groups"])
    return state


def _on_host(tensor: Tensor) -> Tensor:
    """A copy on the CPU; of a sharded tensor, of this rank's shard."""
    return tensor.detach().to("cpu", copy=True)


def _local(tensor: Tensor) -> Tensor:
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor
