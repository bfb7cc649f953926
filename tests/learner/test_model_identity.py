"""A checkpoint is of one model: another of the same shapes is refused, a moved or re-sharded copy is not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from golongrl.learner import model_identity
from golongrl.learner.checkpoints.resume import Identity
from golongrl.learner.checkpoints.store import Checkpoint, CheckpointError
from golongrl.recipe import load


def of(folder: Path) -> dict[str, str]:
    return model_identity.of(folder, json.loads((folder / "config.json").read_text()))


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "copy"))


def test_a_moved_and_resharded_copy_is_the_same_model(tiny_model: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[::2]}, copy / "model-00001-of-00002.safetensors")
    save_file({name: tensors[name] for name in names[1::2]}, copy / "model-00002-of-00002.safetensors")
    (copy / "README.md").write_text("moved")
    assert of(copy) == of(tiny_model)


def test_one_changed_value_is_another_model(tiny_model: Path, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    smallest = min(tensors, key=lambda name: tensors[name].numel())
    tensors[smallest].view(-1)[0] += 1
    save_file(tensors, copy / "model.safetensors")
    assert model_identity.differences(of(tiny_model), of(copy)) == ["the weights are another model's"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": 128}, "hidden_size was "),
        ({"num_hidden_layers": 7}, "num_hidden_layers was "),
        ({"vocab_size": 77}, "vocab_size was 512, is 77"),
    ],
)
def test_another_shape_is_named_by_its_key(change: dict[str, int], words: str, tiny_model: Path, copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    (difference,) = model_identity.differences(of(tiny_model), of(copy))
    assert difference.startswith(words)


def test_another_tokenizer_is_another_model(tiny_model: Path, copy: Path) -> None:
    with (copy / "tokenizer.json").open("a") as file:
        file.write("\n")
    assert model_identity.differences(of(tiny_model), of(copy)) == ["the tokens (tokenizer.json) are another model's"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"seed": 9}, "seed was 9, is 3"),
        ({"groups_per_step": 7}, r"queue\.groups_per_step was 7, is 3"),
        ({"rows": 10}, "rows of data was 10, is 9"),
        ({"order": "p"}, "data order was p, is o"),
        ({"data": "e"}, "the rows' digest was e, is d"),
        ({"data": ""}, None),  # one that was written before the digest was noted
        ({"model": {"weights": "other"}}, r"does not belong to model\.path .*weights are another model's"),
        ({"model": {"hidden_size": "32"}}, r"hidden_size was 32, is 64"),
        ({"model": {}}, None),  # the first schema records none
    ],
)
def test_what_a_checkpoint_forbids_is_refused_by_name(changes: dict[str, object], words: str | None) -> None:
    recipe = load("quickstart", ["queue.groups_per_step=3"])
    identity = Identity(recipe, rows=9, order="o", model={"weights": "w", "hidden_size": "64"}, data="d")
    state = replace(identity.state(2, "lineage", "checksum", "history"), **changes)
    checkpoint = Checkpoint(Path("global_step_2"), state, np.empty((0, 2), np.int32))
    if words is None:
        identity.check(checkpoint)
    else:
        with pytest.raises(CheckpointError, match=words) as caught:
            identity.check(checkpoint)
        assert caught.value.exit_code == 2
