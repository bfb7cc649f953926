"""What the learner leaves on disk: published weights, checkpoints and records are complete or absent."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golongrl.errors import InputError
from golongrl.files import ForeignFilesError
from golongrl.learner.checkpoints.store import Checkpoints, LearnerState, read
from golongrl.learner.fsync import NotWrittenError
from golongrl.learner.observe.metrics_log import STEP, Records
from golongrl.learner.startup import LearnerConfig, check_places
from golongrl.learner.weights.export import WeightsNotFiniteError, take_shards, write_shards, write_taken
from golongrl.learner.weights.store import EXPORT, Support, WeightStore, WeightStoreError
from golongrl.reading import file_sha256
from golongrl.recipe import load
from support.checkpoints import latest, make

STATE = LearnerState(step=2, lineage="a", checksum="c", ranks=2, seed=0, groups_per_step=3, rows=9, order="o")
TRAINED = np.array([(0, 1), (1, 0)], np.int32)


def _tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"layer.{i}": torch.randn(10, 8, generator=generator) for i in range(7)} | {"ids": torch.arange(5)}


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("shard_bytes", [100, 700, 1 << 20])
def test_ranks_write_every_tensor_once_in_bounded_shards(tmp_path: Path, ranks: int, shard_bytes: int) -> None:
    tensors = _tensors()
    files = []
    for rank in range(ranks):
        items = iter(tensors.items())
        taken = take_shards(items, dtype=torch.bfloat16, shard_bytes=shard_bytes, rank=rank, ranks=ranks)
        files += write_taken(taken, tmp_path)
    from safetensors.torch import load_file

    read = {name: tensor for file in files for name, tensor in load_file(tmp_path / file.name).items()}
    assert {name for file in files for name in file.tensors} == set(tensors) == set(read)
    assert sum(len(file.tensors) for file in files) == len(tensors)
    assert all(file.tensor_bytes <= max(shard_bytes, 160) for file in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(file.name for file in files)
    for file in files:
        assert file.sha256 == file_sha256(tmp_path / file.name)
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -3e38])
def test_weights_that_are_not_finite_in_their_type_are_never_written(tmp_path: Path, value: float) -> None:
    """Of every rank's part, and only when all ranks have seen every tensor."""
    tensors = _tensors() | {"bad": torch.tensor([0.0, value]), "worse": torch.tensor([value])}
    seen: list[str] = []

    def watched() -> Any:
        for name, tensor in tensors.items():
            seen.append(name)
            yield name, tensor

    for rank in range(2):
        seen.clear()
        if rank == 0:
            take_shards(iter(_tensors().items()), dtype=torch.float16, shard_bytes=100, rank=rank, ranks=2)
        with pytest.raises(WeightsNotFiniteError, match=r"not finite in torch.float16 \((bad|worse)"):
            take_shards(watched(), dtype=torch.float16, shard_bytes=4, rank=rank, ranks=2)
        assert seen == list(tensors)
    with pytest.raises(WeightsNotFiniteError, match=r"\(bad and 1 more\)"):
        write_shards(iter(tensors.items()), tmp_path, dtype=torch.float16)


