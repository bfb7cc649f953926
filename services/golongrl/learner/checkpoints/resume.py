"""From which checkpoint a start of the learner goes on, and whether it may.

`learner.resume` says how a run begins: with what its folder holds (`auto`), with nothing (`never`), or with the
checkpoint named. Once the queue has committed a later step than that, the run has begun and its first batches are gone:
every start of it, a person's or an automatic one after a death, goes on from the run's own latest checkpoint.

Invariants:
- the choice depends on the setting and three numbers: the committed step, the named checkpoint's, the latest one's;
- a step is committed only when its checkpoint is the latest of the run's folder. A folder without one, or with an older
  one, is not the folder that the run wrote to, and is refused;
- before the first such commit nothing is read from the run's folder but by `auto`: it may be that of an older run;
- a run without a queue (a new one, or Redis lost its data) begins at the checkpoint's step, without the rows that were
  trained before it: what the lost queue had in work is dealt again. Which checkpoint, `learner.resume` says: that a
  later one in the folder is this run's and no older one's, only the lost queue knew;
- whether the queue still has the batches after the checkpoint, the queue itself judges when the learner attaches.
"""

from dataclasses import dataclass
from pathlib import Path

import structlog

from golongrl.learner.checkpoints.store import (
    AUTO,
    NEVER,
    Checkpoint,
    CheckpointError,
    Checkpoints,
    LearnerState,
    check_same_data,
    step_of,
)
from golongrl.queue import SampleQueue
from golongrl.queue.errors import NotSetUpError
from golongrl.recipe import Recipe

log = structlog.get_logger()


@dataclass(frozen=True)
class Identity:
    """What must stay the same for a run to be resumed."""

    recipe: Recipe
    rows: int
    order: str

    def check(self, checkpoint: Checkpoint) -> None:
        """
        Raises:
            CheckpointError: it is of other data, naming what differs.
        """
        check_same_data(
            checkpoint,
            seed=self.recipe.seed,
            groups_per_step=self.recipe.queue.groups_per_step,
            rows=self.rows,
            order=self.order,
        )

    def state(self, step: int, lineage: str, checksum: str) -> LearnerState:
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
        )


def takes_latest(resume: str, *, committed: int, named: int, latest: int | None) -> bool:
    """Whether to go on from the folder's latest checkpoint, and not from what `resume` says.

    Args:
        committed: the queue's last committed step, read before `latest`; 0 is none.
        named: the step of the checkpoint that `resume` names; 0 where it names none.
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


async def find(resume: str, checkpoints: Checkpoints, queue: SampleQueue) -> Checkpoint | None:
    """The checkpoint to start from; None is from the initial model.

    Raises:
        CheckpointError: there is none that the run can go on from, or it is not complete.
    """
    # Before the folder: a learner that is being replaced makes a checkpoint the latest before it commits it.
    committed = await _committed(queue)
    if resume not in (AUTO, NEVER) and _pruned(Path(resume), checkpoints):
        resume = AUTO
    named = 0 if resume in (AUTO, NEVER) else step_of(Path(resume))
    latest = checkpoints.latest()
    if not takes_latest(resume, committed=committed, named=named, latest=latest):
        if resume != AUTO and latest is not None and latest > named:
            log.warning("a later checkpoint is left: learner.resume says so", resume=resume, latest=latest)
        return checkpoints.find(resume)
    if resume != AUTO:
        log.warning("learner.resume is how the run began; it has committed since", resume=resume, committed=committed)
    return checkpoints.find(AUTO)


def _pruned(folder: Path, checkpoints: Checkpoints) -> bool:
    """Whether the run's own later checkpoints have taken its place, which happens shortly before they are committed."""
    return not folder.exists() and folder.parent.resolve() == checkpoints.root.resolve()


async def _committed(queue: SampleQueue) -> int:
    try:
        return (await queue.stats()).committed
    except NotSetUpError:
        return 0
