"""The checkpoint in the making, with ranks whose storage is as slow as the test says, and a real queue."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from golongrl.errors import GolongrlError
from golongrl.learner.checkpoints.saver import WRITE_SECONDS, CheckpointSaver
from golongrl.learner.checkpoints.store import TRACKER, Checkpoints, LearnerState
from golongrl.learner.fsync import Written
from golongrl.queue import FencedError, SampleQueue
from support.checkpoints import latest
from support.groups import finish_steps, queue_settings

STEPS = 4


class SlowRanks:
    """Writes a file at `save`, which is durable when `storage` is set."""

    def __init__(self) -> None:
        self.storage = asyncio.Event()
        self.asked = asyncio.Event()
        self.trouble: GolongrlError | None = None
        self.saves: list[str] = []

    async def save(self, folder: Path) -> None:
        (folder / "model_world_size_1_rank_0.pt").write_bytes(b"weights")
        self.saves.append(folder.parent.name.split(".")[0])

    async def written(self) -> Written:
        self.asked.set()
        if self.trouble is not None:
            raise self.trouble
        await self.storage.wait()
        return Written(1.5, {})


TRAINED = np.array([(0, 1), (0, 0)], np.int32)


def state(step: int) -> LearnerState:
    return LearnerState(step, lineage="a", checksum="", ranks=1, seed=0, groups_per_step=1, rows=STEPS, order="o")


@pytest.fixture
async def queue(redis_url: str, run_name: str) -> AsyncIterator[SampleQueue]:
    async with SampleQueue.from_url(redis_url, run_name) as client:
        yield client


@pytest.fixture
async def fence(queue: SampleQueue) -> str:
    """Of a run whose steps are all done."""
    await queue.setup(queue_settings(groups_per_step=1), [np.arange(STEPS, dtype=np.int32)], ["a"] * STEPS)
    token = (await queue.attach(0)).token
    await finish_steps(queue, token, STEPS)
    return token


async def committed(queue: SampleQueue) -> int:
    return (await queue.stats()).committed


async def test_it_counts_when_it_is_durable_and_not_before(queue: SampleQueue, fence: str, tmp_path: Path) -> None:
    ranks, checkpoints = SlowRanks(), Checkpoints(tmp_path)
    async with CheckpointSaver(checkpoints, queue, fence, ranks, keep=2, latest=0) as saving:
        await saving.begin(state(2), TRAINED)
        assert saving.latest == 2
        await ranks.asked.wait()
        assert latest(checkpoints) is None
        assert await committed(queue) == 0
        assert saving.news() == {}
        ranks.storage.set()
        await saving.settled()
        found = latest(checkpoints)
        assert found is not None
        assert found.state == state(2)
        assert found.rows.tolist() == TRAINED.tolist()
        assert await committed(queue) == 2
        assert saving.news() == {WRITE_SECONDS: 1.5}
        assert saving.news() == {}


async def test_it_counts_when_the_step_is_recorded(queue: SampleQueue, fence: str, tmp_path: Path) -> None:
    """Else the record of its step would be missing for whoever resumes from it."""
    ranks, checkpoints, recorded = SlowRanks(), Checkpoints(tmp_path), asyncio.Event()
    ranks.storage.set()
    async with CheckpointSaver(checkpoints, queue, fence, ranks, keep=2, latest=0) as saving:
        await saving.begin(state(2), TRAINED, recorded)
        assert not (await asyncio.wait(saving.tasks, timeout=0.1))[0]
        assert latest(checkpoints) is None
        recorded.set()
        await saving.settled()
    assert await committed(queue) == 2


async def test_the_next_waits_for_the_one_in_the_making(queue: SampleQueue, fence: str, tmp_path: Path) -> None:
    ranks, checkpoints = SlowRanks(), Checkpoints(tmp_path)
    async with CheckpointSaver(checkpoints, queue, fence, ranks, keep=1, latest=0) as saving:
        await saving.begin(state(2), TRAINED)
        second = asyncio.create_task(saving.begin(state(4), TRAINED))
        await ranks.asked.wait()
        assert ranks.saves == ["global_step_2"]
        assert not second.done()
        ranks.storage.set()
        await second
        assert await committed(queue) >= 2
        await saving.settled()
        assert ranks.saves == ["global_step_2", "global_step_4"]
        assert await committed(queue) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["global_step_4", TRACKER]


@pytest.mark.parametrize("noticed", ["news", "settled", "begin"])
async def test_what_went_wrong_is_raised(noticed: str, queue: SampleQueue, fence: str, tmp_path: Path) -> None:
    ranks, checkpoints = SlowRanks(), Checkpoints(tmp_path)
    ranks.trouble = GolongrlError("no space left")
    async with CheckpointSaver(checkpoints, queue, fence, ranks, keep=2, latest=0) as saving:
        await saving.begin(state(2), TRAINED)
        await asyncio.wait(saving.tasks)

        async def notice() -> None:
            if noticed == "news":
                saving.news()
            elif noticed == "settled":
                await saving.settled()
            else:
                await saving.begin(state(4), TRAINED)

        with pytest.raises(GolongrlError, match="no space left"):
            await notice()
    assert latest(checkpoints) is None
    assert await committed(queue) == 0


async def test_a_run_that_fails_gives_it_up(queue: SampleQueue, fence: str, tmp_path: Path) -> None:
    """The trouble that ended the run is the one that is told."""
    ranks, checkpoints = SlowRanks(), Checkpoints(tmp_path)

    async def fail() -> None:
        async with CheckpointSaver(checkpoints, queue, fence, ranks, keep=2, latest=0) as saving:
            await saving.begin(state(2), TRAINED)
            await ranks.asked.wait()
            ranks.trouble = GolongrlError("the second")
            raise GolongrlError("the first trouble")

    with pytest.raises(GolongrlError, match="the first trouble"):
        await fail()
    assert latest(checkpoints) is None
    assert await committed(queue) == 0


async def test_a_replaced_learner_leaves_the_checkpoints_alone(queue: SampleQueue, fence: str, tmp_path: Path) -> None:
    ranks, checkpoints = SlowRanks(), Checkpoints(tmp_path)
    async with CheckpointSaver(checkpoints, queue, fence, ranks, keep=2, latest=0) as saving:
        await saving.begin(state(2), TRAINED)
        await queue.attach(0)
        ranks.storage.set()
        with pytest.raises(FencedError):
            await saving.settled()
    assert latest(checkpoints) is None
    assert await committed(queue) == 0
