"""Data in which a key stands twice is refused, as in a recipe's YAML: of two values one reader takes the first and
another the last, and neither says so. So is a number that becomes infinity when it is read.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

# Characters of a key in a message.
_LONGEST: Final = 80


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is none, a key stands twice in an object, or a number is too large for a float.
        RecursionError: it nests too deep.
    """
    return json.loads(text, object_pairs_hook=once, parse_float=finite)


def finite(text: str) -> float:
    """A number with a fraction or exponent; for `parse_float`.

    Raises:
        ValueError: it is too large for a float, which Python would read as infinity without a word.
    """
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:_LONGEST]} is too large")
    return number


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as Python has it; for `object_pairs_hook`.

    Raises:
        ValueError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {_twice(key for key, _ in pairs)} stands in one object twice")
    return found


def refuse_columns(schema: "pa.Schema") -> None:
    """
    Raises:
        ValueError: two columns of a table, or two fields of a struct in it, have the same name.
    """
    _refuse_fields(list(schema), "")


def refuse_names(names: Iterable[str]) -> None:
    """
    Raises:
        ValueError: two columns have the same name.
    """
    if (name := _twice(names)) is not None:
        raise ValueError(f"the column {name} stands in it twice")


def _refuse_fields(fields: "list[pa.Field]", path: str) -> None:
    import pyarrow as pa

    if (name := _twice(field.name for field in fields)) is not None:
        raise ValueError(f"the column {path}{name} stands in it twice")
    for field in fields:
        if pa.types.is_nested(field.type):
            inner = [field.type.field(number) for number in range(field.type.num_fields)]
            _refuse_fields(inner, f"{path}{field.name[:_LONGEST]}.")


def _twice(names: Iterable[str]) -> str | None:
    return next((name[:_LONGEST] for name, count in Counter(names).items() if count > 1), None)