def test_a_model_that_is_not_finite_is_named(tmp_path: Path, tiny_model: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    tensors = load_file(model / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    store = WeightStore(tmp_path / "weights")
    with pytest.raises(WeightStoreError, match=rf"^model {model}: .*not finite .*model.norm.weight.*cannot be trained"):
        store.publish_initial(Support(model, "float32"), "a", 1 << 20)
    assert list(store.root.iterdir()) == []


def _publish(store: WeightStore, version: int, seed: int, lineage: str, support: Path) -> Any:
    staging = store.begin(version)
    files = write_shards(_tensors(seed).items(), staging, dtype=torch.float32, shard_bytes=700)
    return store.seal(staging, version, lineage, files, Support(support, "float32"))


def test_published_folder_names_all_its_files(tmp_path: Path, tiny_model: Path) -> None:
    store = WeightStore(tmp_path)
    manifest = _publish(store, 1, 0, "a", tiny_model)
    assert store.manifest(1) == manifest
    folder = store.folder(1)
    assert set(manifest.files) == {path.name for path in folder.iterdir()} - {"manifest.json"}
    assert {"config.json", "tokenizer.json", "model.safetensors.index.json"} <= set(manifest.files)
    for name, entry in manifest.files.items():
        assert entry == {"bytes": (folder / name).stat().st_size, "sha256": file_sha256(folder / name)}
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert not list(tmp_path.glob("*.tmp"))


def test_equal_weights_keep_their_lineage_and_others_replace_them(tmp_path: Path, tiny_model: Path) -> None:
    store = WeightStore(tmp_path)
    first = _publish(store, 1, 0, "a", tiny_model)
    assert _publish(store, 1, 0, "b", tiny_model) == first
    other = _publish(store, 1, 1, "b", tiny_model)
    assert other.lineage == "b"
    assert other.checksum != first.checksum
    assert store.manifest(1) == other


def test_half_a_folder_is_no_version(tmp_path: Path, tiny_model: Path) -> None:
    store = WeightStore(tmp_path)
    _publish(store, 1, 0, "a", tiny_model)
    (store.folder(1) / "config.json").unlink()
    assert store.manifest(1) is None
    store.begin(2)
    assert store.manifest(2) is None


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "shard-00000.part").mkdir()
    with pytest.raises(
        NotWrittenError, match=rf"weights file {tmp_path}/shard-00000.part could not be written: "
    ) as caught:
        write_shards(_tensors().items(), tmp_path, dtype=torch.float32)
    assert "\n" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(NotWrittenError, match=rf"weights {tmp_path}/file/v3\..* could not be written: "):
        WeightStore(tmp_path / "file").begin(3)
    with pytest.raises(NotWrittenError, match=rf"weights {tmp_path}/v3 could not be written: "):
        WeightStore(tmp_path).seal(tmp_path / "gone", 3, "a", [], Support(tiny_model, "float32"))
    with pytest.raises(NotWrittenError, match=rf"result {tmp_path}/hf could not be written: "):
        WeightStore(tmp_path).copy_out(3, tmp_path / "hf")
    with pytest.raises(NotWrittenError, match=rf"checkpoint {tmp_path}/file/global_step_2\..* could not be written: "):
        Checkpoints(tmp_path / "file").begin(2)
    with pytest.raises(NotWrittenError, match=rf"checkpoint {tmp_path}/global_step_2 could not be written: "):
        Checkpoints(tmp_path).seal(tmp_path / "gone", STATE, TRAINED, {}, 2)


def test_old_versions_go(tmp_path: Path, tiny_model: Path) -> None:
    store = WeightStore(tmp_path)
    for version in range(5):
        _publish(store, version, version, "a", tiny_model)
        store.prune(version, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["v3", "v4"]


def test_version_zero_is_the_model(tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoModelForCausalLM

    store = WeightStore(tmp_path)
    store.publish_initial(Support(tiny_model, load("quickstart").model.dtype), "a", shard_bytes=40_000)
    assert len(list(store.folder(0).glob("*.safetensors"))) > 1
    ours = AutoModelForCausalLM.from_pretrained(store.folder(0))
    theirs = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def _save(checkpoints: Checkpoints, step: int, keep: int = 2) -> None:
    make(checkpoints, replace(STATE, step=step), TRAINED, keep)


def test_checkpoints_are_found_and_old_ones_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert latest(checkpoints) is None
    for step in (2, 4, 6):
        _save(checkpoints, step)
    found = latest(checkpoints)
    assert found is not None
    assert found.state.step == 6
    assert sorted(p.name for p in checkpoints.root.iterdir()) == [
        "global_step_4",
        "global_step_6",
        "latest_checkpointed_iteration.txt",
    ]
    named = read(checkpoints.root / "global_step_4")
    assert named is not None
    assert named.state.step == 4


def test_a_crash_while_saving_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    _save(checkpoints, 2)
    checkpoints.begin(4)
    found = latest(checkpoints)
    assert found is not None
    assert found.state.step == 2
    _save(checkpoints, 6)
    assert not list(tmp_path.glob("*.tmp"))


def test_verl_finds_the_checkpoint(tmp_path: Path) -> None:
    from verl.utils.checkpoint.checkpoint_manager import find_latest_ckpt_path

    _save(Checkpoints(tmp_path), 2)
    assert find_latest_ckpt_path(str(tmp_path)) == str(tmp_path / "global_step_2")


def test_records_after_a_resume_have_every_step_once(tmp_path: Path) -> None:
    with Records(tmp_path, 0) as records:
        for step in (1, 2, 3):
            records.write(step, {"a": float(step), "nan": float("nan")})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"training/global_step": 4, "a"')  # the process died while writing
    with Records(tmp_path, 2) as records:
        records.write(3, {"a": 33.0})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line[STEP] for line in lines] == [1, 2, 3]
    assert lines[-1]["a"] == 33.0
    assert "nan" not in lines[0]


def test_the_last_record_can_be_added_to(tmp_path: Path) -> None:
    def written() -> list[dict[str, float]]:
        return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]

    with Records(tmp_path, 0) as records:
        assert not records.has(0, "val")
        records.amend(0, {"val": 0.5})
        records.write(1, {"a": 1.0})
        assert not records.has(0, "val")
        assert not records.has(1, "val")
    with Records(tmp_path, 1) as records:
        assert records.has(1, "a")
        records.amend(1, {"val": 1.5, "nan": float("nan")})
        assert records.has(1, "val")
        records.write(2, {"a": 2.0})
    assert written() == [{STEP: 0, "val": 0.5}, {STEP: 1, "a": 1.0, "val": 1.5}, {STEP: 2, "a": 2.0}]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


def test_records_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotWrittenError, match=rf"metrics {tmp_path}/file/metrics.jsonl could not be written: "):
        Records(tmp_path / "file", 0)


