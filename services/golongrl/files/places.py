"""Folders that a command may take or delete, and what it has made.

`judge` decides over names alone; the functions below it are the system calls.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from golongrl.errors import InputError
from golongrl.files.writing import STAGED

# What a file system itself puts at its root.
_NOBODYS: Final = frozenset({"lost+found"})
# Entries listed in a refusal.
_NAMED: Final = 3
# What a folder has that a command of this program writes: a run's, an evaluation's, a construction's of data.
_OUTPUTS: Final = (("run.json",), ("evaluation.json", "points"), ("pipeline.yaml", "sources"))
# Random ones of a scratch name: enough for the few that one path has at a time.
_SCRATCH_BYTES: Final = 4
# `Path` leaves one slash of `s3://bucket`.
_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+:)/")
# What a shell makes another path of, unless it stands in quotes.
_FOR_A_SHELL: Final = re.compile(r"~[\w.-]*|\$[A-Za-z_]\w*|\$\{\w+\}")


class ForeignFilesError(InputError):
    """A folder would be deleted or replaced that holds files which the program did not write."""


class PlaceState(StrEnum):
    """What stands where a command wants its folder."""

    MISSING = "missing"
    EMPTY = "empty"
    OWN = "own"
    FOREIGN = "foreign"
    NOT_A_FOLDER = "not a folder"


@dataclass(frozen=True)
class Place:
    """A path that a command wants as its folder, and what is there."""

    path: Path
    state: PlaceState
    entries: tuple[str, ...] = ()

    @property
    def free(self) -> bool:
        """A command may begin here."""
        return self.state in (PlaceState.MISSING, PlaceState.EMPTY)

    def why_not(self, owner: str) -> str:
        """Why a place that is neither free nor own cannot be taken; `owner` is whose files would be fine."""
        if self.state is PlaceState.NOT_A_FOLDER:
            return f"{self.path} is not a folder"
        named = ", ".join(self.entries[:_NAMED]) + (", ..." if len(self.entries) > _NAMED else "")
        return f"{self.path} holds files that are not {owner} ({named})"


def judge(path: Path, entries: Iterable[str] | None, markers: frozenset[str], harmless: frozenset[str]) -> Place:
    """The place of a folder with these entries (None: no such folder).

    Args:
        markers: files of which one at least shows that the folder is the program's own.
        harmless: names that the program may have left there before it wrote a marker; so may be staged files.
    """
    if entries is None:
        return Place(path, PlaceState.MISSING)
    names = set(entries)
    if names & markers:
        return Place(path, PlaceState.OWN)
    others = tuple(sorted(name for name in names - harmless - _NOBODYS if not STAGED.fullmatch(name)))
    return Place(path, PlaceState.FOREIGN if others else PlaceState.EMPTY, others)


def look(path: Path, markers: Iterable[str], harmless: Iterable[str] = ()) -> Place:
    """See what is at `path`.

    Raises:
        OSError: the folder cannot be read, or its name is impossible.
    """
    try:
        entries = os.listdir(path)
    except FileNotFoundError:
        # A link to nothing is not a free place: making the folder would fail.
        return (
            Place(path, PlaceState.NOT_A_FOLDER) if path.is_symlink() else judge(path, None, frozenset(), frozenset())
        )
    except NotADirectoryError:
        if not os.path.lexists(path):
            raise  # a file stands where one of its parents should be
        return Place(path, PlaceState.NOT_A_FOLDER)
    return judge(path, entries, frozenset(markers), frozenset(harmless))


def make_way(folder: Path, markers: Iterable[str], owner: str) -> None:
    """See to it that nothing is at `folder`, by deleting what the program itself wrote there.

    Raises:
        ForeignFilesError: it holds other files, and stays.
        OSError: the storage refused.
    """
    if refuse_foreign(folder, markers, owner).state is not PlaceState.MISSING:
        _delete(folder)


def refuse_foreign(folder: Path, markers: Iterable[str], owner: str) -> Place:
    """What is at `folder`: nothing, or files that the program itself wrote there.

    Raises:
        ForeignFilesError: it holds other files.
        OSError: it cannot be read.
    """
    place = look(folder, markers)
    if not (place.free or place.state is PlaceState.OWN):
        raise ForeignFilesError(f"{place.why_not(owner)}; move them, or choose another folder")
    return place


def remove_own(folder: Path, markers: Iterable[str]) -> None:
    """Delete a folder if the program wrote it, as far as possible."""
    with suppress(OSError):
        if look(folder, markers).state is PlaceState.OWN:
            _delete(folder)


def _delete(folder: Path) -> None:
    # Under a scratch name: half deleted, it might have lost its marker.
    scratch = scratch_name(folder)
    folder.rename(scratch)
    _delete_tree(scratch)


def _delete_tree(path: Path) -> None:
    """Delete a folder, as far as possible; of a link to one, the link alone."""
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def refuse_elsewhere(path: Path) -> None:
    """Refuse as output what is meant to be elsewhere, a URL or a `~` in quotes: a folder of its name would be made
    here, where nobody looks, and who removes it as `~` removes another one.

    Raises:
        InputError: so.
    """
    scheme = _URL.match(str(path))
    if scheme and not Path(scheme[1]).exists():
        raise InputError(f"{path}: is a URL, and only folders of this machine can be written; give a folder")
    first = next(iter(path.parts), "")
    if _FOR_A_SHELL.fullmatch(first) and not Path(first).exists():
        raise InputError(
            f"{path}: {first} is no folder here, and only a shell reads it, without quotes; give the path itself"
        )


def outside_outputs(root: Path, paths: Iterable[Path]) -> list[Path]:
    """Of files found below a folder of input, those that are not in the output of a command: `--out` may lie there, and
    the next command would read what the one before wrote. `root` itself may be such an output.
    """
    known: dict[Path, bool] = {}

    def is_output(folder: Path) -> bool:
        if folder not in known:
            known[folder] = folder != root and (
                any(all((folder / name).exists() for name in names) for names in _OUTPUTS) or is_output(folder.parent)
            )
        return known[folder]

    return [path for path in paths if not is_output(path.parent)]


def scratch_name(path: Path) -> Path:
    """A new name near `path`, by which `sweep` finds what a process that was killed left there."""
    return path.with_name(f"{path.name}.{secrets.token_hex(_SCRATCH_BYTES)}.tmp")


def sweep(root: Path, name: str) -> None:
    """Delete the folders in `root` with scratch names of paths that match the pattern `name`, as far as possible."""
    scratch = re.compile(rf"({name})\.[0-9a-f]{{{2 * _SCRATCH_BYTES}}}\.tmp")
    with suppress(OSError):
        for entry in os.listdir(root):
            if scratch.fullmatch(entry):
                _delete_tree(root / entry)


class Made:
    """What a command has made so far; `undo` removes that and leaves everything else."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self._files: list[Path] = []
        self._trees: list[Path] = []

    def folder(self, path: Path, mode: int = 0o777) -> None:
        """Make a folder and the parents it lacks; only the folder itself gets `mode` (within the umask).

        Raises:
            InputError: it is a URL, or meant for a shell.
            OSError: it cannot be made.
        """
        refuse_elsewhere(path)
        missing = [parent for parent in path.parents if not parent.exists()]
        for parent in reversed(missing):
            self._make(parent, 0o777)
        self._make(path, mode)

    def _make(self, path: Path, mode: int) -> None:
        with suppress(FileExistsError):
            path.mkdir(mode)
            self._folders.append(path)

    def file(self, path: Path, *, new: bool = False) -> None:
        """`path` is made by this command, if it is not there yet (`new`: it is there, and was not before)."""
        if new or not os.path.lexists(path):
            self._files.append(path)

    def tree(self, path: Path) -> None:
        """`path` and all below it is made by this command, if it is not there yet."""
        if not os.path.lexists(path):
            self._trees.append(path)

    def keep(self) -> None:
        """What was made so far stays."""
        self._folders, self._files, self._trees = [], [], []

    def undo(self) -> None:
        """Remove what was made; a folder into which somebody else put a file stays."""
        for path in self._trees:
            shutil.rmtree(path, ignore_errors=True)
        for path in self._files:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        for path in reversed(self._folders):
            with suppress(OSError):
                path.rmdir()
