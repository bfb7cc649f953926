"""Checkpoints as tests make and look at them."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from golongrl.learner.checkpoints.store import Checkpoint, Checkpoints, LearnerState, read
from golongrl.learner.fsync import FileSum

KINDS = ("model", "optim", "extra_state")


def latest(checkpoints: Checkpoints) -> Checkpoint | None:
    """The checkpoint that the tracker names."""
    step = checkpoints.latest()
    return None if step is None else read(checkpoints.folder(step))


def make(checkpoints: Checkpoints, state: LearnerState, rows: NDArray[np.int32], keep: int = 2) -> Path:
    """A checkpoint with files of the ranks' names; its folder."""
    staging = checkpoints.begin(state.step)
    for rank in range(state.ranks):
        for kind in KINDS:
            path = staging / "actor" / f"{kind}_world_size_{state.ranks}_rank_{rank}.pt"
            path.write_bytes(f"{kind} of rank {rank} at {state.step}".encode() * 50)
    sums = {path.name: FileSum.of(path) for path in (staging / "actor").iterdir()}
    return checkpoints.seal(staging, state, rows, sums, keep).folder
