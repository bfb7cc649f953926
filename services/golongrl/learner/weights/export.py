"""Hugging Face safetensors in bounded shards, written by all ranks together. No verl, no process group.

Every rank sees every (gathered) tensor in the same order and so cuts the same shards; rank r keeps and writes the
shards r, r + W, r + 2W ...
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from golongrl.errors import GolongrlError
from golongrl.files import sync
from golongrl.learner.fsync import writing
from golongrl.weights.delta import difference
from golongrl.weights.manifest import DELTA_SUFFIX

# Small enough that all ranks of a large learner have a share, and the same whatever their number, so that equal weights
# have equal files; large enough that a 30B model is a few hundred of them.
SHARD_BYTES = 128 << 20

INDEX = "model.safetensors.index.json"
_METADATA = {"format": "pt"}


@dataclass(frozen=True)
class ExportedDelta:
    """What is stored in place of a file: what changed since the file with the sha256 `of`."""

    bytes: int
    sha256: str
    of: str


class WeightsNotFiniteError(GolongrlError):
    """Weights hold NaN or an infinite number, also one that only their type on disk cannot hold; the message names the
    tensors."""


@dataclass(frozen=True)
class ExportedFile:
    """A file of published weights and the tensors in it."""

    name: str
    bytes: int
    sha256: str
    tensors: tuple[str, ...]
    tensor_bytes: int
    delta: ExportedDelta | None = None

    @property
    def stored_bytes(self) -> int:
        """Bytes in the store."""
        return self.bytes if self.delta is None else self.delta.bytes


@dataclass(frozen=True)
class Staged:
    """Weights as files of a folder: of one rank, or of all."""

    folder: str
    files: list[ExportedFile]


def write_shards(
    tensors: Iterable[tuple[str, Tensor]], folder: Path, *, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES
) -> list[ExportedFile]:
    """All shards by one process, cut and written in turn, so that one is in memory at a time; for the rest like
    `take_shards` and `write_taken`.

    Raises:
        WeightsNotFiniteError: as there.
    """
    cutter = _Cutter(dtype, shard_bytes, rank=0, ranks=1)
    parts = [_write_part(folder, index, held) for index, held in cutter.cut(tensors)]
    cutter.refuse_not_finite()
    return [_finish(folder, part, cutter.total, durable=True) for part in parts]


@dataclass
class TakenShards:
    """A rank's shards in host memory; writing them needs no collective call."""

    shards: dict[int, dict[str, Tensor]]
    total: int  # shards of all ranks


def take_shards(
    tensors: Iterable[tuple[str, Tensor]],
    *,
    dtype: torch.dtype,
    shard_bytes: int = SHARD_BYTES,
    rank: int = 0,
    ranks: int = 1,
) -> TakenShards:
    """Copy this rank's shards of `tensors` (the same on every rank, in the same order), floats cast to `dtype`.

    Raises:
        WeightsNotFiniteError: a tensor of this rank's shards holds a number that engines would refuse.
    """
    cutter = _Cutter(dtype, shard_bytes, rank, ranks)
    taken = TakenShards(dict(cutter.cut(tensors)), cutter.total)
    # Only now: what yields the tensors is a collective of all ranks.
    cutter.refuse_not_finite()
    return taken


def write_taken(taken: TakenShards, folder: Path, *, durable: bool = True) -> list[ExportedFile]:
    """Write shards and free the memory of each in turn; `durable` is with fsync.

    Returns:
        The files written by this rank, under their final names `model.safetensors` or
        `model-00001-of-00003.safetensors`.
    """
    files = []
    while taken.shards:
        index = next(iter(taken.shards))
        part = _write_part(folder, index, taken.shards.pop(index))
        files.append(_finish(folder, part, taken.total, durable=durable))
    return files


