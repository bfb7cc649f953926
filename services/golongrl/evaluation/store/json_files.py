"""JSON objects in the folder of an evaluation, which a person or a full disk may have damaged."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from golongrl.errors import InputError
from golongrl.reading import read_text


def read_json(
    path: Path, most_bytes: int, whole: Callable[[Mapping[str, Any]], bool], otherwise: str
) -> dict[str, Any] | None:
    """What the file says; None where there is none.

    Args:
        whole: whether an object has all that its readers rely on.
        otherwise: what is said of one that has not.

    Raises:
        InputError: it cannot be read, is longer than `most_bytes`, or not whole.
    """
    try:
        found = json.loads(read_text(path, most_bytes))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    if not isinstance(found, dict) or not whole(found):
        raise InputError(f"{path}: {otherwise}")
    return found
