"""What workers elsewhere read: which round a model has now. A file beside its rounds.

Invariants: the file is whole or absent; while a driver lives, its content changes; the model is that of every round
until `ended`, so that an engine that has loaded it can stay.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from pydantic import ConfigDict, TypeAdapter, with_config

from golongrl import files
from golongrl.errors import InputError
from golongrl.json_files import read_json
from golongrl.recipe import Recipe

RECIPE: Final = "recipe.yaml"
DATA: Final = "data"


# A board has a few lines.
_MOST_BYTES: Final = 1 << 20


@with_config(ConfigDict(strict=True, extra="forbid"))
@dataclass(frozen=True, slots=True)
class Board:
    """`place` and `run` are those of the round, empty between two; `beat` counts signs of life."""

    model: str = ""
    context_length: int = 0
    dtype: str = ""
    place: str = ""
    run: str = ""
    beat: int = 0
    ended: bool = False


_BOARD: Final = TypeAdapter(Board)


def opened(recipe: Recipe, run: str, place: Path, model: Path) -> Board:
    """What is said while a round runs."""
    return Board(str(model.resolve()), recipe.model.context_length, recipe.model.dtype, str(place), run)


def name_of(place: Path) -> str:
    """The model that a round is of: `small` or `large`, of `rollouts/small-1a2b3c4d/round-000-5e6f7a8b`."""
    return place.parent.name.partition("-")[0]


def path_of(place: Path) -> Path:
    """The board of a round: `rollouts/small.json`."""
    return place.parents[1] / f"{name_of(place)}.json"


def write(path: Path, board: Board) -> None:
    """Say it, in place of what was said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(path, json.dumps(asdict(board)) + "\n")


def read(path: Path) -> Board | None:
    """What is said; None where nothing is, or nothing that can be read now, as on a shared volume that is not there."""
    try:
        return read_json(path, _MOST_BYTES, _BOARD, "not a board")
    except InputError:
        return None
