"""The rewards of a pool on disk: a file for each batch of groups that the driver took, whole or absent."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from golongrl import files
from golongrl.data.construct.errors import PipelineError
from golongrl.json_files import read_json

# A batch has a few thousand rewards.
_MOST_BYTES = 64 << 20
# Of a step in a file name, so that names are in the order of the steps.
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """The rewards of one prompt's responses; None is unscored. `row` is its place in the prepared data."""

    row: int
    rewards: tuple[float | None, ...]


_GROUPS = TypeAdapter(list[GroupRewards])


def path_of(folder: Path, step: int) -> Path:
    """The file with the rewards of a step."""
    return folder / f"rewards-{step:0{_DIGITS}d}.json"


def write(folder: Path, step: int, groups: list[GroupRewards]) -> None:
    """Keep the rewards of a batch; they are durable when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"row": group.row, "rewards": list(group.rewards)} for group in groups]
    files.write_text(path_of(folder, step), json.dumps(rows) + "\n")


def read(folder: Path) -> Iterator[tuple[int, list[GroupRewards]]]:
    """(step, its groups) of the steps there are, in order, without a gap from step 1.

    Raises:
        PipelineError: a file is damaged.
    """
    step = 1
    while (path := path_of(folder, step)).is_file():
        otherwise = "not a step's rewards; delete it and the later ones to roll their prompts out again"
        yield step, read_json(path, _MOST_BYTES, _GROUPS, otherwise, PipelineError) or []
        step += 1
