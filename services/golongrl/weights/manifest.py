"""What a folder of the weight store says of its version: every file of the whole version, and which are deltas.

A version's weight file is stored whole, or as a delta of the same file of the version before (golongrl.weights.delta).
Versions are a *chain*: a version with deltas needs its parent, down to one that is stored whole, the *base*.

Invariants:
- `files` names the whole version, whatever is stored: sizes and sha256 are those of the files an engine loads;
- a parent is named by its checksum, so that a replaced one is noticed: its children are then no versions any more;
- a folder in which a file is missing or has another size is no version; whether the files hold what they held is asked
  of `damaged`, which reads them all.
"""

import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from golongrl.reading import file_sha256, small_text

MANIFEST = "manifest.json"
DELTA_SUFFIX = ".delta"
_WEIGHTS = ".safetensors"
# Reading and hashing release the interpreter; more threads than this wait for one disk.
THREADS = 4


@dataclass(frozen=True)
class Manifest:
    """What `vN/manifest.json` says. `files`: name -> {bytes, sha256} of every other file of the version.

    `deltas`: name -> {bytes, sha256} of the delta stored as `name.delta` in place of the weight file `name`.
    """

    version: int
    lineage: str
    created: str
    files: dict[str, dict[str, int | str]]
    deltas: dict[str, dict[str, int | str]] = field(default_factory=dict)
    parent: int | None = None
    parent_checksum: str = ""

    @property
    def weight_files(self) -> list[str]:
        """Names of the weight files."""
        return sorted(name for name in self.files if name.endswith(_WEIGHTS))

    @property
    def weight_bytes(self) -> int:
        """Bytes of the whole version's weight files."""
        return sum(int(self.files[name]["bytes"]) for name in self.weight_files)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the weights as they are stored: what an engine that has the parent must read."""
        stored = (self.deltas.get(name, self.files[name]) for name in self.weight_files)
        return sum(int(entry["bytes"]) for entry in stored)

    @property
    def checksum(self) -> str:
        """One sha256 over the weight files' own: equal exactly when the weights are."""
        digest = sha256()
        for name in self.weight_files:
            digest.update(f"{name} {self.files[name]['sha256']}\n".encode())
        return digest.hexdigest()

    @property
    def stored(self) -> dict[str, Mapping[str, int | str]]:
        """What is said of each file in the folder, the manifest apart."""
        return {
            f"{name}{DELTA_SUFFIX}" if name in self.deltas else name: self.deltas.get(name, entry)
            for name, entry in self.files.items()
        }

    def dumps(self) -> str:
        """As JSON, which `read` reads."""
        return json.dumps(asdict(self), indent=1)


def folder_of(root: Path, version: int) -> Path:
    """Where the weight store keeps a version."""
    return root / f"v{version}"


def read(folder: Path) -> Manifest | None:
    """A folder's manifest, with all its files there in their sizes; None if it is not, or was not written by this
    program.

    A name that leads out of the folder was not.
    """
    try:
        manifest = Manifest(**json.loads(small_text(folder / MANIFEST)))
        inside = all(name == os.path.basename(name) for name in manifest.files)
        whole = inside and all(_has_size(folder / name, entry) for name, entry in manifest.stored.items())
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError):
        return None
    return manifest if whole else None


def _has_size(path: Path, entry: Mapping[str, int | str]) -> bool:
    return path.is_file() and path.stat().st_size == entry["bytes"]


def damaged(folder: Path, manifest: Manifest) -> str | None:
    """A stored weight file with another content than the manifest says; None where all are as they were written.

    Reads them all.

    Raises:
        OSError: one cannot be read.
    """
    weights = {name: entry for name, entry in manifest.stored.items() if name.endswith((_WEIGHTS, DELTA_SUFFIX))}

    def holds(item: tuple[str, Mapping[str, int | str]]) -> bool:
        return file_sha256(folder / item[0]) == item[1]["sha256"]

    with ThreadPoolExecutor(THREADS, thread_name_prefix="weights") as threads:
        sound = list(threads.map(holds, weights.items()))
    return next((name for name, well in zip(weights, sound, strict=True) if not well), None)


def chain(root: Path, version: int) -> list[Manifest]:
    """A version and what it is made of, newest first, down to its base; empty if a part of that is not there."""
    manifests: list[Manifest] = []
    wanted: int | None = version
    while wanted is not None:
        manifest = read(folder_of(root, wanted))
        if manifest is None or manifest.version != wanted:
            return []
        if manifests and manifest.checksum != manifests[-1].parent_checksum:
            return []
        manifests.append(manifest)
        if not manifest.deltas:
            return manifests
        # Parents are older, so that this ends.
        wanted = manifest.parent if manifest.parent is not None and manifest.parent < wanted else -1
    return []


def wants_base(manifests: Sequence[Manifest], every: int) -> bool:
    """Whether the version after this chain (newest first) is stored whole.

    Args:
        every: a base at least every so many versions.
    """
    if not manifests or len(manifests) >= every:
        return True
    # A worker that joins late reads the chain: it must not cost more than the base that it starts from.
    return sum(manifest.stored_bytes for manifest in manifests[:-1]) > manifests[-1].weight_bytes


@dataclass(frozen=True)
class FilePlan:
    """How one weight file of a version is made: from `start`, by the deltas of `versions`, oldest first."""

    start: int | None
    """The version whose folder has the file whole; None is the copy that is held."""
    versions: tuple[int, ...]


def plan(manifests: Sequence[Manifest], held: Mapping[str, str]) -> dict[str, FilePlan]:
    """How to make each weight file of a chain's newest version with the fewest bytes read.

    Args:
        manifests: a whole chain, newest first.
        held: sha256 of the weight files held, by name.
    """
    plans = {}
    for name in manifests[0].weight_files:
        deltas: list[int] = []
        for manifest in manifests:
            if held.get(name) == manifest.files[name]["sha256"]:
                plans[name] = FilePlan(None, tuple(reversed(deltas)))
                break
            if name not in manifest.deltas:
                plans[name] = FilePlan(manifest.version, tuple(reversed(deltas)))
                break
            deltas.append(manifest.version)
    return plans