class DeltaWriter:
    """Writes a rank's shards as what changed since the version before, where that is less; keeps them in memory.

    Every version must be written by the same writer or be in the store, or its successor is written whole.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        self._width = dtype.itemsize
        self._before: dict[str, tuple[bytes, str]] = {}  # content and sha256

    def write(self, taken: TakenShards, folder: Path, parent: Path | None) -> list[ExportedFile]:
        """Like `write_taken`, durable.

        Args:
            parent: the folder of the version before; None writes every file whole.
        """
        files = []
        while taken.shards:
            index = next(iter(taken.shards))
            held = taken.shards.pop(index)
            name = _name(index, taken.total)
            content = save(held, metadata=_METADATA)
            files.append(self._file(folder, name, content, held, parent))
            self._before[name] = content, files[-1].sha256
        return files

    def _file(
        self, folder: Path, name: str, content: bytes, held: dict[str, Tensor], parent: Path | None
    ) -> ExportedFile:
        whole = ExportedFile(
            name,
            len(content),
            sha256(content).hexdigest(),
            tuple(held),
            sum(tensor.nbytes for tensor in held.values()),
        )
        old = None if parent is None else self._old(parent / name)
        delta = None if old is None else difference(old[0], content, self._width)
        path = folder / (name if delta is None else f"{name}{DELTA_SUFFIX}")
        with writing("weights file", path, scratch=path):
            path.write_bytes(content if delta is None else delta)
            sync(path)
        if delta is None or old is None:
            return whole
        return replace(whole, delta=ExportedDelta(len(delta), sha256(delta).hexdigest(), of=old[1]))

    def _old(self, path: Path) -> tuple[bytes, str] | None:
        """The file of the version before and its sha256: from memory, or after a restart from the store, if it is whole
        there."""
        if path.name in self._before:
            return self._before[path.name]
        if not path.is_file():
            return None
        content = path.read_bytes()
        return content, sha256(content).hexdigest()


class _Cutter:
    """Cuts a stream of tensors into shards and copies those of one rank; at the end `total` is known, and whether their
    numbers are finite."""

    def __init__(self, dtype: torch.dtype, shard_bytes: int, rank: int, ranks: int) -> None:
        self._dtype, self._shard_bytes, self._rank, self._ranks = dtype, shard_bytes, rank, ranks
        self.total = 0
        self._not_finite: list[str] = []

    def refuse_not_finite(self) -> None:
        """
        Raises:
            WeightsNotFiniteError: a tensor is not finite.
        """
        if self._not_finite:
            more = len(self._not_finite) - 1
            named = self._not_finite[0] + (f" and {more} more" if more else "")
            raise WeightsNotFiniteError(f"the weights are not finite in {self._dtype} ({named})")

    def cut(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[int, dict[str, Tensor]]]:
        held: dict[str, Tensor] = {}
        filled = 0
        for name, tensor in tensors:
            dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
            size = tensor.numel() * dtype.itemsize
            if filled and filled + size > self._shard_bytes:
                if held:
                    yield self.total, held
                held, filled = {}, 0
                self.total += 1
            filled += size
            if self.total % self._ranks == self._rank:
                # A copy in any case: what the engine yields may alias weights that the next step changes.
                cast = tensor.detach().to(dtype)
                if cast.is_floating_point() and not bool(torch.isfinite(cast).all()):
                    self._not_finite.append(name)
                held[name] = cast.to("cpu", copy=True).contiguous()
        if held:
            yield self.total, held
        self.total += 1


def index_json(files: Iterable[ExportedFile]) -> str | None:
    """The index of a sharded folder, as transformers and SGLang read it; None where one file holds everything."""
    files = sorted(files, key=lambda file: file.name)
    if len(files) == 1:
        return None
    weight_map = {tensor: file.name for file in files for tensor in file.tensors}
    total = sum(file.tensor_bytes for file in files)
    return json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)


@dataclass(frozen=True)
class _FilePart:
    index: int
    path: Path
    bytes: int
    sha256: str
    tensors: tuple[str, ...]
    tensor_bytes: int


def _write_part(folder: Path, index: int, held: dict[str, Tensor]) -> _FilePart:
    path = folder / f"shard-{index:05d}.part"
    # Not by `save_file`, which gives files mode 0600 whatever the umask: engines may run as another user.
    content = save(held, metadata=_METADATA)
    with writing("weights file", path, scratch=path):
        path.write_bytes(content)
    tensor_bytes = sum(tensor.nbytes for tensor in held.values())
    return _FilePart(index, path, len(content), sha256(content).hexdigest(), tuple(held), tensor_bytes)


def _finish(folder: Path, part: _FilePart, total: int, *, durable: bool) -> ExportedFile:
    name = _name(part.index, total)
    path = folder / name
    with writing("weights file", path):
        part.path.rename(path)
        if durable:
            sync(path)
    return ExportedFile(name, part.bytes, part.sha256, part.tensors, part.tensor_bytes)


def _name(index: int, total: int) -> str:
    return "model.safetensors" if total == 1 else f"model-{index + 1:05d}-of-{total:05d}.safetensors"
