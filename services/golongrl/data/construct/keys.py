"""Hashes that name rows and shards: the same content gives the same name, in every process and release."""

import hashlib
import json
from collections.abc import Iterable, Mapping

# 128 bits: no two of a billion rows share one by chance.
_DIGITS = 32


def digest(*parts: object) -> str:
    """Hex digits of a hash of JSON values; bytes count as their hex digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS]


def row_key(stage: str, version: int, settings: Mapping[str, object]) -> str:
    """What the keys of all rows of a stage have in common."""
    return digest(stage, version, settings)


def shard_name(index: int, keys: Iterable[str]) -> str:
    """A shard's file: its place, and the work it holds."""
    return f"{index:05d}-{digest(*keys)[:16]}.parquet"


def _plain(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"{type(value).__name__} has no place in a key")
