"""The rewards of a pool on disk: a file for each batch of groups that the driver took, whole or absent."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from golongrl import files
from golongrl.data.construct.errors import PipelineError

# Of a step in a file name, so that names are in the order of the steps.
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """The rewards of one prompt's responses; None is unscored. `row` is its place in the prepared data."""

    row: int
    rewards: tuple[float | None, ...]


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
        try:
            rows = json.loads(path.read_text("utf-8"))
            groups = [GroupRewards(int(row["row"]), tuple(row["rewards"])) for row in rows]
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise PipelineError(
                f"{path}: {error}; delete it and the later ones to roll their prompts out again"
            ) from error
        yield step, groups
        step += 1