def test_no_folder_or_file_of_somebody_else_is_deleted_or_replaced(tmp_path: Path, tiny_model: Path) -> None:
    root, out = tmp_path / "weights", tmp_path / "out"
    theirs = [root / "v1", root / "v2", root / "v3.old", root / "videos.tmp", out / "hf", out / "global_step_1"]
    theirs += [out / "global_step_2", out / "global_step_notes.tmp", out / "hf.tmp"]
    for folder in theirs:
        folder.mkdir(parents=True)
        (folder / "thesis.txt").write_text("mine")
    store, checkpoints = WeightStore(root), Checkpoints(out)
    store.sweep()
    _publish(store, 0, 0, "a", tiny_model)
    with pytest.raises(ForeignFilesError, match=rf"{root}/v1 holds files that are not of a learner \(thesis.txt\)"):
        _publish(store, 1, 1, "a", tiny_model)
    store.prune(9, keep=1)
    store.start_over("b")
    assert store.manifest(0) is None
    _publish(store, 0, 0, "a", tiny_model)
    with pytest.raises(ForeignFilesError, match=rf"{out}/hf holds files that are not of a learner"):
        store.copy_out(0, out / "hf")
    with pytest.raises(ForeignFilesError, match=rf"{out}/global_step_2 holds files that are not of a learner's"):
        _save(checkpoints, 2)
    for step in (3, 4, 5):
        _save(checkpoints, step, keep=1)
    assert [(folder / "thesis.txt").read_text() for folder in theirs] == ["mine"] * len(theirs)
    left = {path for folder in (root, out) for path in folder.iterdir()} - set(theirs)
    assert {path.name for path in left} == {"v0", "global_step_5", "latest_checkpointed_iteration.txt"}


def test_a_result_is_replaced_and_a_link_to_it_followed(tmp_path: Path, tiny_model: Path) -> None:
    store = WeightStore(tmp_path / "weights")
    _publish(store, 0, 0, "a", tiny_model)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "hf").symlink_to(tmp_path / "elsewhere")
    store.copy_out(0, tmp_path / "hf")
    _publish(store, 1, 1, "a", tiny_model)
    store.copy_out(1, tmp_path / "hf")
    assert (tmp_path / "hf").is_symlink()
    assert json.loads((tmp_path / "elsewhere" / EXPORT).read_text("utf-8"))["version"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "hf", "weights"]


