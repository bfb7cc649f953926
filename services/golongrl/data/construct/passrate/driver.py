"""The driver of a pool that only rolls out: it deals every prepared prompt once and keeps the rewards of its responses.

It stands where a training run has its learner, and follows the queue's protocol as that does: a batch is taken, its
rewards are written, then the step is finished and committed. The weights never change, so every engine stays at version
0 and the queue lets it be as many steps behind as there are.

Invariants: the rewards of a step are on disk before the step is finished, so a driver that was killed takes the same
batch again and writes the same file; a prompt whose group the queue has given up has no rewards, which is not a reward.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog

from golongrl.data.construct.errors import PipelineError
from golongrl.data.construct.passrate import rewards
from golongrl.data.construct.passrate.rewards import GroupRewards
from golongrl.data.prepared import Prepared, open_splits
from golongrl.learner.queue_settings import queue_settings
from golongrl.queue import Batch, Behind, SampleQueue, Stopped, WeightsRef
from golongrl.recipe import Recipe

log = structlog.get_logger(__name__)

# Looking costs the queue one small script.
_PAUSE_S = 0.25
# The only history of weights there is.
LINEAGE = "fixed"


@dataclass(frozen=True)
class DriverConfig:
    """Where the driver's things are: the prepared prompts, the model that engines load, where the rewards go."""

    run: str
    redis_url: str
    data: Path
    model: Path
    out: Path


async def drive(recipe: Recipe, config: DriverConfig) -> None:
    """Roll out all prompts; returns when the queue has none left.

    Raises:
        PipelineError: too many prompts in a row failed.
        QueueError: the queue cannot be used.
    """
    data, _ = open_splits(config.data)
    async with SampleQueue.from_url(config.redis_url, config.run) as queue:
        await _setup(queue, recipe, data, config.out)
        version = (await queue.stats()).version
        fence = (await queue.attach(version)).token
        if await queue.weights() is None:
            path = str(config.model.resolve())
            await queue.announce(fence, WeightsRef(version, path, LINEAGE, LINEAGE))
        await _steps(queue, fence, version + 1, config.out)


async def _setup(queue: SampleQueue, recipe: Recipe, data: Prepared, out: Path) -> None:
    """The run's queue, as it is or new; a new one deals no prompt whose rewards are on disk already."""
    steps = len(data) // recipe.queue.groups_per_step + 1
    settings = replace(queue_settings(recipe, data=data), max_staleness=steps + 1)
    done = list(rewards.read(out))
    behind = None
    if done:
        rows = np.array([(0, group.row) for _, groups in done for group in groups], np.int32).reshape(-1, 2)
        behind = Behind(done[-1][0], rows)
    await queue.setup(settings, [np.arange(len(data), dtype=np.int32)], data.tasks, behind)


async def _steps(queue: SampleQueue, fence: str, step: int, out: Path) -> None:
    waiting: tuple[object, ...] = ()
    while True:
        answer = await queue.take(fence, step)
        if isinstance(answer, Batch):
            groups = [
                GroupRewards(group.row, tuple(response.reward for response in group.responses))
                for group in answer.groups
            ]
            rewards.write(out, step, groups)
            await queue.finish(fence, step)
            await queue.commit(fence, step)
            log.info("rewards written", step=step, prompts=len(groups))
            step += 1
        elif isinstance(answer, Stopped):
            if answer.reason == "exhausted":
                return
            raise PipelineError(f"the rollouts have stopped: {answer.detail}")
        else:
            # Its seconds change with every look.
            if (now := (answer.reason, answer.uid, answer.worker, answer.phase)) != waiting:
                waiting = now
                log.info("waiting for groups", step=step, detail=waiting)
            await asyncio.sleep(_PAUSE_S)


def rows_of(data: Prepared) -> Sequence[str]:
    """The sample of each prepared row, by number."""
    return [str(data.row(number).extra_info["sample_id"]) for number in range(len(data))]
