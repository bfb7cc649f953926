"""Checkpoints in verl's layout, complete or absent, with the run's own state in addition to the ranks'.

    OUT/checkpoints/global_step_N/actor/{model,optim,extra_state}_world_size_W_rank_R.pt, actor/huggingface/
    OUT/checkpoints/global_step_N/learner.json       position in the queue, lineage, data order, model, recipe
    OUT/checkpoints/global_step_N/trained_rows.npy   (epoch, row) of every group trained so far
    OUT/checkpoints/global_step_N/manifest.json      size and sha256 of every other file
    OUT/checkpoints/latest_checkpointed_iteration.txt

Invariants: a folder `global_step_N` is written under another name, made durable and renamed; the tracker file follows
by rename, last; only then is the step committed to the queue, so a crash anywhere leaves the older checkpoint in force.
"""

import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from golongrl import files
from golongrl.errors import InputError
from golongrl.files import sync
from golongrl.learner.fsync import FileSum, discarded_on_error, replace, writing
from golongrl.queue import Behind
from golongrl.reading import small_text

TRACKER = "latest_checkpointed_iteration.txt"
STATE = "learner.json"
ROWS = "trained_rows.npy"
MANIFEST = "manifest.json"
# Files of which any shows that a folder is a learner's checkpoint; one that verl itself wrote has none of them.
_MARKERS = (STATE, ROWS, MANIFEST)
SCHEMA = 2
# Schema 1 has neither a manifest nor model, recipe and history.
_READABLE = (1, SCHEMA)
# What `learner.resume` may be instead of a path.
AUTO, NEVER = "auto", "never"
_FOLDER = "global_step_"
# What a rank saves (verl's names).
_KINDS = ("model", "optim", "extra_state")
# Files read at a time to compare them: sha256 of one is slower than the storage.
_READERS = 8


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
    model: dict[str, str] = field(default_factory=dict)  # what identifies the model that the run began with
    recipe: dict[str, Any] = field(default_factory=dict)  # that the step was trained with
    data: str = ""  # tells the prepared rows from others
    history: str = ""  # names the run's own checkpoints: other ones in its folder are an older run's
    negatives_masked: bool = False  # by aepo, in this step's batch


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
        """An empty staging folder; the ranks write into its `actor`. Its name is new: the ranks of a learner that was
        killed may still be writing into theirs.

        Raises:
            NotWrittenError: the folder cannot be made.
        """
        staging = files.scratch_name(self.folder(step))
        with writing("checkpoint", staging):
            (staging / "actor").mkdir(parents=True)
        return staging

    def seal(
        self, staging: Path, state: LearnerState, rows: NDArray[np.int32], actor: dict[str, FileSum], keep: int
    ) -> Checkpoint:
        """Make the staged checkpoint the latest; delete all but the `keep` latest.

        Args:
            rows: the (epoch, row) of all groups trained so far.
            actor: the ranks' files, durable, by path in `actor`.

        Raises:
            NotWrittenError: it could not be; the one before stays the latest, and `staging` is removed.
            ForeignFilesError: other files are in its place.
        """
        final = self.folder(state.step)
        with discarded_on_error(staging), writing("checkpoint", final):
            self._seal(staging, final, state, rows, actor)
        self._prune(state.step, keep)
        return Checkpoint(final, state, rows)

    def _seal(
        self, staging: Path, final: Path, state: LearnerState, rows: NDArray[np.int32], actor: dict[str, FileSum]
    ) -> None:
        np.save(staging / ROWS, rows)
        (staging / STATE).write_text(json.dumps(asdict(state), indent=1), "utf-8")
        sums = {f"actor/{name}": sums for name, sums in actor.items()}
        sums |= {name: FileSum.of(staging / name) for name in (ROWS, STATE)}
        entries = {name: asdict(sums[name]) for name in sorted(sums)}
        (staging / MANIFEST).write_text(json.dumps({"files": entries}, indent=1), "utf-8")
        for name in (ROWS, STATE, MANIFEST):
            sync(staging / name)
        for folder in (staging / "actor", staging):
            sync(folder)
        files.make_way(final, _MARKERS, "of a learner's checkpoint")
        staging.rename(final)
        sync(self.root)
        replace(self.root / TRACKER, str(state.step))

    def latest(self) -> int | None:
        """The step of the checkpoint that was written last, by the tracker; its files are not looked at.

        Raises:
            CheckpointError: the tracker file cannot be read.
        """
        tracker = self.root / TRACKER
        try:
            return int(small_text(tracker))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{tracker} is damaged: {error}; write the step of the latest checkpoint into it"
            ) from error

    def steps(self) -> list[int]:
        """The steps with a folder, latest first; their files are not looked at.

        Raises:
            CheckpointError: it cannot be seen what there is, which is not the same as nothing.
        """
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(
                f"checkpoints {self.root}: cannot be read: {error.strerror or error}; they may be all that is left of "
                "the run: let its user read them, or start a new run"
            ) from error
        return sorted((int(name.removeprefix(_FOLDER)) for name in names if is_folder_name(name)), reverse=True)

    def folder(self, step: int) -> Path:
        return self.root / f"{_FOLDER}{step}"

    def _prune(self, latest: int, keep: int) -> None:
        for step in [step for step in self.steps() if step <= latest][keep:]:
            files.remove_own(self.folder(step), _MARKERS)
        files.sweep(self.root, rf"{_FOLDER}\d+")


