"""Which checkpoint a start of the learner resumes, and whether it may.

`learner.resume` says how a run begins: with what its folder holds (`auto`), with nothing (`never`), or with the
checkpoint named. Once the queue has committed a later step than that, the run has begun and its first batches are gone:
every start of it, a person's or an automatic one after a death, resumes the run's own latest checkpoint.

Invariants:
- the choice depends on the setting and three numbers: the committed step, the named checkpoint's, the latest one's;
- a step is committed only when its checkpoint is the latest of the run's folder. A folder without one, or with an older
  one, is not the folder that the run wrote to, and is refused;
- before the first such commit only `auto` reads the run's folder: what it holds may be an older run's;
- every file of the chosen checkpoint is compared with its manifest. If the latest one is damaged, the newest whole one
  of the run is taken, or else the one that is named; its step is then below the committed one, and the run's queue must
  begin again there;
- a run without a queue (a new one, or Redis lost its data) begins at the checkpoint's step, without the rows that were
  trained before it: what the lost queue had in work is dealt again. Which checkpoint that is, `learner.resume` says:
  only the lost queue knew whether a later one in the folder is this run's;
- whether the queue still has the batches after the checkpoint, the queue itself judges when the learner attaches.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from golongrl.errors import InputError
from golongrl.learner import model_identity
from golongrl.learner.checkpoints import store
from golongrl.learner.checkpoints.store import (
    AUTO,
    NEVER,
    TRACKER,
    Checkpoint,
    CheckpointError,
    Checkpoints,
    LearnerState,
)
from golongrl.queue import SampleQueue
from golongrl.queue.errors import NotSetUpError
from golongrl.recipe import Recipe

log = structlog.get_logger()

# Changes of these are no change of what is trained.
_NOT_TRAINING = ("learner.resume", "learner.steps", "name")


@dataclass(frozen=True)
class Identity:
    """What must stay the same for a run to be resumed."""

    recipe: Recipe
    rows: int
    order: str
    model: Mapping[str, str]
    data: str = ""

    def check(self, checkpoint: Checkpoint) -> None:
        """Refuse another order of the data, in which step N would have other prompts, and another model.

        Raises:
            CheckpointError: naming what differs.
        """
        then = checkpoint.state
        # Before the data: another tokenizer makes other ones.
        if differences := model_identity.differences(then.model, self.model):
            raise CheckpointError(
                f"checkpoint {checkpoint.folder} does not belong to model.path {self.recipe.model.path}: "
                f"{'; '.join(differences)}; set model.path to the model that the run began with, or start a new run "
                "without this checkpoint"
            )
        for name, before, now in (
            ("seed", then.seed, self.recipe.seed),
            ("queue.groups_per_step", then.groups_per_step, self.recipe.queue.groups_per_step),
            ("rows of data", then.rows, self.rows),
            ("data order", then.order, self.order),
            # An older checkpoint does not say it.
            ("the rows' digest", then.data or self.data, self.data),
        ):
            if before != now:
                raise CheckpointError(
                    f"checkpoint {checkpoint.folder}: {name} was {before}, is {now}; restore it, or start a new run "
                    "without this checkpoint"
                )

    def state(
        self, step: int, lineage: str, checksum: str, history: str, *, negatives_masked: bool = False
    ) -> LearnerState:
        """What a checkpoint of `step` says of the run."""
        return LearnerState(
            step=step,
            lineage=lineage,
            checksum=checksum,
            ranks=self.recipe.learner.ranks,
            seed=self.recipe.seed,
            groups_per_step=self.recipe.queue.groups_per_step,
            rows=self.rows,
            order=self.order,
            model=dict(self.model),
            data=self.data,
            recipe=self.recipe.model_dump(mode="json"),
            history=history,
            negatives_masked=negatives_masked,
        )


@dataclass(frozen=True)
class Resumed:
    """The checkpoint that a start resumes."""

    checkpoint: Checkpoint
    own: bool
    """It is the run's own, and not one that a new run begins with."""
    rewinds: bool
    """Its step is below the committed one: the queue has no batches after it, and must begin again there."""


