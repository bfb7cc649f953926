"""Versions as deltas of the one before: what the store keeps, when it begins anew, and what a worker makes of it."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from golongrl.learner.weights.export import DeltaWriter, take_shards
from golongrl.learner.weights.store import Support, WeightStore, WeightStoreError
from golongrl.queue.types import WeightsRef
from golongrl.rollout.sglang.errors import WeightsMissingError
from golongrl.rollout.weights.local_copy import Fetched, LocalCopy
from golongrl.weights.manifest import MANIFEST, FilePlan, Manifest, chain, plan, read, wants_base

SHARD = 4096  # two files of the model below


class Learner:
    """Publishes versions of two tensors, a few elements of which change each time."""

    def __init__(self, root: Path, model: Path, every: int = 4) -> None:
        self.store, self.every = WeightStore(root), every
        self._support = Support(model, "bfloat16")
        self._writer = DeltaWriter(torch.bfloat16)
        self._random = torch.Generator().manual_seed(0)
        self.tensors = {name: torch.randn(1500, generator=self._random).bfloat16() for name in ("a", "b")}

    def step(self, share: float = 0.01) -> dict[str, Tensor]:
        for name, tensor in self.tensors.items():
            hit = torch.rand(tensor.shape, generator=self._random) < share
            self.tensors[name] = torch.where(hit, tensor * 1.01, tensor)
        return self.tensors

    def publish(self, version: int, lineage: str = "l") -> Manifest:
        staging = self.store.begin(version)
        taken = take_shards(self.tensors.items(), dtype=torch.bfloat16, shard_bytes=SHARD)
        files = self._writer.write(taken, staging, self.store.parent_of(version, self.every))
        manifest = self.store.seal(staging, version, lineage, files, self._support)
        self.store.prune(version, 2)
        return manifest

    def restarted(self) -> "Learner":
        again = Learner(self.store.root, self._support.folder, self.every)
        again.tensors = self.tensors
        return again

    def ref(self, version: int) -> WeightsRef:
        manifest = self.store.manifest(version)
        assert manifest is not None
        return self.store.reference(manifest)


@pytest.fixture
def learner(tmp_path: Path, tiny_model: Path) -> Learner:
    made = Learner(tmp_path / "store", tiny_model)
    made.publish(0)
    return made


def _held(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


def _same(folder: Path, tensors: dict[str, Tensor]) -> bool:
    held = _held(folder)
    return held.keys() == tensors.keys() and all(torch.equal(held[name], tensor) for name, tensor in tensors.items())


def test_versions_are_deltas_until_the_next_base(learner: Learner) -> None:
    stored = []
    for version in range(1, 9):
        learner.step()
        manifest = learner.publish(version)
        stored.append(bool(manifest.deltas))
        assert manifest.weight_bytes > 6000
        assert (manifest.stored_bytes < manifest.weight_bytes / 3) == stored[-1]
    assert stored == [True, True, True, False, True, True, True, False]


def test_the_store_keeps_what_deltas_start_from(learner: Learner) -> None:
    for version in range(1, 7):
        learner.step()
        learner.publish(version)
    # 5 and 6 are kept, and their base 4; what was before is gone.
    assert sorted(path.name for path in learner.store.root.glob("v*")) == ["v4", "v5", "v6"]
    assert [manifest.version for manifest in chain(learner.store.root, 6)] == [6, 5, 4]


def test_a_worker_follows_and_reads_only_what_changed(learner: Learner, tmp_path: Path) -> None:
    copy = LocalCopy(tmp_path / "copy")
    first = copy.fetch(learner.ref(0))
    assert first == Fetched(learner.store.folder(0), learner.publish(0).weight_bytes, from_base=True)
    for version in range(1, 10):
        learner.step()
        manifest = learner.publish(version)
        fetched = copy.fetch(learner.ref(version))
        assert _same(fetched.folder, learner.tensors)
        assert (fetched.folder / "config.json").is_file()
        if version > 1:  # the first copy begins with the base
            assert fetched.from_base == (not manifest.deltas)
            assert fetched.bytes == manifest.stored_bytes
        assert copy.fetch(learner.ref(version)).bytes == 0
    assert len(list((tmp_path / "copy").iterdir())) <= 2


def test_whole_versions_are_loaded_where_they_are(tmp_path: Path, tiny_model: Path) -> None:
    learner, copy = Learner(tmp_path / "store", tiny_model, every=1), LocalCopy(tmp_path / "copy")
    for version in range(3):
        learner.step()
        learner.publish(version)
        assert copy.fetch(learner.ref(version)).folder == learner.store.folder(version)
    assert not list((tmp_path / "copy").iterdir())


def following(learner: Learner, root: Path, version: int = 1) -> LocalCopy:
    """A copy of the next version, which is stored as deltas."""
    copy = LocalCopy(root)
    learner.step()
    learner.publish(version)
    copy.fetch(learner.ref(version))
    return copy


@pytest.mark.parametrize("last", [2, 3])
def test_a_worker_that_joins_late_or_missed_versions(learner: Learner, tmp_path: Path, last: int) -> None:
    late, missed = LocalCopy(tmp_path / "late"), following(learner, tmp_path / "missed")
    for version in range(2, last + 1):
        learner.step()
        learner.publish(version)
    from_base, patched = late.fetch(learner.ref(last)), missed.fetch(learner.ref(last))
    assert from_base.from_base
    assert not patched.from_base
    assert _same(from_base.folder, learner.tensors)
    assert _same(patched.folder, learner.tensors)
    assert patched.bytes < from_base.bytes / 5


def test_another_process_takes_the_copy_over_and_trusts_no_damaged_one(learner: Learner, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    following(learner, root)
    (root / "v2-0123456789abcdef.01234567.tmp").mkdir()
    learner.step()
    learner.publish(2)
    fetched = LocalCopy(root).fetch(learner.ref(2))
    assert not fetched.from_base
    assert not list(root.glob("*.tmp"))
    next(fetched.folder.glob("*.safetensors")).write_bytes(b"rotten")
    learner.step()
    learner.publish(3)
    again = LocalCopy(root).fetch(learner.ref(3))
    assert _same(again.folder, learner.tensors)


def test_a_copy_that_rots_while_held_is_made_from_the_base(learner: Learner, tmp_path: Path) -> None:
    copy = following(learner, tmp_path / "copy")
    held = copy.fetch(learner.ref(1)).folder
    path = next(held.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    learner.step()
    learner.publish(2)
    fetched = copy.fetch(learner.ref(2))
    assert fetched.from_base
    assert _same(fetched.folder, learner.tensors)


def test_a_damaged_store_is_missing_weights_and_leaves_nothing_half_made(learner: Learner, tmp_path: Path) -> None:
    copy = following(learner, tmp_path / "copy")
    learner.step()
    learner.publish(2)
    ref = learner.ref(2)
    for path in learner.store.folder(2).glob("*.delta"):
        path.write_bytes(b"\x00" * 20)
    with pytest.raises(WeightsMissingError, match="damaged"):
        copy.fetch(ref)
    assert not list((tmp_path / "copy").glob("v2*"))
    for path in learner.store.folder(2).glob("*.delta"):
        path.unlink()
    with pytest.raises(WeightsMissingError, match="not in the store"):
        copy.fetch(ref)
    assert learner.store.manifest(2) is None


def other_bytes(path: Path) -> None:
    """The same size, and another last number: what safetensors and engines read without a word."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("spoil", [other_bytes, cut])