def step_of(folder: Path) -> int:
    """The step of the checkpoint `folder`; by its name, `global_step_N`, if its state cannot be read.

    Raises:
        CheckpointError: neither says.
    """
    try:
        return _state(folder).step
    except CheckpointError:
        if is_folder_name(folder.name):
            return int(folder.name.removeprefix(_FOLDER))
        raise


def is_folder_name(name: str) -> bool:
    """Whether a checkpoint's folder is called so."""
    return name.startswith(_FOLDER) and name.removeprefix(_FOLDER).isdecimal()


def history_of(folder: Path) -> str:
    """The history that a damaged checkpoint belongs to, if its state can be read."""
    try:
        return _state(folder).history
    except CheckpointError:
        return ""


def read(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`, every file of it compared with its manifest.

    Raises:
        CheckpointError: it is not there, not of this program, or damaged; the message names the file.
    """
    if not folder.is_dir():
        raise CheckpointError(f"checkpoint {folder}: no such folder; name another one with learner.resume")
    state = _state(folder)
    if state.schema == 1:
        _check_ranks(folder, state)
    else:
        _check_sums(folder, _sums(folder))
    try:
        rows = np.load(folder / ROWS)
    except (OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"checkpoint {folder}: {ROWS} is damaged: {error}") from error
    return Checkpoint(folder, state, rows)


def glance(folder: Path) -> None:
    """Look at the names and sizes of a checkpoint's files; `read` also compares their content, which takes minutes.

    Raises:
        CheckpointError: as `read` does.
    """
    if _state(folder).schema != 1:
        _check_sizes(folder, _sums(folder))


def _state(folder: Path) -> LearnerState:
    try:
        fields = json.loads(small_text(folder / STATE))
        if not isinstance(fields, dict) or fields.get("schema") not in _READABLE:
            schema = fields.get("schema") if isinstance(fields, dict) else None
            raise CheckpointError(f"checkpoint {folder}: {STATE} has schema {schema}, this version reads {SCHEMA}")
        return LearnerState(**fields)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"checkpoint {folder}: {STATE} is missing; a checkpoint is a folder global_step_N"
        ) from error
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"checkpoint {folder}: {STATE} cannot be read: {reason}") from error


def _sums(folder: Path) -> dict[str, FileSum]:
    try:
        listed = json.loads(small_text(folder / MANIFEST))["files"]
        return {name: FileSum(int(entry["bytes"]), str(entry["sha256"])) for name, entry in listed.items()}
    except (OSError, ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"checkpoint {folder}: {MANIFEST} cannot be read: {reason}") from error


def _check_sums(folder: Path, sums: dict[str, FileSum]) -> None:
    """All sizes first, since those cost nothing; then all content, several files at a time."""
    _check_sizes(folder, sums)
    with ThreadPoolExecutor(_READERS) as pool:
        for (name, expected), found in zip(sums.items(), pool.map(lambda name: _sum(folder, name), sums), strict=True):
            if found != expected:
                raise CheckpointError(f"checkpoint {folder}: {name} is damaged: its content changed after it was saved")


def _check_sizes(folder: Path, sums: dict[str, FileSum]) -> None:
    for name, expected in sums.items():
        try:
            size = (folder / name).stat().st_size
        except OSError as error:
            raise CheckpointError(f"checkpoint {folder}: {name} is missing") from error
        if size != expected.bytes:
            raise CheckpointError(f"checkpoint {folder}: {name} has {size} bytes of {expected.bytes}")


def _sum(folder: Path, name: str) -> FileSum:
    try:
        return FileSum.of(folder / name)
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder}: {name} cannot be read: {error.strerror or error}") from error


def _check_ranks(folder: Path, state: LearnerState) -> None:
    """Without a manifest: every rank's files are there, and are archives with their end, which a cut file lacks."""
    for kind in _KINDS:
        for rank in range(state.ranks):
            name = f"{kind}_world_size_{state.ranks}_rank_{rank}.pt"
            if not (folder / "actor" / name).is_file():
                raise CheckpointError(f"checkpoint {folder}: actor/{name} is missing")
            if not zipfile.is_zipfile(folder / "actor" / name):
                raise CheckpointError(f"checkpoint {folder}: actor/{name} is truncated")
