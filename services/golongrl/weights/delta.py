"""What changed between two files of one size: the positions of the words that differ, and their bits. Pure.

After a step at a usual learning rate 1 to 3 % of a model's bfloat16 elements have changed, most of them by their last
bit. A *delta* has for each changed word the distance from the one before and the XOR of old and new value, byte by byte
in planes (the first bytes of all words, then the second ones), compressed with zstd. A word is as wide as an element.

Invariants:
- `patched(old, difference(old, new, width)) == new`, to the bit, whatever the files hold;
- a delta that would not be much smaller than the file is not made;
- nothing that a delta says is trusted: what does not fit its file is refused.
"""

from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from golongrl.errors import GolongrlError

_SCHEMA = 1
# A delta must save half of the file at least: it costs the reader a pass over the old file, too.
_WORTH = 0.5
# Level 3 is zstd's own default: level 1 gives a tenth more bytes, level 9 takes four times as long for 2 % fewer.
_CODEC = pa.Codec("zstd", compression_level=3)
_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class DeltaError(GolongrlError, ValueError):
    """A delta does not fit its file, or is damaged."""


def difference(old: bytes, new: bytes, width: int) -> bytes | None:
    """The delta that makes `new` of `old`; None if their sizes differ or a delta would not be worth it.

    Args:
        width: bytes of a word: 1, 2, 4 or 8. Files that are no multiple of it are compared byte by byte.
    """
    if len(old) != len(new):
        return None
    width = width if len(new) % width == 0 else 1
    before, after = (np.frombuffer(content, _WORDS[width]) for content in (old, new))
    places = np.flatnonzero(before != after)
    # Uncompressible, a changed word would take its own width and a byte or two for its place.
    if places.size * (width + 1) * _WORTH > len(new):
        return None
    gaps = np.diff(places, prepend=-1).astype(np.uint32)
    flips = before[places] ^ after[places]
    packed: bytes = msgpack.packb(
        {
            "schema": _SCHEMA, "bytes": len(new), "width": width, "count": int(places.size),
            "gaps": _packed(gaps), "flips": _packed(flips),
        }
    )  # fmt: skip
    return packed if len(packed) <= _WORTH * len(new) else None


def patched(old: bytes, delta: bytes) -> bytes:
    """The new file.

    Raises:
        DeltaError: the delta is none, or not of this file.
    """
    parts = _read(delta)
    if parts["bytes"] != len(old):
        raise DeltaError(f"the delta is for a file of {parts['bytes']} bytes, this one has {len(old)}")
    width, count = parts["width"], parts["count"]
    gaps, flips = _unpacked(parts["gaps"], count, 4), _unpacked(parts["flips"], count, width)
    places = np.cumsum(gaps, dtype=np.int64) - 1
    if count and (gaps.min() == 0 or places[-1] >= len(old) // width):
        raise DeltaError("the delta's places are not in its file")
    words = np.frombuffer(old, _WORDS[width]).copy()
    words[places] ^= flips
    return words.tobytes()


def changed(delta: bytes) -> int:
    """How many words a delta changes. Raises DeltaError."""
    return int(_read(delta)["count"])


def _read(delta: bytes) -> dict[str, Any]:
    try:
        parts = msgpack.unpackb(delta)
    except (ValueError, msgpack.UnpackException) as error:
        raise DeltaError(f"the delta is damaged: {error}") from error
    sound = (
        isinstance(parts, dict)
        and parts.get("schema") == _SCHEMA
        and all(isinstance(parts.get(key), int) for key in ("bytes", "width", "count"))
        and all(isinstance(parts.get(key), bytes) for key in ("gaps", "flips"))
        and parts["width"] in _WORDS
        and 0 <= parts["count"] <= parts["bytes"] // parts["width"]
    )
    if not sound:
        raise DeltaError("the delta is damaged, or of another version of this program")
    return dict(parts)


def _packed(words: NDArray[Any]) -> bytes:
    planes = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), words.itemsize).T
    compressed: bytes = _CODEC.compress(np.ascontiguousarray(planes).tobytes(), asbytes=True)
    return compressed


def _unpacked(packed: bytes, count: int, width: int) -> NDArray[Any]:
    try:
        raw = _CODEC.decompress(packed, decompressed_size=count * width, asbytes=True)
    except (OSError, pa.ArrowException) as error:
        raise DeltaError(f"the delta is damaged: {error}") from error
    if len(raw) != count * width:
        raise DeltaError("the delta is damaged: a part is too short")
    planes = np.frombuffer(raw, np.uint8).reshape(width, count)
    return np.ascontiguousarray(planes.T).reshape(-1).view(_WORDS[width])
