"""The weight store as the learner writes it: `vN/` folders that are complete or absent, never partial.

A version's weight files are stored whole or as deltas of the version before (golongrl.weights).

Invariants:
- a folder `vN` is written under another name, every file durable, and renamed; its manifest names all files with
  sha256;
- a version is replaced only when its content changed, and then under another lineage;
- the newest versions, as many as the recipe keeps, stay, and what their deltas start from; older ones are deleted after
  the newer one is in place;
- a folder without the store's marker is never deleted or replaced (`golongrl.files`);
- what could not be written completely is removed.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from golongrl import __version__, files
from golongrl.errors import GolongrlError
from golongrl.files import sync
from golongrl.learner import fsync
from golongrl.learner.fsync import discarded_on_error, writing
from golongrl.learner.weights.export import INDEX, ExportedFile, WeightsNotFiniteError, index_json, write_shards
from golongrl.queue import WeightsRef
from golongrl.reading import file_sha256, small_text
from golongrl.weights.manifest import DELTA_SUFFIX, MANIFEST, Manifest, chain, damaged, folder_of, wants_base

if TYPE_CHECKING:
    from torch import Tensor

log = structlog.get_logger()

# Shows that a result folder was written by a learner.
EXPORT = "golongrl.json"

_OWNER = "of a learner"
# Files of a model folder that are not weights: configuration, tokenizer, chat template, model code.
_SUPPORT = ("*.json", "*.txt", "*.jinja", "*.model", "*.py")


class WeightStoreError(GolongrlError):
    """The model's weights cannot be read; the message names the folder."""


@dataclass(frozen=True)
class Support:
    """Where the files of a version that are not weights come from, and the precision of its weights."""

    folder: Path  # configuration, tokenizer, chat template
    dtype: str