@pytest.mark.parametrize("listed", [True, False])
def test_what_a_user_put_beside_a_result_stays_and_older_weights_do_not(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, listed: bool
) -> None:
    store, hf = WeightStore(tmp_path / "weights"), tmp_path / "hf"
    _publish(store, 0, 0, "a", tiny_model)
    (store.folder(0) / "model-00002-of-00002.safetensors").touch()
    store.copy_out(0, hf)
    if not listed:  # as an older version of this program marked it
        (hf / EXPORT).write_text('{"version": 0}')
    before = {"README.md": "mine", "gguf/model.gguf": "converted", "config.json": "{}"}
    (hf / "gguf").mkdir()
    for name, text in before.items():
        (hf / name).write_text(text)
    (hf / "link").symlink_to("README.md")
    _publish(store, 1, 1, "a", tiny_model)
    if listed:  # a file system without hard links
        monkeypatch.setattr(os, "link", lambda *_, **__: os.stat(tmp_path / "nowhere"))
    store.copy_out(1, hf)
    assert (hf / "README.md").read_text() == (hf / "link").read_text() == "mine"
    assert (hf / "gguf" / "model.gguf").read_text() == "converted"
    assert (hf / "config.json").read_text() != "{}"
    assert not (hf / "model-00002-of-00002.safetensors").exists()
    store.copy_out(1, hf)
    assert (hf / "README.md").read_text() == "mine"


def test_what_a_killed_learner_left_is_swept(tmp_path: Path, tiny_model: Path) -> None:
    store, checkpoints = WeightStore(tmp_path / "weights"), Checkpoints(tmp_path / "checkpoints")
    store.begin(3)
    checkpoints.begin(3)
    store.sweep()
    _save(checkpoints, 4)
    assert list(store.root.iterdir()) == []
    assert sorted(path.name for path in checkpoints.root.iterdir()) == [
        "global_step_4",
        "latest_checkpointed_iteration.txt",
    ]


@pytest.mark.parametrize(
    ("place", "content"),
    [
        ("weights/v3/notes.txt", "x"),
        ("out/hf/notes.txt", "x"),
        ("out/validation/step_1.jsonl", "x"),
        ("out/metrics.jsonl", '{"loss": 1}\n'),
        ("out/metrics.jsonl", "[1]\n"),
        ("out/metrics.jsonl", "my notes\non metrics\n"),
        ("out/metrics.jsonl", "[" * 100_000 + "\n" + "[" * 100_000),
    ],
)
def test_a_learner_refuses_folders_with_files_of_somebody_else_before_it_writes(
    place: str, content: str, tmp_path: Path
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(content)
    config = LearnerConfig("r", "redis://127.0.0.1:1", tmp_path / "data", tmp_path / "weights", tmp_path / "out")
    with pytest.raises(InputError, match="choose another folder") as refused:
        check_places(config)
    assert str(path.parent) in str(refused.value)
    assert path.read_text() == content


def test_a_learner_makes_no_folder_of_a_urls_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for weights, out in ((Path("s3://bucket/weights"), tmp_path / "out"), (tmp_path / "weights", Path("gs://bucket"))):
        with pytest.raises(InputError, match="is a URL, and only folders of this machine"):
            check_places(LearnerConfig("r", "redis://127.0.0.1:1", tmp_path / "data", weights, out))
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_an_older_version_exports_again(tmp_path: Path, tiny_model: Path) -> None:
    store = WeightStore(tmp_path / "weights")
    _publish(store, 0, 0, "a", tiny_model)
    store.copy_out(0, tmp_path / "hf")
    (tmp_path / "hf" / EXPORT).unlink()
    (tmp_path / "metrics.jsonl").write_text(json.dumps({STEP: 1}) + '\n{"torn')
    config = LearnerConfig("r", "redis://127.0.0.1:1", tmp_path / "data", store.root, tmp_path)
    check_places(config)
    store.copy_out(0, tmp_path / "hf")
