"""A rank's share of the weights on its way out: copied, written in the background, and sent where engines ask for it.

Invariants: taking the share is collective, because every rank gathers every tensor; one version is staged at a time;
only the first rank of a run that broadcasts has a sender, which begins with its first version.
"""

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from golongrl.broadcast.process import SenderFailedError, SenderProcess, reachable
from golongrl.learner.weights.export import DeltaWriter, ExportedFile, Staged, take_shards, write_taken
from golongrl.recipe import Recipe


class WeightStaging:
    """What one rank stages."""

    def __init__(self, recipe: Recipe) -> None:
        self._dtype: torch.dtype = getattr(torch, recipe.model.dtype)
        self._sender: SenderProcess | None = None
        self._staged: tuple[str, Future[list[ExportedFile]]] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="weights")
        on_disk = recipe.learner.weights == "disk"
        self._deltas = DeltaWriter(self._dtype) if on_disk and recipe.learner.weight_base_every > 1 else None

    def begin(self, tensors: Iterable[tuple[str, Tensor]], folder: str | None, parent: str | None) -> None:
        """Copy this rank's share, and write it in the background; see `LearnerRank.stage`."""
        durable = folder is not None  # what the sender reads goes with the host in any case
        if folder is None:
            folder = str(self._sending_folder()) if dist.get_rank() == 0 else ""
        ranks = dist.get_world_size() if durable else 1
        taken = take_shards(tensors, dtype=self._dtype, rank=dist.get_rank(), ranks=ranks)
        if durable and self._deltas is not None:
            before = None if parent is None else Path(parent)
            files = self._writer.submit(self._deltas.write, taken, Path(folder), before)
        else:
            files = self._writer.submit(write_taken, taken, Path(folder), durable=durable)
        self._staged = folder, files

    def finished(self) -> Staged:
        """Wait until this rank's share is written."""
        assert self._staged is not None
        folder, files = self._staged
        return Staged(folder, files.result())

    def hold(self, folder: str, version: int, lineage: str) -> str | None:
        """Send what is in `folder` from now on; where engines ask for it, or None where this rank does not send."""
        if self._sender is None:
            return None
        self._sender.hold(Path(folder), version, lineage)
        return self._sender.source

    def close(self) -> None:
        """End the sender and delete what it sends."""
        if self._sender is not None:
            self._sender.close()

    def _sending_folder(self) -> Path:
        if self._sender is None:
            self._sender = SenderProcess(reachable(os.environ), _leave)
        return self._sender.folder()


def _leave(_: SenderFailedError) -> None:
    """End this rank, and with it the job, which is then restarted: without a sender the engines would wait for these
    weights forever, and the learner for the engines."""
    os._exit(1)