class WeightStore:
    """A folder of published versions, shared with the engines."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, version: int) -> Path:
        return folder_of(self.root, version)

    def manifest(self, version: int) -> Manifest | None:
        """The manifest of a version that engines can take, what its deltas start from included; else None."""
        manifests = chain(self.root, version)
        return manifests[0] if manifests else None

    def intact(self, version: int) -> Manifest | None:
        """As `manifest`, where its weight files, and those that its deltas start from, also hold what was written."""
        manifests = chain(self.root, version)
        for manifest in manifests:
            folder = self.folder(manifest.version)
            try:
                found = damaged(folder, manifest)
            except OSError as error:
                found = str(error)
            if found is not None:
                log.warning("published weights are damaged", weights=str(folder), file=found)
                return None
        return manifests[0] if manifests else None

    def parent_of(self, version: int, base_every: int) -> Path | None:
        """The folder of the version that `version` is stored as deltas of; None: it is stored whole."""
        manifests = chain(self.root, version - 1) if version > 0 else []
        return None if wants_base(manifests, base_every) else self.folder(version - 1)

    def reference(self, manifest: Manifest) -> WeightsRef:
        """What is announced to the engines."""
        path = str(self.folder(manifest.version).resolve())
        return WeightsRef(manifest.version, path, manifest.lineage, manifest.checksum)

    def begin(self, version: int) -> Path:
        """An empty folder for all ranks to write into. Its name is new: the ranks of a learner that was killed may
        still be writing into theirs.

        Raises:
            NotWrittenError: the store cannot be written.
        """
        staging = files.scratch_name(self.folder(version))
        with writing("weights", staging):
            staging.mkdir(parents=True)
        return staging

    def seal(self, staging: Path, version: int, lineage: str, shards: list[ExportedFile], support: Support) -> Manifest:
        """Finish what was written into `staging` (config, tokenizer, index, manifest) as `vN`.

        A `vN` with the same weights is kept as it is, lineage included: nothing changed. One with other weights is
        replaced, and so is one of deltas by the same weights whole.

        Raises:
            NotWrittenError: the storage refused; `staging` is removed.
        """
        with discarded_on_error(staging), writing("weights", self.folder(version)):
            return self._seal(staging, version, lineage, shards, support)

    def _seal(
        self, staging: Path, version: int, lineage: str, shards: list[ExportedFile], support: Support
    ) -> Manifest:
        entries = _entries(shards)
        _write_support(staging, shards, support)
        for path in sorted(staging.iterdir()):
            if path.name not in entries and path.suffix != DELTA_SUFFIX:
                entries[path.name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        manifest = self._with_deltas(
            Manifest(version, lineage, datetime.now(UTC).isoformat(timespec="seconds"), entries), shards
        )
        if kept := self._kept(manifest):
            shutil.rmtree(staging)
            return kept
        (staging / MANIFEST).write_text(manifest.dumps(), "utf-8")
        for path in staging.iterdir():
            sync(path)
        sync(staging)
        final = self.folder(version)
        files.make_way(final, (MANIFEST,), _OWNER)
        staging.rename(final)
        sync(self.root)
        return manifest

    def _kept(self, manifest: Manifest) -> Manifest | None:
        """The published version that `manifest` would replace by the same weights; None: it is to be replaced."""
        published = self.manifest(manifest.version)
        if published is None or published.checksum != manifest.checksum or (published.deltas and not manifest.deltas):
            return None
        return self.intact(manifest.version)

    def _with_deltas(self, manifest: Manifest, shards: list[ExportedFile]) -> Manifest:
        deltas = {file.name: file.delta for file in shards if file.delta is not None}
        if not deltas:
            return manifest
        parent = self.manifest(manifest.version - 1)
        for name, delta in deltas.items():
            if parent is None or parent.files.get(name, {}).get("sha256") != delta.of:
                raise WeightStoreError(
                    f"weights {self.folder(manifest.version)}: {name} was written as a delta of a file that version "
                    f"{manifest.version - 1} does not have; start the learner again, it then stores the version whole"
                )
        assert parent is not None
        entries: dict[str, dict[str, int | str]] = {
            name: {"bytes": delta.bytes, "sha256": delta.sha256} for name, delta in deltas.items()
        }
        return replace(manifest, deltas=entries, parent=parent.version, parent_checksum=parent.checksum)

    def checksum_of(self, shards: list[ExportedFile]) -> str:
        """The checksum a manifest of these weight files would have."""
        return Manifest(0, "", "", _entries(shards)).checksum

    def prune(self, newest: int, keep: int) -> None:
        """Delete versions that are neither among the `keep` newest up to `newest`, nor above it, nor what the deltas of
        these start from."""
        needed = {manifest.version for manifest in chain(self.root, newest - keep + 1)}
        for version in self._versions():
            if version <= newest - keep and version not in needed:
                files.remove_own(self.folder(version), (MANIFEST,))

    def start_over(self, lineage: str) -> None:
        """Delete every version but 0, which engines start from; that one becomes the first of another history.

        Raises:
            NotWrittenError: the storage refused.
        """
        for version in self._versions():
            if version > 0:
                files.remove_own(self.folder(version), (MANIFEST,))
        if (initial := self.manifest(0)) is not None:
            path = self.folder(0) / MANIFEST
            with writing("weights", path):
                fsync.replace(path, replace(initial, lineage=lineage).dumps())

    def _versions(self) -> list[int]:
        names = [path.name.removeprefix("v") for path in self.root.glob("v*")]
        return [int(name) for name in names if name.isdecimal()]

    def sweep(self) -> None:
        """Delete what learners that were killed left unfinished. Only before this one stages anything."""
        files.sweep(self.root, r"v\d+")

    def refuse_foreign(self) -> None:
        """
        Raises:
            ForeignFilesError: a folder has the name of a version and is none.
        """
        for version in self._versions():
            files.refuse_foreign(self.folder(version), (MANIFEST,), _OWNER)

    def copy_out(self, version: int, target: Path) -> None:
        """A version as a plain Hugging Face folder that outlives the store, complete or absent. What somebody put
        beside an earlier one's files (a README, another format) stays.

        Raises:
            NotWrittenError: the storage refused.
            ForeignFilesError: the folder holds something else.
        """
        target = target.resolve()
        files.sweep(target.parent, re.escape(target.name))
        staging = files.scratch_name(target)
        with discarded_on_error(staging), writing("result", target):
            shutil.copytree(self.folder(version), staging, ignore=shutil.ignore_patterns(MANIFEST))
            mark_export(staging, version, sorted(path.name for path in staging.iterdir()))
            _take_along(target, staging)
            for path in staging.iterdir():
                sync(path)
            sync(staging)
            files.make_way(target, (EXPORT,), _OWNER)
            staging.rename(target)
            sync(target.parent)

    def publish_initial(self, support: Support, lineage: str, shard_bytes: int) -> Manifest:
        """Version 0 straight from the model's folder, cast to the recipe's dtype; needs no rank.

        Raises:
            WeightStoreError: the folder has no safetensors, or they cannot be read, or are not finite.
            NotWrittenError: the storage refused.
        """
        import torch

        model = support.folder
        sources = sorted(model.glob("*.safetensors"))
        if not sources:
            raise WeightStoreError(
                f"model {model}: no *.safetensors; convert the weights first (save_pretrained writes them)"
            )
        staging = self.begin(0)
        tied = bool(json.loads(small_text(model / "config.json")).get("tie_word_embeddings", False))
        with discarded_on_error(staging):
            tensors = _stored_tensors(sources, tied)
            dtype = getattr(torch, support.dtype)
            try:
                shards = write_shards(tensors, staging, dtype=dtype, shard_bytes=shard_bytes)
            except WeightsNotFiniteError as error:
                raise WeightStoreError(f"model {model}: {error}; it cannot be trained") from error
            return self.seal(staging, 0, lineage, shards, support)


def mark_export(folder: Path, version: int | None, names: Sequence[str] | None = None) -> None:
    """Mark a result folder as one that a learner wrote and may replace.

    Args:
        names: the files that it wrote; None: only their kinds are known.
    """
    record = {"program": f"golongrl {__version__}", "version": version, "files": names}
    (folder / EXPORT).write_text(json.dumps(record), "utf-8")


def _take_along(old: Path, staging: Path) -> None:
    """Link, into the folder that replaces `old`, what is in that and no learner wrote."""
    if not (old / EXPORT).is_file():
        return
    written = _written(old)
    for path in old.iterdir():
        kept = staging / path.name
        if written(path.name) or kept.exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, kept, symlinks=True, copy_function=_link)
        else:
            _link(path, kept)


def _written(folder: Path) -> Callable[[str], bool]:
    """Which names in a result folder are of files that a learner wrote."""
    with suppress(OSError, ValueError, RecursionError, AttributeError):
        names = json.loads(small_text(folder / EXPORT)).get("files")
        if isinstance(names, list):
            return lambda name: name == EXPORT or name in names
    return lambda name: any(fnmatch(name, pattern) for pattern in (*_SUPPORT, "*.safetensors"))


def _link(source: str | Path, target: str | Path) -> None:
    """A link costs nothing, however large the file is; some file systems have none."""
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, target, follow_symlinks=False)


def _entries(shards: list[ExportedFile]) -> dict[str, dict[str, int | str]]:
    return {file.name: {"bytes": file.bytes, "sha256": file.sha256} for file in shards}


def _stored_tensors(sources: list[Path], tied: bool) -> "Iterator[tuple[str, Tensor]]":
    from safetensors import SafetensorError, safe_open

    for source in sources:
        try:
            opened = safe_open(source, framework="pt")
        except (SafetensorError, OSError) as error:
            raise WeightStoreError(f"model file {source} cannot be read: {error}; copy or download it again") from error
        with opened as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors handle is not a dict
                if not (tied and name == "lm_head.weight"):
                    yield name, file.get_tensor(name)


def _write_support(staging: Path, shards: list[ExportedFile], support: Support) -> None:
    for pattern in _SUPPORT:
        for path in support.folder.glob(pattern):
            if path.name not in (INDEX, MANIFEST):
                shutil.copyfile(path, staging / path.name)
    config = json.loads(small_text(support.folder / "config.json"))
    config.pop("torch_dtype", None)
    config["dtype"] = support.dtype
    (staging / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
    index = index_json(shards)
    if index is not None:
        (staging / INDEX).write_text(index, "utf-8")
