"""Data: reading, checking, building and tokenising prompts, and the order they are dealt in.

`Prepared` is what workers and the learner read; `prepare` makes it; `build` writes prompts from text; `resolve` (in
`golongrl.data.models`) finds the model whose tokenizer it needs.
"""

from typing import TYPE_CHECKING, Any

from golongrl.data.errors import DataError

if TYPE_CHECKING:
    from golongrl.data.builders import build
    from golongrl.data.chat import Chat
    from golongrl.data.models import resolve
    from golongrl.data.order import lease_order, weighted_order
    from golongrl.data.pipeline import DataReport, prepare
    from golongrl.data.prepared import Prepared, PreparedRow, open_splits
    from golongrl.data.row_files import read_rows
    from golongrl.data.rows import Row

__all__ = [
    "Chat",
    "DataError",
    "DataReport",
    "Prepared",
    "PreparedRow",
    "Row",
    "build",
    "lease_order",
    "open_splits",
    "prepare",
    "read_rows",
    "resolve",
    "weighted_order",
]  # fmt: skip

_HOMES = {
    "Chat": "chat", "Prepared": "prepared", "PreparedRow": "prepared", "DataReport": "pipeline", "Row": "rows",
    "build": "builders", "lease_order": "order", "weighted_order": "order", "open_splits": "prepared",
    "prepare": "pipeline", "read_rows": "row_files", "resolve": "models",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import a public name on first use: pyarrow and tokenizers stay out of commands that do not need them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
