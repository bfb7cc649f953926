"""Weights: loaded, checked as a whole, replaced or left alone."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from golongrl.engine.config import ModelFolderError, check_model_folder
from golongrl.engine.weights import EngineWeightsError, check_tensors, checksums, copy_tensors, load_model, read_tensors


@pytest.mark.parametrize(
    ("missing", "message"),
    [("model.safetensors", "no \\*.safetensors weights"), ("config.json", "no config.json"), ("", "does not exist")],
)
def test_an_incomplete_folder_is_named(tiny_model: Path, tmp_path: Path, missing: str, message: str) -> None:
    folder = tmp_path / "model"
    if missing:
        shutil.copytree(tiny_model, folder)
        (folder / missing).unlink()
    with pytest.raises(ModelFolderError, match=message) as caught:
        check_model_folder(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelFolderError, match="cannot be loaded") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineWeightsError, match=r"model\.safetensors cannot be read"):
        read_tensors(folder)


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", ["tiny_model", "tiny_mixture"])
def test_new_weights_become_the_models(kind: str, request: pytest.FixtureRequest) -> None:
    """Transformers joins the experts of a layer in memory; names and checksums are the folder's all the same."""
    following = request.getfixturevalue(f"{kind}_next")
    model, _ = load_model(request.getfixturevalue(kind))
    expected, _ = load_model(following)
    before = checksums(model)
    tensors = read_tensors(following)
    check_tensors(model, shapes(tensors), complete=True)
    copy_tensors(model, tensors)
    assert checksums(model) == checksums(expected) != before
    assert checksums(model).keys() >= tensors.keys()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_an_expert_that_is_missing_is_named(tiny_mixture: Path) -> None:
    model, _ = load_model(tiny_mixture)
    tensors = read_tensors(tiny_mixture)
    missing = "model.layers.1.mlp.experts.3.up_proj.weight"
    del tensors[missing]
    with pytest.raises(EngineWeightsError, match=f"1 tensors are missing, among them {missing}"):
        check_tensors(model, shapes(tensors), complete=True)


def test_half_precision_files_are_converted(tiny_model: Path, tmp_path: Path) -> None:
    model, _ = load_model(tiny_model)
    half = {name: tensor.bfloat16() for name, tensor in load_file(tiny_model / "model.safetensors").items()}
    save_file(half, tmp_path / "model.safetensors")
    copy_tensors(model, read_tensors(tmp_path))
    assert torch.equal(model.state_dict()["model.norm.weight"], half["model.norm.weight"].float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t | {"model.extra": torch.zeros(1)}, "no tensor model.extra"),
        (lambda t: t | {"model.norm.weight": torch.zeros(3)}, "model.norm.weight has shape \\[3\\]"),
        (lambda t: {k: v for k, v in t.items() if k != "model.norm.weight"}, "missing, among them model.norm.weight"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tiny_model: Path, change, message: str) -> None:
    model, _ = load_model(tiny_model)
    with pytest.raises(EngineWeightsError, match=message):
        check_tensors(model, shapes(change(read_tensors(tiny_model))), complete=True)


def test_a_tied_head_needs_no_tensor_of_its_own(tiny_model: Path) -> None:
    model, _ = load_model(tiny_model)
    tensors = read_tensors(tiny_model)
    assert "lm_head.weight" not in tensors
    assert "lm_head.weight" in model.state_dict()
    check_tensors(model, shapes(tensors), complete=True)
