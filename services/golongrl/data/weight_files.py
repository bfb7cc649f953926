"""What a model folder's safetensors hold, read from their headers: no weights are loaded, and torch is not needed.

A file is `<header length, 8 bytes><JSON header><tensors>`; the header says where each tensor lies, so a file that was
cut, or a shard that is missing, shows here and not minutes later in a rank. What the safetensors library refuses is
refused here: the tensors of a file lie one after another, without a hole or an overlap, up to its end.
"""

import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from golongrl.data import keys_once
from golongrl.data.errors import DataError, Faults
from golongrl.errors import InputError
from golongrl.reading import other_kind, read_text, refuse_special

# What transformers looks for: the whole, or which file holds which tensor.
WHOLE: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
# A name alone: a path could lead out of the folder.
_FILE: Final = re.compile(r"[^/\\\0]+\.safetensors")
# As the safetensors library limits it.
_LONGEST_HEADER: Final = 100_000_000
# Bits of an element, by safetensors' names.
_BITS: Final = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64,
    "C64": 64,
}  # fmt: skip
FLOATS: Final = frozenset(name for name in _BITS if name.startswith(("F", "BF")))
# As the safetensors library counts bytes.
_MOST_BYTES: Final = 1 << 64
# Tensors of any model have fewer dimensions.
_MOST_DIMENSIONS: Final = 64
_ENTRY: Final = frozenset({"dtype", "shape", "data_offsets"})
# Characters of a name in a message.
_LONGEST_NAME: Final = 200
# Bytes that show what a file is instead.
_LONGEST_MARK: Final = 64
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
        DataError: naming each file that is missing, truncated or unreadable.
    """
    found, faults = [], Faults()
    for file in sorted(folder.glob("*.safetensors")):
        with faults.told():
            found += _tensors(file)
    faults.refuse()
    _check_once(found)
    if (folder / INDEX).exists():
        _check_index(folder, found)
    return sorted(found, key=lambda tensor: tensor.name)


def _check_index(folder: Path, found: list[StoredTensor]) -> None:
    """Every tensor that the index names is in the file that it says, and each file has one: engines read them all."""
    path = folder / INDEX
    try:
        weight_map = keys_once.loads(read_text(path, _LONGEST_HEADER))["weight_map"]
        named = {(str(name), str(file)) for name, file in weight_map.items()}
    except (InputError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"model file {path}: no readable weight_map; {_AGAIN}") from error
    if not named:
        raise DataError(f"model file {path}: its weight_map names no tensor; {_AGAIN}")
    present = {(tensor.name, tensor.file.name) for tensor in found}
    faults = Faults()
    for file in sorted({file for _, file in named}):
        if _FILE.fullmatch(file) is None:
            faults.add(
                f"model file {path}: {_cut(file)} is not a safetensors file of this folder; write the file's name alone"
            )
        elif not (folder / file).is_file():
            faults.add(f"model file {folder / file} is missing, but {INDEX} names it; {_AGAIN}")
    faults.refuse()
    for name, file in sorted(named - present):
        raise DataError(f"model file {folder / file}: no tensor {name}, but {INDEX} puts it there; {_AGAIN}")
    for file in sorted({file for _, file in present} - {file for _, file in named}):
        raise DataError(f"model file {folder / file}: {INDEX} names no tensor of it; remove the file, or move it away")


def _check_once(found: list[StoredTensor]) -> None:
    """No two files hold the same tensor: which one is loaded would depend on their order."""
    held: dict[str, StoredTensor] = {}
    for tensor in found:
        if (other := held.setdefault(tensor.name, tensor)) is not tensor:
            raise DataError(
                f"model file {tensor.file}: tensor {_cut(tensor.name)} is also in {other.file.name}; remove the file "
                "that does not belong to the model"
            )


def _tensors(path: Path) -> list[StoredTensor]:
    try:
        refuse_special(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            if kind := other_kind(start + file.read(_LONGEST_MARK)):
                raise DataError(f"model file {path}: it is {kind}")
            file.seek(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise DataError(f"model file {path}: truncated, or not a safetensors file; {_AGAIN}")
            header = keys_once.loads(file.read(length))
    except OSError as error:
        raise DataError(f"model file {path}: {error.strerror or error}") from error
    except InputError as error:
        raise error if isinstance(error, DataError) else DataError(f"model file {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"model file {path}: its header is damaged: {error}; {_AGAIN}") from error
    if not isinstance(header, dict):
        raise DataError(f"model file {path}: its header is damaged; {_AGAIN}")
    first = 8 + length
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise DataError(f"model file {path}: the __metadata__ of its header is damaged; {_AGAIN}")
    tensors = [_tensor(path, name, entry, first) for name, entry in header.items()]
    if not tensors:
        raise DataError(f"model file {path}: no tensors in it; {_AGAIN}")
    end = _check_places(path, tensors, first)
    if end != size:
        how = "truncated" if size < end else "longer than its header says"
        raise DataError(f"model file {path}: {how} ({size} bytes, the header says {end}); {_AGAIN}")
    return tensors


def _check_places(path: Path, tensors: list[StoredTensor], first: int) -> int:
    """Where the last tensor ends; each begins where the one before it ends."""
    end, before = first, "the header"
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != end:
            how = "overlaps with" if tensor.start < end else "leaves a hole behind"
            raise DataError(f"model file {path}: tensor {_cut(tensor.name)} {how} {before}; {_AGAIN}")
        end, before = tensor.end, f"tensor {_cut(tensor.name)}"
    return end


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _tensor(path: Path, name: str, entry: Any, first: int) -> StoredTensor:
    try:
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        # First the types: a long text times a number fills the memory, and true is a number in Python.
        fits = entry.keys() == _ENTRY and isinstance(shape, list) and len(shape) <= _MOST_DIMENSIONS
        fits = fits and all(type(n) is int and 0 <= n < _MOST_BYTES for n in (*shape, begin, end))
        fits = fits and (end - begin) * 8 == _elements(shape) * _BITS[dtype]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"model file {path}: the header of tensor {_cut(name)} is damaged; {_AGAIN}") from error
    if not fits:
        raise DataError(f"model file {path}: the header of tensor {_cut(name)} is damaged; {_AGAIN}")
    return StoredTensor(name, path, dtype, tuple(shape), first + begin, first + end)


def _elements(shape: list[int]) -> int:
    """Their number.

    Raises:
        ValueError: at some place the library's product overflows, whatever follows it.
    """
    product = 1
    for length in shape:
        product *= length
        if product >= _MOST_BYTES:
            raise ValueError(shape)
    return product