@pytest.mark.parametrize("version", [0, 2], ids=["whole", "deltas"])
def test_weights_that_were_changed_in_the_store_are_loaded_by_nobody(
    learner: Learner, tmp_path: Path, spoil: Callable[[Path], None], version: int
) -> None:
    for number in range(1, version + 1):
        learner.step()
        learner.publish(number)
    ref, written = learner.ref(version), {**learner.tensors}
    assert learner.store.intact(version) is not None
    name = "*.delta" if version else "*.safetensors"
    spoil(next(iter(learner.store.folder(version).glob(name))))
    with pytest.raises(WeightsMissingError, match=r"damaged: |not whole"):
        LocalCopy(tmp_path / "copy").fetch(ref)
    assert learner.store.intact(version) is None
    # A learner that starts again publishes them again, and everybody may go on.
    restarted = learner.restarted()
    restarted.publish(version)
    assert restarted.store.intact(version) is not None
    assert _same(LocalCopy(tmp_path / "copy").fetch(ref).folder, written)


def test_a_damaged_parent_makes_a_version_damaged(learner: Learner) -> None:
    learner.step()
    learner.publish(1)
    other_bytes(next(iter(learner.store.folder(0).glob("*.safetensors"))))
    assert learner.store.manifest(1) is not None
    assert learner.store.intact(1) is None


def test_a_copy_that_somebody_deletes_is_made_again(learner: Learner, tmp_path: Path) -> None:
    copy = following(learner, tmp_path / "copy")
    shutil.rmtree(copy.fetch(learner.ref(1)).folder)
    fetched = copy.fetch(learner.ref(1))
    assert fetched.from_base
    assert _same(fetched.folder, learner.tensors)


def test_a_restarted_learner_goes_on_from_what_the_store_has(learner: Learner) -> None:
    learner.step()
    learner.publish(1)
    again = learner.restarted()
    again.step()
    # v1 is deltas, and nobody has its files whole: v2 is stored whole.
    assert not again.publish(2).deltas
    third = again.restarted()
    third.step()
    assert third.publish(3).deltas


