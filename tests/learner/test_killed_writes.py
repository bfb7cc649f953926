"""A learner that is killed before any of its writes: what is read afterwards is whole, and the next save tidies up."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from golongrl.learner.checkpoints.store import Checkpoints, LearnerState
from golongrl.learner.weights.export import ExportedFile, write_shards
from golongrl.learner.weights.store import EXPORT, Support, WeightStore
from golongrl.weights.manifest import Manifest
from support.checkpoints import latest, make
from support.killed_writes import killed_at_each_write

# About forty processes a test, each a copy of this one with torch in it.
pytestmark = pytest.mark.full

STATE = LearnerState(step=2, lineage="a", checksum="c", ranks=1, seed=0, groups_per_step=1, rows=9, order="o")
ROWS = np.array([(0, 1)], np.int32)


@pytest.mark.parametrize("again", [False, True])
def test_a_checkpoint_is_the_old_or_the_new_one(again: bool, tmp_path: Path) -> None:
    """`again`: the step's folder is there already, as after a resume from an older checkpoint."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def prepare() -> None:
        shutil.rmtree(checkpoints.root, ignore_errors=True)
        for step in (2, 4) if again else (2,):
            make(checkpoints, replace(STATE, step=step, lineage="old"), ROWS, keep=3)
        if again:
            (checkpoints.root / "latest_checkpointed_iteration.txt").write_text("2")

    for kills in killed_at_each_write(
        prepare, lambda: make(checkpoints, replace(STATE, step=4, lineage="new"), ROWS, keep=1)
    ):
        found = latest(checkpoints)
        assert found is not None, kills
        assert (found.state.step, found.state.lineage) in ((2, "old"), (4, "new")), kills
        make(checkpoints, replace(STATE, step=6), ROWS, keep=1)
        assert sorted(path.name for path in checkpoints.root.iterdir() if path.is_dir()) == ["global_step_6"], kills


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, list[ExportedFile]]:
    folder = tmp_path / "shards"
    folder.mkdir()
    tensors = {"a": torch.ones(3), "b": torch.zeros(2)}
    return folder, write_shards(iter(tensors.items()), folder, dtype=torch.float32, shard_bytes=8)


@pytest.mark.parametrize("other", [False, True])
def test_a_version_of_the_weights_is_absent_or_whole(
    other: bool, tmp_path: Path, tiny_model: Path, shards: tuple[Path, list[ExportedFile]]
) -> None:
    store, (folder, files) = WeightStore(tmp_path / "weights"), shards

    def publish(lineage: str) -> None:
        staging = store.begin(1)
        shutil.copytree(folder, staging, dirs_exist_ok=True)
        store.seal(staging, 1, lineage, files, Support(tiny_model, "float32"))

    def prepare() -> None:
        shutil.rmtree(store.root, ignore_errors=True)
        if other:
            old = store.folder(1)
            old.mkdir(parents=True)
            (old / "x").write_text("x")
            entries = {"model.safetensors": {"bytes": 1, "sha256": "of other weights"}}
            (old / "manifest.json").write_text(Manifest(1, "old", "", entries).dumps(), "utf-8")

    for kills in killed_at_each_write(prepare, lambda: publish("new")):
        published = store.manifest(1)
        if published is not None and published.lineage == "new":
            for name, entry in published.files.items():
                assert (store.folder(1) / name).stat().st_size == entry["bytes"], (name, kills)
        store.sweep()
        publish("again")
        published = store.manifest(1)
        assert published is not None
        assert published.lineage in ("new", "again"), kills
        assert [path.name for path in store.root.iterdir()] == ["v1"], kills


def test_a_result_folder_is_absent_or_whole(
    tmp_path: Path, tiny_model: Path, shards: tuple[Path, list[ExportedFile]]
) -> None:
    store, (folder, files), out = WeightStore(tmp_path / "weights"), shards, tmp_path / "out"
    staging = store.begin(1)
    shutil.copytree(folder, staging, dirs_exist_ok=True)
    store.seal(staging, 1, "a", files, Support(tiny_model, "float32"))

    def prepare() -> None:
        shutil.rmtree(out, ignore_errors=True)
        (out / "hf").mkdir(parents=True)
        (out / "hf" / EXPORT).write_text(json.dumps({"version": 0}))

    expected = {path.name for path in store.folder(1).iterdir()} - {"manifest.json"} | {EXPORT}
    for kills in killed_at_each_write(prepare, lambda: store.copy_out(1, out / "hf")):
        if (out / "hf").exists():
            assert {path.name for path in (out / "hf").iterdir()} in ({EXPORT}, expected), kills
        store.copy_out(1, out / "hf")
        assert [path.name for path in out.iterdir()] == ["hf"], kills
        assert {path.name for path in (out / "hf").iterdir()} == expected
