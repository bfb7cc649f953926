"""What an unmodified SGLang 0.5.23 was asked and answered, recorded: `NUMBER_NAME.json` in the order it happened."""

import json
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parents[1] / "recordings" / "sglang-0.5.23"


def recorded(name: str) -> Any:
    """A recording: {name, request {method, path, body}, response {status, content_type, body}, elapsed_s}."""
    return json.loads((_FOLDER / f"{name}.json").read_text("utf-8"))


def by_number() -> dict[int, Any]:
    """All of them by number."""
    return {int(path.name.partition("_")[0]): recorded(path.stem) for path in _FOLDER.glob("*.json")}
