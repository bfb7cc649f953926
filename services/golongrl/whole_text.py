"""JSON may escape one half of a surrogate pair, which is no character: UTF-8 cannot carry it, so neither a request nor
a file can. It is read as U+FFFD, as bytes that are no character are.
"""

import json
from typing import Any


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none.
        RecursionError: it nests too deep.
    """
    return whole(json.loads(text))


def whole(value: Any) -> Any:
    """A JSON value whose texts UTF-8 can carry."""
    if isinstance(value, str):
        if value.isascii():  # most are, and a row may have 16 MB
            return value
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [whole(one) for one in value]
    if isinstance(value, dict):
        return {whole(key): whole(one) for key, one in value.items()}
    return value
