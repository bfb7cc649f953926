"""A rank's part of a checkpoint: what verl would have written, whatever is trained while it is being written."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from golongrl.recipe import Recipe, load
from support.rank_process import run_ranks
from support.small_batch import minis

KINDS = ("model", "optim", "extra_state")


def _recipe(model: Path, ranks: int, *overrides: str) -> Recipe:
    more = ["learner.lr=0.01", "learner.lr_warmup_steps=3", f"learner.ranks={ranks}", *overrides]
    return load("quickstart", [f"model.path={model}", *more])


def _same(ours: Any, theirs: Any, where: str) -> None:
    """Equal to the bit, types, order of keys and attributes of dictionaries included."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, DTensor):
        assert ours.placements == theirs.placements, where
        assert ours.device_mesh == theirs.device_mesh, where
        assert ours.shape == theirs.shape, where
        _same(ours._local_tensor, theirs._local_tensor, where)
    elif isinstance(ours, torch.Tensor):
        assert (ours.dtype, ours.shape, ours.device) == (theirs.dtype, theirs.shape, theirs.device), where
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs), where
        for key, value in ours.items():
            _same(value, theirs[key], f"{where}/{key}")
        if hasattr(ours, "__dict__"):
            _same(vars(ours), vars(theirs), where)
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            _same(a, b, f"{where}/{index}")
    else:
        assert np.array_equal(ours, theirs), where


def _names(folder: Path) -> dict[str, bytes | None]:
    """Every file by its path; contents of those that hold no tensors."""
    return {
        str(path.relative_to(folder)): None if path.suffix == ".pt" else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _check_against_verl(model: Path, tmp_path: Path, ranks: int, *overrides: str) -> Path:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    run_ranks(
        ranks,
        [_recipe(model, ranks, *overrides)],
        [minis(ranks)],
        tmp_path / "out",
        updates=2,
        save=str(ours),
        verl_saves=str(theirs),
    )
    assert _names(ours) == _names(theirs)
    for rank in range(ranks):
        for kind in KINDS:
            name = f"{kind}_world_size_{ranks}_rank_{rank}.pt"
            _same(torch.load(ours / name, weights_only=False), torch.load(theirs / name, weights_only=False), name)
            # Tied tensors are stored once, as verl stores them.
            assert (ours / name).stat().st_size <= (theirs / name).stat().st_size
    return ours


@pytest.mark.full
def test_it_is_what_verl_writes_though_training_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    """Saved by verl and by us at the same step; our files are written after the next two."""
    _check_against_verl(tiny_model, tmp_path, 1)


@pytest.mark.full
@pytest.mark.parametrize("offload", ["true", "false"])
def test_shards_are_what_verl_writes_and_merges(offload: str, tiny_model: Path, tmp_path: Path) -> None:
    offloaded = (f"learner.offload_params={offload}", f"learner.offload_optimizer={offload}")
    ours = _check_against_verl(tiny_model, tmp_path, 2, *offloaded)
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", "fsdp", "--local_dir", str(ours)]
    merged = tmp_path / "merged"
    done = subprocess.run([*command, "--target_dir", str(merged)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    exported = load_file(tmp_path / "out" / "0" / "model.safetensors")
    for name, tensor in load_file(merged / "model.safetensors").items():
        assert torch.equal(tensor, exported[name].to(tensor.dtype)), name


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    from golongrl.learner.checkpoints.snapshot import write
    from golongrl.learner.fsync import NotWrittenError

    (tmp_path / "b.pt").mkdir()
    with pytest.raises(NotWrittenError, match=rf"checkpoint file {tmp_path}/b.pt could not be written: ") as caught:
        write({"a.pt": torch.ones(3), "b.pt": torch.ones(3)}, {}, tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(NotWrittenError, match=r"nowhere/c.pt could not be written"):
        write({"c.pt": torch.ones(3)}, {}, tmp_path / "nowhere")


def test_memory_is_given_back_file_by_file(tmp_path: Path) -> None:
    from golongrl.learner.checkpoints.snapshot import write

    state = {"a.pt": torch.ones(3), "b.pt": {"x": torch.zeros(2)}}
    write(state, {"huggingface/config.json": b"{}"}, tmp_path)
    assert state == {}
    assert torch.equal(torch.load(tmp_path / "a.pt"), torch.ones(3))
    assert (tmp_path / "huggingface" / "config.json").read_bytes() == b"{}"
