"""Routes as files: `write_routes` before a group is submitted, `read_routes` when it is trained.

A file is one msgpack map: the shapes, then the prompt's rows and each response's, layer by layer and compressed with
zstd (with 128 experts an eighth is saved by the number's unused bit alone, at the speed of the checksum).

Invariants:
- a file is complete and durable under its name, or not there: it is written under another name and renamed;
- nothing is read whose size and sha256 are not the reference's, and no expert that the model does not have;
- the folder holds a marker, and nothing is written into or deleted from one that does not.
"""

import json
import os
import reprlib
import secrets
from collections.abc import Collection, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from golongrl import __version__, files
from golongrl.errors import GolongrlError, is_full, no_space
from golongrl.files import sync
from golongrl.routes.groups import GroupRoutes, expert_type
from golongrl.routes.reference import NAME, RoutesReference

# In the weight store's folder.
FOLDER = "routes"
# Shows that a folder of routes is the program's own.
MARKER = "golongrl-routes.json"
# Ends the name of a file that is being written, which begins with the name that it will have.
STAGED = ".tmp"
_SCHEMA = 1
# Level 3 takes half as long again for 0.2 % fewer bytes.
_LEVEL = 1


class RoutesError(GolongrlError):
    """Routes could not be written, or what is stored is missing, damaged, or not of this group."""


class NoRoutesSpaceError(RoutesError):
    """The storage is full."""


def folder_in(store: Path) -> Path:
    """Where a weight store keeps routes."""
    return store / FOLDER


def open_folder(folder: Path) -> None:
    """Make the folder with its marker, unless it is there.

    Raises:
        ForeignFilesError: it holds something else.
        OSError: the storage refused.
    """
    if files.refuse_foreign(folder, (MARKER,), "of a learner").state is not files.PlaceState.OWN:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / MARKER, json.dumps({"program": f"golongrl {__version__}"}))


def stored_in(folder: Path) -> list[str]:
    """Names of the files of routes, staged ones too; none where the folder is not the program's.

    Raises:
        OSError: it cannot be read.
    """
    if not (folder / MARKER).is_file():
        return []
    return sorted(name for name in os.listdir(folder) if owner_of(name) is not None)


def orphans(stored: Iterable[str], live: Collection[str]) -> list[str]:
    """Which stored files belong to no group that is still wanted.

    Args:
        stored: names of files.
        live: names of the routes of all groups that the queue holds, asked for after `stored` was listed. A name that
            is not among them never will be again, because each attempt at a row has a name of its own.
    """
    return [name for name in stored if owner_of(name) not in live]


def write_routes(folder: Path, name: str, routes: GroupRoutes) -> RoutesReference:
    """Store routes durably under `name` (`object_name` of the lease). Blocks.

    Raises:
        RoutesError: the folder is not there or not the program's, or the storage refused; nothing is left behind.
    """
    if not NAME.match(name):
        raise ValueError(f"{name!r} is not a name of routes")
    if not (folder / MARKER).is_file():
        raise RoutesError(
            f"{folder} is not the learner's folder of routes ({MARKER} is missing): is the weight store mounted here?"
        )
    content = _packed(routes)
    staged = folder / f"{name}.{secrets.token_hex(4)}{STAGED}"
    try:
        try:
            with staged.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            staged.rename(folder / name)
            sync(folder)
        finally:
            staged.unlink(missing_ok=True)
    except OSError as error:
        if is_full(error):
            raise NoRoutesSpaceError(f"{no_space(folder)}: the routes {name} ({len(content)} bytes)") from error
        raise RoutesError(f"routes {folder / name}: cannot be written: {error.strerror or error}") from error
    return RoutesReference(name, sha256(content).hexdigest(), len(content))


def read_routes(folder: Path, reference: RoutesReference) -> GroupRoutes:
    """Routes that were stored, checked. Blocks.

    Raises:
        RoutesError: they are missing, damaged, or no routes.
    """
    if not NAME.match(reference.name):
        raise RoutesError(f"{reference.name!r} is not a name of routes")
    path = folder / reference.name
    try:
        with path.open("rb") as file:
            # Before anything is read: the reference may ask for more bytes than there is memory.
            size = os.fstat(file.fileno()).st_size
            if size != reference.bytes:
                raise RoutesError(f"routes {path}: {size} bytes, {reference.bytes} were written")
            content = file.read(size)
    except OSError as error:
        raise RoutesError(f"routes {path}: {error.strerror or error}") from error
    if sha256(content).hexdigest() != reference.sha256:
        raise RoutesError(f"routes {path}: their sha256 differs from the one they were written with")
    try:
        return _unpacked(content)
    except (ValueError, KeyError, TypeError, OSError, msgpack.UnpackException) as error:
        raise RoutesError(f"routes {path}: {error}") from error


def remove_routes(folder: Path, names: Iterable[str]) -> int:
    """Delete files of routes by name, staged ones too; how many were there. What cannot be deleted stays."""
    if not (folder / MARKER).is_file():
        return 0
    removed = 0
    for name in names:
        if owner_of(name) is not None:
            with suppress(OSError):
                (folder / name).unlink()
                removed += 1
    return removed


def owner_of(name: str) -> str | None:
    """The name of the routes whose file this is, or will be when it is written; None if it is no such file."""
    owner = name.rsplit(".", 2)[0] if name.endswith(STAGED) else name
    return owner if NAME.match(owner) else None


def _packed(routes: GroupRoutes) -> bytes:
    parts = [routes.prompt, *routes.responses]
    content: bytes = msgpack.packb(
        {
            "schema": _SCHEMA, "experts": routes.experts, "layers": routes.layers, "top_k": routes.top_k,
            "rows": [len(part) for part in parts], "parts": [_compressed(part) for part in parts],
        }
    )  # fmt: skip
    return content


def _unpacked(content: bytes) -> GroupRoutes:
    found = msgpack.unpackb(content)
    if not isinstance(found, dict) or found.get("schema") != _SCHEMA:
        raise ValueError("they are not routes, or of another version")
    layers, top_k, experts = found["layers"], found["top_k"], found["experts"]
    for number in (layers, top_k, experts, *found["rows"]):
        if type(number) is not int or number < 0:
            raise ValueError(f"{reprlib.repr(number)} is not a number of layers, experts or rows")
    dtype = expert_type(experts)
    prompt, *responses = (
        _decompressed(part, (rows, layers, top_k), dtype)
        for rows, part in zip(found["rows"], found["parts"], strict=True)
    )
    return GroupRoutes(prompt, tuple(responses), experts)


def _compressed(rows: NDArray[Any]) -> bytes:
    # Layer by layer, because each has its own favourites among the experts.
    by_layer = np.ascontiguousarray(rows.transpose(1, 0, 2))
    packed: bytes = _codec().compress(by_layer, asbytes=True)
    return packed


def _decompressed(packed: bytes, shape: tuple[int, int, int], dtype: "np.dtype[Any]") -> NDArray[Any]:
    rows, layers, top_k = shape
    size = rows * layers * top_k * dtype.itemsize
    try:
        raw = _codec().decompress(packed, decompressed_size=size, asbytes=True)
    except (MemoryError, OverflowError) as error:
        raise ValueError(f"{rows} rows of {layers} layers with {top_k} experts do not fit in memory") from error
    by_layer = np.frombuffer(raw, dtype).reshape(layers, rows, top_k)
    return np.ascontiguousarray(by_layer.transpose(1, 0, 2))


def _codec() -> Any:
    # Only workers and learners have pyarrow, and import it for their data anyway.
    import pyarrow

    return pyarrow.Codec("zstd", compression_level=_LEVEL)
