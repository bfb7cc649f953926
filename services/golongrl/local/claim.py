"""The folder of a run: who may take it, in which order it is written, and what a failed start leaves (nothing).

Invariants:
- a new run takes only a folder that does not exist or is empty; `--resume` takes only a run's own folder;
- the lock comes before any other file, so a command that is refused has changed nothing;
- until `begun`, leaving the claim with an error removes what this command made, and only that.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Self, TextIO

from golongrl import files
from golongrl.errors import InputError, writing_to
from golongrl.files import Made, Place, PlaceState
from golongrl.learner.checkpoints.resume import changes
from golongrl.local.plan import LOCK, RunFolder
from golongrl.reading import refuse_endless
from golongrl.recipe import Recipe, RecipeError, dump, load, source
from golongrl.telemetry import run_info

# The sections that a resumed run may change; any other would give the groups it holds another meaning.
RESUMABLE_SECTION = "learner"
# Differences that one line names.
_NAMED = 3
# Around the kept recipe: one that was cut behind a section would be read with defaults in the place of the others.
_BEGIN = "# The run's recipe with everything filled in; it is whole if its last line says so."
_END = "# The end of the recipe."
_WAY_OUT = "put a copy of it back, or start a new run with learner.resume={}/global_step_N"
# A run's folder holds prompts, responses and a password.
PRIVATE = 0o700


def refusal(place: Place, name: str, *, resume: bool) -> str | None:
    """Why a run called `name` cannot take this place; None when it can. Pure."""
    if resume:
        if place.state is PlaceState.OWN:
            return None
        why = "" if place.free else f" ({place.why_not('of a run')})"
        return f"--resume: there is no run {name} in {place.path.parent}{why}"
    if place.free:
        return None
    if place.state is PlaceState.OWN:
        return f"run {name}: {place.path} exists; continue it with --resume or choose another --name"
    return f"run {name}: {place.why_not('of a run')}; choose another --name or --out"


class Claim:
    """A run's folder, locked by this process; the lock ends with the process, however that ends."""

    def __init__(self, folder: RunFolder, lock: TextIO, made: Made) -> None:
        self.folder = folder
        self.made = made
        self._lock = lock
        self._begun = False

    @classmethod
    @contextmanager
    def take(cls, folder: RunFolder, *, resume: bool) -> Iterator[Self]:
        """Take the folder for as long as the block lasts.

        Raises:
            InputError: it belongs to somebody else, another process runs it, or it cannot be written.
            NoSpaceError: the disk is full.
        """
        made = Made()
        try:
            with writing_to(f"--out {folder.path.parent}", folder=folder.path):
                _refuse(folder, resume=resume)
                if not resume:
                    made.folder(folder.path, PRIVATE)
                was_there = os.path.lexists(folder.lock)
                lock = _locked(folder)
                if not was_there:
                    made.file(folder.lock, new=True)
        except BaseException:
            made.undo()
            raise
        with lock:
            claim = cls(folder, lock, made)
            try:
                with writing_to(f"--out {folder.path.parent}", folder=folder.path):
                    # Again: another process may have had the folder until now.
                    _refuse(folder, resume=resume)
                    refuse_endless(folder.path, f"run {folder.path.name}")
                    _refuse_misplaced(folder)
                files.sweep_staged(folder.path)
                yield claim
            except BaseException:
                if not claim._begun:
                    # Still under the lock: nobody else can have taken the folder.
                    made.undo()
                raise

    def begun(self) -> None:
        """The run has begun: from now on its folder stays, whatever happens."""
        self._begun = True

    def write_recipe(self, recipe: Recipe) -> None:
        """Keep the resolved recipe.

        Raises:
            InputError, NoSpaceError: the storage refused.
        """
        self.made.file(self.folder.recipe)
        with writing_to(f"--out {self.folder.path.parent}", folder=self.folder.path):
            files.write_text(self.folder.recipe, f"{_BEGIN}\n{dump(recipe)}{_END}\n")


def resumed_recipe(folder: RunFolder, overrides: Sequence[str]) -> Recipe:
    """The recipe of an interrupted run, with changes to its learner section only; writes nothing.

    Raises:
        RecipeError: the recipe is not readable or not whole, or another section would change.
    """
    if not folder.recipe.exists():
        if next(folder.checkpoints.glob("global_step_*"), None) is None:
            raise InputError(f"--resume: {folder.path} has no recipe.yaml, so the run never began; start a new one")
        raise RecipeError(f"--resume: {folder.recipe} is missing; {_WAY_OUT.format(folder.checkpoints)}")
    kept = source(str(folder.recipe)).rstrip()
    # Recipes of earlier versions have neither line.
    if kept.startswith(_BEGIN) and not kept.endswith(_END):
        raise RecipeError(
            f"--resume: {folder.recipe} is damaged: its end is missing; {_WAY_OUT.format(folder.checkpoints)}"
        )
    before, recipe = load(str(folder.recipe)), load(str(folder.recipe), overrides)
    for section in type(recipe).model_fields:
        if section != RESUMABLE_SECTION and getattr(before, section) != getattr(recipe, section):
            raise RecipeError(
                f"--set {section}.*: a resumed run can only change {RESUMABLE_SECTION}.*; start a new run"
            )
    return recipe


def other_recipe(asked: str, overrides: Sequence[str], folder: RunFolder, recipe: Recipe) -> str | None:
    """What a person should know who resumes a run with a recipe that is not the run's, whose own one holds.

    Raises:
        RecipeError: it has another name.
    """
    try:
        found = load(asked, overrides)
    except RecipeError:
        return None  # the file may have been changed, or be gone, since the run began
    if found.name != recipe.name:
        raise RecipeError(
            f"--resume: run {folder.path.name} is of recipe {recipe.name}, and {asked} is {found.name}; name the run's "
            "recipe or none, or start a new run with another --name"
        )
    differ = changes(found.model_dump(mode="json"), recipe)
    if not differ:
        return None
    more = f" and {len(differ) - _NAMED} more" if len(differ) > _NAMED else ""
    return (
        f"the run's own recipe holds (--set changes {RESUMABLE_SECTION}.*); in {asked} -> in the run: "
        f"{', '.join(differ[:_NAMED])}{more}"
    )


def look(folder: RunFolder) -> Place:
    """What stands where the run wants its folder.

    Raises:
        OSError: it cannot be read.
    """
    return files.look(folder.path, run_info.MARKERS, harmless=(LOCK,))


def _refuse(folder: RunFolder, *, resume: bool) -> None:
    why = refusal(look(folder), folder.path.name, resume=resume)
    if why is not None:
        raise InputError(f"{why}; {run_info.others(folder.path.parent)}" if resume else why)


def _refuse_misplaced(folder: RunFolder) -> None:
    """Refuse a file, or a link to nothing, in the place of a folder of the run, and a folder in that of a file."""
    no_folders = [path for path in folder.folders if os.path.lexists(path) and not path.is_dir()]
    for path in (*no_folders, *(path for path in folder.files if path.is_dir())):
        kept = "folder" if path in no_folders else "file"
        raise InputError(f"run {folder.path.name}: {path} is no {kept}, as a run keeps it there; move it elsewhere")


def _locked(folder: RunFolder) -> TextIO:
    """The lock file, locked.

    Raises:
        InputError: another process runs it.
        OSError: it cannot be opened or locked.
    """
    try:
        return files.lock(folder.lock)
    except files.LockHeldError as error:
        raise InputError(f"run {folder.path.name} is running already ({error}); choose another --name") from error