def test_a_replaced_parent_breaks_the_chain(learner: Learner, tmp_path: Path) -> None:
    copy = following(learner, tmp_path / "copy")
    learner.step()
    learner.publish(2)
    ref = learner.ref(2)
    replayed = learner.restarted()
    replayed.tensors = {name: tensor + 1 for name, tensor in learner.tensors.items()}
    replayed.publish(1, "other")
    assert replayed.store.manifest(2) is None
    with pytest.raises(WeightsMissingError):
        copy.fetch(ref)
    assert _same(copy.fetch(replayed.ref(1)).folder, replayed.tensors)


def test_a_delta_of_a_file_that_the_parent_does_not_have_is_refused(learner: Learner) -> None:
    learner.step()
    staging = learner.store.begin(1)
    taken = take_shards(learner.tensors.items(), dtype=torch.bfloat16, shard_bytes=SHARD)
    files = learner._writer.write(taken, staging, learner.store.folder(0))
    wrong = [replace(file, delta=replace(file.delta, of="0" * 64)) if file.delta else file for file in files]
    with pytest.raises(WeightStoreError, match="as a delta of a file that version 0 does not have"):
        learner.store.seal(staging, 1, "l", wrong, learner._support)


def test_the_whole_version_replaces_its_deltas(learner: Learner, tmp_path: Path) -> None:
    """The final export copies files that are whole."""
    learner.step()
    learner.publish(1)
    staging = learner.store.begin(1)
    taken = take_shards(learner.tensors.items(), dtype=torch.bfloat16, shard_bytes=SHARD)
    files = learner._writer.write(taken, staging, None)
    manifest = learner.store.seal(staging, 1, "l", files, learner._support)
    assert not manifest.deltas
    learner.store.copy_out(1, tmp_path / "hf")
    assert _same(tmp_path / "hf", learner.tensors)


def _manifests(shares: list[list[bool]]) -> list[Manifest]:
    """Versions 0.., the first whole; `shares[v][f]`: whether file f of version v + 1 is a delta. Newest first."""
    made: list[Manifest] = []
    for version, deltas in enumerate([[False] * 3, *shares]):
        files: dict[str, dict[str, int | str]] = {
            f"{f}.safetensors": {"bytes": 100, "sha256": f"{version}-{f}"} for f in range(3)
        }
        small: dict[str, dict[str, int | str]] = {
            f"{f}.safetensors": {"bytes": 10, "sha256": "d"} for f in range(3) if deltas[f]
        }
        made.append(Manifest(version, "l", "", files, small, version - 1 if small else None))
    return made[::-1]


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), max_size=5), st.integers(0, 5))
def test_a_plan_starts_at_a_whole_or_held_file_and_takes_every_delta_since(
    shares: list[list[bool]], held_version: int
) -> None:
    manifests = _manifests(shares)
    held = {f"{f}.safetensors": f"{held_version}-{f}" for f in range(3)}
    for name, how in plan(manifests, held).items():
        start = held_version if how.start is None else how.start
        assert how.versions == tuple(range(start + 1, len(shares) + 1))
        assert all(name in manifests[len(shares) - version].deltas for version in how.versions)
        assert how.start is None or name not in manifests[len(shares) - how.start].deltas
    assert plan(manifests, {})["0.safetensors"] == FilePlan(
        max(v for v in range(len(shares) + 1) if v == 0 or not shares[v - 1][0]),
        plan(manifests, {})["0.safetensors"].versions,
    )


def test_when_a_version_is_stored_whole() -> None:
    chained = _manifests([[True] * 3] * 3)
    assert wants_base([], 16)
    assert not wants_base(chained, 16)
    assert wants_base(chained, 4)
    assert not wants_base(chained, 5)
    # Ten deltas of 30 bytes cost as much as the base of 300; an eleventh costs more.
    assert not wants_base(_manifests([[True] * 3] * 10), 99)
    assert wants_base(_manifests([[True] * 3] * 11), 99)


def test_a_folder_of_copies_keeps_the_users_own_files(learner: Learner, tmp_path: Path) -> None:
    """The folder may be a home or a disk of many things."""
    root = tmp_path / "disk"
    names = ("videos/birthday.mp4", "venv/bin/python", "v1/thesis.tex", "v1-0123456789abcdef/thesis.tex", "v2.tmp/x")
    for name in names:
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text("precious", "utf-8")
    for version in (1, 2, 3):
        following(learner, root, version)
    assert all((root / name).read_text("utf-8") == "precious" for name in names)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "./config.json"])
def test_a_manifest_that_leads_out_of_its_folder_is_none(learner: Learner, tmp_path: Path, name: str) -> None:
    (tmp_path / "store" / "outside").write_text("x")
    folder = learner.store.folder(0)
    manifest = read(folder)
    assert manifest is not None
    assert (folder / name).is_file()
    sum_of = next(iter(manifest.files.values()))
    (folder / MANIFEST).write_text(replace(manifest, files={**manifest.files, name: sum_of}).dumps(), "utf-8")
    assert read(folder) is None
