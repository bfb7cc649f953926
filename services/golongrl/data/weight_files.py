"""What a model folder's safetensors hold, read from their headers: no weights are loaded, and torch is not needed.

A file is `<header length, 8 bytes><JSON header><tensors>`; the header says where each tensor lies, so a file that was
cut, or a shard that is missing, shows here and not minutes later in a rank.
"""

import json
import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from golongrl.data.errors import DataError

INDEX: Final = "model.safetensors.index.json"
_SHARD: Final = re.compile(r"model-\d{5}-of-(?P<of>\d{5})\.safetensors")
# As the safetensors library limits it.
_LONGEST_HEADER: Final = 100_000_000
# Bits of an element, by safetensors' names.
_BITS: Final = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip
_AGAIN: Final = "copy or download it again"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file; `start` and `end` are bytes from the beginning of the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def stored_tensors(folder: Path) -> list[StoredTensor]:
    """The tensors of all safetensors of a model folder, sorted by name.

    Raises:
        DataError: naming the file that is missing, truncated or unreadable.
    """
    files = sorted(folder.glob("*.safetensors"))
    found = [tensor for file in files for tensor in _tensors(file)]
    if (folder / INDEX).exists():
        _check_index(folder, found)
    else:
        _check_count(folder, files)
    return sorted(found, key=lambda tensor: tensor.name)


def _check_index(folder: Path, found: list[StoredTensor]) -> None:
    """Every tensor that the index names is in the file that it says."""
    path = folder / INDEX
    try:
        weight_map = json.loads(path.read_text("utf-8"))["weight_map"]
        named = {(str(name), str(file)) for name, file in weight_map.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"model file {path}: no readable weight_map; {_AGAIN}") from error
    present = {(tensor.name, tensor.file.name) for tensor in found}
    for file in sorted({file for _, file in named}):
        if not (folder / file).is_file():
            raise DataError(f"model file {folder / file} is missing, but {INDEX} names it; {_AGAIN}")
    for name, file in sorted(named - present):
        raise DataError(f"model file {folder / file}: no tensor {name}, but {INDEX} puts it there; {_AGAIN}")


def _check_count(folder: Path, files: list[Path]) -> None:
    """Without an index, the names say how many files there are."""
    counted = [found for file in files if (found := _SHARD.fullmatch(file.name))]
    if counted and len(counted) < int(counted[0]["of"]):
        raise DataError(f"model {folder}: {len(counted)} of {int(counted[0]['of'])} weight files; {_AGAIN}")


def _tensors(path: Path) -> Iterator[StoredTensor]:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise DataError(f"model file {path}: truncated, or not a safetensors file; {_AGAIN}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise DataError(f"model file {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"model file {path}: its header is damaged; {_AGAIN}") from error
    if not isinstance(header, dict):
        raise DataError(f"model file {path}: its header is damaged; {_AGAIN}")
    first = 8 + length
    end = first
    for name, entry in header.items():
        if name != "__metadata__":
            tensor = _tensor(path, name, entry, first)
            end = max(end, tensor.end)
            yield tensor
    if end != size:
        how = "truncated" if size < end else "longer than its header says"
        raise DataError(f"model file {path}: {how} ({size} bytes, the header says {end}); {_AGAIN}")


def _tensor(path: Path, name: str, entry: Any, first: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        # First the types: a long text times a number fills the memory.
        fits = all(isinstance(n, int) and n >= 0 for n in (*shape, begin, end))
        fits = fits and (end - begin) * 8 == math.prod(shape) * _BITS[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"model file {path}: the header of tensor {name} is damaged; {_AGAIN}") from error
    if not fits:
        raise DataError(f"model file {path}: the header of tensor {name} is damaged; {_AGAIN}")
    return StoredTensor(name, path, dtype, shape, first + begin, first + end)
