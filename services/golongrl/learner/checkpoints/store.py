"""Checkpoints in verl's layout, complete or absent, with the run's own state beside the ranks'.

    OUT/checkpoints/global_step_N/actor/{model,optim,extra_state}_world_size_W_rank_R.pt, actor/huggingface/
    OUT/checkpoints/global_step_N/learner.json     position in the queue, lineage, data order
    OUT/checkpoints/latest_checkpointed_iteration.txt

Invariants: a folder `global_step_N` is written under another name, made durable and renamed; the tracker file follows
by rename, last; only then is the queue told (commit), so a crash anywhere leaves the older checkpoint in force.
"""

import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from golongrl.errors import InputError
from golongrl.learner.fsync import sync, writing
from golongrl.queue import Behind

TRACKER = "latest_checkpointed_iteration.txt"
STATE = "learner.json"
ROWS = "trained_rows.npy"
SCHEMA = 1
# What `learner.resume` says beside paths.
AUTO, NEVER = "auto", "never"
_FOLDER = "global_step_"


class CheckpointError(InputError):
    """A checkpoint cannot be resumed from; the message names it and says what to do."""


@dataclass(frozen=True)
class LearnerState:
    """What the run knows at a checkpoint beyond the ranks' state (parameters, optimizer, scheduler, RNG)."""

    step: int  # optimizer steps done = policy version = last batch trained
    lineage: str
    checksum: str  # of the published weights of this version; "" where none were published
    ranks: int
    seed: int
    groups_per_step: int
    rows: int
    order: str  # sha256 of the data order
    schema: int = SCHEMA


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on disk."""

    folder: Path
    state: LearnerState
    rows: NDArray[np.int32]  # (epoch, row) of all groups trained so far: [N, 2]

    @property
    def actor(self) -> Path:
        """The ranks' files."""
        return self.folder / "actor"

    @property
    def behind(self) -> Behind:
        """The steps done and the rows trained in them."""
        return Behind(self.state.step, self.rows)


class Checkpoints:
    """The checkpoints of a run, under `OUT/checkpoints`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self, step: int) -> Path:
        """An empty staging folder; the ranks write into its `actor`. No other learner's ranks know its name: those of
        one that was killed may be writing still.

        Raises:
            NotWrittenError: the folder cannot be made.
        """
        staging = self.root / f"{_FOLDER}{step}.{secrets.token_hex(4)}.tmp"
        with writing("checkpoint", staging):
            (staging / "actor").mkdir(parents=True)
        return staging

    def seal(self, staging: Path, state: LearnerState, rows: NDArray[np.int32], keep: int) -> Checkpoint:
        """Make the staged checkpoint the latest; delete all but the `keep` latest.

        Args:
            rows: the (epoch, row) of all groups trained so far.

        Raises:
            NotWrittenError: it could not be; the one before stays the latest.
        """
        final = self.root / f"{_FOLDER}{state.step}"
        with writing("checkpoint", final):
            np.save(staging / ROWS, rows)
            self._seal(staging, final, state)
        self._prune(state.step, keep)
        return Checkpoint(final, state, rows)

    def _seal(self, staging: Path, final: Path, state: LearnerState) -> None:
        (staging / STATE).write_text(json.dumps(asdict(state), indent=1), "utf-8")
        for folder, _, names in os.walk(staging):
            for name in names:
                sync(Path(folder) / name)
            sync(Path(folder))
        shutil.rmtree(final, ignore_errors=True)
        staging.rename(final)
        sync(self.root)
        tracker = self.root / f"{TRACKER}.tmp"
        tracker.write_text(str(state.step), "utf-8")
        sync(tracker)
        tracker.rename(self.root / TRACKER)
        sync(self.root)

    def find(self, resume: str) -> Checkpoint | None:
        """A checkpoint: the latest (`auto`), none (`never`), or the folder named.

        Raises:
            CheckpointError: it is not complete or not a checkpoint of this program.
        """
        if resume == NEVER:
            return None
        if resume != AUTO:
            return _read(Path(resume))
        step = self.latest()
        return None if step is None else _read(self.root / f"{_FOLDER}{step}")

    def latest(self) -> int | None:
        """The step of the latest checkpoint, if there is any; its files are not looked at.

        Raises:
            CheckpointError: the tracker file cannot be read.
        """
        tracker = self.root / TRACKER
        try:
            return int(tracker.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{tracker}: {error}; write the step of the latest checkpoint into it") from error

    def _prune(self, latest: int, keep: int) -> None:
        steps = sorted(int(s) for p in self.root.glob(f"{_FOLDER}*") if (s := p.name.removeprefix(_FOLDER)).isdecimal())
        for step in [s for s in steps if s <= latest][:-keep]:
            shutil.rmtree(self.root / f"{_FOLDER}{step}", ignore_errors=True)
        for path in self.root.glob(f"{_FOLDER}*.tmp"):
            shutil.rmtree(path, ignore_errors=True)


def step_of(folder: Path) -> int:
    """The step of the checkpoint `folder`; by its name, `global_step_N`, where it is not there any more.

    Raises:
        CheckpointError: neither says.
    """
    try:
        return _read(folder).state.step
    except CheckpointError:
        step = folder.name.removeprefix(_FOLDER)
        if folder.name.startswith(_FOLDER) and step.isdecimal():
            return int(step)
        raise


def check_same_data(checkpoint: Checkpoint, *, seed: int, groups_per_step: int, rows: int, order: str) -> None:
    """Refuse to go on in another order of the data: step N would be other prompts.

    Raises:
        CheckpointError: naming what differs.
    """
    state = checkpoint.state
    now = {"seed": seed, "queue.groups_per_step": groups_per_step, "rows of data": rows, "data order": order}
    then = {
        "seed": state.seed,
        "queue.groups_per_step": state.groups_per_step,
        "rows of data": state.rows,
        "data order": state.order,
    }
    for name, value in now.items():
        if then[name] != value:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder}: {name} was {then[name]}, is {value}; restore it, or start a new run"
            )


def _read(folder: Path) -> Checkpoint:
    try:
        fields = json.loads((folder / STATE).read_text("utf-8"))
        if fields.get("schema") != SCHEMA:
            raise CheckpointError(f"checkpoint {folder}: schema {fields.get('schema')}, this version reads {SCHEMA}")
        state = LearnerState(**fields)
        rows = np.load(folder / ROWS)
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoint {folder}: {error}; name another with learner.resume") from error
    missing = [rank for rank in range(state.ranks) if not (folder / "actor" / _model_file(state.ranks, rank)).is_file()]
    if missing:
        raise CheckpointError(f"checkpoint {folder}: files of rank {missing[0]} are missing")
    return Checkpoint(folder, state, rows)


def _model_file(ranks: int, rank: int) -> str:
    return f"model_world_size_{ranks}_rank_{rank}.pt"