def changes(then: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Settings that differ from those of the checkpoint's step, as `KEY BEFORE -> NOW`; none if it records none."""
    if not then:
        return []
    before, now = _flat(then), _flat(recipe.model_dump(mode="json"))
    return [
        f"{key} {before[key]} -> {now[key]}"
        for key in sorted(before.keys() & now.keys())
        if before[key] != now[key] and key not in _NOT_TRAINING
    ]


def takes_latest(resume: str, *, committed: int, named: int, latest: int | None) -> bool:
    """Whether to resume the folder's latest checkpoint, and not what `resume` says.

    Args:
        committed: the queue's last committed step, read before `latest`; 0 is none.
        named: the step of the checkpoint that `resume` names; 0 if it names none.
        latest: the step of the folder's latest checkpoint, if it has any.

    Raises:
        CheckpointError: the run has committed a step, and this is not the folder with its checkpoint.
    """
    if resume != AUTO and committed <= named:
        return False
    if latest is None and not committed:
        return False
    if latest is None or latest < committed:
        has = "no checkpoint" if latest is None else f"checkpoint {latest} as its latest"
        raise CheckpointError(
            f"learner.resume {resume}: the run has committed step {committed}, its earlier batches are gone, and "
            f"--out has {has}; give the --out that the run wrote to, or start a new --run"
        )
    return True


async def find(resume: str, checkpoints: Checkpoints, queue: SampleQueue) -> Resumed | None:
    """The checkpoint to start from; None is from the initial model. Reads all of its files.

    Raises:
        CheckpointError: the run cannot be resumed from any.
    """
    # Before the folder: a learner that is being replaced makes a checkpoint the latest before it commits it.
    committed = await _committed(queue)
    return await asyncio.to_thread(choose, resume, checkpoints, committed)


def choose(resume: str, checkpoints: Checkpoints, committed: int) -> Resumed | None:
    """`find`, of a run that has committed a step; 0 is none."""
    if resume not in (AUTO, NEVER) and _pruned(Path(resume), checkpoints):
        resume = AUTO
    named = 0 if resume in (AUTO, NEVER) else store.step_of(Path(resume))
    latest = _latest(checkpoints, committed)
    if not takes_latest(resume, committed=committed, named=named, latest=latest):
        if resume != AUTO and latest is not None and latest > named:
            log.warning(
                "a later checkpoint exists and is ignored, because learner.resume is set", resume=resume, latest=latest
            )
        return None if resume in (AUTO, NEVER) else Resumed(store.read(Path(resume)), own=False, rewinds=False)
    if resume != AUTO:
        log.warning(
            "ignoring learner.resume, because this run has a later checkpoint of its own",
            resume=resume,
            committed=committed,
        )
    assert latest is not None
    checkpoint, damage = _newest_whole(checkpoints, latest)
    if checkpoint is not None:
        own = True
    elif resume in (AUTO, NEVER):
        raise CheckpointError(
            f"{damage[0]}; no other checkpoint in {checkpoints.root} is whole: name one with learner.resume, or start "
            "a new run"
        )
    else:
        checkpoint, own = store.read(Path(resume)), False
    if damage:
        log.warning(
            "a damaged checkpoint is passed over",
            detail=f"{damage[0]}; resuming {checkpoint.folder} (step {checkpoint.state.step}), the steps after it are "
            "trained again",
        )
    return Resumed(checkpoint, own, rewinds=checkpoint.state.step < committed)


def _latest(checkpoints: Checkpoints, committed: int) -> int | None:
    """The latest step. If the tracker is damaged or lost, that is the committed one, and for a new queue the newest
    folder."""
    try:
        latest = checkpoints.latest()
        if latest is not None or not checkpoints.steps():
            return latest
        raise CheckpointError(f"{checkpoints.root / TRACKER} is missing")
    except CheckpointError as error:
        steps = checkpoints.steps()
        latest = committed or (steps[0] if steps else None)
        log.warning("the tracker of checkpoints is damaged", error=str(error), assumed=latest)
        return latest


def resume_note(resume: str) -> str | None:
    """What a person should know of `learner.resume` before a run; None if nothing.

    Raises:
        InputError: it is neither `auto`, `never` nor the path of a checkpoint, here or on another machine.
    """
    if resume in (AUTO, NEVER):
        return None
    if Path(resume).is_dir():
        store.step_of(Path(resume))
        return None
    if store.is_folder_name(Path(resume).name):
        return f"learner.resume {resume} is not on this machine; it was not checked"
    raise InputError(
        f"learner.resume {resume}: neither {AUTO}, {NEVER} nor the path of a checkpoint folder global_step_N"
    )


def own_checkpoint(checkpoints: Checkpoints) -> tuple[int | None, list[str]]:
    """The step that the run in this folder would be resumed at, for a person; what is wrong with later checkpoints."""
    latest = _latest(checkpoints, 0)
    if latest is None:
        return None, []
    checkpoint, damage = _newest_whole(checkpoints, latest)
    return (checkpoint.state.step if checkpoint else None), damage


def _newest_whole(checkpoints: Checkpoints, latest: int) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of the run up to `latest`, and what is wrong with those after it."""
    damage: list[str] = []
    history = ""
    for step in [latest, *(step for step in checkpoints.steps() if step < latest)]:
        folder = checkpoints.folder(step)
        try:
            checkpoint = store.read(folder)
        except CheckpointError as error:
            damage.append(str(error))
            history = history or store.history_of(folder)
            continue
        if not damage or checkpoint.state.history == history or not history:
            return checkpoint, damage
    return None, damage


def _pruned(folder: Path, checkpoints: Checkpoints) -> bool:
    """Whether the run's own later checkpoints have taken its place, which happens shortly before they are committed."""
    return not folder.exists() and folder.parent.resolve() == checkpoints.root.resolve()


async def _committed(queue: SampleQueue) -> int:
    try:
        return (await queue.stats()).committed
    except NotSetUpError:
        return 0


def _flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
