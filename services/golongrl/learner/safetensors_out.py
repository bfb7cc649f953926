"""Hugging Face safetensors in bounded shards, written by all ranks together. No verl, no process group.

Every rank sees every (gathered) tensor in the same order and so cuts the same shards; rank r keeps and writes the
shards r, r + W, r + 2W ... At most one shard is in a rank's memory at a time.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

# Hugging Face's own default; a reader needs this much memory at a time.
SHARD_BYTES = 5 << 30

INDEX = "model.safetensors.index.json"


@dataclass(frozen=True)
class ExportedFile:
    """A file of published weights and the tensors in it."""

    name: str
    bytes: int
    sha256: str
    tensors: tuple[str, ...]
    tensor_bytes: int


def write_shards(
    tensors: Iterable[tuple[str, Tensor]],
    folder: Path,
    *,
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
    rank: int = 0,
    ranks: int = 1,
) -> list[ExportedFile]:
    """Write this rank's shards of `tensors` (the same on every rank, in the same order), floats cast to `dtype`.

    Returns:
        The files written by this rank, durable (fsync), under their final names
        `model.safetensors` or `model-00001-of-00003.safetensors`.
    """
    held: dict[str, Tensor] = {}
    written: list[tuple[int, Path, tuple[str, ...], int]] = []
    shard, filled = 0, 0

    def flush() -> None:
        if held:
            path = folder / f"shard-{shard:05d}.part"
            save_file(held, path, metadata={"format": "pt"})
            written.append((shard, path, tuple(held), sum(t.nbytes for t in held.values())))
            held.clear()

    for name, tensor in tensors:
        size = tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.element_size())
        if filled and filled + size > shard_bytes:
            flush()
            shard, filled = shard + 1, 0
        filled += size
        if shard % ranks == rank:
            # A copy in any case: what the engine yields may alias weights that the next step changes.
            held[name] = (
                tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None, copy=True).contiguous()
            )
    flush()
    return [_finish(folder, path, index, shard + 1, names, size) for index, path, names, size in written]


def index_json(files: Iterable[ExportedFile]) -> str | None:
    """The index of a sharded folder, as transformers and SGLang read it; None where one file holds everything."""
    files = sorted(files, key=lambda file: file.name)
    if len(files) == 1:
        return None
    weight_map = {tensor: file.name for file in files for tensor in file.tensors}
    total = sum(file.tensor_bytes for file in files)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)


def file_sha256(path: Path) -> str:
    """The file's sha256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Make a file or folder durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finish(
    folder: Path, part: Path, index: int, total: int, names: tuple[str, ...], tensor_bytes: int
) -> ExportedFile:
    name = "model.safetensors" if total == 1 else f"model-{index + 1:05d}-of-{total:05d}.safetensors"
    path = part.rename(folder / name)
    sync(path)
    return ExportedFile(name, path.stat().st_size, file_sha256(path), names, tensor_bytes)
