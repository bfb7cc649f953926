"""A whole version on this machine, made of what changed: what an engine loads, whatever way the store keeps it.

Invariants:
- a folder `vN-CHECKSUM` is whole and verified, or absent: it is written under another name, every file of it compared
  with the manifest's sha256, and renamed. No half-patched weights are ever loaded;
- what was left by another process is verified once before it is used, and what does not fit is deleted;
- a version that is loaded from the store itself is compared with its manifest, too;
- where a held file turns out wrong or a delta does not fit, the version is made from its base, and a line says so;
- at most two versions are kept: the one an engine may be loading, and the one before;
- only folders with the name and the manifest of a version are deleted: the folder may hold other files.
"""

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path

import structlog

from golongrl import files
from golongrl.queue.types import WeightsRef
from golongrl.rollout.sglang.errors import WeightsMissingError
from golongrl.weights.delta import DeltaError, patched
from golongrl.weights.manifest import (
    DELTA_SUFFIX,
    MANIFEST,
    THREADS,
    FilePlan,
    Manifest,
    chain,
    damaged,
    folder_of,
    plan,
    read,
)

log = structlog.get_logger(__name__)

_NAME = r"v\d+-[0-9a-f]{16}"


@dataclass(frozen=True)
class Fetched:
    """Where the version is, and what it cost to have it here."""

    folder: Path
    bytes: int
    """Read from the store."""
    from_base: bool


class LocalCopy:
    """The versions under `root`; one process at a time. Not for several threads."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._held: Path | None = None
        self._looked = False

    def fetch(self, ref: WeightsRef) -> Fetched:
        """Have the announced version here. Blocks, reads and writes weights.

        A folder without a manifest was written by no weight store; it is loaded where it is. So is a version that is
        whole in the store, unless versions before it were patched here: the next ones will be, too.

        Raises:
            WeightsMissingError: the store does not have all of it now, or it cannot be written here.
        """
        if not (Path(ref.path) / MANIFEST).is_file():
            return Fetched(Path(ref.path), 0, from_base=False)
        store = Path(ref.path).parent
        manifests = chain(store, ref.version)
        if not manifests or manifests[0].checksum != ref.checksum:
            raise WeightsMissingError(
                f"weights {ref.path}: the version or one that its deltas start from is not in the store, or not whole "
                "(is the weight store mounted here?)"
            )
        target = self._root / f"v{ref.version}-{ref.checksum[:16]}"
        try:
            self._look()
            if self._held is not None and read(self._held) is None:
                log.warning("the local copy of the weights is gone or cut", folder=str(self._held))
                self._held = None
            if self._held is None and not manifests[0].deltas:
                if (name := damaged(Path(ref.path), manifests[0])) is not None:
                    raise _damage(Path(ref.path), f"{name} has another sha256 than its manifest says")
                return Fetched(Path(ref.path), manifests[0].weight_bytes, from_base=True)
            if self._held != target:
                fetched = self._make(store, manifests, target)
                self._keep(target)
                return fetched
        except FileNotFoundError as error:  # the learner has replaced or deleted the version meanwhile
            raise WeightsMissingError(f"weights {ref.path}: {error}") from error
        except OSError as error:
            raise WeightsMissingError(f"weights {ref.path} cannot be copied to {self._root}: {error}") from error
        return Fetched(target, 0, from_base=False)

    def _make(self, store: Path, manifests: list[Manifest], target: Path) -> Fetched:
        held = read(self._held) if self._held else None
        sums = {name: str(held.files[name]["sha256"]) for name in held.weight_files} if held else {}
        try:
            return self._write(store, manifests, target, plan(manifests, sums))
        except DeltaError as error:
            log.warning(
                "what is held here does not lead to the announced weights; starting from their base",
                version=manifests[0].version,
                error=str(error),
            )
            self._drop()
            try:
                return self._write(store, manifests, target, plan(manifests, {}))
            except DeltaError as again:
                raise _damage(folder_of(store, manifests[0].version), again) from again

    def _write(self, store: Path, manifests: list[Manifest], target: Path, plans: dict[str, FilePlan]) -> Fetched:
        newest = manifests[0]
        staging = files.scratch_name(target)
        staging.mkdir(parents=True)
        try:
            with ThreadPoolExecutor(THREADS, thread_name_prefix="weights") as threads:
                make = partial(self._weight_file, store, newest, staging)
                read_bytes = sum(threads.map(lambda item: make(*item), plans.items()))
            for name in newest.files.keys() - plans.keys():
                shutil.copyfile(folder_of(store, newest.version) / name, staging / name)
            # Whole here, so without deltas: `read` then finds its own files.
            whole = Manifest(newest.version, newest.lineage, newest.created, newest.files)
            (staging / MANIFEST).write_text(whole.dumps(), "utf-8")
            files.make_way(target, (MANIFEST,), "of a worker")
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return Fetched(target, read_bytes, from_base=any(part.start is not None for part in plans.values()))

    def _weight_file(self, store: Path, newest: Manifest, staging: Path, name: str, how: FilePlan) -> int:
        """Make one weight file; the bytes read from the store."""
        if how.start is None and not how.versions:
            assert self._held is not None
            (staging / name).hardlink_to(self._held / name)
            return 0
        source = self._held if how.start is None else folder_of(store, how.start)
        assert source is not None
        content = (source / name).read_bytes()
        cost = 0 if how.start is None else len(content)
        for version in how.versions:
            delta = (folder_of(store, version) / f"{name}{DELTA_SUFFIX}").read_bytes()
            cost += len(delta)
            content = patched(content, delta)
        if sha256(content).hexdigest() != newest.files[name]["sha256"]:
            raise DeltaError(f"{name} has another sha256 than the manifest of version {newest.version} says")
        (staging / name).write_bytes(content)
        return cost

    def _look(self) -> None:
        """Once: what an earlier process left here. The newest whole version is held, all else is deleted."""
        if self._looked:
            return
        self._root.mkdir(parents=True, exist_ok=True)
        found = []
        files.sweep(self._root, _NAME)
        for path in self._versions():
            manifest = read(path)
            if manifest is not None and damaged(path, manifest) is None:
                found.append((manifest.version, path))
            else:
                files.remove_own(path, (MANIFEST,))
        self._held = max(found)[1] if found else None
        self._looked = True

    def _keep(self, newest: Path) -> None:
        before, self._held = self._held, newest
        for path in self._versions():
            if path not in (newest, before):
                files.remove_own(path, (MANIFEST,))

    def _drop(self) -> None:
        if self._held is not None:
            files.remove_own(self._held, (MANIFEST,))
            self._held = None

    def _versions(self) -> Iterator[Path]:
        return (path for path in self._root.glob("v*") if re.fullmatch(_NAME, path.name))


def _damage(folder: Path, what: object) -> WeightsMissingError:
    return WeightsMissingError(f"weights {folder}: the stored files are damaged: {what}; the learner writes them again")
